"""Merging the adapters of a whole model, taking them out again, and switching them off for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch import nn

from qloracle.errors import reject_value
from qloracle_gpu.torch.modules.errors import MergeStateError
from qloracle_gpu.torch.modules.lora_embedding import LoRAEmbedding
from qloracle_gpu.torch.modules.merge_state import require_merged, require_unmerged
from qloracle_gpu.torch.modules.qlora_linear import QLoRALinear
from qloracle_gpu.torch.modules.quantized_linear import QuantizedLinear
from qloracle_gpu.torch.modules.replacing import Adapted, adapted_modules, naming, owners, places

Model = TypeVar("Model", bound=nn.Module)


def merge_model(model: Model, *, safe: bool = False) -> Model:
    """Merge every adapter of a model into its weight, in place.

    Parameters
    ----------
    model : nn.Module
    safe : bool
        Compute every merged weight first, and raise before anything is changed if one is not finite. Takes the merges'
        time twice.

    Returns
    -------
    nn.Module
        `model` itself.

    Raises
    ------
    ArgumentValueError
        If the model has no adapters, a layer cannot be merged, or, with `safe`, a result is not finite; the message
        begins with the name of the layer.
    MergeStateError
        If an adapter is merged already, or its weight belongs to another module too, which would change with it.

    Notes
    -----
    Clauses ``[lora.merge]``, ``[lora.merge_safe]``, ``[dora.merge]``, ``[merge.requantize]``.

    Examples
    --------
    >>> from qloracle_gpu.torch.modules import LoraConfig, apply_lora
    >>> model = merge_model(apply_lora(nn.Sequential(nn.Linear(4, 4)), LoraConfig(["0"], rank=2)))
    >>> model[0].merged
    True
    """
    layers = _layers(model)
    held_by = owners(model)
    for name, module in layers:
        with naming(name):
            require_unmerged(module)
            _require_own_weight(module, held_by)
            _check(module, safe=safe)
    for _, module in layers:
        module.merge()
    return model


def unmerge_model(model: Model) -> Model:
    """Take every adapter of a model out of its weight again, in place; see `merge_model`.

    Quantized weights come back bit for bit; of floating-point ones what the rounding of the merge cut off is lost.
    """
    layers = _layers(model)
    for name, module in layers:
        with naming(name):
            require_merged(module)
    for _, module in layers:
        module.unmerge()
    return model


def merge_and_unload(model: Model, *, safe: bool = False) -> Model:
    """Merge every adapter and put plain layers in the place of those that had one.

    Parameters
    ----------
    model, safe
        As for `merge_model`.

    Returns
    -------
    nn.Module
        `model` itself, with nn.Linear, `QuantizedLinear` and nn.Embedding again. A weight that was stored as (d_in,
        d_out) is now (d_out, d_in).

    Raises
    ------
    ArgumentValueError, MergeStateError
        As `merge_model`.
    """
    merge_model(model, safe=safe)
    where = places(model)
    for _, module in _layers(model):
        plain = _plain(module)
        for place in where[id(module)]:
            place.put(plain)
    del model.qloracle_config
    return model


@contextmanager
def adapters_disabled(model: nn.Module) -> Iterator[None]:
    """Let a model compute without its adapters for a while.

    Clause ``[adapters.biases]``: a bias of the model that has trained stays as it is.

    Examples
    --------
    >>> from qloracle_gpu.torch.modules import LoraConfig, apply_lora
    >>> model = apply_lora(nn.Sequential(nn.Linear(4, 4)), LoraConfig(["0"], rank=2))
    >>> with adapters_disabled(model):
    ...     model[0].adapter.enabled
    False
    """
    layers = _layers(model)
    for name, module in layers:
        with naming(name):
            require_unmerged(module)
    before = [module.adapter.enabled for _, module in layers]
    for _, module in layers:
        module.adapter.enabled = False
    try:
        yield
    finally:
        for (_, module), enabled in zip(layers, before, strict=True):
            module.adapter.enabled = enabled


def _layers(model: nn.Module) -> list[tuple[str, Adapted]]:
    layers = list(adapted_modules(model))
    if not layers:
        reject_value("model", "one with adapters", type(model).__name__)
    return layers


def _require_own_weight(module: Adapted, held_by: dict[int, set[int]]) -> None:
    if not isinstance(module, QLoRALinear) and len(held_by[id(module.weight)]) > 1:
        raise MergeStateError("its weight is tied to that of another module, which merging would change too")


def _check(module: Adapted, *, safe: bool) -> None:
    """Raise what merging a layer would raise, before any layer of the model is changed."""
    if safe:
        module.merged_parameters(safe=True)
    elif getattr(module.adapter, "lora_bias", None) is not None and getattr(module, "bias", None) is None:
        reject_value("bias", "there for the bias of the adapter to be merged into", None)


def _plain(module: Adapted) -> nn.Module:
    """Return the layer that a merged one stands for, on the same parameters."""
    if isinstance(module, QLoRALinear):
        return QuantizedLinear.around(module.weight, module.bias, module.config).train(module.training)
    if isinstance(module, LoRAEmbedding):
        made = nn.Embedding(module.num_embeddings, module.embedding_dim, module.padding_idx, _weight=module.weight)
        return made.requires_grad_(False).train(module.training)
    linear = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None, device="meta")
    turned = module.weight.detach().T.contiguous() if module.fan_in_fan_out else module.weight.detach()
    linear.weight = nn.Parameter(turned, requires_grad=False)
    linear.register_parameter("bias", module.bias)
    return linear.train(module.training)
