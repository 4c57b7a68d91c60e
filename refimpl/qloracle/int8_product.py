"""The product of INT8 matrices, exact in int32, and the scales that turn it into real numbers.

Clauses: ``[int8.matmul]``, ``[int8.scale]``.
"""

import numpy as np

from qloracle.errors import reject_type, reject_value, require_dtype
from qloracle.formats import Array
from qloracle.int8 import LARGEST_CODE

# The largest inner dimension whose int32 accumulation cannot overflow: ⌊(2^31 − 1) / 127²⌋, and with −128 in play.
LARGEST_INNER = (2**31 - 1) // 127**2
LARGEST_INNER_WITH_MINUS_128 = (2**31 - 1) // 128**2


def int8_matmul(a: Array, b: Array) -> Array:
    """Multiply INT8 matrices with int32 accumulation: acc = a bᵀ, exact.

    Parameters
    ----------
    a : array of int8, shape (..., K)
    b : array of int8, shape (N, K)

    Returns
    -------
    array of int32, shape (..., N)

    Raises
    ------
    ArgumentTypeError
        If an operand is not int8.
    ArgumentValueError
        If the inner dimensions differ, or K is so large that int32 could overflow: above 133144, or above 131071 if
        the code −128 occurs.

    Notes
    -----
    Clause ``[int8.matmul]``. Rounding points: none.

    Examples
    --------
    >>> int8_matmul(np.array([[1, 2]], np.int8), np.array([[3, 4], [-127, 127]], np.int8))
    array([[ 11, 127]], dtype=int32)
    """
    for argument, operand in (("a", a), ("b", b)):
        require_dtype(argument, operand, "int8")
    if a.ndim < 1 or b.ndim != 2 or a.shape[-1] != b.shape[1]:
        reject_value("b", f"of shape (N, K) with K the last dimension of a {a.shape}", b.shape)
    extreme = any(operand.size and operand.min() == -128 for operand in (a, b))
    largest = LARGEST_INNER_WITH_MINUS_128 if extreme else LARGEST_INNER
    if a.shape[-1] > largest:
        reject_value("K", f"at most {largest} for an exact int32 accumulation", a.shape[-1])
    # Every product and partial sum is an integer below 2^31, which float64 holds: exact in any order.
    return (a.astype(np.float64) @ b.astype(np.float64).T).astype(np.int32)


def scale_int8_matmul(acc: Array, row_absmax: Array, column_absmax: Array, bias: Array | None = None) -> Array:
    """Turn an int32 accumulator into real numbers: y = acc · row · column / 127² + bias.

    Parameters
    ----------
    acc : array of int32, shape (M, N)
    row_absmax : array of float32, shape (M,)
    column_absmax : array of float32, shape (N,)
    bias : array of float32, shape (N,), optional

    Returns
    -------
    array of float64, shape (M, N)
        The real value up to float64 rounding; `bounds_scale.scale_int8_matmul_bound` says which outputs are allowed.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a dtype or shape is another.

    Notes
    -----
    Clause ``[int8.scale]``. Rounding points of an implementation: at most six in float32, in any order, see the bound.

    Examples
    --------
    >>> scale_int8_matmul(np.array([[16129]], np.int32), np.array([2], np.float32), np.array([3], np.float32))
    array([[6.]])
    """
    require_dtype("acc", acc, "int32")
    if acc.ndim != 2:
        reject_type("acc", "a 2-d int32 array", f"{acc.ndim}-d")
    rows, columns = acc.shape
    vectors = [("row_absmax", row_absmax, rows), ("column_absmax", column_absmax, columns)]
    for argument, vector, length in vectors if bias is None else [*vectors, ("bias", bias, columns)]:
        require_dtype(argument, vector, "float32")
        if vector.shape != (length,):
            reject_value(argument, f"of shape ({length},)", vector.shape)
    with np.errstate(invalid="ignore"):
        scale = row_absmax.astype(np.float64)[:, np.newaxis] * column_absmax.astype(np.float64)
        y: Array = acc.astype(np.float64) * scale / LARGEST_CODE**2
        return y if bias is None else y + bias.astype(np.float64)
