"""The tensors of a model as names and shapes: from a list, or from the header of a safetensors file.

Clause: ``[footprint.tensors]``. `model_configs` derives them from a configuration.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from qloracle.errors import reject_type, reject_value, require_items, require_one_of, require_shape
from qloracle.records import require_fields

KINDS = ("linear", "embedding", "other", "buffer")
# Items that keep their width whatever the model is cast to; other tensors follow the model.
FIXED_BYTES = {"bool": 1, "uint8": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8, "float32": 4}
_EMBEDDINGS = ("wte", "wpe", "shared", "relative_attention_bias")  # besides every name with "embed" in it
_FLOAT_BUFFERS = ("masked_bias", "inv_freq")
_STORED = {"F64": None, "F32": None, "F16": None, "BF16": None, "F8_E4M3": None, "F8_E5M2": None, "BOOL": "bool",
           "U8": "uint8", "I8": "int8", "U16": "int16", "I16": "int16", "U32": "int32", "I32": "int32", "U64": "int64",
           "I64": "int64"}  # fmt: skip


@dataclass(frozen=True)
class ModelTensor:
    """A tensor of a model, without its contents."""

    name: str
    shape: tuple[int, ...]
    kind: str  # linear: the weight of a linear layer; embedding; other: norms, biases, ...; buffer: never trained
    fan_in_fan_out: bool = False  # stored as (d_in, d_out), and transposed before it is quantized
    dtype: str | None = None  # a key of FIXED_BYTES where the width is fixed

    def __post_init__(self) -> None:
        """Refuse a kind or a width that does not exist, and a linear weight or embedding that is no matrix."""
        require_fields(self)
        require_one_of("kind", self.kind, KINDS)
        require_shape(self.shape, f"shape of {self.name!r}")
        if self.dtype is not None:
            require_one_of("dtype", self.dtype, FIXED_BYTES)
        if self.kind in ("linear", "embedding") and len(self.shape) != 2:
            reject_value(f"shape of {self.name!r}", "2-d for a linear weight or an embedding", self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def matrix(self) -> tuple[int, ...]:
        """The shape that is quantized: (d_out, d_in) for a linear weight."""
        return self.shape[::-1] if self.fan_in_fan_out else self.shape


def named_tensors(shapes: Iterable[tuple[str, Any]], *, fan_in_fan_out: bool = False) -> tuple[ModelTensor, ...]:
    """Return the tensors of a list of names and shapes, each with its kind.

    A tensor called ``weight`` with two axes is the weight of a linear layer, unless a part of its name says embedding
    (``embed``, ``wte``, ``wpe``, ``shared``, ``relative_attention_bias``); a causal mask (``attn.bias`` of four axes,
    ``masked_bias``) and ``inv_freq`` are buffers; everything else is other.

    Parameters
    ----------
    shapes : iterable of (name, shape)
        Dots separate the parts of a name.
    fan_in_fan_out : bool
        Whether linear weights are stored as (d_in, d_out), as GPT-2 does.

    Returns
    -------
    tuple of ModelTensor

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If an item is no pair of a name and a shape, or a name occurs twice.

    Notes
    -----
    Clause ``[footprint.tensors]``.

    Examples
    --------
    >>> [t.kind for t in named_tensors([("wte.weight", (50257, 768)), ("fc.weight", (768, 10)), ("fc.bias", (10,))])]
    ['embedding', 'linear', 'other']
    """
    found: dict[str, ModelTensor] = {}
    for name, shape in _pairs(shapes):
        if name in found:
            reject_value("shapes", "of names that differ", repr(name))
        kind = _kind(name, shape)
        found[name] = ModelTensor(name, shape, kind, fan_in_fan_out=fan_in_fan_out and kind == "linear")
    return tuple(found.values())


def header_tensors(header: Mapping[str, Any], *, fan_in_fan_out: bool = False) -> tuple[ModelTensor, ...]:
    """Return the tensors that the header of a safetensors file lists.

    Kinds are told by the names as in `named_tensors`; integer and boolean tensors are buffers of that width.

    Parameters
    ----------
    header : mapping
        The JSON object at the head of the file: name → {"dtype", "shape", ...}; "__metadata__" is left out.
    fan_in_fan_out : bool
        Whether linear weights are stored as (d_in, d_out).

    Returns
    -------
    tuple of ModelTensor

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `header` is no such mapping, or a linear weight holds integers: then the checkpoint is quantized already.

    Notes
    -----
    Clause ``[footprint.tensors]``. Source: the safetensors format, "Format". Integers only.

    Examples
    --------
    >>> header = {"fc.weight": {"dtype": "F16", "shape": [4, 2], "data_offsets": [0, 16]},
    ...           "mask": {"dtype": "BOOL", "shape": [4], "data_offsets": [16, 20]}, "__metadata__": {"format": "pt"}}
    >>> [(t.name, t.kind, t.dtype) for t in header_tensors(header)]
    [('fc.weight', 'linear', None), ('mask', 'buffer', 'bool')]
    """
    if not isinstance(header, Mapping):
        reject_type("header", "a mapping of names to entries", type(header).__name__)
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    for name, entry in entries.items():
        stored = entry.get("dtype") if isinstance(entry, Mapping) and "shape" in entry else None
        if not isinstance(stored, str) or stored not in _STORED:
            reject_value("header", f"of entries with a shape and a dtype of {', '.join(_STORED)}", f"{name!r}: {entry}")
    plain = named_tensors(((n, e["shape"]) for n, e in entries.items()), fan_in_fan_out=fan_in_fan_out)
    return tuple(_stored(tensor, entries[tensor.name]["dtype"]) for tensor in plain)


def _pairs(shapes: object) -> Iterator[tuple[str, tuple[int, ...]]]:
    for item in require_items("shapes", shapes, "a list of pairs (name, shape)"):
        if not isinstance(item, tuple | list) or len(item) != 2 or not isinstance(item[0], str):
            reject_type("shapes", "pairs (name, shape)", repr(item))
        yield item[0], require_shape(item[1], f"shape of {item[0]!r}")


def _stored(tensor: ModelTensor, dtype: str) -> ModelTensor:
    fixed = _STORED[dtype]
    if fixed is None:
        return tensor
    if tensor.kind == "linear":
        reject_value("header", "of an unquantized checkpoint", f"{dtype} for {tensor.name!r}")
    return ModelTensor(tensor.name, tensor.shape, "buffer", dtype=fixed)


def _kind(name: str, shape: tuple[int, ...]) -> str:
    *parents, last = name.split(".")
    if last in _FLOAT_BUFFERS or (parents[-1:] == ["attn"] and last == "bias" and len(shape) == 4):
        return "buffer"
    if last != "weight" or len(shape) != 2:
        return "other"
    return "embedding" if any("embed" in part or part in _EMBEDDINGS for part in parents) else "linear"
