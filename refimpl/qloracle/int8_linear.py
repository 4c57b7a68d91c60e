"""Linear layers with a quantized weight: floating-point activations, or activations quantized row by row.

Clauses: ``[weight_only.forward]``, ``[weight_only.backward]``, ``[int8_linear.forward]``.
"""

from dataclasses import dataclass

import numpy as np

from qloracle.affine import QuantizedAffine, dequantize_affine
from qloracle.errors import reject_type, reject_value, require_one_of
from qloracle.formats import TENSOR_FORMATS, Array
from qloracle.int8 import QuantizedInt8, dequantize_int8, quantize_int8
from qloracle.int8_product import int8_matmul, scale_int8_matmul
from qloracle.operands import as_rows, real_gradient, real_rows, real_vector
from qloracle.rounding import widen

QuantizedMatrix = QuantizedInt8 | QuantizedAffine


@dataclass(frozen=True)
class LinearGradients:
    """Gradients of a layer with a quantized weight; the weight has none."""

    x: Array  # (..., K)
    bias: Array  # (N,)


def weight_values(weight: QuantizedMatrix, *, weight_rounding: str = "float32") -> Array:
    """Return the dequantized weight of a layer as float32 numbers rounded to the declared format.

    Parameters
    ----------
    weight : QuantizedInt8 or QuantizedAffine, of a 2-d tensor
    weight_rounding : {"float32", "float16", "bfloat16"}
        What it is rounded to before the product, usually the compute dtype.

    Returns
    -------
    array of float32, shape (N, K)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `weight` is no quantized 2-d tensor, or the format is unknown.

    Notes
    -----
    Rounding points: those of ``[int8.dequantize]`` or ``[affine.dequantize]``.

    Examples
    --------
    >>> weight_values(quantize_int8(np.float32([[1, -2]])))
    array([[ 1.007874, -2.      ]], dtype=float32)
    """
    if not isinstance(weight, QuantizedMatrix):
        reject_type("weight", "QuantizedInt8 or QuantizedAffine", type(weight).__name__)
    if weight.codes.ndim != 2:
        reject_value("weight", "a quantized 2-d tensor", f"shape {weight.codes.shape}")
    require_one_of("weight_rounding", weight_rounding, TENSOR_FORMATS)
    if isinstance(weight, QuantizedInt8):
        values = dequantize_int8(weight, dtype=weight_rounding)
    else:
        values = dequantize_affine(weight, dtype=weight_rounding)
    return widen(values, weight_rounding)


def weight_only_forward(
    x: Array, weight: QuantizedMatrix, *, bias: Array | None = None, weight_rounding: str = "float32"
) -> Array:
    """Apply a linear layer whose weight is stored quantized and whose activations are floating-point numbers.

    y = x Ŵᵀ + b, Ŵ the dequantized weight rounded to `weight_rounding`

    Parameters
    ----------
    x : array of float32, float16 or bfloat16 (ml_dtypes), shape (..., K)
    weight : QuantizedInt8 or QuantizedAffine, shape (N, K), of any granularity
    bias : array, shape (N,), optional
    weight_rounding : {"float32", "float16", "bfloat16"}

    Returns
    -------
    array of float64, shape (..., N)
        The real value up to float64 rounding; `bounds.int8_linear` says which outputs are allowed.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `weight_values`, and if dtypes or shapes do not belong together.

    Notes
    -----
    Clause ``[weight_only.forward]``. Rounding points of an implementation: see the bound.

    Examples
    --------
    >>> weight_only_forward(np.float32([[1, 2]]), quantize_int8(np.float32([[127, 1], [2, -2]])))
    array([[129.,  -2.]])
    """
    real, values = real_rows(x), weight_values(weight, weight_rounding=weight_rounding).astype(np.float64)
    if real.shape[-1] != values.shape[1]:
        reject_value("x", f"of shape (..., {values.shape[1]}) for a weight of shape {values.shape}", real.shape)
    shift = 0.0 if bias is None else real_vector(bias, len(values), "bias")
    with np.errstate(invalid="ignore", over="ignore"):
        y: Array = as_rows(real) @ values.T + shift
    return y.reshape(*real.shape[:-1], len(values))


