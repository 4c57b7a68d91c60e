"""QLoRA: a LoRA layer whose frozen weight is stored quantized.

The weight is dequantized for the product; the gradient flows through it to x and never into it.
Clauses: ``[qlora.weight]``, ``[qlora.forward]``, ``[qlora.backward]``.
"""

from qloracle.errors import reject_type, reject_value, require_one_of
from qloracle.formats import TENSOR_FORMATS
from qloracle_gpu.cupy.affine import QuantizedAffine, dequantize_affine
from qloracle_gpu.cupy.blockwise import QuantizedBlocks, dequantize_blockwise
from qloracle_gpu.cupy.double_quant import DoubleQuantized, dequantize_double
from qloracle_gpu.cupy.int8 import QuantizedInt8, dequantize_int8
from qloracle_gpu.cupy.launcher import Array, require_array
from qloracle_gpu.cupy.lora import LoraGradients, lora_backward, lora_forward
from qloracle_gpu.cupy.rounding import encode

QuantizedWeight = QuantizedBlocks | DoubleQuantized | QuantizedInt8 | QuantizedAffine


def qlora_weight(weight: QuantizedWeight, *, weight_rounding: str = "float32") -> Array:
    """Dequantize the weight of a layer as float32 numbers rounded to the declared format.

    Parameters
    ----------
    weight : QuantizedBlocks, DoubleQuantized, QuantizedInt8 or QuantizedAffine, of a 2-d tensor
    weight_rounding : {"float32", "float16", "bfloat16"}
        Usually the compute dtype.

    Returns
    -------
    array of float32, shape (d_out, d_in)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `weight` is no quantized 2-d tensor, its parts do not belong together, or the format is unknown.

    Notes
    -----
    Clause ``[qlora.weight]``. Rounding points: those of the dequantization.
    """
    weight_shape(weight)
    require_one_of("weight_rounding", weight_rounding, TENSOR_FORMATS)
    values = dequantized(weight, weight_rounding)
    if weight_rounding == "float32":
        return values
    return encode(values, "float32", source="bfloat16" if weight_rounding == "bfloat16" else None).view("float32")


def dequantized(weight: QuantizedWeight, dtype: str | None = None) -> Array:
    """Return the values of a quantized tensor in a format, by default that of the original."""
    match weight:
        case QuantizedBlocks():
            return dequantize_blockwise(weight, dtype=dtype)
        case DoubleQuantized():
            return dequantize_double(weight, dtype=dtype)
        case QuantizedInt8():
            return dequantize_int8(weight, dtype=dtype)
        case QuantizedAffine():
            return dequantize_affine(weight, dtype=dtype)


def weight_shape(weight: QuantizedWeight) -> tuple[int, int]:
    """Return the shape of the tensor that a weight was, or raise unless it had two axes."""
    shape = shape_of(weight)
    if len(shape) != 2:
        reject_value("weight", "a quantized 2-d tensor", f"shape {shape}")
    return shape[0], shape[1]


def shape_of(weight: object) -> tuple[int, ...]:
    """Return the shape of the tensor that a record holds, or raise if it is none."""
    if isinstance(weight, QuantizedBlocks | DoubleQuantized):
        return tuple(weight.shape)
    if not isinstance(weight, QuantizedInt8 | QuantizedAffine):
        known = "QuantizedBlocks, DoubleQuantized, QuantizedInt8 or QuantizedAffine"
        reject_type("weight", known, type(weight).__name__)
    return tuple(require_array("codes", weight.codes).shape)


def qlora_forward(
    x: Array, weight: QuantizedWeight, lora_a: Array, lora_b: Array, *, alpha: float, weight_rounding: str = "float32",
    bias: Array | None = None, lora_bias: Array | None = None, mask: Array | None = None, dropout: float = 0.0,
    rank_stabilized: bool = False, out_dtype: str | None = None, fmt: str | None = None,
) -> Array:  # fmt: skip
    """Apply a QLoRA layer: `lora_forward` with the dequantized weight.

    Parameters
    ----------
    x, lora_a, lora_b, alpha, bias, lora_bias, mask, dropout, rank_stabilized, out_dtype, fmt
        As for `lora_forward`.
    weight : QuantizedBlocks, DoubleQuantized, QuantizedInt8 or QuantizedAffine, of shape (d_out, d_in)
    weight_rounding : {"float32", "float16", "bfloat16"}
        What the dequantized weight is rounded to before the product.

    Returns
    -------
    array of `out_dtype`, shape (..., d_out)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        As `qlora_weight` and `lora_forward`.

    Notes
    -----
    Clause ``[qlora.forward]``. Declared roundings: weight as given, intermediate float32, accumulate float32.
    """
    return lora_forward(
        x, qlora_weight(weight, weight_rounding=weight_rounding), lora_a, lora_b, alpha=alpha, bias=bias,
        lora_bias=lora_bias, mask=mask, dropout=dropout, rank_stabilized=rank_stabilized, out_dtype=out_dtype, fmt=fmt,
    )  # fmt: skip


def qlora_backward(
    dy: Array, x: Array, weight: QuantizedWeight, lora_a: Array, lora_b: Array, *, alpha: float,
    weight_rounding: str = "float32", mask: Array | None = None, dropout: float = 0.0, rank_stabilized: bool = False,
    fmt: str | None = None,
) -> LoraGradients:  # fmt: skip
    """Differentiate `qlora_forward`; the quantized weight is a constant.

    Parameters
    ----------
    dy, x, lora_a, lora_b, alpha, mask, dropout, rank_stabilized, fmt
        As for `lora_backward`.
    weight, weight_rounding
        As given to `qlora_forward`.

    Returns
    -------
    LoraGradients

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        As `qlora_weight` and `lora_backward`.

    Notes
    -----
    Clause ``[qlora.backward]``.
    """
    return lora_backward(
        dy, x, qlora_weight(weight, weight_rounding=weight_rounding), lora_a, lora_b, alpha=alpha, mask=mask,
        dropout=dropout, rank_stabilized=rank_stabilized, fmt=fmt,
    )  # fmt: skip
