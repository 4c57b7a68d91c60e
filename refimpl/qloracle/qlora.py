"""QLoRA: a LoRA layer whose frozen weight is stored quantized, by any quantizer of this specification.

The weight is dequantized for the product; the gradient flows through it to x and never into it.
Clauses: ``[qlora.weight]``, ``[qlora.forward]``, ``[qlora.backward]``.
Source: Dettmers et al. 2023, "QLoRA", section 3, equations 5 and 6.
"""

from qloracle.affine import QuantizedAffine, dequantize_affine
from qloracle.blockwise import QuantizedBlocks, dequantize_blockwise
from qloracle.double_quant import DoubleQuantized, dequantize_double
from qloracle.errors import reject_type, reject_value, require_one_of
from qloracle.formats import TENSOR_FORMATS, Array
from qloracle.int8 import QuantizedInt8, dequantize_int8
from qloracle.lora import LoraGradients, lora_backward, lora_forward
from qloracle.rounding import widen

QuantizedWeight = QuantizedBlocks | DoubleQuantized | QuantizedInt8 | QuantizedAffine


def qlora_weight(weight: QuantizedWeight, *, weight_rounding: str = "float32") -> Array:
    """Dequantize the weight of a layer as float32 numbers rounded to the declared format.

    W = RN_weight_rounding(fl32(entries[code] · absmax)), and likewise by the rule of every other quantizer

    Parameters
    ----------
    weight : QuantizedBlocks, DoubleQuantized, QuantizedInt8 or QuantizedAffine, of a 2-d tensor
        Of any codebook, granularity and block size.
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

    Examples
    --------
    >>> import numpy as np
    >>> from qloracle import quantize_int8
    >>> qlora_weight(quantize_int8(np.array([[1, -2]], np.float32)), weight_rounding="bfloat16")
    array([[ 1.0078125, -2.       ]], dtype=float32)
    """
    if not isinstance(weight, QuantizedWeight):
        reject_type(
            "weight", "QuantizedBlocks, DoubleQuantized, QuantizedInt8 or QuantizedAffine", type(weight).__name__
        )
    shape = weight.shape if isinstance(weight, QuantizedBlocks | DoubleQuantized) else weight.codes.shape
    if len(shape) != 2:
        reject_value("weight", "a quantized 2-d tensor", f"shape {shape}")
    require_one_of("weight_rounding", weight_rounding, TENSOR_FORMATS)
    return widen(_dequantized(weight, weight_rounding), "bfloat16" if weight_rounding == "bfloat16" else None)


def _dequantized(weight: QuantizedWeight, dtype: str) -> Array:
    match weight:
        case QuantizedBlocks():
            return dequantize_blockwise(weight, dtype=dtype)
        case DoubleQuantized():
            return dequantize_double(weight, dtype=dtype)
        case QuantizedInt8():
            return dequantize_int8(weight, dtype=dtype)
        case QuantizedAffine():
            return dequantize_affine(weight, dtype=dtype)


def qlora_forward(
    x: Array,
    weight: QuantizedWeight,
    lora_a: Array,
    lora_b: Array,
    *,
    alpha: float,
    weight_rounding: str = "float32",
    bias: Array | None = None,
    lora_bias: Array | None = None,
    mask: Array | None = None,
    dropout: float = 0.0,
    rank_stabilized: bool = False,
) -> Array:
    """Apply a QLoRA layer: `lora_forward` with the dequantized weight.

    Parameters
    ----------
    x, lora_a, lora_b, alpha, bias, lora_bias, mask, dropout, rank_stabilized
        As for `lora_forward`.
    weight : any quantized tensor of shape (d_out, d_in)
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
    Clause ``[qlora.forward]``. Rounding points of an implementation: those of `qlora_weight`, then those that it
    declares for LoRA.

    Examples
    --------
    >>> import numpy as np
    >>> from qloracle import quantize_blockwise
    >>> one = np.ones((1, 1), np.float32)
    >>> qlora_forward(one, quantize_blockwise(3 * one), one, 2 * one, alpha=16)
    array([[35.]])
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
    weight : any quantized tensor of shape (d_out, d_in)
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
    Clause ``[qlora.backward]``. Rounding points of an implementation: those of `qlora_weight`, then those that it
    declares for LoRA.

    Examples
    --------
    >>> import numpy as np
    >>> from qloracle import quantize_blockwise
    >>> one = np.ones((1, 1), np.float32)
    >>> qlora_backward(one, one, quantize_blockwise(3 * one), one, 2 * one, alpha=16).x
    array([[35.]])
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
