"""One unit of a sweep: a range of float32 words, converted by both sides and compared."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from qloracle.decoding import is_nan
from qloracle.formats import Array, format_named
from qloracle_conformance.sweep.sides import Policies, Side, other_side, reference_side

UNIT = 1 << 22  # inputs of a unit: what is lost when a run is stopped
_SLICE = 1 << 18  # inputs converted at a time
MOST_RUNS = 64  # kept of a unit
MOST_SAMPLES = 16

Sample = tuple[int, int, int]  # input word, the reference's word, the other's


@dataclass(frozen=True)
class UnitResult:
    """What was found in a range of inputs."""

    first: int  # first input word of the unit
    last: int  # last one, included
    refused: int  # inputs that the reference refuses: NaN, where the format has none
    mismatches: int
    run_count: int  # maximal runs of neighbouring input words that all mismatch
    runs: tuple[tuple[int, int], ...]  # the first of them, ends included
    last_run: tuple[int, int] | None
    samples: tuple[Sample, ...]  # of the first mismatches
    last_sample: Sample | None


def sweep_unit(against: str, chosen: Policies, first: int, last: int) -> UnitResult:
    """Compare both sides on the words from `first` to `last`, in a process that keeps them."""
    mine, other = _both(against, chosen)
    return compare(mine, other, chosen, first, last)


@cache
def _both(against: str, chosen: Policies) -> tuple[Side, Side]:
    return reference_side(chosen), other_side(against, chosen)


def compare(mine: Side, other: Side, chosen: Policies, first: int, last: int) -> UnitResult:
    """Compare two sides on a range of words; NaN equals NaN, and nothing else equals but the same word."""
    refused = mismatches = run_count = 0
    runs: list[tuple[int, int]] = []
    samples: list[Sample] = []
    last_sample: Sample | None = None
    last_run: tuple[int, int] | None = None
    for start in range(first, last + 1, _SLICE):
        words = np.arange(start, min(start + _SLICE, last + 1), dtype=np.uint32)
        if chosen.nan == "reject":
            known = words[(words & 0x7FFFFFFF) <= 0x7F800000]
            refused, words = refused + words.size - known.size, known
        got, wanted = other.convert(words.view(np.float32)), mine.convert(words.view(np.float32))
        wrong = np.flatnonzero(_differ(got, wanted, chosen.to))
        if not wrong.size:
            continue
        mismatches += wrong.size
        for low, high in _runs(words[wrong]):
            if last_run is not None and last_run[1] + 1 == low:
                last_run = (last_run[0], high)
                if len(runs) == run_count:
                    runs[-1] = last_run
                continue
            last_run, run_count = (low, high), run_count + 1
            if len(runs) < MOST_RUNS:
                runs.append(last_run)
        found = [(int(words[i]), int(wanted[i]), int(got[i])) for i in (*wrong[:MOST_SAMPLES], wrong[-1])]
        samples = (samples + found[:-1])[:MOST_SAMPLES]
        last_sample = found[-1]
    return UnitResult(
        first, last, refused, mismatches, run_count, tuple(runs), last_run, tuple(samples), last_sample
    )  # fmt: skip


def _differ(got: Array, wanted: Array, fmt: str) -> Array:
    differ: Array = got != wanted
    if not np.any(differ):
        return differ
    named = format_named(fmt)
    return differ & ~(is_nan(got, named) & is_nan(wanted, named)) if named.has_nan else differ


def _runs(words: Array) -> list[tuple[int, int]]:
    """Return the maximal runs of neighbouring numbers among ascending ones."""
    breaks = np.flatnonzero(np.diff(words.astype(np.int64)) != 1)
    starts, ends = np.append(0, breaks + 1), np.append(breaks, words.size - 1)
    return list(zip(words[starts].tolist(), words[ends].tolist(), strict=True))
