"""Reading the tensors of a model without its weights, and counting its bytes under many schemes."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from qloracle.errors import ArgumentValueError
from qloracle.footprint.adapters import adapter_shapes
from qloracle.footprint.configs import config_tensors
from qloracle.footprint.model import SKIPPED, model_footprint
from qloracle.footprint.schemes import Scheme, scheme_named
from qloracle.footprint.storage import bits_per_weight
from qloracle.footprint.tensors import ModelTensor, header_tensors, named_tensors
from qloracle.footprint.training import METHODS, state_bytes, training_memory
from qloracle.optim.paging import page_plan
from qloracle.targets import ALL_LINEAR
from qloracle_conformance.files import FileError, read_text
from qloracle_conformance.safetensors_file import weights_path
from qloracle_conformance.usage import UsageError

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
    device_budget: int | None  # None: no state stays on the device


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
    skip: tuple[str, ...]  # modules that are not quantized
    refused: dict[str, str]  # methods whose largest state exceeds the budget of the device, and how


def read_model(source: str, *, fan_in_fan_out: bool = False) -> Model:
    """Return the tensors of a safetensors file, a config.json, a JSON list of [name, shape], or a package's file.

    Raises
    ------
    FileError
        If there is no such file, or it is none of these.
    QloracleError
        If the configuration or the header is one that the reference refuses.
    """
    if not source.startswith("package:") and not Path(source).is_file():
        raise FileError(f"{source} is a directory" if Path(source).is_dir() else f"no such file: {source}")
    path = weights_path(source)
    if path.suffix == ".json":
        found = _json(read_text(path), path)
        if isinstance(found, list) and found:
            return Model(source, named_tensors(found, fan_in_fan_out=fan_in_fan_out))
        return Model(source, config_tensors(_object(found, path)))
    return Model(source, header_tensors(read_header(path), fan_in_fan_out=fan_in_fan_out))


def given_model(shapes: Sequence[str], *, fan_in_fan_out: bool = False) -> Model:
    """Return the tensors that the command line lists as NAME=768x768.

    Raises
    ------
    UsageError
        If one is not written so.
    QloracleError
        If the reference refuses a name or a shape.
    """
    pairs = []
    for text in shapes:
        name, _, numbers = text.rpartition("=")
        sides = numbers.split("x")
        if not name or not all(side.isascii() and side.isdigit() for side in sides):
            raise UsageError(f"--shape must be NAME=768x768, got {text!r}")
        pairs.append((name, tuple(int(side) for side in sides)))
    return Model("--shape", named_tensors(pairs, fan_in_fan_out=fan_in_fan_out))


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
        return _object(_json(text.decode("utf-8"), path), path)
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is no safetensors file: its header is no text") from error


def _json(text: str, path: Path) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise FileError(f"{path} holds no JSON where it should: {error}") from error


def _object(found: object, path: Path) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise FileError(f"{path} must hold a JSON object, or a list of [name, shape], got {found!r:.40}")
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
    """Count a model's bytes under every scheme, and while it is trained by each method.

    Raises
    ------
    UsageError
        If no layer is a target, or the budget of the device is below one state of every method.
    QloracleError
        If the reference refuses an argument.
    """
    tensors, skipped = model.tensors, SKIPPED if skip is None else skip
    weights = []
    for scheme in schemes_of(names, block_size):
        counted = model_footprint(tensors, scheme, other=other, skip=skipped, tables=tables)
        bits = float(bits_per_weight(scheme))
        line = {"scheme": scheme.name, "block_size": scheme.block_size, "bits_per_weight": bits, **asdict(counted)}
        weights.append({**line, "total": counted.total})
    _require_target(tensors, training.targets)
    refused = _refused(tensors, training)
    if len(refused) == len(METHODS):
        raise UsageError("; ".join(f"--device-budget, {method}: {why}" for method, why in refused.items()))
    return Measured(
        source=model.source,
        parameters=sum(t.size for t in tensors if t.kind != "buffer"),
        linear_parameters=sum(t.size for t in tensors if t.kind == "linear"),
        buffers=sum(t.size for t in tensors if t.kind == "buffer"),
        training=asdict(training),
        weights=weights,
        methods=[_trained(tensors, method, training) for method in METHODS if method not in refused],
        skip=skipped,
        refused=refused,
    )


def _require_target(tensors: tuple[ModelTensor, ...], targets: tuple[str, ...] | None) -> None:
    modules = [t.name.removesuffix(".weight") for t in tensors if t.kind in ("linear", "embedding")]
    if targets is None or any(m == t or m.endswith(f".{t}") for m in modules for t in targets):
        return
    names = ", ".join(dict.fromkeys(module.rpartition(".")[2] for module in modules))
    raise UsageError(f"--target {' '.join(targets)} names no layer; the model has {names or 'none'}")


def _refused(tensors: tuple[ModelTensor, ...], training: Training) -> dict[str, str]:
    """Return the methods of which one state alone exceeds the budget, with what `page_plan` says to it."""
    if training.device_budget is None or not training.optimizer.startswith("paged"):
        return {}
    targets = ALL_LINEAR if training.targets is None else training.targets
    trained = {t.name: t.size for t in tensors if t.kind != "buffer"}
    adapters = {f"an adapter of {r} x {c}": r * c for r, c in adapter_shapes(tensors, training.rank, targets)}
    found = {}
    for method in METHODS:
        sizes = trained if method == "full" else adapters
        alone = {name: _one_state(size, training.optimizer) for name, size in sizes.items()}
        try:
            page_plan(alone, training.device_budget)
        except ArgumentValueError as error:
            found[method] = str(error)
    return found


def _one_state(size: int, optimizer: str) -> int:
    """Return the bytes of one tensor's states, without the tables that all tensors share."""
    return state_bytes([size], optimizer) - state_bytes([0], optimizer)


def _trained(tensors: tuple[ModelTensor, ...], method: str, training: Training) -> dict[str, Any]:
    memory = training_memory(
        tensors,
        method,
        rank=None if method == "full" else training.rank,
        targets=ALL_LINEAR if training.targets is None else training.targets,
        adapter_format=training.adapter_format,
        optimizer=training.optimizer,
        device_budget=training.device_budget or 0,
    )
    return {"method": method, **asdict(memory), "total": memory.total, "device": memory.device}
