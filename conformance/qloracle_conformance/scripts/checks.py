"""Which words of which output a script looks at, and which of them the rule allows."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qloracle.decoding import is_nan
from qloracle.formats import FORMATS, Array, format_named
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.judge import StageResult, words_at
from qloracle_conformance.operations.operation import Outputs

SHOWN = 6  # elements of a script
_LARGE = 1 << 14  # elements of a case of which only one is shown: every code it may have is judged on its own

Judge = Callable[[Outputs], StageResult]  # of one stage, given the outputs


@dataclass(frozen=True)
class Check:
    """One element of one output."""

    output: int
    index: int  # flat; of bytes where there is a nibble
    nibble: str  # "", "high" or "low"
    allowed: tuple[Any, ...]  # two ends of a range of ordinals or integers, or codes one by one
    kind: str  # "float", "range" or "codes"
    dtype: str
    got: str
    expected: str


@dataclass(frozen=True)
class Place:
    """Where the elements of a stage lie among the outputs."""

    output: int
    packed: bool  # two of them in a byte, the first in the high nibble

    def changed(self, outputs: Outputs, element: int, word: int) -> Outputs:
        """Return the outputs with another word for one element."""
        array = outputs[self.output]
        words = array.words().reshape(-1).copy()
        if self.packed:
            shift = 0 if element % 2 else 4
            words[element // 2] = (int(words[element // 2]) & (0xF0 >> shift)) | word << shift
        else:
            words[element] = word
        items = words.view(array.items.dtype).reshape(array.shape)
        return (*outputs[: self.output], HostArray(items, array.dtype), *outputs[self.output + 1 :])

    def word(self, outputs: Outputs, element: int) -> int:
        """Return the word of one element."""
        words = outputs[self.output].words().reshape(-1)
        if self.packed:
            return int(words[element // 2]) >> (0 if element % 2 else 4) & 15
        return int(words[element])


def checks_of(result: StageResult, claimed: str, outputs: Outputs, judge: Judge) -> list[Check]:
    """Return checks of some failing elements, each judged with the other outputs as they are.

    Nothing is returned where the elements of the stage lie in no output.
    """
    failing = np.flatnonzero(result.failing(claimed).reshape(-1))
    shown = failing[:SHOWN] if result.got.size < _LARGE else failing[:1]
    found = []
    for place in _places(result, outputs):
        for element in shown.tolist():
            check = _check(result, claimed, outputs, judge, place, element)
            if check is not None:
                found.append(check)
        if found:
            break
    return found


def _places(result: StageResult, outputs: Outputs) -> list[Place]:
    """Return the outputs that hold the words of a stage."""
    if result.words is None:
        return []
    words = result.words.reshape(-1)
    found = []
    for number, output in enumerate(outputs):
        own = output.words().reshape(-1)
        if own.shape == words.shape and np.array_equal(own, words.astype(own.dtype)):
            found.append(Place(number, packed=False))
        elif own.dtype == np.uint8 and 2 * own.size - words.size in (0, 1):
            nibbles = np.stack([own >> 4, own & 15], axis=-1).reshape(-1)[: words.size]
            if np.array_equal(nibbles, words):
                found.append(Place(number, packed=True))
    return found


def _check(
    result: StageResult, claimed: str, outputs: Outputs, judge: Judge, place: Place, element: int
) -> Check | None:
    limits, got = result.required(claimed), place.word(outputs, element)
    ends = tuple(int(end.reshape(-1)[element]) for end in (limits.lo, limits.hi))
    index, nibble = (element // 2, "low" if element % 2 else "high") if place.packed else (element, "")
    common = Check(place.output, index, nibble, ends, "range", outputs[place.output].dtype, "", "")
    if result.dtype in FORMATS:
        lo, hi = (word_text(int(words_at(np.asarray(e, np.int64), result.dtype)), result.dtype) for e in ends)
        return replace(common, kind="float", got=word_text(got, result.dtype), expected=_between(lo, hi))
    if result.dtype == "uint8" and common.dtype == "uint8":
        allowed = _accepted_codes(judge, outputs, place, element, claimed)
        told = " or ".join(map(str, allowed))
        return replace(common, kind="codes", allowed=allowed, got=str(got), expected=told) if allowed else None
    value = str(int(outputs[place.output].items.reshape(-1)[element]))
    return replace(common, got=value, expected=_between(*map(str, ends)))


def _between(lo: str, hi: str) -> str:
    return lo if lo == hi else f"{lo} to {hi}"


def word_text(word: int, fmt: str) -> str:
    """Return a word in hex and as a number."""
    from qloracle.rounding import decode

    named = format_named(fmt)
    value = float(decode(np.asarray(word, named.word), fmt))
    return f"0x{word:0{2 * named.word.itemsize}x} ({value:.9g})"


def _accepted_codes(judge: Judge, outputs: Outputs, place: Place, element: int, claimed: str) -> tuple[int, ...]:
    """Return the codes that the judge accepts in place of the one that is there."""
    accepted = []
    for code in range(16 if place.packed else 256):
        tried = judge(place.changed(outputs, element, code))
        if not tried.problem and tried.got.size > element and not tried.failing(claimed).reshape(-1)[element]:
            accepted.append(code)
    return tuple(accepted)


def nan_words(fmt: str) -> list[tuple[int, int]]:
    """Return the words of a format that are NaN, as ranges with both ends."""
    named = format_named(fmt)
    if named.code_bits > 16:
        return [(s | named.infinity_bits + 1, s | named.largest_magnitude) for s in (0, named.sign_bit)]
    words: Array = np.arange(1 << named.code_bits, dtype=np.uint64).astype(named.word)
    nan = np.flatnonzero(is_nan(words, named)).tolist()
    ranges: list[tuple[int, int]] = []
    for word in nan:
        if ranges and ranges[-1][1] == word - 1:
            ranges[-1] = (ranges[-1][0], word)
        else:
            ranges.append((word, word))
    return ranges
