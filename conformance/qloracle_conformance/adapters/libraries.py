"""Conversions of other libraries: ml_dtypes, NumPy, PyTorch and gfloat, with one signature.

They are second opinions on the reference's conversions. A library offers a conversion under the policies that it
implements; asked for another, it says which ones it has.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from types import ModuleType
from typing import Any

import numpy as np

from qloracle.errors import QloracleError
from qloracle.formats import Array, format_named
from qloracle.rounding import encode as reference_encode

NEAREST = ("ties_to_even",)
_BYTES = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")
_SMALL = ("float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn")
_GFLOAT = {
    "float16": "binary16",
    "bfloat16": "bfloat16",
    "float8_e4m3fn": "ocp_e4m3",
    "float8_e5m2": "ocp_e5m2",
    "float8_e8m0fnu": "ocp_e8m0",
    "float6_e2m3fn": "ocp_e2m3",
    "float6_e3m2fn": "ocp_e3m2",
    "float4_e2m1fn": "ocp_e2m1",
}
_GFLOAT_ROUNDINGS = {
    "ties_to_even": "TiesToEven",
    "ties_to_away": "TiesToAway",
    "toward_zero": "TowardZero",
    "toward_positive": "TowardPositive",
    "toward_negative": "TowardNegative",
}


class LibraryError(QloracleError):
    """A library is not installed, or has no such conversion."""


@dataclass(frozen=True)
class Library:
    """The conversions of one library."""

    name: str
    version: str
    formats: tuple[str, ...]  # that it converts to and from
    roundings: tuple[str, ...]
    to: Callable[[Array, str, str, str], Array]  # values, format, rounding, overflow → words
    values: Callable[[Array, str], Array]  # words, format → float64

    def own_overflow(self, fmt: str) -> tuple[str, ...]:
        """Return the overflow policies that it implements for a format, its default first.

        Raises
        ------
        LibraryError
            If the library lacks the format.
        """
        self._require("formats", fmt, self.formats)
        if self.name == "gfloat":
            return ("ieee", "saturate") if fmt not in _SMALL else ("saturate",)
        beyond = np.array([np.finfo(np.float32).max], np.float32)
        saturated = reference_encode(beyond, fmt, overflow="saturate")
        return ("saturate",) if np.array_equal(self.to(beyond, fmt, NEAREST[0], ""), saturated) else ("ieee",)

    def conversion(self, fmt: str, rounding: str, overflow: str) -> Callable[[Array], Array]:
        """Return the conversion of float arrays to words of a format.

        Raises
        ------
        LibraryError
            If the library lacks the format, the rounding or the overflow policy.
        """
        self._require("formats", fmt, self.formats)
        self._require("roundings", rounding, self.roundings)
        if overflow not in (policies := self.own_overflow(fmt)):
            raise LibraryError(
                f"{self.name} {self.version} overflows to {fmt} as {' or '.join(policies)}, not {overflow}"
            )
        return lambda values: self.to(values, fmt, rounding, overflow)

    def _require(self, what: str, name: str, known: tuple[str, ...]) -> None:
        if name not in known:
            raise LibraryError(f"{self.name} {self.version} has no {name}; its {what}: {', '.join(known)}")


def library(name: str) -> Library:
    """Return a library of LIBRARIES.

    Raises
    ------
    LibraryError
        If it is not installed.
    """
    try:
        return LIBRARIES[name]()
    except ImportError as error:
        raise LibraryError(f"{name} is not installed: pip install {name}") from error


def _ml_dtypes() -> Library:
    module = importlib.import_module("ml_dtypes")

    def dtype(fmt: str) -> Any:
        return np.float16 if fmt == "float16" else getattr(module, fmt)

    def to(values: Array, fmt: str, rounding: str, overflow: str) -> Array:
        with np.errstate(all="ignore"):
            return values.astype(dtype(fmt)).view(format_named(fmt).word)

    formats = ("float16", "bfloat16", *_BYTES, *_SMALL)
    return Library("ml_dtypes", version("ml_dtypes"), formats, NEAREST, to, _viewed(dtype))


def _numpy() -> Library:
    def to(values: Array, fmt: str, rounding: str, overflow: str) -> Array:
        with np.errstate(all="ignore"):
            return values.astype(fmt).view(format_named(fmt).word)

    return Library("numpy", np.__version__, ("float16",), NEAREST, to, _viewed(np.dtype))


def _viewed(dtype: Callable[[str], Any]) -> Callable[[Array, str], Array]:
    def values(words: Array, fmt: str) -> Array:
        with np.errstate(all="ignore"):
            widened: Array = words.view(dtype(fmt)).astype(np.float64)
        return widened

    return values


def _torch() -> Library:
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    words = {8: torch.uint8, 16: torch.int16, 32: torch.int32}

    def to(values: Array, fmt: str, rounding: str, overflow: str) -> Array:
        named = format_named(fmt)
        converted = torch.from_numpy(np.array(values)).to(getattr(torch, fmt))
        made: Array = converted.view(words[8 * named.word.itemsize]).numpy().view(named.word)
        return made

    def values(bits: Array, fmt: str) -> Array:
        items = torch.from_numpy(np.array(bits).view(f"i{bits.itemsize}")).view(getattr(torch, fmt))
        made: Array = items.to(torch.float64).numpy()
        return made

    return Library("torch", version("torch"), ("float16", "bfloat16", *_BYTES), NEAREST, to, values)


def gfloat_format(fmt: str) -> Any:
    """Return gfloat's record of a format."""
    return getattr(importlib.import_module("gfloat.formats"), f"format_info_{_GFLOAT[fmt]}")


def _gfloat() -> Library:
    gfloat: ModuleType = importlib.import_module("gfloat")

    def to(values: Array, fmt: str, rounding: str, overflow: str) -> Array:
        info, mode = gfloat_format(fmt), getattr(gfloat.RoundMode, _GFLOAT_ROUNDINGS[rounding])
        with np.errstate(all="ignore"):
            rounded = gfloat.round_ndarray(info, np.asarray(values, np.float64), mode, overflow == "saturate")
            coded: Array = gfloat.encode_ndarray(info, rounded)
        word = format_named(fmt).word
        return coded if np.any(coded > np.iinfo(word).max) else coded.astype(word)  # some answers are no words

    def values(words: Array, fmt: str) -> Array:
        decoded: Array = gfloat.decode_ndarray(gfloat_format(fmt), words.astype(np.int64))
        return decoded

    return Library("gfloat", version("gfloat"), tuple(_GFLOAT), tuple(_GFLOAT_ROUNDINGS), to, values)


LIBRARIES: Mapping[str, Callable[[], Library]] = {
    "ml_dtypes": _ml_dtypes,
    "numpy": _numpy,
    "torch": _torch,
    "gfloat": _gfloat,
}
