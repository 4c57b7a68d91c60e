"""Faults of affine and symmetric quantizers: scale, zero point, codes, and which elements share them."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.affine import quantize_affine_codes
from qloracle.affine_scale import affine_parameters, zero_point_of
from qloracle.formats import Array
from qloracle.groups import reduce_groups, spread_parameters
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.affine_kernels import (
    Codes,
    Scale,
    ZeroPoint,
    affine_with,
    codes_by,
    half_away,
    right_scale,
    zero_point_by,
)
from qloracle_conformance.mutants.mutant import Mutant

F = np.float32


def _guarded(scale: Array, lo: Array, hi: Array) -> Array:
    return np.where(np.isfinite(lo) & np.isfinite(hi), np.where(scale == 0, F(1), scale), F(np.nan))


def _not_widened(lo: Array, hi: Array, steps: int) -> Array:
    return _guarded(((hi.astype(np.float64) - lo) / steps).astype(np.float32), lo, hi)


def _in_float32(lo: Array, hi: Array, steps: int) -> Array:
    return _guarded((np.maximum(hi, F(0)) - np.minimum(lo, F(0))) / F(steps), lo, hi)


def _in_float64(lo: Array, hi: Array, steps: int) -> Array:
    """Take the width in float64, where it is rounded, and the quotient in float64 again."""
    width = np.maximum(hi, 0).astype(np.float64) - np.minimum(lo, 0).astype(np.float64)
    return _guarded((width / steps).astype(np.float32), lo, hi)


def _by_reciprocal(lo: Array, hi: Array, steps: int) -> Array:
    width = (np.maximum(hi, 0).astype(np.float64) - np.minimum(lo, 0)).astype(np.float32)
    return _guarded(width * (F(1) / F(steps)), lo, hi)


def _one_step_more(lo: Array, hi: Array, steps: int) -> Array:
    width = np.maximum(hi, 0).astype(np.float64) - np.minimum(lo, 0)
    return _guarded((width / (steps + 1)).astype(np.float32), lo, hi)


def _floored(lo: Array, hi: Array, steps: int) -> Array:
    return np.maximum(right_scale(lo, hi, steps), F(2.0**-23))


def _infinite(lo: Array, hi: Array, steps: int) -> Array:
    """Give an infinite range an infinite scale, instead of none."""
    return np.where(np.isinf(lo) | np.isinf(hi), F(np.inf), right_scale(lo, hi, steps))


def _zero_kept(lo: Array, hi: Array, steps: int) -> Array:
    width = np.maximum(hi, 0).astype(np.float64) - np.minimum(lo, 0)
    return np.where(width == 0, F(0), right_scale(lo, hi, steps))


def _zero_poisons(lo: Array, hi: Array, steps: int) -> Array:
    """Divide by the width of a range that has none."""
    return np.where((lo == 0) & (hi == 0), F(np.nan), right_scale(lo, hi, steps))


def _flat_is_lowest(lo: Array, hi: Array, scale: Array, qmin: int, qmax: int) -> Array:
    """Let the formula run on a range without width: its zero point is qmin."""
    return np.where((lo == 0) & (hi == 0), qmin, zero_point_of(lo, hi, scale, qmin, qmax))


def _from_above(lo: Array, hi: Array, scale: Array, qmin: int, qmax: int) -> Array:
    right = zero_point_of(lo, hi, scale, qmin, qmax)
    quotient = np.maximum(hi, 0).astype(np.float64) / scale.astype(np.float64)
    return np.where(np.isfinite(quotient) & (right != 0), np.clip(np.rint(qmax - quotient), qmin, qmax), right)


def _wide(x: Array, scale: Array) -> Array:
    return x.astype(np.float64) / scale.astype(np.float64)


def _poisoned_lowest(x: Array, scale: Array, zero_point: Array, qmin: int, qmax: int) -> Array:
    """Convert the NaN of a poisoned group to an integer, which gives the lowest one."""
    return np.where(np.isnan(scale), qmin, quantize_affine_codes(x, scale, zero_point, qmin, qmax))


def _nan_ignored(x: HostArray, *, qmin: int, qmax: int, granularity: str, group_size: int | None) -> Any:
    """Find the range with operations that return the other operand where one is NaN."""
    single = x.single()
    return _with_range_of(x, np.where(np.isnan(single), F(0), single), qmin, qmax, granularity, group_size)


def _infinity_kept(x: HostArray, *, qmin: int, qmax: int, granularity: str, group_size: int | None) -> Any:
    """Take an infinity for the largest finite number."""
    with np.errstate(invalid="ignore"):
        kept = np.clip(x.single(), -np.finfo(F).max, np.finfo(F).max)
    return _with_range_of(x, kept, qmin, qmax, granularity, group_size)


def _with_range_of(x: HostArray, kept: Array, qmin: int, qmax: int, granularity: str, group_size: int | None) -> Any:
    single, known = x.single(), ("tensor", "row", "column", "group")
    lo, hi = (reduce_groups(kept, granularity, group_size, known, _ends(end)) for end in (np.min, np.max))
    size, place = affine_parameters(lo, hi, qmin=qmin, qmax=qmax)
    spread = spread_parameters(size, place, single.shape, granularity, group_size)
    return host(quantize_affine_codes(single, *spread, qmin, qmax)), host(size), host(place)


def _ends(end: Any) -> Callable[[Array], Array]:
    return lambda groups: end(groups, axis=1) if groups.shape[1] else np.zeros(len(groups), np.float32)


def _groups_in_rows(x: HostArray, **options: Any) -> Any:
    """Start a new group at every row."""
    if options["granularity"] != "group" or x.items.ndim < 2 or not x.items.size:
        return OPS["quantize_affine"](x, **options)
    rows = [HostArray(row, x.dtype) for row in x.items.reshape(-1, x.shape[-1])]
    parts = [OPS["quantize_affine"](row, **options) for row in rows]
    joined = [np.concatenate([part[i].items for part in parts]) for i in range(3)]
    return host(joined[0].reshape(x.shape)), host(joined[1]), host(joined[2])


def _columns_for_rows(x: HostArray, **options: Any) -> Any:
    """Index the scales of a square matrix by the column where the row is meant."""
    codes, scale, zero_point = OPS["quantize_affine"](x, **options)
    if options["granularity"] != "row" or x.items.ndim != 2 or x.shape[0] != x.shape[1]:
        return codes, scale, zero_point
    found = quantize_affine_codes(x.single(), scale.items, zero_point.items, options["qmin"], options["qmax"])
    return host(found), scale, zero_point


def affine_faults() -> list[Mutant]:
    """Return the mutants of affine quantizers."""
    scales: list[tuple[str, str, Scale]] = [
        ("affine-not-widened", "a range that does not reach 0 is not widened to it", _not_widened),
        ("affine-width-in-float32", "the width of the range is a float32 number, which may overflow", _in_float32),
        ("affine-width-in-float64", "the width of the range is rounded to float64, then divided", _in_float64),
        ("affine-by-reciprocal", "the width is multiplied by float32 1/(qmax − qmin)", _by_reciprocal),
        ("affine-one-step-more", "the width is divided by 256 or 16", _one_step_more),
        ("affine-scale-floored", "the scale is at least 2^-23", _floored),
        ("affine-infinite-scale", "an infinite value gives an infinite scale", _infinite),
        ("affine-zero-scale", "a range without width has scale 0", _zero_kept),
        ("affine-zero-poisons", "a range without width has scale NaN", _zero_poisons),
    ]
    places: list[tuple[str, str, ZeroPoint]] = [
        ("zero-point-cut", "the zero point is cut to an integer", zero_point_by(lambda t, low: np.floor(low + t))),
        ("zero-point-half-away", "a tie of the zero point goes away from zero",
         zero_point_by(lambda t, low: half_away(low + np.round(t, 9)))),
        ("zero-point-rounded-first", "lo/scale is rounded before qmin is added",
         zero_point_by(lambda t, low: low + np.rint(t))),
        ("zero-point-in-float32", "qmin − lo/scale is a float32 number",
         zero_point_by(lambda t, low: np.rint(F(low) + t.astype(F)))),
        ("zero-point-flat-lowest", "a range without width has zero point qmin", _flat_is_lowest),
        ("zero-point-from-above", "the zero point is qmax − hi/scale", _from_above),
    ]  # fmt: skip
    codes: list[tuple[str, str, Codes]] = [
        ("affine-rounded-last", "x/scale and the zero point are added before rounding",
         codes_by(lambda x, s, z: np.rint(_wide(x, s) + z))),
        ("affine-codes-by-inverse", "x is multiplied by float32 1/scale",
         codes_by(lambda x, s, z: np.rint(x * (F(1) / s)) + z)),
        ("affine-codes-half-away", "halves of codes go away from zero",
         codes_by(lambda x, s, z: half_away(_wide(x, s)) + z)),
        ("affine-codes-cut", "codes are cut to integers", codes_by(lambda x, s, z: np.trunc(_wide(x, s)) + z)),
        ("affine-codes-wrap", "codes beyond the range wrap around",
         codes_by(lambda x, s, z: np.rint(_wide(x, s)) + z, saturating=False)),
        ("affine-poisoned-lowest", "the codes of a poisoned group are the lowest one", _poisoned_lowest),
    ]  # fmt: skip
    quantize = "quantize_affine"
    return [
        *(Mutant(name, fault, affine_with(scale=scale), ("scale",), operations="affine")
          for name, fault, scale in scales),
        *(Mutant(name, fault, affine_with(zero_point=place), ("zero_point",), operations="affine")
          for name, fault, place in places),
        *(Mutant(name, fault, {quantize: affine_with(codes=code)[quantize]}, ("codes",))
          for name, fault, code in codes),
        Mutant("affine-nan-ignored", "a NaN does not reach the range of its group",
               {quantize: _nan_ignored}, ("scale",)),
        Mutant("affine-infinity-kept", "an infinity counts as the largest finite number", {quantize: _infinity_kept},
               ("scale",)),
        Mutant("affine-groups-in-rows", "every row starts a new group", {quantize: _groups_in_rows}, ("scale",),
               operations="affine_group"),
        Mutant("affine-columns-for-rows", "the scales of a square matrix are indexed by the column",
               {quantize: _columns_for_rows}, ("codes",), operations="affine_row"),
    ]  # fmt: skip
