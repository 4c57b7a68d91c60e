"""The operators of an embedding with an adapter, with gradients of A and B."""

from typing import Any

from torch import Tensor

from qloracle_gpu.torch import embedding_lora as rules
from qloracle_gpu.torch.compiling import eager
from qloracle_gpu.torch.formats import DTYPES, NAMES
from qloracle_gpu.torch.library.registering import differentiable, operator


def embedding_lora_forward(
    ids: Tensor, weight: Tensor, lora_a: Tensor, lora_b: Tensor, alpha: float, rank_stabilized: bool = False,
    out_dtype: str | None = None,
) -> Tensor:  # fmt: skip
    """Return y of `qloracle_gpu.torch.embedding_lora_forward`."""
    how: dict[str, Any] = {"alpha": alpha, "rank_stabilized": rank_stabilized, "out_dtype": out_dtype}
    return eager(rules.embedding_lora_forward)(ids, weight, lora_a, lora_b, **how)


@operator
def embedding_lora_backward(
    dy: Tensor, ids: Tensor, weight: Tensor, lora_a: Tensor, lora_b: Tensor, alpha: float,
    rank_stabilized: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the gradients of A and B."""
    how: dict[str, Any] = {"alpha": alpha, "rank_stabilized": rank_stabilized}
    found = eager(rules.embedding_lora_backward)(dy, ids, weight, lora_a, lora_b, **how)
    return found.lora_a, found.lora_b


@embedding_lora_backward.register_fake
def _(_dy: Tensor, _ids: Tensor, _weight: Tensor, lora_a: Tensor, lora_b: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return lora_a.new_empty(lora_a.shape), lora_b.new_empty(lora_b.shape)


def _like(ids: Tensor, weight: Tensor, _a: Tensor, _b: Tensor, *options: Any) -> Tensor:
    dtype = (options[2] if len(options) > 2 else None) or NAMES[weight.dtype]
    return weight.new_empty((*ids.shape, weight.shape[1]), dtype=DTYPES[dtype])


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 - torch's signature
    *tensors, ctx.alpha, ctx.rank_stabilized, _ = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    da, db = embedding_lora_backward(dy, *ctx.saved_tensors, ctx.alpha, ctx.rank_stabilized)
    return None, None, da, db, None, None, None


embedding_lora_with_gradient = differentiable(embedding_lora_forward, _like, _remember, _gradients)
