"""Right rewrites of integer quantizers and their layers: scales applied elsewhere, other orders, other arithmetic."""

from fractions import Fraction
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.groups import group_matrices, spread_groups
from qloracle.rounding import encode
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.affine_kernels import affine_with, codes_by
from qloracle_conformance.mutants.decomposed_steps import Steps, as_rows_only
from qloracle_conformance.mutants.kernels import summed
from qloracle_conformance.mutants.mutant import Rewrite

F = np.float32


def _narrow_width(lo: Array, hi: Array, steps: int) -> Array:
    """Divide the width in float32 by 4 first, so that it cannot overflow."""
    quarter = (np.maximum(hi, F(0)) * F(0.25) - np.minimum(lo, F(0)) * F(0.25)).astype(np.float64)
    width = np.where(quarter < 2.0**-100, np.maximum(hi, 0).astype(np.float64) - np.minimum(lo, 0), quarter * 4)
    scale = (width / steps).astype(np.float32)
    return np.where(np.isfinite(lo) & np.isfinite(hi), np.where(scale == 0, F(1), scale), F(np.nan))


def _inverse_steps(x: Array, scale: Array, zero_point: Array) -> Array:
    """Multiply by the reciprocal where that is a normal number, and divide elsewhere."""
    normal = (scale >= F(2.0**-126)) & (scale <= F(2.0**126))
    exact = np.rint(x.astype(np.float64) / scale.astype(np.float64))
    return np.where(normal, np.rint(x * (F(1) / scale)), exact) + zero_point


def _one_by_one(x: HostArray, *, granularity: str, group_size: int | None) -> Any:
    """Observe one group after the other, with Python's own comparisons."""
    found: list[list[float]] = [[], []]
    for matrix in group_matrices(x.single(), granularity, group_size):
        for row in matrix.tolist():
            finite = all(np.isfinite(row))
            found[0].append(min(row, default=0.0) if finite else np.nan)
            found[1].append(max(row, default=0.0) if finite else np.nan)
    shape = OPS["minmax_range"](x, granularity=granularity, group_size=group_size)[0].shape
    return tuple(host(np.asarray(np.array(end, np.float32).reshape(shape) + F(0))) for end in found)


def _interpolated(
    previous_lo: HostArray, previous_hi: HostArray, current_lo: HostArray, current_hi: HostArray, *, weight: float
) -> Any:
    """Interpolate from the other end, in rationals."""
    ends = []
    for first, second in ((previous_lo, current_lo), (previous_hi, current_hi)):
        values = [_between(a, b, weight) for a, b in zip(first.items.flat, second.items.flat, strict=True)]
        ends.append(host(np.asarray(np.array(values, np.float32).reshape(first.shape))))
    return tuple(ends)


def _between(first: np.float32, second: np.float32, weight: float) -> np.float32:
    if not (np.isfinite(first) and np.isfinite(second)):
        return F(np.nan)
    exact = Fraction(float(second)) + (1 - Fraction(weight)) * (Fraction(float(first)) - Fraction(float(second)))
    near = float(exact)
    if Fraction(near) != exact and np.float64(near).view(np.int64) % 2 == 0:  # to odd
        near = float(np.nextafter(near, np.inf if exact > Fraction(near) else -np.inf))
    return F(near)


def _scaled_sum(x: HostArray, codes: HostArray, absmax: HostArray, bias: HostArray | None, **how: Any) -> Any:
    """Add up codes times activations in float32, and scale the sum, where a row of the weight shares its scale."""
    if how["granularity"] != "row" or not x.items.size:
        return OPS["int8_weight_forward"](x, codes, absmax, bias, **how)
    rows = x.single().reshape(-1, x.shape[-1])
    with np.errstate(all="ignore"):
        y = summed(rows, codes.items.astype(np.float32).T, "split") * (absmax.items / F(127))
        y = y if bias is None else y + bias.single()
    return host(np.asarray(encode(y.reshape(*x.shape[:-1], len(codes.items)), x.dtype)), x.dtype)


def _dequantized_first(
    x: HostArray, codes: HostArray, scale: HostArray, zero_point: HostArray, bias: HostArray | None, **how: Any
) -> Any:
    """Dequantize in float32, begin with the bias, and add products from the last to the first."""
    spread = (spread_groups(a.items, codes.shape, how["granularity"], how["group_size"]) for a in (scale, zero_point))
    size, place = spread
    rows = x.single().reshape(int(np.prod(x.shape[:-1], dtype=np.int64)), x.shape[-1])
    with np.errstate(all="ignore"):
        weight = (codes.items.astype(np.float32) - place.astype(np.float32)) * size
        y = summed(rows, weight.astype(np.float32).T, "reversed")
        y = y if bias is None else bias.single() + y
    return host(np.asarray(encode(y.reshape(*x.shape[:-1], len(codes.items)), x.dtype)), x.dtype)


def _folded_backward(dy: HostArray, codes: HostArray, absmax: HostArray) -> Any:
    """Multiply the gradient of the output by the scale of its column first."""
    rows = dy.single().reshape(int(np.prod(dy.shape[:-1], dtype=np.int64)), dy.shape[-1])
    with np.errstate(all="ignore"):
        dx = summed(rows * (absmax.items / F(127)), codes.items.astype(np.float32), "sequential")
        db = rows[::-1].sum(axis=0, dtype=np.float32)
    shaped = dx.reshape(*dy.shape[:-1], codes.shape[1])
    return tuple(host(np.asarray(encode(part, dy.dtype)), dy.dtype) for part in (shaped, db))


def _in_float32(integer: Array, floating: Array, bias: Array) -> Array:
    """Begin with the bias, and add both parts in float32."""
    with np.errstate(all="ignore"):
        total = bias.astype(F) + floating.astype(F)
        found: Array = (total + integer.astype(F)).astype(np.float64)
    return found


def int8_rewrites() -> list[Rewrite]:
    """Return right rewrites."""
    return [
        Rewrite("affine-scale-at-bound", "the scale from a width in float32, claimed at level bound",
                affine_with(scale=_narrow_width), {"scale": "bound"}),
        Rewrite("affine-codes-at-tie", "codes by a float32 reciprocal of the scale, claimed at level tie",
                {"quantize_affine": affine_with(codes=codes_by(_inverse_steps))["quantize_affine"]}, {"codes": "tie"}),
        Rewrite("ranges-one-by-one", "groups observed one after the other", {"minmax_range": _one_by_one}, {}),
        Rewrite("moving-from-the-end", "ranges moved from the other end", {"moving_range": _interpolated}, {}),
        Rewrite("weight-only-scaled-sum", "the scale applied to the sum", {"int8_weight_forward": _scaled_sum}, {}),
        Rewrite("weight-only-reversed", "an affine weight dequantized in float32, summed backwards",
                {"affine_weight_forward": _dequantized_first}, {}),
        Rewrite("llm-backward-folded", "the scale multiplied into the gradient",
                {"llm_int8_backward": _folded_backward}, {}),
        Rewrite("llm-step-by-step", "LLM.int8() with both parts and the bias added in float32",
                {"llm_int8_forward": Steps(join=_in_float32)}, {}),
        Rewrite("int8-linear-step-by-step", "a layer with quantized activations, step by step",
                {"int8_linear_forward": as_rows_only(Steps(join=_in_float32))}, {}),
    ]  # fmt: skip
