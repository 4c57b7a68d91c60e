"""Faults of affine restorers, of symmetric quantizers and of fake quantization."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.affine import dequantize_affine_codes, quantize_affine_codes
from qloracle.formats import Array
from qloracle.groups import spread_groups, spread_parameters
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.kernels import stored_items
from qloracle_conformance.mutants.mutant import Mutant, Op

F = np.float32


def _as(values: Array, dtype: str) -> HostArray:
    single = host(np.asarray(values, np.float32))
    return single if dtype == "float32" else OPS["encode"](single, fmt=dtype)


def values_by(formula: Callable[[Array, Array, Array], Array]) -> Op:
    """Return a restorer of other arithmetic on codes, scale and zero point."""

    def restore(codes: HostArray, scale: HostArray, zero_point: HostArray, *, dtype: str, **how: Any) -> HostArray:
        spread = spread_parameters(scale.items, zero_point.items, codes.shape, how["granularity"], how["group_size"])
        with np.errstate(all="ignore"):
            return _as(formula(codes.items, *spread), dtype)

    return restore


def _narrow_scale(codes: HostArray, scale: HostArray, zero_point: HostArray, *, dtype: str, **how: Any) -> HostArray:
    """Round the scale to the output format before the product."""
    narrow = _as(scale.items, dtype).single()
    return OPS["dequantize_affine"](codes, host(narrow), zero_point, dtype=dtype, **how)  # type: ignore[no-any-return]


def _scale_strides_ignored(codes: HostArray, scale: HostArray, zero_point: HostArray, **how: Any) -> Any:
    return OPS["dequantize_affine"](codes, host(stored_items(scale.items)), zero_point, **how)


def _in_bytes(codes: Array, scale: Array, zero_point: Array) -> Array:
    """Subtract the zero point in the codes' own 8 bits, which wrap around."""
    return (codes - zero_point).astype(np.int8) * scale


def symmetric_by(scale: Callable[[Array, int, int], Array]) -> Op:
    """Return a symmetric quantizer with another scale, given clip, qmin and qmax; codes are right for it."""

    def quantize(
        x: HostArray, clip: HostArray, *, qmin: int, qmax: int, granularity: str, group_size: int | None
    ) -> Any:
        single = x.single()
        with np.errstate(all="ignore"):
            size = np.asarray(scale(clip.items, qmin, qmax), np.float32)
        size = np.where(np.isfinite(clip.items), np.where(size == 0, F(1), size), F(np.nan))
        spread = spread_groups(size, single.shape, granularity, group_size)
        return host(quantize_affine_codes(single, spread, np.zeros((), np.int32), qmin, qmax)), host(size)

    return quantize


def _mirrored(x: HostArray, clip: HostArray, *, qmin: int, qmax: int, **how: Any) -> Any:
    """Saturate at −qmax, whatever qmin is."""
    codes, scale = OPS["quantize_symmetric"](x, clip, qmin=qmin, qmax=qmax, **how)
    return host(np.maximum(codes.items.astype(np.int64), -qmax).astype(codes.items.dtype)), scale


def fake_by(codes: Callable[[Array, Array, Array, int, int], Array], *, narrow: bool = False) -> Op:
    """Return fake quantization with other codes, or with values computed in the format of x."""

    def fake(x: HostArray, scale: HostArray, zero_point: HostArray, *, qmin: int, qmax: int, **how: Any) -> Any:
        size = _as(scale.items, x.dtype).single() if narrow else scale.items
        spread = spread_parameters(size, zero_point.items, x.shape, how["granularity"], how["group_size"])
        with np.errstate(all="ignore"):
            found = codes(x.single(), *spread, qmin, qmax)
            values = np.asarray(dequantize_affine_codes(np.asarray(found), *spread, "float32"))
        return _as(values, x.dtype)

    return fake


def _cut(x: Array, scale: Array, zero_point: Array, qmin: int, qmax: int) -> Array:
    right = quantize_affine_codes(x, scale, zero_point, qmin, qmax)
    steps = np.floor(x.astype(np.float64) / scale.astype(np.float64) + 0.5)
    return np.where(np.isfinite(steps) & np.isfinite(scale), np.clip(steps + zero_point, qmin, qmax), right)


def gradient_by(inside: Callable[[Array, Array, Array], Array], *, wide: bool = False) -> Op:
    """Return a straight-through gradient of another interval, given x and the ends of the right one, or in float32."""

    def backward(
        dy: HostArray, x: HostArray, scale: HostArray, zero_point: HostArray, *, interval: str, qmin: int, qmax: int,
        granularity: str, group_size: int | None,
    ) -> Any:  # fmt: skip
        how = {"granularity": granularity, "group_size": group_size, "qmin": qmin, "qmax": qmax, "interval": interval}
        right = OPS["fake_quantize_backward"](dy, x, scale, zero_point, **how)
        if interval == "codes":
            return right
        spread = spread_parameters(scale.items, zero_point.items, x.shape, granularity, group_size)
        with np.errstate(all="ignore"):
            values = (np.asarray(dequantize_affine_codes(np.asarray(q), *spread, "float32")) for q in (qmin, qmax))
            low, high = (value if wide else _as(value, x.dtype).single() for value in values)
            words = np.where(inside(x.single(), low, high), dy.words(), 0).astype(dy.words().dtype)
        return host(np.where(np.isnan(np.broadcast_to(spread[0], x.shape)), right.words(), words), x.dtype)

    return backward


