"""Groups of elements that share a scale: the whole tensor, rows, columns, or flat groups.

tensor: one group; row: one for every position in all axes but the last; column: one for every position in the last
axis; block or group: flat runs of elements in row-major order, the last one short where they do not fit.
"""

from math import prod

from qloracle.errors import reject_value, require_one_of, require_positive_integer
from qloracle_gpu.cupy.blocks import block_count

FLAT = {"block": "block_size", "group": "group_size"}  # flat granularities, and the argument that holds their size


def group_shape(shape: tuple[int, ...], granularity: str, size: int | None, known: tuple[str, ...]) -> tuple[int, ...]:
    """Return the shape of an array with one number for each group: (), shape[:-1], shape[-1:] or (number of runs,).

    Parameters
    ----------
    shape : tuple of int
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
    >>> group_shape((2, 3), "column", None, ("column", "block")), group_shape((2, 3), "block", 4, ("column", "block"))
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


def group_runs(shape: tuple[int, ...], granularity: str, size: int | None) -> tuple[int, bool]:
    """Return the length of the runs of elements that share a scale; of columns, that of a row, and True.

    Examples
    --------
    >>> group_runs((2, 3), "row", None), group_runs((2, 3), "column", None), group_runs((2, 3), "block", 64)
    ((3, False), (3, True), (6, False))
    """
    count = prod(shape)
    if granularity in FLAT:
        length = min(size or 1, count)
    else:
        length = count if granularity == "tensor" or not shape else shape[-1]
    return max(length, 1), granularity == "column"
