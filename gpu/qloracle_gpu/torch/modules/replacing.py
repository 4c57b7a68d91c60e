"""Which modules of a model are linear layers or embeddings, and putting others in their place."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from qloracle.errors import QloracleError
from qloracle_gpu.torch.modules.errors import UnsupportedModuleError
from qloracle_gpu.torch.modules.lora_embedding import LoRAEmbedding
from qloracle_gpu.torch.modules.lora_linear import LoRALinear
from qloracle_gpu.torch.modules.qlora_linear import QLoRALinear
from qloracle_gpu.torch.modules.quantized_linear import QuantizedLinear

Adapted = LoRALinear | QLoRALinear | LoRAEmbedding


@dataclass(frozen=True)
class Place:
    """Where a module stands: an attribute of its parent. A module that is shared stands at several."""

    parent: nn.Module
    attribute: str

    def put(self, module: nn.Module) -> None:
        """Put a module there."""
        setattr(self.parent, self.attribute, module)


def places(model: nn.Module) -> dict[int, list[Place]]:
    """Return every place of each module below a model, by the identity of the module."""
    found: dict[int, list[Place]] = {}
    for parent in model.modules():
        for attribute, child in parent._modules.items():  # noqa: SLF001 - named_children leaves out the second name
            if child is not None:
                found.setdefault(id(child), []).append(Place(parent, attribute))
    return found


def adapted_modules(model: nn.Module) -> Iterator[tuple[str, Adapted]]:
    """Yield name and module of every layer with an adapter."""
    for name, module in model.named_modules():
        if isinstance(module, Adapted):
            yield name, module


def is_linear(module: nn.Module) -> bool:
    """Return whether a module computes x Wᵀ + b and nothing else, however the weight is stored."""
    return isinstance(module, QuantizedLinear) or _is_float_linear(module) or is_transposed(module)


def is_transposed(module: nn.Module) -> bool:
    """Return whether a module is the one-dimensional convolution of GPT-2, whose weight is (d_in, d_out).

    Told by its name and its attribute, because importing transformers for a comparison of classes would cost seconds.
    """
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf") and isinstance(module.weight, nn.Parameter)


def _is_float_linear(module: nn.Module) -> bool:
    """Return whether a module is an nn.Linear whose forward is that of nn.Linear on its own parameters."""
    attention = nn.modules.linear.NonDynamicallyQuantizableLinear  # nn.MultiheadAttention reads its weight itself
    own_forward = type(module).forward is nn.Linear.forward
    return own_forward and not isinstance(module, attention) and not is_parametrized(module)


def is_embedding(module: nn.Module) -> bool:
    """Return whether a module is an nn.Embedding whose forward is that of nn.Embedding on its own table."""
    return type(module).forward is nn.Embedding.forward and not is_parametrized(module)


def output_layer(model: nn.Module) -> nn.Module | None:
    """Return the layer that a model itself calls its output layer, as models of transformers do."""
    ask = getattr(model, "get_output_embeddings", None)
    found = ask() if callable(ask) else None
    return found if isinstance(found, nn.Module) else None


def require_supported(name: str, module: nn.Module) -> None:
    """Raise `UnsupportedModuleError` unless an adapter can stand for a module."""
    if isinstance(module, Adapted):
        raise UnsupportedModuleError(f"{name} has an adapter already: unload it first, or leave it out of the targets")
    if not is_linear(module) and not is_embedding(module):
        raise UnsupportedModuleError(
            f"{name} is a {type(module).__name__}: an adapter needs a linear layer or an embedding whose forward is "
            "that of nn.Linear, Conv1D, QuantizedLinear or nn.Embedding"
        )


def owners(model: nn.Module) -> dict[int, set[int]]:
    """Return by the identity of each parameter the identities of the modules that hold it."""
    found: dict[int, set[int]] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            found.setdefault(id(parameter), set()).add(id(module))
    return found


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Put the name of a module before the message of any error about it."""
    try:
        yield
    except QloracleError as error:
        raise type(error)(f"{name}: {error}") from error
