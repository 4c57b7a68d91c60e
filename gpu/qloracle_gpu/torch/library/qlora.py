"""The operators of LoRA and DoRA on a quantized weight, with gradients of x and of all that trains."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from qloracle_gpu.torch import llm_int8, qdora
from qloracle_gpu.torch import qlora as rules
from qloracle_gpu.torch.autocast import ignores_autocast
from qloracle_gpu.torch.compiling import eager
from qloracle_gpu.torch.formats import DTYPES, NAMES
from qloracle_gpu.torch.int8 import QuantizedInt8
from qloracle_gpu.torch.int8_linear import require_row_weight
from qloracle_gpu.torch.library.flat_weight import FlatWeight, record_of
from qloracle_gpu.torch.library.lora import Gradients, empty_gradients, of_present
from qloracle_gpu.torch.library.registering import differentiable, operator
from qloracle_gpu.torch.lora import dropout_factor, dropped_share, lora_scale, output_vector


def qlora_forward(
    x: Tensor, codes: Tensor, absmax: Tensor, absmax_codes: Tensor | None, offset: Tensor | None, codebook: str,
    nested_codebook: str, granularity: str, block_size: int | None, shape: Sequence[int], lora_a: Tensor,
    lora_b: Tensor, alpha: float, magnitude: Tensor | None = None, bias: Tensor | None = None,
    lora_bias: Tensor | None = None, mask: Tensor | None = None, dropout: float = 0.0, rank_stabilized: bool = False,
    weight_rounding: str = "float32", threshold: float | None = None, out_dtype: str | None = None,
) -> Tensor:  # fmt: skip
    """Return y of `qloracle_gpu.torch.qlora_forward`, or with a magnitude of `qdora_forward`.

    With a threshold it is LLM.int8()'s y in float32 plus the adapter's share, rounded once.
    """
    flat = FlatWeight(codes, absmax, absmax_codes, offset, codebook, nested_codebook, granularity, block_size, shape)
    how: dict[str, Any] = {
        "alpha": alpha, "bias": bias, "mask": mask, "dropout": dropout, "rank_stabilized": rank_stabilized,
        "weight_rounding": weight_rounding, "out_dtype": out_dtype,
    }  # fmt: skip
    record = record_of(flat)
    if threshold is not None:
        return _decomposed(x, require_row_weight(record), lora_a, lora_b, lora_bias, threshold=threshold, **how)
    if magnitude is not None:
        return eager(qdora.qdora_forward)(x, record, lora_a, lora_b, magnitude, **how)
    return eager(rules.qlora_forward)(x, record, lora_a, lora_b, lora_bias=lora_bias, **how)


@ignores_autocast
def _decomposed(
    x: Tensor, weight: QuantizedInt8, lora_a: Tensor, lora_b: Tensor, lora_bias: Tensor | None, *, threshold: float,
    alpha: float, bias: Tensor | None, mask: Tensor | None, dropout: float, rank_stabilized: bool,
    weight_rounding: str, out_dtype: str | None,
) -> Tensor:  # fmt: skip
    base = llm_int8.llm_int8_forward(
        x, weight, threshold=threshold, outlier_weight="dequantized", weight_rounding=weight_rounding, bias=bias,
        out_dtype="float32",
    )  # fmt: skip
    wide, a, b = (tensor.detach().to(torch.float32) for tensor in (x, lora_a, lora_b))
    low = dropped_share(wide, dropout_factor(mask, dropout, wide), dropout) @ a.T @ b.T
    if lora_bias is not None:
        low.add_(output_vector(lora_bias, len(b), "lora_bias"))
    low.mul_(lora_scale(alpha, len(a), rank_stabilized=rank_stabilized))
    return base.add_(low).to(DTYPES[out_dtype or NAMES[x.dtype]])


@operator
def qlora_backward(
    dy: Tensor, x: Tensor, codes: Tensor, absmax: Tensor, absmax_codes: Tensor | None, offset: Tensor | None,
    codebook: str, nested_codebook: str, granularity: str, block_size: int | None, shape: Sequence[int],
    lora_a: Tensor, lora_b: Tensor, alpha: float, magnitude: Tensor | None = None, mask: Tensor | None = None,
    dropout: float = 0.0, rank_stabilized: bool = False, weight_rounding: str = "float32",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients that `lora_backward` returns; the quantized weight has none."""
    flat = FlatWeight(codes, absmax, absmax_codes, offset, codebook, nested_codebook, granularity, block_size, shape)
    how: dict[str, Any] = {
        "alpha": alpha, "mask": mask, "dropout": dropout, "rank_stabilized": rank_stabilized,
        "weight_rounding": weight_rounding,
    }  # fmt: skip
    record, none = record_of(flat), dy.new_empty(0, dtype=torch.float32)
    if magnitude is not None:
        d = eager(qdora.qdora_backward)(dy, x, record, lora_a, lora_b, magnitude, **how)
        return d.x, d.lora_a, d.lora_b, d.magnitude, d.bias, none
    g = eager(rules.qlora_backward)(dy, x, record, lora_a, lora_b, **how)
    return g.x, g.lora_a, g.lora_b, none, g.bias, g.lora_bias


@qlora_backward.register_fake
def _(_dy: Tensor, x: Tensor, *arguments: Any) -> Gradients:
    lora_a, lora_b, _, magnitude, *_ = (*arguments[9:], None)
    return empty_gradients(x, lora_a, lora_b, magnitude)


def _like(x: Tensor, *arguments: Any) -> Tensor:
    dtype = (arguments[20] if len(arguments) > 20 else None) or NAMES[x.dtype]
    return x.new_empty((*x.shape[:-1], arguments[8][0]), dtype=DTYPES[dtype])


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 - torch's signature
    x, flat, (lora_a, lora_b, ctx.alpha, *given) = inputs[0], inputs[1:10], inputs[10:]
    magnitude, bias, lora_bias, mask, *ctx.options, _, _ = given
    ctx.save_for_backward(x, *flat[:4], lora_a, lora_b, magnitude, mask)
    ctx.settings = flat[4:]
    ctx.dtypes = tuple(None if t is None else t.dtype for t in (magnitude, bias, lora_bias))


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, *parts, lora_a, lora_b, magnitude, mask = ctx.saved_tensors
    trained = (lora_a, lora_b, ctx.alpha, magnitude, mask)
    dx, da, db, *others = qlora_backward(dy, x, *parts, *ctx.settings, *trained, *ctx.options)
    return dx, *[None] * 9, da, db, None, *of_present(others, ctx.dtypes), *[None] * 6


qlora_with_gradient = differentiable(qlora_forward, _like, _remember, _gradients)
