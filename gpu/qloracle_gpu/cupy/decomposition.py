"""The decomposition of LLM.int8(): which columns of an input are outliers, and the INT8 codes of the others.

Clauses: ``[llm_int8.outliers]``, ``[llm_int8.absmax]``, ``[llm_int8.codes]``.
"""

from dataclasses import dataclass
from math import prod

import numpy as np

from qloracle.errors import reject_value, require_number, require_one_of
from qloracle.formats import FLOAT32
from qloracle_gpu.cupy.arrays import require_dtype
from qloracle_gpu.cupy.blocks import absmax_of_blocks, absmax_of_columns
from qloracle_gpu.cupy.int8 import codes_given_absmax
from qloracle_gpu.cupy.launcher import Array, Operation, operation
from qloracle_gpu.cupy.operands import matrix, require_rows, zeros

EXCLUSIONS = ("columns", "elements")


@dataclass(frozen=True)
class Decomposed:
    """An input split into outlier columns and 8-bit codes of the others."""

    outliers: Array  # bool, (K,): the columns that stay floating-point numbers
    codes: Array  # int8, the shape of x; 0 in outlier columns
    absmax: Array  # float32, one a row, of what is not left out


def decompose(
    x: Array, threshold: float, *, exclusion: str = "columns", outliers: Array | None = None,
    absmax: Array | None = None, fmt: str | None = None,
) -> Decomposed:  # fmt: skip
    """Split an input into outlier columns and the INT8 codes of the others, with one absmax a row.

    A column, over all rows, holds an outlier if |x| ≥ threshold or x is not finite anywhere in it. absmax = max |x|
    over the row without its outlier columns; codes as for absmax INT8, 0 in outlier columns.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, shape (..., K)
    threshold : float
        0 switches the decomposition off; the paper's is 6.
    exclusion : {"columns", "elements"}
        What the absmax of a row leaves out: outlier columns, or only elements that are outliers themselves.
    outliers, absmax : arrays of bool and float32, optional
        Somebody else's, to be used instead.
    fmt : str, optional
        Format of `x` where it is given as bit patterns.

    Returns
    -------
    Decomposed

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `x` has no axis or another dtype, the threshold is no number of at least 0, the exclusion is unknown, or a
        given part has another dtype or shape.

    Notes
    -----
    Clauses ``[llm_int8.outliers]``, ``[llm_int8.absmax]``, ``[llm_int8.codes]``. Rounding points: the codes.
    """
    array, named = require_rows("x", x, fmt)
    limit = require_number("threshold", threshold)
    if not limit >= 0:
        reject_value("threshold", "a number of at least 0", threshold)
    require_one_of("exclusion", exclusion, EXCLUSIONS)
    given = None if outliers is None else _part("outliers", outliers, "bool", array.shape[-1:])
    scales = None if absmax is None else _part("absmax", absmax, "float32", array.shape[:-1])
    rows, columns = prod(array.shape[:-1]), array.shape[-1]
    with operation("decompose", x=array, outliers=given, absmax=scales) as run:
        x32 = matrix(run, (array, named), rows, columns)
        found = _outliers(run, x32, limit) if given is None else run.contiguous(given)
        kept = _without(run, x32, found, limit, elements=False)
        counted = _without(run, x32, found, limit, elements=True) if exclusion == "elements" else kept
        flat = _row_absmax(run, counted) if scales is None else run.contiguous(scales).reshape(-1)
        codes = codes_given_absmax(run, kept.reshape(-1), FLOAT32, flat, max(columns, 1), column=False)
        return Decomposed(found, codes.reshape(array.shape), flat.reshape(array.shape[:-1]))


def outlier_columns(x: Array, threshold: float, *, fmt: str | None = None) -> Array:
    """Return which columns of an input hold an outlier: the first part of `decompose`.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `decompose`.

    Notes
    -----
    Clause ``[llm_int8.outliers]``. Rounding points: none.
    """
    return decompose(x, threshold, fmt=fmt).outliers


def _part(argument: str, value: object, dtype: str, shape: tuple[int, ...]) -> Array:
    array = require_dtype(argument, value, dtype)
    if array.shape != shape:
        reject_value(argument, f"of shape {shape}", array.shape)
    return array


def _outliers(run: Operation, x: Array, limit: float) -> Array:
    found = run.empty(x.shape[1], "bool")
    largest = absmax_of_columns(run, x.reshape(-1), FLOAT32, *x.shape)  # NaN where a column is not finite
    run.launch("layers", "find_outliers", found.size, (largest, np.int64(found.size), np.float64(limit), found))
    return found


def _without(run: Operation, x: Array, outliers: Array, limit: float, *, elements: bool) -> Array:
    out = run.empty(x.shape, "float32")
    size, columns = np.int64(x.size), np.int64(max(x.shape[1], 1))
    run.launch("layers", "leave_out", x.size, (x, outliers, size, columns, np.float64(limit), np.int32(elements), out))
    return out


def _row_absmax(run: Operation, x: Array) -> Array:
    return absmax_of_blocks(run, x.reshape(-1), FLOAT32, x.shape[1]) if x.size else zeros(run, x.shape[0])
