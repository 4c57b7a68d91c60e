"""Products of INT8 codes, exactly, and their scales. Clauses: ``[int8.matmul]``, ``[int8.scale]``."""

from math import prod

import numpy as np

from qloracle.errors import reject_type, reject_value, require_one_of
from qloracle.formats import TENSOR_FORMATS, format_named
from qloracle_gpu.cupy.arrays import carrier, flat_items, require_dtype, require_vector
from qloracle_gpu.cupy.launcher import Array, Operation, operation

# The largest inner dimension whose int32 accumulation cannot overflow: ⌊(2^31 − 1) / 127²⌋, and with −128 in play.
LARGEST_INNER = (2**31 - 1) // 127**2
LARGEST_INNER_WITH_MINUS_128 = (2**31 - 1) // 128**2
TILE, THREADS = 64, 16  # of a CTA of the kernel


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
        the code −128 occurs (which is looked for only between the two, and waits for the device).

    Notes
    -----
    Clause ``[int8.matmul]``. Rounding points: none.
    """
    a, b = require_dtype("a", a, "int8"), require_dtype("b", b, "int8")
    if a.ndim < 1 or b.ndim != 2 or a.shape[-1] != b.shape[1]:
        reject_value("b", f"of shape (N, K) with K the last dimension of a {a.shape}", b.shape)
    with operation("int8_matmul", a=a, b=b) as run:
        inner = a.shape[-1]
        if inner > LARGEST_INNER_WITH_MINUS_128:
            extreme = any(operand.size and int(operand.min()) == -128 for operand in (a, b))
            largest = LARGEST_INNER_WITH_MINUS_128 if extreme else LARGEST_INNER
            if inner > largest:
                reject_value("K", f"at most {largest} for an exact int32 accumulation", inner)
        return integer_product(run, a, b).reshape(*a.shape[:-1], b.shape[0])


def integer_product(run: Operation, a: Array, b: Array) -> Array:
    """Return a bᵀ as int32, 1-d."""
    rows, (columns, inner) = prod(a.shape[:-1]), b.shape
    acc = run.empty(rows * columns, "int32")
    tiles = -(-rows // TILE) * -(-columns // TILE)
    arguments = (flat_items(run, a), flat_items(run, b), *map(np.int64, (rows, columns, inner)), acc)
    run.launch("int8_matmul", "int8_matmul", tiles * THREADS**2, arguments, block=(THREADS, THREADS, 1))
    return acc


def scale_int8_matmul(
    acc: Array, row_absmax: Array, column_absmax: Array, bias: Array | None = None, *, out_dtype: str = "float32"
) -> Array:
    """Turn an int32 accumulator into real numbers: y = acc · row · column / 127² + bias.

    Parameters
    ----------
    acc : array of int32, shape (M, N)
    row_absmax : array of float32, shape (M,)
    column_absmax : array of float32, shape (N,)
    bias : array of float32, shape (N,), optional
    out_dtype : {"float32", "float16", "bfloat16"}

    Returns
    -------
    array of `out_dtype`, shape (M, N); bfloat16 as uint16 words

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a dtype or shape is another, or `out_dtype` is unknown.

    Notes
    -----
    Clause ``[int8.scale]``. Computed in float64, whose range no intermediate result leaves; then rounded to float32
    and once more to `out_dtype`.
    """
    acc = require_dtype("acc", acc, "int32")
    require_one_of("out_dtype", out_dtype, TENSOR_FORMATS)
    if acc.ndim != 2:
        reject_type("acc", "a 2-d int32 array", f"{acc.ndim}-d")
    rows, columns = acc.shape
    row = require_vector("row_absmax", row_absmax, rows)
    column = require_vector("column_absmax", column_absmax, columns)
    shift = None if bias is None else require_vector("bias", bias, columns)
    with operation("scale_int8_matmul", acc=acc, row_absmax=row, column_absmax=column, bias=shift) as run:
        out = run.empty(acc.size, carrier(format_named(out_dtype)))
        vectors = [flat_items(run, vector) for vector in (row, column, column if shift is None else shift)]
        arguments = (
            flat_items(run, acc), *vectors, np.int32(shift is not None), np.int64(acc.size), np.int64(columns), out,
        )  # fmt: skip
        run.launch("int8_matmul", f"scale_int8_{out_dtype}", acc.size, arguments)
        return out.reshape(acc.shape)
