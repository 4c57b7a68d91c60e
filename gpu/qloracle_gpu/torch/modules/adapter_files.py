"""Adapters in files, in the layout of PEFT: `adapter_config.json` and `adapter_model.safetensors`."""

import json
import os
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from qloracle.errors import QloracleError
from qloracle_gpu.torch.modules.adapter_keys import adapter_shapes, adapter_tensors, base_tables
from qloracle_gpu.torch.modules.applying import apply_lora, config_of, target_names
from qloracle_gpu.torch.modules.config import LoraConfig
from qloracle_gpu.torch.modules.errors import AdapterFileError
from qloracle_gpu.torch.modules.merge_state import refuse_when_merged
from qloracle_gpu.torch.modules.peft_config import from_peft, to_peft
from qloracle_gpu.torch.modules.replacing import adapted_modules

Model = TypeVar("Model", bound=nn.Module)

CONFIG_FILE, TENSOR_FILE = "adapter_config.json", "adapter_model.safetensors"
COMPARED = ("rank", "alpha", "use_rslora", "use_dora", "lora_bias")  # options that change what tensors mean


def save_adapter(model: nn.Module, folder: str | os.PathLike[str]) -> None:
    """Write the adapters of a model, and the biases that train with them, in the layout of PEFT.

    Parameters
    ----------
    model : nn.Module
        One that `apply_lora` has given adapters.
    folder : path
        Made where it is missing. Each file is replaced as a whole or not at all, the tensors before the config.

    Raises
    ------
    ArgumentValueError
        If the model has no adapters.
    MergeStateError
        If an adapter is merged: biases that are saved would hold those of the adapters.

    Notes
    -----
    `peft.PeftModel.from_pretrained(base, folder)` reads it. Tensors keep their dtype.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from qloracle_gpu.torch.modules import apply_lora
    >>> model = apply_lora(nn.Sequential(nn.Linear(4, 4)), LoraConfig(["0"], rank=2))
    >>> with TemporaryDirectory() as folder:
    ...     save_adapter(model, folder)
    ...     sorted(os.listdir(folder))
    ['adapter_config.json', 'adapter_model.safetensors']
    """
    from safetensors.torch import save

    config, layers = config_of(model), dict(adapted_modules(model))
    for module in layers.values():
        refuse_when_merged(module, "saved")
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in adapter_tensors(model, config.bias).items()}
    stored_transposed = any(getattr(module, "fan_in_fan_out", False) for module in layers.values())
    fields = to_peft(config, list(layers), fan_in_fan_out=stored_transposed)
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    _replace(place / TENSOR_FILE, save(tensors, metadata={"format": "pt"}))
    _replace(place / CONFIG_FILE, (json.dumps(fields, indent=2, sort_keys=True) + "\n").encode())


def load_adapter(model: Model, folder: str | os.PathLike[str]) -> Model:
    """Read adapters that this package or PEFT wrote, and give them to a model, in place.

    Parameters
    ----------
    model : nn.Module
        Without adapters, then it gets them as `apply_lora` does; or with those of the same config, whose values are
        replaced.
    folder : path

    Returns
    -------
    nn.Module
        `model` itself.

    Raises
    ------
    AdapterFileError
        If a file is missing or corrupt; if the config asks for what these modules do not have; if tensors are missing,
        superfluous, of another shape, or not of float32, float16 or bfloat16; or if the model's adapters are others.
        Nothing is changed then.

    Notes
    -----
    Values widen exactly to the float32 of the adapters.
    """
    place = Path(folder)
    try:
        config, tensors = from_peft(_read_config(place / CONFIG_FILE)), _read_tensors(place / TENSOR_FILE)
        expected = _expected(model, config)
    except AdapterFileError as error:
        raise AdapterFileError(f"{place}: {error}") from error
    except QloracleError as error:
        raise AdapterFileError(f"{place}: does not fit the model: {error}") from error
    _require_tensors(tensors, expected, base_tables(model), place)
    if not any(adapted_modules(model)):
        apply_lora(model, config)
    with torch.no_grad():
        for key, own in adapter_tensors(model, config.bias).items():
            own.copy_(tensors[key])
    return model


def _expected(model: nn.Module, config: LoraConfig) -> dict[str, tuple[int, ...]]:
    """Return key and shape of each tensor that the adapters of a config have in a model."""
    present = dict(adapted_modules(model))
    if not present:
        return adapter_shapes(
            model, {name: config.options_for(name) for name in target_names(model, config)}, config.bias
        )
    if config.bias != config_of(model).bias:
        raise AdapterFileError(f"bias must be the model's {config_of(model).bias!r}, got {config.bias!r}")
    for name, module in present.items():
        refuse_when_merged(module, "loaded into")
        wanted, own = config.options_for(name), module.adapter.options
        for field in COMPARED:
            if field == "lora_bias" and not hasattr(module, "bias"):
                continue
            if getattr(wanted, field) != getattr(own, field):
                got = getattr(wanted, field)
                raise AdapterFileError(f"{field} of {name} must be the model's {getattr(own, field)}, got {got}")
    return {key: tuple(tensor.shape) for key, tensor in adapter_tensors(model, config.bias).items()}


def _require_tensors(
    tensors: dict[str, Tensor], expected: dict[str, tuple[int, ...]], tables: dict[str, Tensor], place: Path
) -> None:
    missing = sorted(set(expected) - set(tensors))
    if missing:
        raise AdapterFileError(f"{place}: {TENSOR_FILE} lacks {len(missing)} tensors, the first is {missing[0]}")
    for key, tensor in sorted(tensors.items()):
        if key in tables:
            # PEFT writes the tables of adapted embeddings too; another one than the model's is another base.
            if tensor.dtype != tables[key].dtype or not torch.equal(tensor, tables[key].cpu()):
                raise AdapterFileError(f"{place}: {key} must be the table of the model, got another one")
        elif key not in expected:
            raise AdapterFileError(f"{place}: {key} belongs to no adapter of the config in this model")
        elif tuple(tensor.shape) != expected[key]:
            raise AdapterFileError(f"{place}: {key} must be of shape {expected[key]}, got {tuple(tensor.shape)}")
        elif tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise AdapterFileError(f"{place}: {key} must be float32, float16 or bfloat16, got {tensor.dtype}")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterFileError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(fields, dict):
        raise AdapterFileError(f"{path.name} must be a JSON object, got {type(fields).__name__}")
    return fields


def _read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError, ValueError) as error:
        raise AdapterFileError(f"{path.name} cannot be read: {error}") from error


def _replace(path: Path, content: bytes) -> None:
    """Write a file as a whole: a reader sees the old content or the new one."""
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink()
            raise
