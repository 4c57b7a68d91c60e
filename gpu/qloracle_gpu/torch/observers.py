"""The range of values that a quantizer is to cover: the smallest and the largest. Clause: ``[observers.minmax]``."""

from threading import Lock

import torch
from torch import Tensor

from qloracle_gpu.torch.compiling import compiles_as_operator
from qloracle_gpu.torch.formats import require_tensor_format
from qloracle_gpu.torch.groups import group_rows, group_shape
from qloracle_gpu.torch.pieces import tiles, work_through


@compiles_as_operator
def minmax_range(x: Tensor, *, granularity: str = "tensor", group_size: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest value of every group.

    Parameters
    ----------
    x : tensor of float32, float16 or bfloat16, any strides
    granularity : {"tensor", "row", "column", "group"}
        See `quantize_affine`.
    group_size : int, optional
        For "group" only.

    Returns
    -------
    lo, hi : tensors of float32
        One number a group. Both NaN where the group holds a NaN or an infinity, both 0 for an empty group; a zero is
        +0.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        For another dtype, or a granularity that does not go with the shape or the group size.

    Notes
    -----
    Clause ``[observers.minmax]``. Rounding points: none.

    Examples
    --------
    >>> minmax_range(torch.tensor([[1.0, -2.0], [3.0, 4.0]]), granularity="row")
    (tensor([-2.,  3.]), tensor([1., 4.]))
    """
    values = require_tensor_format("x", x)
    group_shape(values.shape, granularity, group_size)
    return range_of_groups(values, granularity, group_size)


def range_of_groups(values: Tensor, granularity: str, group_size: int | None) -> tuple[Tensor, Tensor]:
    """Return `minmax_range` of a tensor that goes with the granularity."""
    found = [_range_of_rows(rows) for rows in group_rows(values, granularity, group_size)]
    return in_group_shape(found, values, granularity, group_size)


def in_group_shape(
    found: list[tuple[Tensor, Tensor]], values: Tensor, granularity: str, group_size: int | None
) -> tuple[Tensor, Tensor]:
    """Return the two ends of the groups of a tensor from those of the matrices of `group_rows`."""
    shape, none = group_shape(values.shape, granularity, group_size), values.new_empty(0, dtype=torch.float32)
    lo, hi = (torch.cat([none, *parts]).view(shape) for parts in zip((none, none), *found, strict=True))
    return lo, hi


def _range_of_rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    rows, columns = matrix.shape
    if not columns:
        return matrix.new_zeros(rows, dtype=torch.float32), matrix.new_zeros(rows, dtype=torch.float32)
    lo = torch.full((rows,), torch.inf, device=matrix.device, dtype=torch.float32)
    hi, one_at_a_time = -lo, Lock()

    def reduce_piece(tile: tuple[slice, slice]) -> None:
        low, high = matrix[tile].to(torch.float32).aminmax(dim=1)
        with one_at_a_time:
            torch.minimum(lo[tile[0]], low, out=lo[tile[0]])
            torch.maximum(hi[tile[0]], high, out=hi[tile[0]])

    work_through(tiles(matrix), reduce_piece, matrix)
    finite = lo.isfinite() & hi.isfinite()  # aminmax hands NaN on
    return torch.where(finite, lo + 0.0, torch.nan), torch.where(finite, hi + 0.0, torch.nan)
