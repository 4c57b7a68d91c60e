"""What the functions of layers do under a compiler, see `calls`."""

from typing import Any

import torch
from torch import Tensor

from qloracle_gpu.torch.decomposition import Decomposed
from qloracle_gpu.torch.dora import DoraGradients
from qloracle_gpu.torch.embedding_lora import EmbeddingGradients
from qloracle_gpu.torch.formats import NAMES
from qloracle_gpu.torch.int8 import QuantizedInt8
from qloracle_gpu.torch.int8_linear import LinearGradients, QuantizedMatrix
from qloracle_gpu.torch.library.flat_weight import flat_weight
from qloracle_gpu.torch.lora import LoraGradients
from qloracle_gpu.torch.qlora import QuantizedWeight

OPERATORS = torch.ops.qloracle


def lora_forward(x: Tensor, weight: Tensor, lora_a: Tensor, lora_b: Tensor, *, alpha: float, **options: Any) -> Tensor:
    """See `qloracle_gpu.torch.lora_forward`."""
    layer = _constant(x, weight, lora_a, lora_b)
    found: Tensor = OPERATORS.lora_forward(*layer, alpha, **_constants(options))
    return found


def lora_backward(
    dy: Tensor, x: Tensor, weight: Tensor, lora_a: Tensor, lora_b: Tensor, *, alpha: float, **options: Any
) -> LoraGradients:
    """See `qloracle_gpu.torch.lora_backward`."""
    layer = _constant(dy, x, weight, lora_a, lora_b)
    dx, da, db, _, bias, lora_bias = OPERATORS.lora_backward(*layer, alpha, **options)
    return LoraGradients(dx, da, db, bias, lora_bias)


def dora_forward(
    x: Tensor, weight: Tensor, lora_a: Tensor, lora_b: Tensor, magnitude: Tensor, **options: Any
) -> Tensor:
    """See `qloracle_gpu.torch.dora_forward`."""
    return lora_forward(x, weight, lora_a, lora_b, magnitude=magnitude, **options)


def dora_backward(
    dy: Tensor, x: Tensor, weight: Tensor, lora_a: Tensor, lora_b: Tensor, magnitude: Tensor, *, alpha: float,
    **options: Any,
) -> DoraGradients:  # fmt: skip
    """See `qloracle_gpu.torch.dora_backward`."""
    layer, m = _constant(dy, x, weight, lora_a, lora_b), magnitude.detach()
    dx, da, db, dm, bias, _ = OPERATORS.lora_backward(*layer, alpha, magnitude=m, **options)
    return DoraGradients(dx, da, db, dm, bias)


def qlora_forward(
    x: Tensor, weight: QuantizedWeight, lora_a: Tensor, lora_b: Tensor, *, alpha: float, **options: Any
) -> Tensor:
    """See `qloracle_gpu.torch.qlora_forward`."""
    flat, adapter = flat_weight(weight).arguments, _constant(lora_a, lora_b)
    found: Tensor = OPERATORS.qlora_forward(x.detach(), *flat, *adapter, alpha, **_constants(options))
    return found


def qlora_backward(
    dy: Tensor, x: Tensor, weight: QuantizedWeight, lora_a: Tensor, lora_b: Tensor, *, alpha: float, **options: Any
) -> LoraGradients:
    """See `qloracle_gpu.torch.qlora_backward`."""
    flat, adapter = flat_weight(weight).arguments, _constant(lora_a, lora_b)
    found = OPERATORS.qlora_backward(*_constant(dy, x), *flat, *adapter, alpha, **options)
    dx, da, db, _, bias, lora_bias = found
    return LoraGradients(dx, da, db, bias, lora_bias)


def qdora_forward(
    x: Tensor, weight: QuantizedWeight, lora_a: Tensor, lora_b: Tensor, magnitude: Tensor, **options: Any
) -> Tensor:
    """See `qloracle_gpu.torch.qdora_forward`."""
    return qlora_forward(x, weight, lora_a, lora_b, magnitude=magnitude, **options)


