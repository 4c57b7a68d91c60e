"""Flat blocks and their absmax. Clause: ``[blocks.absmax]``."""

from threading import Lock

import torch
from torch import Tensor

from qloracle.errors import reject_value, require_positive_integer
from qloracle_gpu.torch.compiling import compiles_as_operator
from qloracle_gpu.torch.formats import NAMES, require_dtype, require_tensor_format
from qloracle_gpu.torch.kernels.compiled_loops import loops_take, run_loop
from qloracle_gpu.torch.pieces import tiles, work_through


def block_count(size: int, block_size: int) -> int:
    """Return ⌈size / block_size⌉."""
    return -(-size // block_size)


def block_matrices(flat: Tensor, block_size: int) -> list[Tensor]:
    """Return the full blocks of a 1-d tensor as rows of a matrix, and the short last one as a matrix of one row."""
    block_size = min(block_size, max(flat.numel(), 1))
    full = flat.numel() - flat.numel() % block_size
    parts = [flat[:full].view(-1, block_size), flat[full:].view(1, -1)]
    return [part for part in parts if part.numel()]


def block_columns(per_block: Tensor, size: int, block_size: int) -> list[Tensor]:
    """Return one value a block as columns that broadcast to the matrices of `block_matrices`."""
    full = size // block_size
    parts = [per_block[:full, None], per_block[full:, None]]
    return [part for part in parts if part.numel()]


@compiles_as_operator
def block_absmax(x: Tensor, block_size: int) -> Tensor:
    """Return the largest magnitude of every flat block.

    absmax_b = max |x_i| over the block's own elements; NaN if any of them is NaN or infinite (the block is poisoned).

    Parameters
    ----------
    x : tensor of float32, float16 or bfloat16, any shape
        Blocks run over its row-major order, whatever its strides.
    block_size : int
        Elements in a block; the last one may be short.

    Returns
    -------
    tensor of float32, shape (⌈x.numel() / block_size⌉,)
        Non-negative, or NaN.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If the dtype is not one of the three, or `block_size` is no positive integer.

    Notes
    -----
    Clause ``[blocks.absmax]``. Rounding points: none.

    Examples
    --------
    >>> block_absmax(torch.tensor([1.0, -3.0, 2.0, 0.0, 5.0]), 2)
    tensor([3., 2., 5.])
    """
    block_size = require_positive_integer("block_size", block_size)
    flat = require_tensor_format("x", x).reshape(-1)
    parts = [absmax_of_rows(blocks) for blocks in block_matrices(flat, block_size)]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float32, device=flat.device)


def absmax_of_rows(matrix: Tensor) -> Tensor:
    """Return the absmax of every row as float32: NaN where it holds NaN or ±inf, 0 where it is empty."""
    return _absmax_along(matrix, 1)


def absmax_of_columns(matrix: Tensor) -> Tensor:
    """Return the absmax of every column as float32: NaN where it holds NaN or ±inf, 0 where it is empty."""
    return _absmax_along(matrix, 0)


def _absmax_along(matrix: Tensor, axis: int) -> Tensor:
    result = torch.zeros(matrix.shape[1 - axis], dtype=torch.float32, device=matrix.device)
    one_at_a_time = Lock()

    def reduce_piece(tile: tuple[slice, slice]) -> None:
        largest = _largest(matrix[tile], axis)
        part = result[tile[1 - axis]]
        with one_at_a_time:
            torch.maximum(part, largest, out=part)

    work_through(tiles(matrix), reduce_piece, matrix)
    return result


def _largest(part: Tensor, axis: int) -> Tensor:
    """Return the largest magnitudes of a matrix along an axis, NaN where a number is not finite."""
    if axis == 1 and loops_take(part):
        largest = torch.empty(len(part), dtype=torch.float32)
        run_loop(f"row_absmax_{NAMES[part.dtype]}", part.contiguous(), *part.shape, largest)
        return largest
    largest = part.to(torch.float32).abs().amax(axis)
    return largest.masked_fill_(largest.isinf(), torch.nan)  # a group that holds ±inf has no scale


def require_block_values(argument: str, per_block: Tensor, size: int, block_size: int) -> Tensor:
    """Return `per_block` if it is float32 and has one value for each block of `size` elements, else raise."""
    values = require_dtype(argument, per_block, torch.float32)
    require_block_count(argument, values, size, block_size)
    return values


def require_block_count(argument: str, per_block: Tensor, size: int, block_size: int) -> None:
    """Raise unless there is one number or code for each block of `size` elements."""
    expected = block_count(size, require_positive_integer("block_size", block_size))
    if per_block.shape != (expected,):
        reject_value(argument, f"of shape ({expected},), one value a block", tuple(per_block.shape))
