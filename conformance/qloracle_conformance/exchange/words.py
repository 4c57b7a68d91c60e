"""Arrays as text: a type, a shape, and hexadecimal words.

``TYPE NDIM DIM …`` ends one line; the words follow in row-major order on lines of at most 16, each word the bit pattern
of one item with all its digits. An array without elements has no line of words.
"""

import re
from collections.abc import Sequence
from math import prod

import numpy as np

from qloracle.formats import Array
from qloracle_conformance.arrays import STORAGE, HostArray

WORDS_ON_A_LINE = 16
_MOST_AXES = 8
_MOST_ITEMS = 1 << 32  # more cannot be meant: a shape that large would only exhaust the memory
_WORD = re.compile(r"(?:0[xX])?([0-9a-fA-F]+)")


class TextError(ValueError):
    """A text breaks a rule; whoever knows file and line says where."""


def array_text(array: HostArray) -> str:
    """Return type, shape and words of an array, every line ended."""
    head = " ".join([array.dtype, str(len(array.shape)), *map(str, array.shape)])
    return f"{head}\n{words_text(array.words())}"


def words_text(words: Array) -> str:
    """Return unsigned integers as lines of hexadecimal words."""
    flat, width = words.reshape(-1), words.dtype.itemsize
    lines = []
    for start in range(0, flat.size, WORDS_ON_A_LINE):
        part = np.ascontiguousarray(flat[start : start + WORDS_ON_A_LINE], dtype=f">u{width}")
        lines.append(part.tobytes().hex(" ", width) + "\n")
    return "".join(lines)


def shape_of(tokens: Sequence[str]) -> tuple[str, tuple[int, ...]]:
    """Return type and shape from the tokens ``TYPE NDIM DIM …``.

    Raises
    ------
    TextError
        If the type is unknown, or the numbers are no shape.
    """
    if not tokens or tokens[0] not in STORAGE:
        raise TextError(f"type must be one of {', '.join(STORAGE)}, got {tokens[0] if tokens else 'nothing'!r}")
    numbers = tokens[1:]
    if not numbers or not all(n.isascii() and n.isdecimal() and len(n) < 20 for n in numbers):
        raise TextError(f"a shape is the number of axes and the length of each, got {' '.join(numbers)!r}")
    ndim, *shape = map(int, numbers)
    if ndim > _MOST_AXES or ndim != len(shape) or prod(shape) > _MOST_ITEMS:
        raise TextError(f"a shape is the number of axes and the length of each, got {' '.join(numbers)!r}")
    return tokens[0], tuple(shape)


def array_of(dtype: str, shape: tuple[int, ...], words: Sequence[str]) -> HostArray:
    """Return the array that hexadecimal words make up; leading zeros and a prefix 0x are optional.

    Raises
    ------
    TextError
        If a word is none of the type.
    """
    storage = np.dtype(STORAGE[dtype])
    width = storage.itemsize
    joined = "".join(words)
    if len(joined) == 2 * width * len(words) and all(len(word) == 2 * width for word in words):
        try:
            bits = np.frombuffer(bytes.fromhex(joined), f">u{width}").astype(f"u{width}")
        except ValueError:  # something else than digits: find it
            bits = _one_by_one(words, width)
    else:
        bits = _one_by_one(words, width)
    if storage == np.bool_ and np.any(bits > 1):
        raise TextError(f"a word of bool is 00 or 01, got {int(bits.max()):02x}")
    return HostArray(bits.view(storage).reshape(shape), dtype)


def _one_by_one(words: Sequence[str], width: int) -> Array:
    found = []
    for word in words:
        match = _WORD.fullmatch(word)
        if match is None or len(match[1].lstrip("0")) > 2 * width:
            raise TextError(f"a word has at most {2 * width} hexadecimal digits, got {word!r}")
        found.append(int(match[1], 16))
    return np.array(found, f"u{width}")