def qdora_backward(
    dy: Tensor, x: Tensor, weight: QuantizedWeight, lora_a: Tensor, lora_b: Tensor, magnitude: Tensor, *,
    alpha: float, **options: Any,
) -> DoraGradients:  # fmt: skip
    """See `qloracle_gpu.torch.qdora_backward`."""
    flat, adapter, m = flat_weight(weight).arguments, _constant(lora_a, lora_b), magnitude.detach()
    found = OPERATORS.qlora_backward(*_constant(dy, x), *flat, *adapter, alpha, magnitude=m, **options)
    dx, da, db, dm, bias, _ = found
    return DoraGradients(dx, da, db, dm, bias)


def quantized_matmul(x: Tensor, weight: QuantizedWeight, **options: Any) -> Tensor:
    """See `qloracle_gpu.torch.quantized_matmul`."""
    found: Tensor = OPERATORS.quantized_matmul(x.detach(), *flat_weight(weight).arguments, **_constants(options))
    return found


def weight_only_forward(x: Tensor, weight: QuantizedMatrix, **options: Any) -> Tensor:
    """See `qloracle_gpu.torch.weight_only_forward`."""
    return quantized_matmul(x, weight, **options)


def weight_only_backward(dy: Tensor, weight: QuantizedMatrix, *, weight_rounding: str = "float32") -> LinearGradients:
    """See `qloracle_gpu.torch.weight_only_backward`."""
    flat = flat_weight(weight).arguments
    return LinearGradients(*OPERATORS.quantized_matmul_backward(dy.detach(), *flat, weight_rounding, NAMES[dy.dtype]))


def llm_int8_backward(dy: Tensor, weight: QuantizedInt8, *, weight_rounding: str = "float32") -> LinearGradients:
    """See `qloracle_gpu.torch.llm_int8_backward`."""
    return weight_only_backward(dy, weight, weight_rounding=weight_rounding)


def int8_linear_forward(x: Tensor, weight: QuantizedInt8, **options: Any) -> Tensor:
    """See `qloracle_gpu.torch.int8_linear_forward`."""
    found: Tensor = OPERATORS.int8_linear_forward(x.detach(), weight.codes, weight.absmax, **_constants(options))
    return found


def llm_int8_forward(
    x: Tensor, weight: QuantizedInt8, original: Tensor | None = None, *, parts: Decomposed | None = None,
    **options: Any,
) -> Tensor:  # fmt: skip
    """See `qloracle_gpu.torch.llm_int8_forward`."""
    if parts is not None:
        options |= {"outliers": parts.outliers, "x_codes": parts.codes, "x_absmax": parts.absmax}
    given = _constants({"original": original, **options})
    found: Tensor = OPERATORS.llm_int8_forward(x.detach(), weight.codes, weight.absmax, **given)
    return found


def embedding_lora_forward(
    ids: Tensor, weight: Tensor, lora_a: Tensor, lora_b: Tensor, *, alpha: float, **options: Any
) -> Tensor:
    """See `qloracle_gpu.torch.embedding_lora_forward`."""
    found: Tensor = OPERATORS.embedding_lora_forward(ids, *_constant(weight, lora_a, lora_b), alpha, **options)
    return found


def embedding_lora_backward(
    dy: Tensor, ids: Tensor, weight: Tensor, lora_a: Tensor, lora_b: Tensor, *, alpha: float, **options: Any
) -> EmbeddingGradients:
    """See `qloracle_gpu.torch.embedding_lora_backward`."""
    layer = (dy.detach(), ids, *_constant(weight, lora_a, lora_b))
    return EmbeddingGradients(*OPERATORS.embedding_lora_backward(*layer, alpha, **options))


def _constant(*tensors: Tensor) -> list[Tensor]:
    """Return tensors without their gradient history."""
    return [tensor.detach() for tensor in tensors]


def _constants(options: dict[str, Any]) -> dict[str, Any]:
    """Return options, the tensors among them without their gradient history."""
    return {name: o.detach() if isinstance(o, Tensor) else o for name, o in options.items()}
