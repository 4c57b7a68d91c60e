"""QLoRA: a LoRA layer whose frozen weight is stored quantized.

The weight is dequantized for the product; the gradient flows through it to x and never into it.
Clauses: ``[qlora.weight]``, ``[qlora.forward]``, ``[qlora.backward]``.
Source: Dettmers et al. 2023, "QLoRA", section 3, equations 5 and 6.
"""

from qloracle.blockwise import QuantizedBlocks, dequantize_blockwise
from qloracle.double_quant import DoubleQuantized, restore_absmax
from qloracle.errors import reject_type, reject_value
from qloracle.formats import TENSOR_FORMATS, Array
from qloracle.lora import LoraGradients, lora_backward, lora_forward
from qloracle.rounding import widen

QuantizedWeight = QuantizedBlocks | DoubleQuantized


def qlora_weight(weight: QuantizedWeight, *, weight_rounding: str = "float32") -> Array:
    """Dequantize the weight of a QLoRA layer as float32 numbers rounded to the declared format.

    W = RN_weight_rounding(fl32(entries[code] · absmax))

    Parameters
    ----------
    weight : QuantizedBlocks or DoubleQuantized, of a 2-d tensor
    weight_rounding : {"float32", "float16", "bfloat16"}
        Usually the compute dtype.

    Returns
    -------
    array of float32, shape (d_out, d_in)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `weight` is no quantized 2-d tensor, or the format is unknown.

    Notes
    -----
    Clause ``[qlora.weight]``. Rounding points: those of the dequantization.
    """
    if not isinstance(weight, QuantizedBlocks | DoubleQuantized):
        reject_type("weight", "QuantizedBlocks or DoubleQuantized", type(weight).__name__)
    if len(weight.shape) != 2:
        reject_value("weight", "a quantized 2-d tensor", f"shape {weight.shape}")
    if weight_rounding not in TENSOR_FORMATS:
        reject_value("weight_rounding", f"one of {', '.join(TENSOR_FORMATS)}", repr(weight_rounding))
    plain = restore_absmax(weight) if isinstance(weight, DoubleQuantized) else weight
    values = dequantize_blockwise(plain, dtype=weight_rounding)
    return widen(values, "bfloat16" if weight_rounding == "bfloat16" else None)


def qlora_forward(
    x: Array,
    weight: QuantizedWeight,
    lora_a: Array,
    lora_b: Array,
    *,
    alpha: float,
    weight_rounding: str = "float32",
    bias: Array | None = None,
    mask: Array | None = None,
    dropout: float = 0.0,
    rank_stabilized: bool = False,
) -> Array:
    """Apply a QLoRA layer: `lora_forward` with the dequantized weight.

    Parameters
    ----------
    x, lora_a, lora_b, alpha, bias, mask, dropout, rank_stabilized
        As for `lora_forward`.
    weight : QuantizedBlocks or DoubleQuantized, of shape (d_out, d_in)
    weight_rounding : {"float32", "float16", "bfloat16"}
        What the dequantized weight is rounded to before the product.

    Returns
    -------
    array of float64, shape (..., d_out)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `qlora_weight` and `lora_forward`.

    Notes
    -----
    Clause ``[qlora.forward]``.
    """
    return lora_forward(
        x,
        qlora_weight(weight, weight_rounding=weight_rounding),
        lora_a,
        lora_b,
        alpha=alpha,
        bias=bias,
        mask=mask,
        dropout=dropout,
        rank_stabilized=rank_stabilized,
    )


def qlora_backward(
    dy: Array,
    x: Array,
    weight: QuantizedWeight,
    lora_a: Array,
    lora_b: Array,
    *,
    alpha: float,
    weight_rounding: str = "float32",
    mask: Array | None = None,
    dropout: float = 0.0,
    rank_stabilized: bool = False,
) -> LoraGradients:
    """Differentiate `qlora_forward`; the quantized weight is a constant.

    Parameters
    ----------
    dy, x, lora_a, lora_b, alpha, mask, dropout, rank_stabilized
        As for `lora_backward`.
    weight : QuantizedBlocks or DoubleQuantized, of shape (d_out, d_in)
    weight_rounding : {"float32", "float16", "bfloat16"}
        What the dequantized weight is rounded to before the product, as in the forward pass.

    Returns
    -------
    LoraGradients
        Arrays of float64.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
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
