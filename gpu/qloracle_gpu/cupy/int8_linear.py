"""Linear layers with a quantized weight: floating-point activations, or activations quantized row by row.

Clauses: ``[weight_only.forward]``, ``[weight_only.backward]``, ``[int8_linear.forward]``.
"""

from dataclasses import dataclass
from math import prod

import numpy as np

from qloracle.errors import reject_type, reject_value, require_one_of
from qloracle.formats import TENSOR_FORMATS
from qloracle_gpu.cupy.affine import QuantizedAffine
from qloracle_gpu.cupy.few_rows import stored_product
from qloracle_gpu.cupy.int8 import QuantizedInt8, quantize_int8
from qloracle_gpu.cupy.launcher import Array, operation
from qloracle_gpu.cupy.lora import combined, product
from qloracle_gpu.cupy.matmul import int8_matmul, scale_int8_matmul
from qloracle_gpu.cupy.operands import (
    matrix,
    optional_vector,
    output_format,
    require_gradient,
    require_rows,
    scaled,
    summed_rows,
)
from qloracle_gpu.cupy.qlora import qlora_weight, weight_shape
from qloracle_gpu.cupy.rounding import widened

QuantizedMatrix = QuantizedInt8 | QuantizedAffine


@dataclass(frozen=True)
class LinearGradients:
    """Gradients of a layer with a quantized weight; the weight has none."""

    x: Array  # (..., K), in the format of dy
    bias: Array  # (N,), likewise


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
    """
    _matrix_shape(weight)
    return qlora_weight(weight, weight_rounding=weight_rounding)


def _matrix_shape(weight: object) -> tuple[int, int]:
    if not isinstance(weight, QuantizedMatrix):
        reject_type("weight", "QuantizedInt8 or QuantizedAffine", type(weight).__name__)
    return weight_shape(weight)


def weight_only_forward(
    x: Array, weight: QuantizedMatrix, *, bias: Array | None = None, weight_rounding: str = "float32",
    out_dtype: str | None = None, fmt: str | None = None,
) -> Array:  # fmt: skip
    """Apply a linear layer whose weight is stored quantized and whose activations are floating-point numbers.

    y = x Ŵᵀ + b, Ŵ the dequantized weight rounded to `weight_rounding`

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, shape (..., K)
    weight : QuantizedInt8 or QuantizedAffine, shape (N, K), of any granularity
    bias : array, shape (N,), optional
    weight_rounding : {"float32", "float16", "bfloat16"}
    out_dtype : {"float32", "float16", "bfloat16"}, optional
        Format of y; by default that of x.
    fmt : str, optional
        Format of operands given as bit patterns.

    Returns
    -------
    array of `out_dtype`, shape (..., N)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        As `weight_values`, and if dtypes or shapes do not belong together.

    Notes
    -----
    Clause ``[weight_only.forward]``. Up to 16 rows of x go through a kernel that reads the codes and their scales; for
    more the weight is dequantized first. Declared roundings: weight as given, accumulate float32; then one to
    `out_dtype`.
    """
    rows, (d_out, d_in) = require_rows("x", x, fmt), _matrix_shape(weight)
    require_one_of("weight_rounding", weight_rounding, TENSOR_FORMATS)
    array, target = rows[0], output_format(out_dtype, rows[1])
    if array.shape[-1] != d_in:
        reject_value("x", f"of shape (..., {d_in}) for a weight of shape {(d_out, d_in)}", array.shape)
    offset, count = optional_vector("bias", bias, d_out, fmt), prod(array.shape[:-1])
    multiplied = stored_product(weight, weight_rounding, count)
    with operation("weight_only_forward", x=array, **multiplied.arrays) as run:
        y = combined(run, multiplied.of(run, matrix(run, rows, count, d_in)), target, bias=offset)
        return y.reshape(*array.shape[:-1], d_out)


def weight_only_backward(
    dy: Array, weight: QuantizedMatrix, *, weight_rounding: str = "float32", fmt: str | None = None
) -> LinearGradients:
    """Differentiate `weight_only_forward`: through the dequantized weight to x, and never into the weight.

    dx = dy Ŵ, db = Σ dy over all rows

    Parameters
    ----------
    dy : array of float32, float16 or bfloat16, shape (..., N)
    weight, weight_rounding
        As given to `weight_only_forward`.
    fmt : str, optional
        Format of `dy` where it is given as bit patterns.

    Returns
    -------
    LinearGradients

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        As `weight_only_forward`.

    Notes
    -----
    Clause ``[weight_only.backward]``. Declared roundings: weight as given, accumulate float32; then one to the format
    of `dy`.
    """
    if not isinstance(weight, QuantizedMatrix):
        reject_type("weight", "QuantizedInt8 or QuantizedAffine", type(weight).__name__)
    return straight_gradients("weight_only_backward", dy, weight, weight_rounding, fmt)


def straight_gradients(
    name: str, dy: Array, weight: QuantizedMatrix, weight_rounding: str, fmt: str | None
) -> LinearGradients:
    """Return dy Ŵ and Σ dy for the operation called `name`."""
    values = qlora_weight(weight, weight_rounding=weight_rounding)
    array, named = require_rows("dy", dy, fmt)
    require_gradient(dy, (*array.shape[:-1], len(values)), fmt)
    with operation(name, dy=array, weight=values) as run:
        rows = matrix(run, (array, named), prod(array.shape[:-1]), array.shape[-1])
        dx = combined(run, product(run, rows, values), named)
        total = scaled(run, summed_rows(run, rows), np.float32(1), named)
        return LinearGradients(dx.reshape(*array.shape[:-1], values.shape[1]), total)


def int8_linear_forward(
    x: Array, weight: QuantizedInt8, *, bias: Array | None = None, out_dtype: str | None = None, fmt: str | None = None
) -> Array:
    """Apply a linear layer to activations that are quantized row by row, on the fly.

    y = (q_x q_Wᵀ)·row·column/127² + b, with the INT8 codes and the absmax of every row of x

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, shape (..., K)
    weight : QuantizedInt8, granularity "row", shape (N, K)
    bias : array, shape (N,), optional
    out_dtype : {"float32", "float16", "bfloat16"}, optional
        Format of y; by default that of x.
    fmt : str, optional
        Format of operands given as bit patterns.

    Returns
    -------
    array of `out_dtype`, shape (..., N)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If dtypes or shapes do not belong together, the weight is not quantized by row, or K could overflow int32.

    Notes
    -----
    Clause ``[int8_linear.forward]``. Rounding points, in order: each code, to an integer; then those of
    `scale_int8_matmul`.
    """
    table = require_row_weight(weight)
    array, named = require_rows("x", x, fmt)
    target = output_format(out_dtype, named)
    d_out, count = table.codes.shape[0], prod(array.shape[:-1])
    quantized = quantize_int8(array.reshape(count, array.shape[-1]), granularity="row", fmt=named.name)
    offset = optional_vector("bias", bias, d_out, fmt)
    acc = int8_matmul(quantized.codes, table.codes)
    with operation("int8_linear_forward", x=array, weight=table.codes) as run:
        shift = None if offset is None else widened(run, *offset)
        y = scale_int8_matmul(acc, quantized.absmax, table.absmax, shift, out_dtype=target.name)
        return y.reshape(*array.shape[:-1], d_out)


def require_row_weight(weight: QuantizedInt8) -> QuantizedInt8:
    """Return a weight if it is an INT8 matrix with one absmax a row, else raise."""
    if not isinstance(weight, QuantizedInt8):
        reject_type("weight", "QuantizedInt8", type(weight).__name__)
    if weight.granularity != "row" or weight.codes.ndim != 2:
        got = f"{weight.codes.ndim}-d by {weight.granularity}"
        reject_value("weight", "an INT8 matrix quantized by row", got)
    return weight