def _multiplied(dy: HostArray, x: HostArray, *rest: HostArray, **options: Any) -> Any:
    """Multiply the gradient by 0 or 1: what is infinite or NaN stays so outside, and zeros keep their sign."""
    ones = host(np.ones(x.shape, np.float32))
    plain = HostArray(OPS["encode"](ones, fmt=x.dtype).items, x.dtype) if x.dtype != "float32" else ones
    mask = OPS["fake_quantize_backward"](plain, x, *rest, **options).single()
    with np.errstate(invalid="ignore"):
        return _as(dy.single() * mask, x.dtype)


def affine_value_faults() -> list[Mutant]:
    """Return the mutants of restorers, symmetric quantizers and fake quantization."""
    restore, symmetric = "dequantize_affine", "quantize_symmetric"
    restorers: list[tuple[str, str, Op]] = [
        ("affine-split-product", "code times scale and zero point times scale are rounded apart",
         values_by(lambda q, s, z: q.astype(F) * s - z.astype(F) * s)),
        ("affine-zero-point-forgotten", "the zero point is not subtracted", values_by(lambda q, s, z: q.astype(F) * s)),
        ("affine-zero-point-added", "the zero point is added",
         values_by(lambda q, s, z: (q.astype(F) + z.astype(F)) * s)),
        ("affine-difference-wraps", "the difference from the zero point wraps at 8 bits", values_by(_in_bytes)),
        ("affine-scale-narrow", "the scale is rounded to the output format before the product", _narrow_scale),
        ("affine-scale-strides", "the scales are read as if they were dense", _scale_strides_ignored),
        ("affine-zero-of-sign", "the code of zero times a scale of NaN is 0",
         values_by(lambda q, s, z: np.where(q == z, F(0), (q.astype(F) - z.astype(F)) * s))),
    ]  # fmt: skip
    scales: list[tuple[str, str, Op]] = [
        ("symmetric-one-step-more", "the scale is clip/(qmax + 1)", symmetric_by(lambda c, low, top: c / F(top + 1))),
        ("symmetric-by-qmin", "the scale is clip/-qmin", symmetric_by(lambda c, low, top: c / F(max(-low, 1)))),
        ("symmetric-both-sides", "the scale is 2·clip/(qmax − qmin)",
         symmetric_by(lambda c, low, top: (2.0 * c.astype(np.float64) / (top - low)))),
        ("symmetric-by-constant", "clip is multiplied by float32 1/qmax",
         symmetric_by(lambda c, low, top: c * (F(1) / F(top)))),
    ]  # fmt: skip
    gradients: list[tuple[str, str, Op]] = [
        ("fake-open-interval", "the ends of the interval are outside",
         gradient_by(lambda x, lo, hi: (lo < x) & (x < hi))),
        ("fake-half-open", "the upper end is outside", gradient_by(lambda x, lo, hi: (lo <= x) & (x < hi))),
        ("fake-all-through", "the gradient is never stopped",
         gradient_by(lambda x, lo, hi: np.ones(x.shape, np.bool_))),
        ("fake-upper-only", "values below the interval pass", gradient_by(lambda x, lo, hi: x <= hi)),
        ("fake-wide-ends", "the ends are not rounded to the format of x",
         gradient_by(lambda x, lo, hi: (lo <= x) & (x <= hi), wide=True)),
        ("fake-multiplied", "the gradient is multiplied by 0 outside", _multiplied),
    ]  # fmt: skip
    return [
        *(Mutant(name, fault, {restore: op}, ("values",)) for name, fault, op in restorers),
        *(Mutant(name, fault, {symmetric: op}, ("scale",)) for name, fault, op in scales),
        Mutant("symmetric-mirrored", "codes saturate at −qmax", {symmetric: _mirrored}, ("codes",)),
        Mutant("fake-half-up", "halves of codes go up", {"fake_quantize": fake_by(_cut)}, ("values",)),
        Mutant("fake-narrow-scale", "the scale is rounded to the format of x",
               {"fake_quantize": fake_by(quantize_affine_codes, narrow=True)}, ("values",)),
        *(Mutant(name, fault, {"fake_quantize_backward": op}, ("x",)) for name, fault, op in gradients),
    ]  # fmt: skip
