"""Groups of elements that share a scale: the whole tensor, rows, columns, or flat groups.

tensor: one group; row: one for every position in all axes but the last; column: one for every position in the last
axis; group, or block: flat runs in row-major order, the last one short where they do not fit.
"""

from collections.abc import Callable, Sequence
from math import prod

from torch import Tensor

from qloracle.errors import reject_value, require_one_of, require_positive_integer
from qloracle_gpu.torch.blocks import block_columns, block_count, block_matrices
from qloracle_gpu.torch.formats import float64_device
from qloracle_gpu.torch.pieces import tiles, work_through

GRANULARITIES = ("tensor", "row", "column", "group")
FLAT = {"group": "group_size", "block": "block_size"}  # flat granularities, and the argument that holds their size


def group_shape(
    shape: Sequence[int], granularity: str, size: int | None, known: tuple[str, ...] = GRANULARITIES
) -> tuple[int, ...]:
    """Return the shape of a tensor with one number for each group.

    Parameters
    ----------
    shape : sequence of int
        Of the tensor.
    granularity : str
    size : int or None
        Elements in a flat group; None for the other granularities.
    known : tuple of str
        The granularities that the caller knows, the flat one last.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If the granularity is unknown, or does not go with the shape or the size.

    Examples
    --------
    >>> group_shape((2, 3), "column", None), group_shape((2, 3), "group", 4)
    ((3,), (2,))
    """
    require_one_of("granularity", granularity, known)
    if granularity in FLAT:
        return (block_count(prod(shape), require_positive_integer(FLAT[granularity], size)),)
    if size is not None:
        reject_value(FLAT[known[-1]], f"None for granularity {granularity!r}", size)
    if granularity != "tensor" and not shape:
        reject_value("granularity", f"'tensor' or '{known[-1]}' for a 0-d array", repr(granularity))
    return {"tensor": (), "row": tuple(shape[:-1]), "column": tuple(shape[-1:])}[granularity]


def group_rows(tensor: Tensor, granularity: str, group_size: int | None) -> list[Tensor]:
    """Return the groups as the rows of matrices, views where strides allow: one, and one of a short last group."""
    if group_size is not None:
        return block_matrices(tensor.reshape(-1), group_size)
    if granularity == "tensor":
        return [tensor.reshape(1, tensor.numel())]
    matrix = tensor.reshape(prod(tensor.shape[:-1]), tensor.shape[-1])
    return [matrix if granularity == "row" else matrix.T]


def group_columns(per_group: Tensor, shape: Sequence[int], group_size: int | None) -> list[Tensor]:
    """Return one number a group as columns that broadcast to the matrices of `group_rows`."""
    if group_size is not None:
        return block_columns(per_group, prod(shape), group_size)
    return [per_group.reshape(-1, 1)]


def write_by_groups(
    rule: Callable[..., Tensor], tensors: Sequence[Tensor], per_group: Sequence[Tensor], out: Tensor,
    granularity: str, group_size: int | None,
) -> None:  # fmt: skip
    """Write what a rule of elements makes of tensors of one shape and of the numbers of their groups.

    Parameters
    ----------
    rule : function
        Takes a piece of each of `tensors` as a matrix, and of each of `per_group` a column that broadcasts to it; on a
        device that has float64.
    tensors, per_group : tensors
    out : tensor, the shape of `tensors`, contiguous
        Written.
    granularity, group_size
        As for `group_shape`.

    Examples
    --------
    >>> import torch
    >>> x, scales = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), torch.tensor([10.0, 100.0])
    >>> out = torch.empty(2, 3)
    >>> write_by_groups(torch.mul, [x], [scales], out, "group", 4)
    >>> out
    tensor([[ 10.,  20.,  30.],
            [ 40., 500., 600.]])
    """
    parts = zip(*(group_rows(tensor, granularity, group_size) for tensor in tensors), strict=True)
    columns = zip(*(group_columns(numbers, out.shape, group_size) for numbers in per_group), strict=True)
    for matrices, own, made in zip(parts, columns, group_rows(out, granularity, group_size), strict=True):
        _write(rule, matrices, own, made)


def _write(rule: Callable[..., Tensor], matrices: Sequence[Tensor], columns: Sequence[Tensor], out: Tensor) -> None:
    capable = float64_device(out.device)
    numbers = [column.to(capable) for column in columns]

    def write_piece(tile: tuple[slice, slice]) -> None:
        pieces = (matrix[tile].to(capable) for matrix in matrices)
        out[tile] = rule(*pieces, *(column[tile[0]] for column in numbers))

    work_through(tiles(out), write_piece, out)
