"""The decomposition of LLM.int8(): which columns of an input are outliers, and the INT8 codes of the others.

Clauses: ``[llm_int8.outliers]``, ``[llm_int8.absmax]``, ``[llm_int8.codes]``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from qloracle.errors import reject_value, require_number, require_one_of
from qloracle_gpu.torch.blocks import absmax_of_rows
from qloracle_gpu.torch.formats import require_dtype, require_tensor_format
from qloracle_gpu.torch.int8 import int8_codes, quantize_int8

EXCLUSIONS = ("columns", "elements")


@dataclass(frozen=True)
class Decomposed:
    """An input split into outlier columns and 8-bit codes of the others."""

    outliers: Tensor  # bool, (K,): the columns that stay floating-point numbers
    codes: Tensor  # int8, the shape of x; 0 in outlier columns
    absmax: Tensor  # float32, one a row, of what is not left out


def outlier_columns(x: Tensor, threshold: float) -> Tensor:
    """Return which columns of an input hold an outlier.

    A column, over all rows, is one if |x| ≥ threshold or x is not finite anywhere in it; none is for threshold 0.

    Parameters
    ----------
    x : tensor of float32, float16 or bfloat16, shape (..., K)
    threshold : float
        0 switches the decomposition off; the paper's is 6.

    Returns
    -------
    tensor of bool, shape (K,)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `x` has no axis or another dtype, or the threshold is no number of at least 0.

    Notes
    -----
    Clause ``[llm_int8.outliers]``. Rounding points: none.

    Examples
    --------
    >>> outlier_columns(torch.tensor([[1, 6, 2], [0, 1, -5.99]]), 6.0)
    tensor([False,  True, False])
    """
    return _outlying(activation_rows(x), _limit(threshold)).any(0)


def decompose(
    x: Tensor, threshold: float, *, exclusion: str = "columns", outliers: Tensor | None = None,
    absmax: Tensor | None = None,
) -> Decomposed:  # fmt: skip
    """Split an input into outlier columns and the INT8 codes of the others, with one absmax a row.

    absmax = max |x| over the row without its outlier columns; codes as for absmax INT8, 0 in outlier columns.

    Parameters
    ----------
    x, threshold
        As for `outlier_columns`.
    exclusion : {"columns", "elements"}
        What the absmax of a row leaves out: outlier columns, or only elements that are outliers themselves.
    outliers, absmax : tensors of bool and float32, optional
        Somebody else's, to be used instead.

    Returns
    -------
    Decomposed

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `outlier_columns`, and if the exclusion is unknown or a given part has another dtype or shape.

    Notes
    -----
    Clauses ``[llm_int8.absmax]``, ``[llm_int8.codes]``. Rounding points: the codes, to integers.

    Examples
    --------
    >>> d = decompose(torch.tensor([[7.0, 1.0, 2.0]]), 6.0)
    >>> d.outliers, d.absmax, d.codes
    (tensor([ True, False, False]), tensor([2.]), tensor([[  0,  64, 127]], dtype=torch.int8))
    """
    rows, limit, shape = activation_rows(x), _limit(threshold), x.shape
    require_one_of("exclusion", exclusion, EXCLUSIONS)
    outlying = _outlying(rows, limit)
    columns = outlying.any(0) if outliers is None else _part("outliers", outliers, torch.bool, shape[-1:])
    if exclusion == "columns" and absmax is None:
        quantized = quantize_int8(rows.masked_fill(columns, 0.0), granularity="row")
        return Decomposed(columns, quantized.codes.view(shape), quantized.absmax.view(shape[:-1]))
    if absmax is None:
        absmax = absmax_of_rows(rows.masked_fill(outlying, 0.0)).view(shape[:-1])
    absmax = _part("absmax", absmax, torch.float32, shape[:-1])
    scale = absmax.reshape(-1)
    # This absmax may be exceeded: such codes saturate.
    largest = scale.abs()[:, None]
    kept = torch.clamp(rows.masked_fill(columns, 0.0), -largest, largest)
    return Decomposed(columns, int8_codes(kept, scale, "row", None).view(shape), absmax)


def activation_rows(x: Tensor) -> Tensor:
    """Return activations as a float32 matrix whose rows run over all axes but the last."""
    return unwidened_rows(x).to(torch.float32)


def unwidened_rows(x: Tensor) -> Tensor:
    """Return activations as such a matrix in their own format."""
    values = require_tensor_format("x", x)
    if values.ndim < 1:
        reject_value("x", "at least 1-d", "0-d")
    return values.reshape(values.shape[:-1].numel(), values.shape[-1])


def _limit(threshold: float) -> float:
    limit = require_number("threshold", threshold)
    if not limit >= 0:
        reject_value("threshold", "a number of at least 0", threshold)
    return limit


def _outlying(rows: Tensor, limit: float) -> Tensor:
    """Return which elements are outliers by themselves."""
    if limit == 0:
        return torch.zeros_like(rows, dtype=torch.bool)
    least = torch.tensor(limit, dtype=torch.float64, device="cpu").to(torch.float32)
    # |x| is a float32 number: it is below the threshold exactly where it is below the next float32 number up.
    if float(least) < limit:
        least = least.nextafter(torch.tensor(torch.inf, device="cpu"))
    return ~(rows.abs() < float(least)) | ~rows.isfinite()


def _part(argument: str, part: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    values = require_dtype(argument, part, dtype)
    if values.shape != shape:
        reject_value(argument, f"of shape {tuple(shape)}", tuple(values.shape))
    return values
