"""Cases made from what a user types: ``x=1.2,-0.5``, ``x:bfloat16=0x3f80,1;2,3``, ``x[1,2]=1,2``, ``x=@file.npy``."""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from fractions import Fraction
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from qloracle.formats import FORMATS, Array
from qloracle.rounding import encode
from qloracle_conformance.arrays import STORAGE, HostArray, host
from qloracle_conformance.generators.case import Case
from qloracle_conformance.usage import UsageError

_HEAD = re.compile(r"(?P<name>\w+)(?::(?P<dtype>\w+))?(?:\[(?P<shape>[\d, ]*)\])?")
_ABSENT = "none"  # leaves an optional input out
_SPECIAL = {"nan": np.nan, "inf": np.inf, "+inf": np.inf, "-inf": -np.inf, "-0": -0.0, "-0.0": -0.0}


def given_case(
    template: Case,
    inputs: Sequence[str],
    options: Sequence[str] = (),
    dtype: str | None = None,
    known: Case | None = None,
) -> Case:
    """Return a case with some inputs and options replaced by what a user typed; the others stay as they are.

    Parameters
    ----------
    template : Case
    inputs : sequence of str
        ``NAME=VALUES``, ``NAME:DTYPE=VALUES`` or ``NAME:DTYPE[SHAPE]=VALUES``; commas separate values, semicolons rows;
        see `parse_values`. ``NAME=none`` leaves an optional input out.
    options : sequence of str
        ``NAME=VALUE``, a Python literal or else a text.
    dtype : str, optional
        The type of the inputs that name none.
    known : Case, optional
        Whose names are the known ones, and whose types are the default ones; by default `template`.

    Raises
    ------
    UsageError
        If a name is unknown, or a value cannot be read.
    """
    known = template if known is None else known
    made = dict(_input(text, known, dtype) for text in inputs)
    chosen = dict(template.options)
    for text in options:
        name, value = _split(text, "option")
        _require_known("option", name, known.options)
        chosen[name] = _literal(value)
    return replace(template, inputs={**template.inputs, **made}, options=chosen, layouts={}, lattice=False)


def _input(text: str, known: Case, dtype: str | None) -> tuple[str, HostArray | None]:
    """Return the name and the array of an input, None where it is left out."""
    head, values = _split(text, "input")
    name, own, shape = _parts(head)
    _require_known("input", name, known.inputs)
    usual = known.inputs[name]
    kind = own or dtype or (usual.dtype if usual is not None else "float32")
    if kind not in STORAGE:
        raise UsageError(f"type of input {name} must be one of {', '.join(STORAGE)}, got {kind!r}")
    if values.strip().lower() == _ABSENT:
        return name, None
    array = _array(name, values.strip(), kind, shape)
    scalar = shape is None and usual is not None and not usual.shape
    return name, _as_scalar(array) if scalar else array


def _split(text: str, what: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"--{what} must be NAME=VALUE, got {text!r}")
    return name.strip(), value


def _parts(head: str) -> tuple[str, str | None, tuple[int, ...] | None]:
    """Return the name, the type and the shape of ``NAME:DTYPE[SHAPE]``."""
    found = _HEAD.fullmatch(head)
    if not found:
        raise UsageError(f"--input must begin with NAME, NAME:DTYPE or NAME:DTYPE[SHAPE], got {head!r}")
    shape = found["shape"]
    return (
        found["name"],
        found["dtype"],
        None if shape is None else tuple(int(n) for n in shape.split(",") if n.strip()),
    )


def _as_scalar(array: HostArray) -> HostArray:
    """Return a single value as a 0-d array: where one is expected, nobody types brackets."""
    return HostArray(array.items.reshape(()), array.dtype) if array.items.size == 1 else array


