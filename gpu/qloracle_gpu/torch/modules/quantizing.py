"""A quantized base for adapters."""

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from qloracle.errors import reject_value, require_record
from qloracle_gpu.torch.modules.quantization import QuantizationConfig
from qloracle_gpu.torch.modules.quantized_linear import QuantizedLinear
from qloracle_gpu.torch.modules.replacing import is_linear, is_transposed, naming, output_layer, owners, places

Model = TypeVar("Model", bound=nn.Module)


def quantize_model(model: Model, config: QuantizationConfig) -> Model:
    """Quantize the linear layers of a model, in place.

    Parameters
    ----------
    model : nn.Module
        Before `apply_lora`: an adapter is trained on the base that it finds.
    config : QuantizationConfig
        Its `skip_modules` stay as they are: names of modules or of what contains them, or last components of names.

    Returns
    -------
    nn.Module
        `model` itself. Each nn.Linear and Conv1D has become a `QuantizedLinear`.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If no layer is left to quantize, or a layer's bytes do not fill whole items of the storage.

    Notes
    -----
    Clauses ``[blockwise.quantize]``, ``[double_quant.quantize]``, ``[int8.quantize]``. Without `skip_modules` the
    output layer is skipped, and so is whatever shares a parameter with another module.

    Examples
    --------
    >>> model = quantize_model(nn.Sequential(nn.Linear(8, 4)), QuantizationConfig(codebook="nf4"))
    >>> model[0].dequantized().shape
    torch.Size([4, 8])
    """
    require_record("config", config, QuantizationConfig)
    kept = _kept_modules(model, config)
    where = places(model)
    chosen = [
        (name, module)
        for name, module in model.named_modules()
        if name and is_linear(module) and not isinstance(module, QuantizedLinear) and not kept(name, module)
    ]
    if not chosen:
        reject_value("model", "one with a linear layer that is not skipped", type(model).__name__)
    made = {}
    for name, module in chosen:
        with naming(name):
            made[name] = QuantizedLinear(module, config, fan_in_fan_out=is_transposed(module))
    for name, module in chosen:
        for place in where[id(module)]:
            place.put(made[name])
    return model


def _kept_modules(model: nn.Module, config: QuantizationConfig) -> Callable[[str, nn.Module], bool]:
    """Return what tells by name and module whether a layer is skipped."""
    if config.skip_modules is None:
        output, held_by = output_layer(model), owners(model)

        def is_output_or_tied(name: str, module: nn.Module) -> bool:  # noqa: ARG001 - told by the module alone
            return module is output or any(len(held_by[id(p)]) > 1 for p in module.parameters(recurse=False))

        return is_output_or_tied

    skipped = config.skip_modules

    def is_skipped(name: str, module: nn.Module) -> bool:  # noqa: ARG001 - told by the name alone
        parts = name.split(".")
        ancestors = [".".join(parts[: end + 1]) for end in range(len(parts))]
        return any(above == s or above.endswith(f".{s}") for above in ancestors for s in skipped)

    return is_skipped
