"""QLoRA: a LoRA layer whose frozen weight is stored quantized.

The weight is dequantized for the product; the gradient flows through it to x and never into it.
Clauses: ``[qlora.weight]``, ``[qlora.forward]``, ``[qlora.backward]``.
"""

from torch import Tensor

from qloracle.errors import reject_type, reject_value
from qloracle_gpu.torch.affine import QuantizedAffine, dequantize_affine
from qloracle_gpu.torch.blockwise import QuantizedBlocks, dequantize_blockwise
from qloracle_gpu.torch.compiling import compiles_as_operator
from qloracle_gpu.torch.double_quant import DoubleQuantized, dequantize_double
from qloracle_gpu.torch.formats import dtype_named, require_tensor_format
from qloracle_gpu.torch.fused_lora import Adapter, fused_backward, fused_forward
from qloracle_gpu.torch.int8 import QuantizedInt8, dequantize_int8
from qloracle_gpu.torch.kernels.availability import kernels_run_on
from qloracle_gpu.torch.layer_operands import adapter_parts, require_gradient, require_mask
from qloracle_gpu.torch.lora import (
    LoraGradients,
    bias_gradients,
    lora_backward,
    lora_forward,
    lora_scale,
    output_vector,
)

QuantizedWeight = QuantizedBlocks | DoubleQuantized | QuantizedInt8 | QuantizedAffine


def qlora_weight(weight: QuantizedWeight, *, weight_rounding: str = "float32") -> Tensor:
    """Dequantize the weight of a QLoRA layer in the declared format.

    W = RN_weight_rounding(fl32(entries[code] · absmax)), and likewise by the rule of every other quantizer

    Parameters
    ----------
    weight : QuantizedBlocks, DoubleQuantized, QuantizedInt8 or QuantizedAffine, of a 2-d tensor
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
    require_matrix(weight, weight_rounding)
    match weight:
        case QuantizedBlocks():
            return dequantize_blockwise(weight, dtype=weight_rounding)
        case DoubleQuantized():
            return dequantize_double(weight, dtype=weight_rounding)
        case QuantizedInt8():
            return dequantize_int8(weight, dtype=weight_rounding)
    return dequantize_affine(weight, dtype=weight_rounding)


def require_matrix(weight: QuantizedWeight, weight_rounding: str) -> None:
    """Raise unless a record holds a matrix and the format that it is rounded to is known."""
    if len(shape_of(weight)) != 2:
        reject_value("weight", "a quantized 2-d tensor", f"shape {shape_of(weight)}")
    dtype_named(weight_rounding, "weight_rounding")


def shape_of(weight: object) -> tuple[int, ...]:
    """Return the shape of the tensor that a record holds."""
    if isinstance(weight, QuantizedBlocks | DoubleQuantized):
        return tuple(weight.shape)
    if not isinstance(weight, QuantizedInt8 | QuantizedAffine):
        known = "QuantizedBlocks, DoubleQuantized, QuantizedInt8 or QuantizedAffine"
        reject_type("weight", known, type(weight).__name__)
    return tuple(weight.codes.shape)


@compiles_as_operator
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
    weight : QuantizedBlocks, DoubleQuantized, QuantizedInt8 or QuantizedAffine, shape (d_out, d_in)
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
    Clause ``[qlora.forward]``. Declared roundings: weight as given, intermediate float32, accumulate float32. Where
    kernels run, x is multiplied with codes, and the weight never stands in memory.
    """
    require_matrix(weight, weight_rounding)
    if kernels_run_on(require_tensor_format("x", x).device.type):
        given = _layer(x, weight, lora_a, lora_b, alpha, mask, dropout, rank_stabilized)
        target = x.dtype if out_dtype is None else dtype_named(out_dtype, "out_dtype")
        offset = None if bias is None else output_vector(bias, len(lora_b), "bias")
        shift = None if lora_bias is None else output_vector(lora_bias, len(lora_b), "lora_bias")
        y = fused_forward(*given, target, bias=offset, lora_bias=shift, weight_rounding=weight_rounding)
        if y is not None:
            return y
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


@compiles_as_operator
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
    weight : QuantizedBlocks, DoubleQuantized, QuantizedInt8 or QuantizedAffine, shape (d_out, d_in)
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
    Clause ``[qlora.backward]``. Where kernels run, dy is multiplied with codes, as x is.
    """
    require_matrix(weight, weight_rounding)
    if kernels_run_on(require_tensor_format("x", x).device.type):
        given = _layer(x, weight, lora_a, lora_b, alpha, mask, dropout, rank_stabilized)
        gradient, adapter = require_gradient(dy, (*x.shape[:-1], len(lora_b))), given[2]
        found = fused_backward(gradient, *given, weight_rounding=weight_rounding)
        if found is not None:
            return LoraGradients(*found, *bias_gradients(gradient, adapter.scale))
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


def _layer(
    x: Tensor, weight: QuantizedWeight, lora_a: Tensor, lora_b: Tensor, alpha: float, mask: Tensor | None,
    dropout: float, rank_stabilized: bool,
) -> tuple[Tensor, QuantizedWeight, Adapter]:  # fmt: skip
    """Return what a layer is made of, after checking that it belongs together."""
    rows, a, b = adapter_parts(x, shape_of(weight), lora_a, lora_b)
    scale = lora_scale(alpha, len(a), rank_stabilized=rank_stabilized)
    return rows, weight, Adapter(a, b, scale, require_mask(mask, dropout, rows), dropout)