def _require_known(what: str, name: str, known: Mapping[str, object]) -> None:
    if name not in known:
        close = get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]}?" if close else ""
        kind = "array inputs" if what == "input" else f"{what}s"
        there = f"only {', '.join(known)}" if known else f"this operation has no {kind}"
        raise UsageError(f"no {what} {name!r} here, {there}{hint}")


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def _array(name: str, text: str, dtype: str, shape: tuple[int, ...] | None) -> HostArray:
    if text.startswith("@"):
        return _stored(name, Path(text[1:]), dtype)
    rows = [[item.strip() for item in row.split(",")] if row.strip() else [] for row in text.split(";")]
    if len({len(row) for row in rows}) > 1:
        raise UsageError(f"rows of input {name} must have the same length, got {[len(r) for r in rows]}")
    items = parse_values(name, [item for row in rows for item in row], dtype)
    if shape is not None and prod(shape) != items.size:
        raise UsageError(f"input {name} must have {prod(shape)} values for shape {shape}, got {items.size}")
    usual = (len(rows), len(rows[0])) if len(rows) > 1 else items.shape
    return HostArray(items.reshape(usual if shape is None else shape), dtype)


def _stored(name: str, path: Path, dtype: str) -> HostArray:
    """Return the array of a .npy file; nothing is cast, words of a format that NumPy lacks keep their bits."""
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"input {name}: cannot read {path}: {error}") from error
    if not isinstance(values, np.ndarray):
        raise UsageError(f"input {name}: {path} must hold one array (.npy)")
    native = values.astype(values.dtype.newbyteorder("="))
    if native.dtype == np.dtype(STORAGE[dtype]) or native.dtype.name not in STORAGE:
        if native.dtype != np.dtype(STORAGE[dtype]):
            raise UsageError(f"input {name}: {path} holds {native.dtype}; {dtype} is stored as {STORAGE[dtype]}")
        return HostArray(native, dtype)
    return host(native)  # its own type: the rule says whether it is admitted


def parse_values(name: str, items: Sequence[str], dtype: str) -> Array:
    """Return storage items from texts, each rounded once from its exact value.

    Decimal numbers and hexadecimal floats (``0x1.8p+1``) are values; other hexadecimal words (``0x3f800000``) are bit
    patterns of `dtype`.

    Raises
    ------
    UsageError
        If a text is no number, or does not fit the type.
    """
    storage = np.dtype(STORAGE[dtype])
    try:
        if dtype == "bool":
            return np.array([_boolean(item) for item in items], np.bool_)
        if dtype not in FORMATS:
            return np.array([int(item, 0) for item in items], dtype=storage)
        unsigned = f"u{storage.itemsize}"
        words = np.array([_word(item, dtype) for item in items], unsigned)
    except (KeyError, OverflowError, ValueError, ZeroDivisionError) as error:
        raise UsageError(f"input {name}: not {dtype}: {error}") from error
    return words.view(storage)


def _boolean(text: str) -> bool:
    return {"0": False, "1": True, "false": False, "true": True}[text.lower()]


def _word(text: str, dtype: str) -> int:
    if text.lower().startswith("0x") and "p" not in text.lower():
        return int(text, 16)
    return int(encode(np.asarray(_number(text, odd=dtype != "float64")), dtype))


def _number(text: str, *, odd: bool) -> float:
    """Return a number as float64, *rounded to odd* where it is none: a later rounding then is the only one."""
    if text.lower() in _SPECIAL:
        return _SPECIAL[text.lower()]
    try:
        exact = Fraction(float.fromhex(text)) if text.lower().lstrip("+-").startswith("0x") else Fraction(text)
    except (OverflowError, ValueError, ZeroDivisionError):
        raise ValueError(f"{text!r} is no number") from None
    try:
        near = float(exact)
    except OverflowError:  # beyond float64: infinity, or the largest number, which is odd and overflows later
        return (1.0 if exact > 0 else -1.0) * (float(np.finfo(np.float64).max) if odd else np.inf)
    if not odd or Fraction(near) == exact or int(np.float64(near).view(np.uint64)) & 1:
        return near
    return float(np.nextafter(near, np.inf if exact > Fraction(near) else -np.inf))
