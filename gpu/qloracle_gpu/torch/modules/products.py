"""The differentiable products of the modules: every gradient is that of the package's own backward functions.

Autograd through the float32 operations themselves would give the same numbers, but keep float32 copies of weights for
the backward pass, and multiply in fewer bits where a backward pass runs under autocast.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from qloracle_gpu.torch.formats import NAMES
from qloracle_gpu.torch.library.embedding import embedding_lora_with_gradient
from qloracle_gpu.torch.library.flat_weight import FlatWeight
from qloracle_gpu.torch.library.lora import lora_with_gradient
from qloracle_gpu.torch.library.products import (
    linear_with_gradient,
    llm_int8_with_gradient,
    quantized_matmul_with_gradient,
)
from qloracle_gpu.torch.library.qlora import qlora_with_gradient

Weight = Tensor | FlatWeight


@dataclass(frozen=True)
class Product:
    """How a layer multiplies."""

    alpha: float
    rank_stabilized: bool
    dropout: float
    weight_rounding: str  # what a quantized weight is rounded to
    out_dtype: str
    fan_in_fan_out: bool = False
    threshold: float | None = None  # of LLM.int8(); None: activations stay floating-point numbers


@dataclass(frozen=True)
class Trained:
    """The trained tensors of a layer."""

    lora_a: Tensor
    lora_b: Tensor
    magnitude: Tensor | None
    lora_bias: Tensor | None
    bias: Tensor | None


def adapted(x: Tensor, weight: Weight, trained: Trained, mask: Tensor | None, how: Product) -> Tensor:
    """Return y of a layer with an adapter, differentiable with regard to x and what is trained."""
    t = trained
    matrices, others = (t.lora_a, t.lora_b, how.alpha), (t.magnitude, t.bias, t.lora_bias)
    dropout = (mask, how.dropout, how.rank_stabilized)
    if isinstance(weight, Tensor):
        return lora_with_gradient(x, weight, *matrices, *others, *dropout, how.fan_in_fan_out, how.out_dtype)
    formats = (how.weight_rounding, how.threshold, how.out_dtype)
    return qlora_with_gradient(x, *weight.arguments, *matrices, *others, *dropout, *formats)


def plain(x: Tensor, weight: Weight, bias: Tensor | None, how: Product) -> Tensor:
    """Return y of a layer without an adapter, differentiable with regard to x and the bias."""
    if isinstance(weight, Tensor):
        return linear_with_gradient(x, weight, bias, how.fan_in_fan_out, how.out_dtype)
    if how.threshold is None:
        return quantized_matmul_with_gradient(x, *weight.arguments, bias, how.weight_rounding, how.out_dtype)
    options = (None, how.threshold, "columns", "dequantized", how.weight_rounding, bias, None, None, None)
    return llm_int8_with_gradient(x, weight.codes, weight.absmax, *options, how.out_dtype)


def looked_up(ids: Tensor, weight: Tensor, lora_a: Tensor, lora_b: Tensor, how: Product) -> Tensor:
    """Return the rows of an embedding with an adapter, differentiable with regard to A and B."""
    return embedding_lora_with_gradient(ids, weight, lora_a, lora_b, how.alpha, how.rank_stabilized, how.out_dtype)


def format_name(dtype: torch.dtype) -> str:
    """Return the name of a tensor's format; one that no rule takes keeps torch's name, which the rule then refuses."""
    return NAMES.get(dtype, str(dtype).removeprefix("torch."))
