"""Adapters for the modules of a model that a config selects."""

from dataclasses import replace
from typing import TypeVar

from torch import nn

from qloracle.errors import QloracleError, reject_value, require_record
from qloracle_gpu.torch.module_names import ALL_LINEAR, selected_names
from qloracle_gpu.torch.modules.config import LoraConfig
from qloracle_gpu.torch.modules.lora_embedding import LoRAEmbedding
from qloracle_gpu.torch.modules.lora_linear import LoRALinear
from qloracle_gpu.torch.modules.options import LoraOptions
from qloracle_gpu.torch.modules.qlora_linear import QLoRALinear
from qloracle_gpu.torch.modules.quantized_linear import QuantizedLinear
from qloracle_gpu.torch.modules.replacing import (
    Adapted,
    is_embedding,
    is_linear,
    is_transposed,
    naming,
    output_layer,
    places,
    require_supported,
)

Model = TypeVar("Model", bound=nn.Module)


def target_names(model: nn.Module, config: LoraConfig) -> list[str]:
    """Return the names of the modules that a config selects.

    Parameters
    ----------
    model : nn.Module
    config : LoraConfig

    Returns
    -------
    list of str

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If no module is selected, or `layers_to_transform` goes with a regular expression.

    Notes
    -----
    Clause ``[adapters.targets]``. For "all-linear" these are all linear layers but the output layer, which is the one
    that `get_output_embeddings` of a transformers model returns; another kind of model has none.

    Examples
    --------
    >>> target_names(nn.ModuleDict({"q": nn.Linear(2, 2), "norm": nn.LayerNorm(2)}), LoraConfig("all-linear"))
    ['q']
    """
    modules = {name: module for name, module in model.named_modules() if name}
    inner = [f"{name}." for name, module in modules.items() if isinstance(module, Adapted)]
    names = [name for name in modules if not any(name.startswith(prefix) for prefix in inner)]
    linear = None
    if config.target_modules == ALL_LINEAR:
        output = output_layer(model)
        linear = [is_linear(modules[name]) and modules[name] is not output for name in names]
    selected = selected_names(
        names,
        config.target_modules,
        linear=linear,
        exclude=config.exclude_modules,
        layers=config.layers_to_transform,
        layers_pattern=config.layers_pattern,
    )
    return [name for name, taken in zip(names, selected, strict=True) if taken]


def apply_lora(model: Model, config: LoraConfig) -> Model:
    """Give the selected modules of a model adapters, in place, and freeze everything else.

    Parameters
    ----------
    model : nn.Module
        Whatever its class: modules are found by the names of `named_modules`.
    config : LoraConfig

    Returns
    -------
    nn.Module
        `model` itself, for chaining. Linear layers, GPT-2's Conv1D, `QuantizedLinear` and embeddings have become
        `LoRALinear`, `QLoRALinear` and `LoRAEmbedding`; one that the model uses under several names is adapted once.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `target_names`; if a rank exceeds the smaller side of its matrix, named by its module.
    UnsupportedModuleError
        If a selected module is of another kind, or has an adapter already. Nothing is changed then.

    Notes
    -----
    Clauses ``[adapters.targets]``, ``[adapters.patterns]``, ``[adapters.biases]``. An embedding has neither dropout nor
    a bias: these options pass it by. The config stays with the model, for `save_adapter`.

    Examples
    --------
    >>> model = apply_lora(nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2)), LoraConfig(["0"], rank=2))
    >>> type(model[0]).__name__, model[2].weight.requires_grad
    ('LoRALinear', False)
    """
    require_record("config", config, LoraConfig)
    names = target_names(model, config)
    modules = dict(model.named_modules())
    for name in names:
        require_supported(name, modules[name])
    where = places(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        made = {name: _adapted(name, modules[name], config.options_for(name)) for name in names}
    except QloracleError:
        for parameter in trained:  # a layer that was made before the one that failed has frozen its weight
            parameter.requires_grad_(True)
        raise
    model.requires_grad_(False)
    for name, module in made.items():
        for place in where[id(modules[name])]:
            place.put(module)
        module.adapter.requires_grad_(True)
    _train_biases(model, config.bias)
    model.qloracle_config = config  # type: ignore[assignment]
    return model


def config_of(model: nn.Module) -> LoraConfig:
    """Return the config that `apply_lora` gave a model, or raise `ArgumentValueError` if there was none."""
    config = getattr(model, "qloracle_config", None)
    if not isinstance(config, LoraConfig):
        reject_value("model", "one that apply_lora has given adapters", type(model).__name__)
    return config


def _adapted(name: str, module: nn.Module, options: LoraOptions) -> Adapted:
    with naming(name):
        if isinstance(module, QuantizedLinear):
            return QLoRALinear(module, options)
        if is_embedding(module) and isinstance(module, nn.Embedding):
            return LoRAEmbedding(module, replace(options, dropout=0.0, lora_bias=False))
        return LoRALinear(module, options, fan_in_fan_out=is_transposed(module))


def _train_biases(model: nn.Module, mode: str) -> None:
    """Let the biases train that a mode says: all there are, or those of layers with an adapter."""
    for module in model.modules():
        bias = getattr(module, "bias", None)
        if isinstance(bias, nn.Parameter) and (mode == "all" or (mode == "lora_only" and isinstance(module, Adapted))):
            bias.requires_grad_(True)
