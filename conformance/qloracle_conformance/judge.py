"""The one comparison of the suite: every output must lie inside the interval that the oracle allows.

Outputs and limits are compared as *ordinals*, integers in the order of the output's values: for a float format the
signed magnitude (so neighbours differ by 1, −0 is −1 and +0 is 0; every NaN has one ordinal beyond all others, next to
the one of words that the format does not have); for codes the position in value order; for integers the number itself.
"""

from dataclasses import dataclass, field

import numpy as np

from qloracle.decoding import is_nan
from qloracle.formats import Array, format_named
from qloracle.rounding import encode
from qloracle.tracking.interval import Interval

NAN_ORDINAL = np.iinfo(np.int64).max
NO_WORD_ORDINAL = NAN_ORDINAL - 1  # a bit is set that the format keeps 0: no limits ever include it
_ANYTHING = np.iinfo(np.int64).min  # as `lo` together with hi = NAN_ORDINAL: no verdict
LEVELS = ("exact", "tie", "bound")  # each implies the next


def float_ordinals(words: Array, fmt: str) -> Array:
    """Return the ordinals of bit patterns of a float format, int64."""
    named = format_named(fmt)
    wide = words.astype(np.uint64)
    magnitude = ((wide >> np.uint64(named.padding)) & np.uint64(named.largest_magnitude)).astype(np.int64)
    negative = (wide & np.uint64(named.sign_bit)) != 0
    ordinals = np.where(negative, -magnitude - 1, magnitude)
    ordinals = np.where(is_nan(words.astype(named.word, copy=False), named), NAN_ORDINAL, ordinals)
    if np.iinfo(words.dtype).max <= named.filled_bits:  # there is no bit that must be 0
        return ordinals
    return np.where((wide & ~np.uint64(named.filled_bits)) != 0, NO_WORD_ORDINAL, ordinals)


def words_at(ordinals: Array, fmt: str) -> Array:
    """Return the bit patterns whose ordinals are given; the inverse of `float_ordinals` but for NaN payloads."""
    named = format_named(fmt)
    magnitude = np.where(ordinals < 0, -ordinals - 1, ordinals)
    words = magnitude.astype(np.uint64) << np.uint64(named.padding)
    words |= np.where(ordinals < 0, np.uint64(named.sign_bit), np.uint64(0))
    nan = np.uint64(named.quiet_nan_bits if named.has_nan else 0)
    bits: Array = np.where(ordinals == NAN_ORDINAL, nan, words).astype(named.word)
    return bits


@dataclass(frozen=True)
class Allowed:
    """The interval of ordinals that each element may have, both ends included."""

    lo: Array  # int64
    hi: Array  # int64, the shape of lo

    def __post_init__(self) -> None:
        """Refuse limits that are no int64 arrays of one shape."""
        if self.lo.dtype != np.int64 or self.hi.dtype != np.int64 or self.lo.shape != self.hi.shape:
            raise TypeError(
                f"lo and hi must be int64 of one shape, got {self.lo.dtype} {self.lo.shape}, {self.hi.shape}"
            )

    @property
    def judged(self) -> Array:
        """Where there is a verdict at all."""
        known: Array = (self.lo != _ANYTHING) | (self.hi != NAN_ORDINAL)
        return known

    def accepts(self, got: Array) -> Array:
        """Return for each element whether it lies inside; everything not inside is wrong."""
        if got.dtype != np.int64 or got.shape != self.lo.shape:
            raise TypeError(f"got must be int64 of shape {self.lo.shape}, got {got.dtype} {got.shape}")
        inside: Array = (self.lo <= got) & (got <= self.hi)
        return inside


def exactly(ordinals: Array) -> Allowed:
    """Allow one ordinal for each element."""
    return Allowed(ordinals, ordinals)


def either_zero(allowed: Allowed) -> Allowed:
    """Widen limits at zero to both signs of zero: for sums, whose sign of zero no rule fixes."""
    return Allowed(np.where(allowed.lo == 0, -1, allowed.lo), np.where(allowed.hi == -1, 0, allowed.hi))


def from_interval(interval: Interval, fmt: str) -> Allowed:
    """Allow every number of `fmt` that some real number of the interval rounds to; both zeros; all where not judged."""
    lo = float_ordinals(encode(interval.lo, fmt), fmt)
    hi = float_ordinals(encode(interval.hi, fmt), fmt)
    limits = either_zero(Allowed(lo, hi))
    return Allowed(np.where(interval.judged, limits.lo, _ANYTHING), np.where(interval.judged, limits.hi, NAN_ORDINAL))


@dataclass(frozen=True)
class CodeSteps:
    """Elements whose code is not the exact one, on the step function of their codebook."""

    codebook: str  # its name; "int8" for whole steps of 1/127, "affine" for whole steps of the scale
    index: Array  # flat, of the elements
    scaled: Array  # float64: x/absmax, or x/scale
    right: Array  # int64: positions in value order
    given: Array


@dataclass(frozen=True)
class StageResult:
    """What the oracle says about one stage of one call."""

    stage: str
    got: Array  # int64 ordinals
    allowed: dict[str, Allowed]  # by level; a claim is judged by the loosest one that is no looser than the claim
    blocked: Array | None = None  # True where a stage before it, whose output this one was given, failed
    distance: Array | None = None  # to the nearest decision boundary, in units of 2^−24 of the boundary
    used: Array | None = None  # part of the error bound that was used
    middle: Array | None = None  # int64 ordinals of the exact sums, rounded once; None where `allowed` says as much
    steps: CodeSteps | None = None
    problem: str = ""  # a wrong dtype or shape: nothing to compare, the stage fails as a whole
    cause: str = ""  # a named mistake that would explain the output
    words: Array | None = None  # output bit patterns, for messages
    dtype: str = ""  # of the output, for messages
    row_length: int = 0  # for the pattern of failing indices
    block_size: int = 0
    extra: dict[str, str] = field(default_factory=dict)

    def required(self, claimed: str) -> Allowed:
        """Return the limits that a claim at level `claimed` must keep."""
        usable = [level for level in LEVELS[: LEVELS.index(claimed) + 1] if level in self.allowed]
        if not usable:
            raise ValueError(f"stage {self.stage} has no limits at level {claimed}, only {sorted(self.allowed)}")
        return self.allowed[usable[-1]]

    def failing(self, claimed: str) -> Array:
        """Return where the output breaks the claim, blocked elements left out."""
        wrong = ~self.required(claimed).accepts(self.got)
        return wrong if self.blocked is None else wrong & ~self.blocked

    def attained(self) -> str | None:
        """Return the strictest level that every element keeps, or None; blocked elements are left out."""
        free = np.True_ if self.blocked is None else ~self.blocked
        for level in LEVELS:
            if level in self.allowed and not np.any(~self.allowed[level].accepts(self.got) & free):
                return level
        return None


def failed_stage(stage: str, problem: str) -> StageResult:
    """Return the result of a stage whose output cannot be compared at all."""
    nothing = np.empty(0, np.int64)
    return StageResult(stage, nothing, dict.fromkeys(LEVELS, exactly(nothing)), problem=problem)


def blocked_stage(stage: str) -> StageResult:
    """Return the result of a stage that was given nothing to judge it by."""
    one = np.zeros(1, np.int64)
    return StageResult(stage, one, dict.fromkeys(LEVELS, exactly(one)), blocked=np.ones(1, np.bool_))
