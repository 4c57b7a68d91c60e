"""Affine quantizers step by step, with the places open where a fault may enter."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.affine import quantize_affine_codes
from qloracle.affine_scale import affine_parameters, zero_point_of
from qloracle.formats import Array
from qloracle.groups import spread_parameters
from qloracle.observers import minmax_range
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.mutant import Op

F = np.float32
Scale = Callable[[Array, Array, int], Array]
ZeroPoint = Callable[[Array, Array, Array, int, int], Array]
Codes = Callable[[Array, Array, Array, int, int], Array]


def right_scale(lo: Array, hi: Array, steps: int) -> Array:
    """Return the scale of the rule."""
    return affine_parameters(lo, hi, qmin=0, qmax=steps)[0]


def affine_with(
    scale: Scale = right_scale, zero_point: ZeroPoint = zero_point_of, codes: Codes = quantize_affine_codes
) -> dict[str, Op]:
    """Return a quantizer, and a function of ranges, with some steps done in another way."""

    def parameters(lo: Array, hi: Array, qmin: int, qmax: int) -> tuple[Array, Array]:
        with np.errstate(all="ignore"):
            size = np.asarray(scale(lo, hi, qmax - qmin), np.float32)
            place = zero_point(lo, hi, size, qmin, qmax)
            return size, np.asarray(np.nan_to_num(place), np.int64).astype(np.int32)

    def of_range(lo: HostArray, hi: HostArray, *, qmin: int, qmax: int) -> Any:
        found = parameters(lo.items, hi.items, qmin, qmax)
        return host(found[0].reshape(lo.shape)), host(found[1].reshape(lo.shape))

    def quantize(x: HostArray, *, qmin: int, qmax: int, granularity: str, group_size: int | None) -> Any:
        single = x.single()
        lo, hi = minmax_range(single, granularity=granularity, group_size=group_size)
        size, place = parameters(lo, hi, qmin, qmax)
        spread = spread_parameters(size, place, single.shape, granularity, group_size)
        with np.errstate(all="ignore"):
            found = codes(single, *spread, qmin, qmax)
        return host(np.asarray(found).astype("i1" if qmin < 0 else "u1")), host(size), host(place)

    return {"quantize_affine": quantize, "affine_parameters": of_range}


def zero_point_by(rounded: Callable[[Array, int], Array]) -> ZeroPoint:
    """Return a zero point that rounds qmin − lo/scale in its own way, given the quotient −lo/scale and qmin."""

    def found(lo: Array, hi: Array, scale: Array, qmin: int, qmax: int) -> Array:
        right = zero_point_of(lo, hi, scale, qmin, qmax)
        quotient = -np.minimum(lo, 0).astype(np.float64) / scale.astype(np.float64)
        usable = np.isfinite(quotient) & (right_scale(lo, hi, qmax - qmin) != 1)
        return np.where(usable, np.clip(rounded(np.where(usable, quotient, 0.0), qmin), qmin, qmax), right)

    return found


def codes_by(steps: Callable[[Array, Array, Array], Array], *, saturating: bool = True) -> Codes:
    """Return codes from x, scale and zero point by other arithmetic; those that do not saturate wrap around."""

    def found(x: Array, scale: Array, zero_point: Array, qmin: int, qmax: int) -> Array:
        right = quantize_affine_codes(x, scale, zero_point, qmin, qmax)
        codes = steps(x, scale, np.broadcast_to(zero_point, x.shape))
        usable = np.isfinite(codes) & np.isfinite(scale)
        codes = np.where(usable, codes, 0.0)
        wrapped = np.mod(codes - qmin, qmax - qmin + 1) + qmin
        return np.where(usable, np.clip(codes, qmin, qmax) if saturating else wrapped, right)

    return found


def half_away(quotient: Array) -> Array:
    """Round halves away from zero."""
    return np.copysign(np.floor(np.abs(quotient) + 0.5), quotient)
