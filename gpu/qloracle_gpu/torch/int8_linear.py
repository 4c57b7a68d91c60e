"""Linear layers with an INT8 or affine weight: floating-point activations, or activations quantized row by row.

Clauses: ``[weight_only.forward]``, ``[weight_only.backward]``, ``[int8_linear.forward]``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from qloracle.errors import reject_type, reject_value
from qloracle_gpu.torch.affine import QuantizedAffine, dequantize_affine
from qloracle_gpu.torch.autocast import ignores_autocast
from qloracle_gpu.torch.compiling import compiles_as_operator
from qloracle_gpu.torch.decomposition import activation_rows, unwidened_rows
from qloracle_gpu.torch.formats import dtype_named
from qloracle_gpu.torch.int8 import QuantizedInt8, dequantize_int8, quantize_int8
from qloracle_gpu.torch.int8_scale import scaled_int8_matmul
from qloracle_gpu.torch.layer_operands import require_gradient
from qloracle_gpu.torch.lora import output_vector
from qloracle_gpu.torch.matmul import require_float32_matmul
from qloracle_gpu.torch.stored_products import stored_product

QuantizedMatrix = QuantizedInt8 | QuantizedAffine


@dataclass(frozen=True)
class LinearGradients:
    """Gradients of a layer with a quantized weight; the weight has none."""

    x: Tensor  # (..., K), in the dtype of dy
    bias: Tensor  # (N,), float32: a bias is no argument, so nobody knows what to round to


def weight_values(weight: QuantizedMatrix, *, weight_rounding: str = "float32") -> Tensor:
    """Return the dequantized weight of a layer as float32 numbers rounded to the declared format.

    Parameters
    ----------
    weight : QuantizedInt8 or QuantizedAffine, of a 2-d tensor
    weight_rounding : {"float32", "float16", "bfloat16"}
        What it is rounded to before the product, usually the compute dtype.

    Returns
    -------
    tensor of float32, shape (N, K)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `weight` is no quantized 2-d tensor, or the format is unknown.

    Notes
    -----
    Rounding points: those of ``[int8.dequantize]`` or ``[affine.dequantize]``.

    Examples
    --------
    >>> weight_values(quantize_int8(torch.tensor([[1.0, -2.0]])))
    tensor([[ 1.0079, -2.0000]])
    """
    _matrix_shape(weight, weight_rounding)
    if isinstance(weight, QuantizedAffine):
        return dequantize_affine(weight, dtype=weight_rounding).to(torch.float32)
    return dequantize_int8(weight, dtype=weight_rounding).to(torch.float32)


def _matrix_shape(weight: QuantizedMatrix, weight_rounding: str) -> torch.Size:
    """Return the shape of a quantized matrix, after checking that it is one and the format that it is rounded to."""
    if not isinstance(weight, QuantizedMatrix):
        reject_type("weight", "QuantizedInt8 or QuantizedAffine", type(weight).__name__)
    if weight.codes.ndim != 2:
        reject_value("weight", "a quantized 2-d tensor", f"shape {tuple(weight.codes.shape)}")
    dtype_named(weight_rounding, "weight_rounding")
    return weight.codes.shape


@compiles_as_operator
@ignores_autocast
def weight_only_forward(
    x: Tensor,
    weight: QuantizedMatrix,
    *,
    bias: Tensor | None = None,
    weight_rounding: str = "float32",
    out_dtype: str | None = None,
) -> Tensor:
    """Apply a linear layer whose weight is stored quantized and whose activations are floating-point numbers.

    y = x Ŵᵀ + b, Ŵ the dequantized weight rounded to `weight_rounding`

    Parameters
    ----------
    x : tensor of float32, float16 or bfloat16, shape (..., K)
    weight : QuantizedInt8 or QuantizedAffine, shape (N, K), of any granularity
    bias : tensor, likewise, shape (N,), optional
    weight_rounding : {"float32", "float16", "bfloat16"}
    out_dtype : {"float32", "float16", "bfloat16"}, optional
        Format of y; by default that of x.

    Returns
    -------
    tensor of `out_dtype`, shape (..., N)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        As `weight_values`, if dtypes or shapes do not belong together, or torch multiplies float32 with fewer bits.

    Notes
    -----
    Clause ``[weight_only.forward]``. Declared roundings: weight as given, accumulate float32; then one to `out_dtype`.

    Examples
    --------
    >>> weight_only_forward(torch.tensor([[1.0, 2.0]]), quantize_int8(torch.tensor([[127.0, 1.0], [2.0, -2.0]])))
    tensor([[129.,  -2.]])
    """
    rows, shape = unwidened_rows(x), _matrix_shape(weight, weight_rounding)
    target = x.dtype if out_dtype is None else dtype_named(out_dtype, "out_dtype")
    require_inner(x, shape)
    shift = None if bias is None else output_vector(bias, shape[0], "bias")
    y = stored_product(rows, weight, target, weight_rounding=weight_rounding, bias=shift)
    if y is None:
        require_float32_matmul()
        y = rows.to(torch.float32) @ weight_values(weight, weight_rounding=weight_rounding).T
        y = (y if shift is None else y.add_(shift)).to(target)
    return y.view(*x.shape[:-1], shape[0])


@compiles_as_operator
@ignores_autocast
def weight_only_backward(dy: Tensor, weight: QuantizedMatrix, *, weight_rounding: str = "float32") -> LinearGradients:
    """Differentiate `weight_only_forward`: through the dequantized weight to x, and never into the weight.

    dx = dy Ŵ, db = Σ dy over all rows

    Parameters
    ----------
    dy : tensor of float32, float16 or bfloat16, shape (..., N)
    weight, weight_rounding
        As given to `weight_only_forward`.

    Returns
    -------
    LinearGradients

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        As `weight_only_forward`.

    Notes
    -----
    Clause ``[weight_only.backward]``. Declared roundings: weight as given, accumulate float32; then dx to the format
    of `dy`.

    Examples
    --------
    >>> weight = quantize_int8(torch.tensor([[127.0, 1.0], [2.0, -2.0]]))
    >>> weight_only_backward(torch.tensor([[1.0, 2.0]]), weight).x
    tensor([[131.,  -3.]])
    """
    d_out, d_in = _matrix_shape(weight, weight_rounding)
    rows = require_gradient(dy, (*dy.shape[:-1], d_out)).reshape(dy.shape[:-1].numel(), d_out)
    dx = stored_product(rows, weight, dy.dtype, weight_rounding=weight_rounding, transposed=True)
    if dx is None:
        require_float32_matmul()
        values = weight_values(weight, weight_rounding=weight_rounding)
        dx = (rows.to(torch.float32) @ values).to(dy.dtype)
    return LinearGradients(dx.view(*dy.shape[:-1], d_in), rows.sum(0, dtype=torch.float32))


@compiles_as_operator
def int8_linear_forward(
    x: Tensor, weight: QuantizedInt8, *, bias: Tensor | None = None, out_dtype: str | None = None
) -> Tensor:
    """Apply a linear layer to activations that are quantized row by row, on the fly.

    y = (q_x q_Wᵀ)·row·column/127² + b, with the INT8 codes and the absmax of every row of x

    Parameters
    ----------
    x : tensor of float32, float16 or bfloat16, shape (..., K)
    weight : QuantizedInt8, granularity "row", shape (N, K)
    bias : tensor, likewise, shape (N,), optional
    out_dtype : {"float32", "float16", "bfloat16"}, optional
        Format of y; by default that of x.

    Returns
    -------
    tensor of `out_dtype`, shape (..., N)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If dtypes or shapes do not belong together, the weight is not quantized by row, or K could overflow int32.

    Notes
    -----
    Clause ``[int8_linear.forward]``. Rounding points, in order: each code, to an integer; then those of
    `scale_int8_matmul`.

    Examples
    --------
    >>> weight = quantize_int8(torch.tensor([[127.0, 2.0], [3.0, -254.0]]), granularity="row")
    >>> int8_linear_forward(torch.tensor([[127.0, 4.0]]), weight)
    tensor([[16137.,  -508.]])
    """
    table, rows = require_row_weight(weight), activation_rows(x)
    name = None if out_dtype is None else dtype_named(out_dtype, "out_dtype")
    quantized = quantize_int8(rows, granularity="row")
    shift = None if bias is None else output_vector(bias, len(table.codes), "bias")
    y = scaled_int8_matmul(quantized.codes, table.codes, quantized.absmax, table.absmax, shift)
    return y.to(name or x.dtype).view(*x.shape[:-1], len(table.codes))


def require_row_weight(weight: object) -> QuantizedInt8:
    """Return a weight if it is an INT8 matrix with one absmax a row, else raise."""
    if not isinstance(weight, QuantizedInt8):
        reject_type("weight", "QuantizedInt8", type(weight).__name__)
    if weight.granularity != "row" or weight.codes.ndim != 2:
        got = f"{weight.codes.ndim}-d by {weight.granularity}"
        reject_value("weight", "an INT8 matrix quantized by row", got)
    return weight


def require_inner(x: Tensor, shape: torch.Size) -> None:
    """Raise unless the last axis of activations is that of a weight."""
    if x.shape[-1] != shape[1]:
        rule = f"of shape (..., {shape[1]}) for a weight of shape {tuple(shape)}"
        reject_value("x", rule, tuple(x.shape))
