"""The decomposition of LLM.int8(): which columns of an input are outliers, and the INT8 codes of the others.

Clauses: ``[llm_int8.outliers]``, ``[llm_int8.absmax]``, ``[llm_int8.codes]``.
Source: Dettmers et al. 2022, "LLM.int8()", section 3.2.
"""

from dataclasses import dataclass

import numpy as np

from qloracle.errors import reject_value, require_dtype, require_number, require_one_of
from qloracle.formats import Array
from qloracle.int8 import int8_absmax, quantize_int8_codes
from qloracle.operands import as_rows, real_rows
from qloracle.records import require_fields

EXCLUSIONS = ("columns", "elements")


@dataclass(frozen=True)
class Decomposed:
    """An input split into outlier columns and 8-bit codes of the others."""

    outliers: Array  # bool, (K,): the columns that stay floating-point numbers
    codes: Array  # int8, the shape of x; 0 in outlier columns
    absmax: Array  # float32, one a row, of what is not left out

    def __post_init__(self) -> None:
        """Refuse fields of other types."""
        require_fields(self)


def outlier_columns(x: Array, threshold: float) -> Array:
    """Return which columns of an input hold an outlier.

    A column, over all rows, is one if |x| ≥ threshold or x is not finite anywhere in it; none is for threshold 0.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16 (ml_dtypes), shape (..., K)
    threshold : float
        0 switches the decomposition off; the paper's is 6.

    Returns
    -------
    array of bool, shape (K,)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `x` has no axis or another dtype, or the threshold is no number of at least 0.

    Notes
    -----
    Clause ``[llm_int8.outliers]``. Rounding points: none; the threshold is the real number that float64 holds.

    Examples
    --------
    >>> outlier_columns(np.array([[1, 6, 2], [0, 1, -5.99]], np.float32), 6.0)
    array([False,  True, False])
    """
    columns: Array = np.any(_outlying(as_rows(real_rows(x)), _limit(threshold)), axis=0)
    return columns


def decompose(
    x: Array, threshold: float, *, exclusion: str = "columns", outliers: Array | None = None,
    absmax: Array | None = None,
) -> Decomposed:  # fmt: skip
    """Split an input into outlier columns and the INT8 codes of the others, with one absmax a row.

    absmax = max |x| over the row without its outlier columns; codes as for absmax INT8, 0 in outlier columns.

    Parameters
    ----------
    x, threshold
        As for `outlier_columns`.
    exclusion : {"columns", "elements"}
        What the absmax of a row leaves out. "elements" is the variant of bitsandbytes' kernel: only elements that are
        outliers themselves, so that small ones in outlier columns count, though their codes are 0.
    outliers, absmax : arrays of bool and float32, optional
        Somebody else's, to be used instead (to judge what follows given them).

    Returns
    -------
    Decomposed

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `outlier_columns`, and if the exclusion is unknown or a given part has another dtype or shape.

    Notes
    -----
    Clauses ``[llm_int8.absmax]``, ``[llm_int8.codes]``. Rounding points: the codes, to integers. With threshold 0 a row
    with a NaN or ±inf is poisoned, as any group is. `x` is not modified.

    Examples
    --------
    >>> d = decompose(np.array([[7, 1, 2]], np.float32), 6.0)
    >>> d.outliers, d.absmax, d.codes
    (array([ True, False, False]), array([2.], dtype=float32), array([[  0,  64, 127]], dtype=int8))
    """
    real, limit = real_rows(x), _limit(threshold)
    rows = as_rows(real).astype(np.float32)
    require_one_of("exclusion", exclusion, EXCLUSIONS)
    outlying = _outlying(rows, limit)
    outliers = np.any(outlying, axis=0) if outliers is None else _part("outliers", outliers, "bool", rows.shape[1:])
    left_out = outlying if exclusion == "elements" else outliers
    if absmax is None:
        absmax = int8_absmax(np.where(left_out, np.float32(0), rows), "row").reshape(real.shape[:-1])
    absmax = _part("absmax", absmax, "float32", real.shape[:-1])
    codes = quantize_int8_codes(np.where(outliers, np.float32(0), rows), absmax.reshape(-1, 1))
    return Decomposed(outliers, codes.reshape(real.shape), absmax)


def _limit(threshold: float) -> float:
    limit = require_number("threshold", threshold)
    if not limit >= 0:
        reject_value("threshold", "a number of at least 0", threshold)
    return limit


def _outlying(rows: Array, limit: float) -> Array:
    """Return which elements are outliers by themselves."""
    if limit == 0:
        return np.zeros(rows.shape, np.bool_)
    return ~(np.abs(rows).astype(np.float64) < limit) | ~np.isfinite(rows)


def _part(argument: str, array: Array, dtype: str, shape: tuple[int, ...]) -> Array:
    require_dtype(argument, array, dtype)
    if array.shape != shape:
        reject_value(argument, f"of shape {shape}", array.shape)
    return array
