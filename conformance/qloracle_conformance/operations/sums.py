"""Judging floating-point sums: inside their bound, and exactly right on lattices."""

import numpy as np

from qloracle.formats import Array
from qloracle.rounding import encode
from qloracle.tracking.interval import Interval
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.judge import StageResult, either_zero, exactly, float_ordinals, from_interval

FEW = 8  # allowed ordinals on one side, below which a used part says nothing


def bound_stage(stage: str, got: HostArray, value: Array, interval: Interval, cause: str = "") -> StageResult:
    """Judge a sum by its interval of real numbers."""
    return StageResult(
        stage=stage,
        got=float_ordinals(got.words(), got.dtype),
        allowed={"bound": from_interval(interval, got.dtype)},
        used=used_part(got, value, interval),
        middle=float_ordinals(encode(value, got.dtype), got.dtype),
        cause=cause,
        words=got.words(),
        dtype=got.dtype,
        row_length=got.shape[-1] if got.shape else 0,
    )


def lattice_stage(stage: str, got: HostArray, value: Array, cause: str = "") -> StageResult:
    """Judge a sum whose every partial sum is exact: one rounding to the output format, either sign of zero."""
    exact = float_ordinals(encode(value, got.dtype), got.dtype)
    return StageResult(
        stage=stage,
        got=float_ordinals(got.words(), got.dtype),
        allowed={"exact": either_zero(exactly(exact))},
        cause=cause,
        words=got.words(),
        dtype=got.dtype,
        row_length=got.shape[-1] if got.shape else 0,
    )


def used_part(got: HostArray, value: Array, interval: Interval) -> Array:
    """Return the used part of the allowed ordinals on the output's side of the value; NaN where there are few or none.

    An interval of one or two neighbours, as in 16-bit outputs, is used fully by a single rounding and says nothing.
    """
    limits = from_interval(interval, got.dtype)
    middle = float_ordinals(encode(value, got.dtype), got.dtype)
    ordinals = float_ordinals(got.words(), got.dtype)
    room = np.where(ordinals >= middle, limits.hi, limits.lo).astype(np.float64) - middle
    telling = interval.judged & np.isfinite(value) & (np.abs(room) >= FEW)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(telling, (ordinals.astype(np.float64) - middle) / room, np.nan)