def weight_only_backward(dy: Array, weight: QuantizedMatrix, *, weight_rounding: str = "float32") -> LinearGradients:
    """Differentiate `weight_only_forward`: through the dequantized weight to x, and never into the weight.

    dx = dy Ŵ, db = Σ dy over all rows

    Parameters
    ----------
    dy : array of float32, float16 or bfloat16 (ml_dtypes), shape (..., N)
    weight, weight_rounding
        As given to `weight_only_forward`.

    Returns
    -------
    LinearGradients
        Arrays of float64; `bounds.int8_linear` says which outputs are allowed.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `weight_only_forward`.

    Notes
    -----
    Clause ``[weight_only.backward]``. Rounding points of an implementation are declared by it, see `bounds.Roundings`.

    Examples
    --------
    >>> weight_only_backward(np.float32([[1, 2]]), quantize_int8(np.float32([[127, 1], [2, -2]]))).x
    array([[131.,  -3.]])
    """
    values, real = weight_values(weight, weight_rounding=weight_rounding).astype(np.float64), real_rows(dy)
    rows = as_rows(real_gradient(dy, (*real.shape[:-1], len(values))))
    with np.errstate(invalid="ignore", over="ignore"):
        return LinearGradients((rows @ values).reshape(*real.shape[:-1], values.shape[1]), rows.sum(axis=0))


def int8_linear_forward(x: Array, weight: QuantizedInt8, *, bias: Array | None = None) -> Array:
    """Apply a linear layer to activations that are quantized row by row, on the fly.

    y = (q_x q_Wᵀ)·row·column/127² + b, with the INT8 codes and the absmax of every row of x

    Parameters
    ----------
    x : array of float32, float16 or bfloat16 (ml_dtypes), shape (..., K)
    weight : QuantizedInt8, granularity "row", shape (N, K)
    bias : array, shape (N,), optional

    Returns
    -------
    array of float64, shape (..., N)
        The real value up to float64 rounding; `bounds_scale.scale_int8_matmul_bound` says which outputs are allowed.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If dtypes or shapes do not belong together, the weight is not quantized by row, or K could overflow int32.

    Notes
    -----
    Clause ``[int8_linear.forward]``: ``[int8.absmax]`` and ``[int8.quantize]`` by row, ``[int8.matmul]``,
    ``[int8.scale]``, in this order. It is LLM.int8() with threshold 0. Rounding points, in order: each code, to an
    integer; then those of an implementation of `scale_int8_matmul`.

    Examples
    --------
    >>> int8_linear_forward(np.float32([[127, 4]]), quantize_int8(np.float32([[127, 2], [3, -254]]), granularity="row"))
    array([[16137.,  -508.]])
    """
    table = require_row_weight(weight)
    real = real_rows(x)
    quantized = quantize_int8(as_rows(real).astype(np.float32), granularity="row")
    shift = 0.0 if bias is None else real_vector(bias, len(table.codes), "bias")
    product = scale_int8_matmul(int8_matmul(quantized.codes, table.codes), quantized.absmax, table.absmax)
    with np.errstate(invalid="ignore"):
        return (product + shift).reshape(*real.shape[:-1], len(table.codes))


def require_row_weight(weight: QuantizedInt8) -> QuantizedInt8:
    """Return a weight if it is an INT8 matrix with one absmax a row, else raise."""
    if not isinstance(weight, QuantizedInt8):
        reject_type("weight", "QuantizedInt8", type(weight).__name__)
    if weight.granularity != "row" or weight.codes.ndim != 2:
        got = f"{weight.codes.ndim}-d by {weight.granularity}"
        reject_value("weight", "an INT8 matrix quantized by row", got)
    return weight
