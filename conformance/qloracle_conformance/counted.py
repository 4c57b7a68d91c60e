"""What the reference counts, as arrays in and arrays out: the form in which backends are asked for it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from qloracle.footprint.adapters import adapter_shapes
from qloracle.footprint.configs import config_tensors
from qloracle.footprint.model import Footprint, model_footprint, quantized_tensors
from qloracle.footprint.schemes import Scheme, scheme_named
from qloracle.footprint.storage import bits_per_weight, table_bytes, tensor_bytes
from qloracle.footprint.tensors import FIXED_BYTES, KINDS, ModelTensor, named_tensors
from qloracle.footprint.training import state_bytes, training_memory
from qloracle.formats import Array

_DTYPES = {width: name for name, width in reversed(FIXED_BYTES.items())}
PARTS = ("weights", "adapters", "master_weights", "gradients", "optimizer_states", "host", "total")


def scheme_of(scheme: str, block_size: int | None) -> Scheme:
    """Return a scheme; the block size counts only where it has blocks."""
    plain = scheme_named(scheme)
    return scheme_named(scheme, block_size) if plain.group == "block" else plain


def shape_of(row: Array) -> tuple[int, ...]:
    """Return the shape that a row holds; −1 stands where there is no axis."""
    return tuple(int(size) for size in row if size >= 0)


def tensor_parts(shapes: Array, scheme: str, block_size: int | None) -> tuple[Array, Array, Array]:
    """Return the bytes of codes, scales and offsets of every tensor."""
    found = [tensor_bytes(shape_of(row), scheme_of(scheme, block_size)) for row in shapes]
    parts = [[t.codes for t in found], [t.scales for t in found], [t.offsets for t in found]]
    codes, scales, offsets = (np.array(part, np.int64) for part in parts)
    return codes, scales, offsets


def bits(scheme: str, block_size: int | None) -> Array:
    """Return numerator and denominator of the bits a weight, in lowest terms."""
    return np.array(bits_per_weight(scheme_of(scheme, block_size)).as_integer_ratio(), np.int64)


def tables(quantized: Array, scheme: str, copies: str) -> Array:
    """Return the bytes of all tables of a model."""
    counted = model_footprint(_model(np.ones((quantized.size, 2), np.int64), quantized), scheme, tables=copies)
    if counted.tables not in (0, table_bytes(scheme), table_bytes(scheme) * int(quantized.sum())):
        raise ValueError("the tables of a model are no multiple of those of its scheme")
    return np.array(counted.tables, np.int64)


def kinds(shapes: Array, names: Sequence[str]) -> Array:
    """Return the position in KINDS of every tensor."""
    found = named_tensors([(name, shape_of(row)) for name, row in zip(names, shapes, strict=True)])
    return np.array([KINDS.index(t.kind) for t in found], np.uint8)


def selection(linear: Array, names: Sequence[str], skip: Sequence[str]) -> Array:
    """Return which tensors are quantized."""
    kind = ("other", "linear")
    tensors = [ModelTensor(name, (1, 1), kind[int(is_linear)]) for name, is_linear in zip(names, linear, strict=True)]
    return np.array(quantized_tensors(tensors, skip=tuple(skip)), np.bool_)


def _model(shapes: Array, quantized: Array, item_bytes: Array | None = None) -> list[ModelTensor]:
    """Return records of parameters (item_bytes 0) and buffers (a width, or −1 for that of the model)."""
    widths = np.zeros(len(shapes), np.int64) if item_bytes is None else item_bytes
    made = []
    for index, (row, linear, width) in enumerate(zip(shapes, quantized, widths, strict=True)):
        kind = "buffer" if width else "linear" if linear else "other"
        dtype = _DTYPES[int(width)] if width > 0 else None
        made.append(ModelTensor(f"t{index}.weight", shape_of(row), kind, dtype=dtype))
    return made


def model(
    shapes: Array, quantized: Array, item_bytes: Array, *, scheme: str, block_size: int | None, other: str, tables: str
) -> Footprint:
    """Return the footprint of a model."""
    chosen = scheme_of(scheme, block_size)
    return model_footprint(_model(shapes, quantized, item_bytes), chosen, other=other, tables=tables)


def config(pairs: Sequence[tuple[str, Any]]) -> Array:
    """Return the elements of linear weights, embeddings, other parameters and buffers of a configuration."""
    tensors = config_tensors(dict(pairs))
    return np.array([sum(t.size for t in tensors if t.kind == kind) for kind in KINDS], np.int64)


def adapters(shapes: Array, targeted: Array, rank: int) -> Array:
    """Return the shapes of A and B of every targeted weight, one below the other."""
    chosen = [f"t{index}" for index in np.flatnonzero(targeted)]
    model = _model(shapes, np.ones(len(shapes), np.bool_))
    found = adapter_shapes(model, rank, chosen) if chosen else ()
    return np.array(found, np.int64).reshape(-1, 2)


def states(sizes: Array, optimizer: str) -> Array:
    """Return the bytes of the states of trained tensors."""
    return np.array(state_bytes([int(size) for size in sizes.reshape(-1)], optimizer), np.int64)


def training(shapes: Array, **options: Any) -> Array:
    """Return the parts of a training step's memory, in the order of PARTS; all tensors are linear weights."""
    memory = training_memory(_model(shapes, np.ones(len(shapes), np.bool_)), **options)
    return np.array([getattr(memory, part) for part in PARTS], np.int64)
