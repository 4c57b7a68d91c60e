"""Reading the tensors of a model without its weights, and counting its bytes under many schemes."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from qloracle.footprint import SKIPPED, model_footprint
from qloracle.model_configs import config_tensors
from qloracle.model_tensors import ModelTensor, header_tensors
from qloracle.schemes import Scheme, scheme_named
from qloracle.storage import bits_per_weight
from qloracle.targets import ALL_LINEAR
from qloracle.training import METHODS, training_memory
from qloracle_conformance.files import FileError, read_text
from qloracle_conformance.safetensors_file import weights_path

SHOWN = ("float32", "float16", "llm_int8", "int8_block", "dynamic_signed", "affine4_group", "fp4", "nf4", "nf4_double")
_LARGEST_HEADER = 100_000_000  # bytes, a limit of the format itself


@dataclass(frozen=True)
class Model:
    """The tensors of a model and where they were read."""

    source: str
    tensors: tuple[ModelTensor, ...]


@dataclass(frozen=True)
class Training:
    """How the model is to be trained."""

    rank: int
    targets: tuple[str, ...] | None  # None: every linear layer
    adapter_format: str
    optimizer: str
    device_budget: int


@dataclass(frozen=True)
class Measured:
    """The bytes of a model, as the command prints them."""

    source: str
    parameters: int
    linear_parameters: int
    buffers: int  # elements
    training: dict[str, Any]
    weights: list[dict[str, Any]]
    methods: list[dict[str, Any]]


def read_model(source: str, *, fan_in_fan_out: bool = False) -> Model:
    """Return the tensors of a safetensors file, of a config.json, or of the package that carries one.

    Raises
    ------
    FileError
        If there is no such file, or it is neither.
    QloracleError
        If the configuration or the header is one that the reference refuses.
    """
    path = weights_path(source)
    if path.suffix == ".json":
        return Model(source, config_tensors(_json_object(read_text(path), path)))
    return Model(source, header_tensors(read_header(path), fan_in_fan_out=fan_in_fan_out))


def read_header(path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file: eight bytes of its length, then a JSON object.

    Raises
    ------
    FileError
        If the file cannot be read, or does not begin so.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(length) if length <= _LARGEST_HEADER else b""
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from error
    if not text or len(text) < length:
        raise FileError(f"{path} is no safetensors file and no config.json: it does not begin with a header")
    try:
        return _json_object(text.decode("utf-8"), path)
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is no safetensors file: its header is no text") from error


def _json_object(text: str, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise FileError(f"{path} holds no JSON where it should: {error}") from error
    if not isinstance(found, dict):
        raise FileError(f"{path} must hold a JSON object, got {type(found).__name__}")
    return found


def schemes_of(names: Sequence[str] | None, block_size: int | None) -> list[Scheme]:
    """Return the schemes asked for, or a selection; a block size changes those that have blocks."""
    chosen = [scheme_named(name) for name in names or SHOWN]
    if block_size is None:
        return chosen
    if names and not any(scheme.group == "block" for scheme in chosen):
        return [scheme_named(scheme.name, block_size) for scheme in chosen]  # says why not
    sized = replace(scheme_named("nf4", block_size)).block_size
    return [replace(scheme, block_size=sized) if scheme.group == "block" else scheme for scheme in chosen]


def measure(
    model: Model,
    names: Sequence[str] | None,
    block_size: int | None,
    other: str | None,
    skip: tuple[str, ...] | None,
    tables: str,
    training: Training,
) -> Measured:
    """Count a model's bytes under every scheme, and while it is trained by each method."""
    tensors, skipped = model.tensors, SKIPPED if skip is None else skip
    weights = []
    for scheme in schemes_of(names, block_size):
        counted = model_footprint(tensors, scheme, other=other, skip=skipped, tables=tables)
        bits = float(bits_per_weight(scheme))
        line = {"scheme": scheme.name, "block_size": scheme.block_size, "bits_per_weight": bits, **asdict(counted)}
        weights.append({**line, "total": counted.total})
    return Measured(
        source=model.source,
        parameters=sum(t.size for t in tensors if t.kind != "buffer"),
        linear_parameters=sum(t.size for t in tensors if t.kind == "linear"),
        buffers=sum(t.size for t in tensors if t.kind == "buffer"),
        training=asdict(training),
        weights=weights,
        methods=[_trained(tensors, method, training) for method in METHODS],
    )


def _trained(tensors: tuple[ModelTensor, ...], method: str, training: Training) -> dict[str, Any]:
    memory = training_memory(
        tensors,
        method,
        rank=None if method == "full" else training.rank,
        targets=ALL_LINEAR if training.targets is None else training.targets,
        adapter_format=training.adapter_format,
        optimizer=training.optimizer,
        device_budget=training.device_budget,
    )
    return {"method": method, **asdict(memory), "total": memory.total, "device": memory.device}
