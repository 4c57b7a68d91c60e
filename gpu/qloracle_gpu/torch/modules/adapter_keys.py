"""The names that PEFT gives to the tensors of adapters, and the tensors that they stand for here."""

from collections.abc import Mapping

from torch import Tensor, nn

from qloracle_gpu.torch.modules.lora_embedding import LoRAEmbedding
from qloracle_gpu.torch.modules.options import LoraOptions
from qloracle_gpu.torch.modules.quantized_linear import QuantizedLinear
from qloracle_gpu.torch.modules.replacing import adapted_modules, is_embedding, is_transposed

PREFIX = "base_model.model."
LINEAR_KEYS = {
    "lora_a": "lora_A.weight",
    "lora_b": "lora_B.weight",
    "lora_bias": "lora_B.bias",
    "magnitude": "lora_magnitude_vector",
}
EMBEDDING_KEYS = {"lora_a": "lora_embedding_A", "lora_b": "lora_embedding_B"}


def adapter_tensors(model: nn.Module, bias: str) -> dict[str, Tensor]:
    """Return the tensors of a model's adapters, and the biases that train with them, by PEFT's names.

    Parameters
    ----------
    model : nn.Module
    bias : {"none", "all", "lora_only"}

    Returns
    -------
    dict from str to tensor
        The parameters themselves.
    """
    found: dict[str, Tensor] = {}
    for name, module in adapted_modules(model):
        keys = EMBEDDING_KEYS if isinstance(module, LoRAEmbedding) else LINEAR_KEYS
        for attribute, key in keys.items():
            tensor = getattr(module.adapter, attribute)
            if tensor is not None:
                found[f"{PREFIX}{name}.{key}"] = tensor
    return found | _biases(model, bias, {name for name, _ in adapted_modules(model)})


def adapter_shapes(model: nn.Module, options: Mapping[str, LoraOptions], bias: str) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes that `adapter_tensors` would have if these modules had adapters."""
    modules, found = dict(model.named_modules()), dict[str, tuple[int, ...]]()
    for name, option in options.items():
        module, rank = modules[name], option.rank
        shapes: dict[str, tuple[int, ...]]
        if is_embedding(module):
            count, dim = _weight_shape(module)
            shapes = {"lora_embedding_A": (rank, count), "lora_embedding_B": (dim, rank)}
        else:
            d_out, d_in = _weight_shape(module)
            shapes = {"lora_A.weight": (rank, d_in), "lora_B.weight": (d_out, rank)}
            shapes |= {"lora_B.bias": (d_out,)} if option.lora_bias else {}
            shapes |= {"lora_magnitude_vector": (d_out,)} if option.use_dora else {}
        found |= {f"{PREFIX}{name}.{key}": shape for key, shape in shapes.items()}
    biases = _biases(model, bias, set(options))
    return found | {key: tuple(tensor.shape) for key, tensor in biases.items()}


def base_tables(model: nn.Module) -> dict[str, Tensor]:
    """Return the tables of a model's embeddings by the names that PEFT gives them where they are adapted."""
    tables = (nn.Embedding, LoRAEmbedding)
    return {
        f"{PREFIX}{name}.base_layer.weight": module.weight
        for name, module in model.named_modules()
        if isinstance(module, tables)
    }


def _biases(model: nn.Module, mode: str, adapted: set[str]) -> dict[str, Tensor]:
    """Return the biases that a mode trains, by PEFT's names."""
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        bias = getattr(module, "bias", None)
        if isinstance(bias, nn.Parameter) and (mode == "all" or (mode == "lora_only" and name in adapted)):
            inner = "base_layer." if name in adapted else ""
            found[f"{PREFIX}{name}.{inner}bias" if name else f"{PREFIX}bias"] = bias
    return found


def _weight_shape(module: nn.Module) -> tuple[int, int]:
    """Return (d_out, d_in) of a linear layer, (count, dim) of an embedding."""
    if isinstance(module, QuantizedLinear):
        return module.out_features, module.in_features
    rows, columns = getattr(module, "weight", nn.Parameter()).shape
    return (columns, rows) if is_transposed(module) else (rows, columns)
