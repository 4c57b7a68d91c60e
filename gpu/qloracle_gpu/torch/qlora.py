"""QLoRA: a LoRA layer whose frozen weight is stored quantized.

The weight is dequantized for the product; the gradient flows through it to x and never into it.
Clauses: ``[qlora.weight]``, ``[qlora.forward]``, ``[qlora.backward]``.
"""

from torch import Tensor

from qloracle.errors import reject_type, reject_value
from qloracle_gpu.torch.blockwise import QuantizedBlocks, dequantize_blockwise
from qloracle_gpu.torch.double_quant import DoubleQuantized, dequantize_double
from qloracle_gpu.torch.formats import dtype_named
from qloracle_gpu.torch.int8 import QuantizedInt8, dequantize_int8
from qloracle_gpu.torch.lora import LoraGradients, lora_backward, lora_forward

QuantizedWeight = QuantizedBlocks | DoubleQuantized | QuantizedInt8


def qlora_weight(weight: QuantizedWeight, *, weight_rounding: str = "float32") -> Tensor:
    """Dequantize the weight of a QLoRA layer in the declared format.

    W = RN_weight_rounding(fl32(entries[code] · absmax)), and likewise by the rule of INT8

    Parameters
    ----------
    weight : QuantizedBlocks, DoubleQuantized or QuantizedInt8, of a 2-d tensor
    weight_rounding : {"float32", "float16", "bfloat16"}
        Usually the compute dtype.

    Returns
    -------
    tensor of `weight_rounding`, shape (d_out, d_in)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `weight` is no quantized 2-d tensor, or the format is unknown.

    Notes
    -----
    Clause ``[qlora.weight]``. Rounding points: those of the dequantization.
    """
    if len(shape_of(weight)) != 2:
        reject_value("weight", "a quantized 2-d tensor", f"shape {shape_of(weight)}")
    dtype_named(weight_rounding, "weight_rounding")
    match weight:
        case QuantizedBlocks():
            return dequantize_blockwise(weight, dtype=weight_rounding)
        case DoubleQuantized():
            return dequantize_double(weight, dtype=weight_rounding)
    return dequantize_int8(weight, dtype=weight_rounding)


def shape_of(weight: object) -> tuple[int, ...]:
    """Return the shape of the tensor that a record holds."""
    if isinstance(weight, QuantizedBlocks | DoubleQuantized):
        return tuple(weight.shape)
    if not isinstance(weight, QuantizedInt8):
        reject_type("weight", "QuantizedBlocks, DoubleQuantized or QuantizedInt8", type(weight).__name__)
    return tuple(weight.codes.shape)


def qlora_forward(
    x: Tensor,
    weight: QuantizedWeight,
    lora_a: Tensor,
    lora_b: Tensor,
    *,
    alpha: float,
    weight_rounding: str = "float32",
    bias: Tensor | None = None,
    lora_bias: Tensor | None = None,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    rank_stabilized: bool = False,
    out_dtype: str | None = None,
) -> Tensor:
    """Apply a QLoRA layer: `lora_forward` with the dequantized weight.

    Parameters
    ----------
    x, lora_a, lora_b, alpha, bias, lora_bias, mask, dropout, rank_stabilized, out_dtype
        As for `lora_forward`.
    weight : QuantizedBlocks, DoubleQuantized or QuantizedInt8, shape (d_out, d_in)
    weight_rounding : {"float32", "float16", "bfloat16"}
        What the dequantized weight is rounded to before the product.

    Returns
    -------
    tensor of `out_dtype`, shape (..., d_out)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        As `qlora_weight` and `lora_forward`.

    Notes
    -----
    Clause ``[qlora.forward]``. Declared roundings: weight as given, intermediate float32, accumulate float32.
    """
    return lora_forward(
        x,
        qlora_weight(weight, weight_rounding=weight_rounding),
        lora_a,
        lora_b,
        alpha=alpha,
        bias=bias,
        lora_bias=lora_bias,
        mask=mask,
        dropout=dropout,
        rank_stabilized=rank_stabilized,
        out_dtype=out_dtype,
    )


def qlora_backward(
    dy: Tensor,
    x: Tensor,
    weight: QuantizedWeight,
    lora_a: Tensor,
    lora_b: Tensor,
    *,
    alpha: float,
    weight_rounding: str = "float32",
    mask: Tensor | None = None,
    dropout: float = 0.0,
    rank_stabilized: bool = False,
) -> LoraGradients:
    """Differentiate `qlora_forward`; the quantized weight is a constant.

    Parameters
    ----------
    dy, x, lora_a, lora_b, alpha, mask, dropout, rank_stabilized
        As for `lora_backward`.
    weight : QuantizedBlocks, DoubleQuantized or QuantizedInt8, shape (d_out, d_in)
    weight_rounding : {"float32", "float16", "bfloat16"}
        What the dequantized weight is rounded to before the product, as in the forward pass.

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
        dy,
        x,
        qlora_weight(weight, weight_rounding=weight_rounding),
        lora_a,
        lora_b,
        alpha=alpha,
        mask=mask,
        dropout=dropout,
        rank_stabilized=rank_stabilized,
    )
