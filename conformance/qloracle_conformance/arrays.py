"""Arrays as the suite moves them: words and the name of their type, and the memory layouts that they are placed in."""

from dataclasses import dataclass

import numpy as np

from qloracle.errors import reject_value
from qloracle.formats import FORMATS, Array, from_bits, to_bits
from qloracle.rounding import decode, widen

# Storage of every type name that crosses the boundary to a backend; formats without a NumPy dtype travel as words.
STORAGE = {
    "float64": "f8",
    "float32": "f4",
    "float16": "f2",
    "bfloat16": "u2",
    **{name: f.word.str[1:] for name, f in FORMATS.items() if f.numpy is None and name != "bfloat16"},
    "uint8": "u1",
    "int8": "i1",
    "int32": "i4",
    "int64": "i8",
    "uint32": "u4",
    "bool": "?",
}
LAYOUTS = ("contiguous", "offset", "strided", "transposed", "reversed", "padded", "readonly")
_ALIGNED = 64  # items before an array that is to begin as aligned as the buffer
_POISON_BYTE = 0xFE  # as a float a huge negative number or NaN-like garbage, as a code out of the ordinary


@dataclass(frozen=True)
class HostArray:
    """An array in host memory: storage items and the name of what they mean."""

    items: Array  # dtype STORAGE[dtype]
    dtype: str  # key of STORAGE

    def __post_init__(self) -> None:
        """Refuse items that are not stored as their type name says."""
        if self.dtype not in STORAGE:
            reject_value("dtype", f"one of {', '.join(STORAGE)}", repr(self.dtype))
        if self.items.dtype != np.dtype(STORAGE[self.dtype]):
            reject_value("items", f"of dtype {STORAGE[self.dtype]} for {self.dtype}", self.items.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.items.shape

    @property
    def is_float(self) -> bool:
        """Whether the items are floating-point numbers."""
        return self.dtype in FORMATS

    def words(self) -> Array:
        """Return the bit patterns as unsigned integers, whatever the type."""
        items = np.ascontiguousarray(self.items).reshape(self.items.shape)
        return items.view(f"u{items.dtype.itemsize}")

    def real(self) -> Array:
        """Return the exact values as float64."""
        if self.dtype in FORMATS and self.dtype not in ("float64", "float32"):
            return decode(self.items, self.dtype)
        with np.errstate(invalid="ignore"):  # a signaling NaN becomes a quiet one
            return self.items.astype(np.float64)  # exact from every other type

    def single(self) -> Array:
        """Return weights or activations as float32, exactly."""
        return widen(self.items, self.dtype)


def host(values: Array, dtype: str | None = None) -> HostArray:
    """Wrap an array whose dtype NumPy knows, or words of the float format `dtype`."""
    if dtype is not None and dtype in FORMATS and values.dtype.name != dtype:
        return HostArray(from_bits(to_bits(values, dtype), dtype), dtype)
    return HostArray(values, values.dtype.name if dtype is None else dtype)


@dataclass(frozen=True)
class Placement:
    """A buffer and where in it an array lies: what `Backend.place` is called with."""

    buffer: Array  # 1-d storage items; everything around the array is poison
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in items
    offset: int  # in items


def place_in(array: HostArray, layout: str) -> Placement:
    """Lay an array out in a poisoned buffer.

    contiguous: as it is; offset: starts at item 1; strided: every second item of the last axis; transposed: the axes
    are stored in reverse order; reversed: the last axis runs backwards; padded: poison follows every row; readonly:
    contiguous in memory that NumPy refuses to write to. A 0-d array has only an offset.
    """
    if layout not in LAYOUTS:
        reject_value("layout", f"one of {', '.join(LAYOUTS)}", repr(layout))
    shape, items = array.shape, array.items
    if layout == "contiguous":
        plain = np.array(items, order="C", copy=True)
        width = items.dtype.itemsize
        return Placement(plain.reshape(-1), array.dtype, shape, tuple(s // width for s in plain.strides), 0)
    lead, trail = _ALIGNED if layout == "readonly" else 1, 3
    step = 2 if layout == "strided" and items.ndim else 1
    stored = items.transpose() if layout == "transposed" else items
    padding = 3 if layout == "padded" else 0
    inner = np.zeros((*stored.shape[:-1], stored.shape[-1] * step + padding) if stored.ndim else (), items.dtype)
    strides = tuple(s // items.dtype.itemsize for s in inner.strides)
    buffer = np.full((lead + inner.size + trail) * items.dtype.itemsize, _POISON_BYTE, np.uint8).view(items.dtype)
    if items.dtype == np.bool_:
        buffer = np.ones(lead + inner.size + trail, np.bool_)
    offset = lead
    if layout == "strided" and stored.ndim:
        strides = (*strides[:-1], step)
    if layout == "transposed":
        strides = strides[::-1]
    if layout == "reversed" and items.ndim and items.size:
        offset += (shape[-1] - 1) * strides[-1]
        strides = (*strides[:-1], -strides[-1])
    placement = Placement(buffer, array.dtype, shape, strides, offset)
    view_of(placement)[...] = items
    buffer.setflags(write=layout != "readonly")
    return placement


def view_of(placement: Placement) -> Array:
    """Return the NumPy view that a placement describes."""
    width = placement.buffer.dtype.itemsize
    return np.lib.stride_tricks.as_strided(
        placement.buffer[placement.offset :], placement.shape, tuple(s * width for s in placement.strides)
    )
