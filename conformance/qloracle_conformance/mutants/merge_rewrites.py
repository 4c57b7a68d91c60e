"""Right implementations of merges and of what goes with them: in float32, in other orders, by other means."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.formats import Array, from_bits
from qloracle.lora import lora_scale
from qloracle.quantizing_like import dequantized_weight, quantize_like
from qloracle.rounding import encode
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.adapters.reference.requantizing import arrays_of
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.generators.requantizing import STORED, record_of
from qloracle_conformance.mutants.mutant import Op, Rewrite

Change = Callable[[Array, Array, Array, np.float32], Array]
ONE = np.float32(1)


def from_the_weight(weight: Array, a: Array, b: Array, scale: np.float32) -> Array:
    """Start from W and add one rank after the other, the scale in B; everything in float32."""
    total, scaled = weight.copy(), b * scale
    for k in range(len(a)):
        total += scaled[:, k : k + 1] * a[k]
    return total


def by_halves(weight: Array, a: Array, b: Array, scale: np.float32) -> Array:
    """Add even and odd ranks apart, the last first, then scale, then add W."""
    parts = [np.zeros_like(weight), np.zeros_like(weight)]
    for k in reversed(range(len(a))):
        parts[k % 2] += b[:, k : k + 1] * a[k]
    change: Array = (parts[0] + parts[1]) * scale
    return change + weight


def _scale(options: dict[str, Any], rank: int) -> np.float32:
    """Return s as alpha · (1/r), in float32."""
    root = np.sqrt(np.float32(rank)) if options["rank_stabilized"] else np.float32(rank)
    return np.float32(options["alpha"]) * (ONE / root)


def _merge_by(change: Change, sign: float = 1.0) -> Op:
    def merge(weight: HostArray, lora_a: HostArray, lora_b: HostArray, **options: Any) -> HostArray:
        w, a, b = weight.single(), lora_a.single(), lora_b.single()
        rows = np.ascontiguousarray(w.T if options["fan_in_fan_out"] else w)
        with np.errstate(all="ignore"):
            merged = change(rows, a, b, np.float32(sign) * _scale(options, len(a)))
        stored = np.ascontiguousarray(merged.T if options["fan_in_fan_out"] else merged)
        return host(np.asarray(encode(stored, weight.dtype)), weight.dtype)

    return merge


def _safe_by(change: Change) -> Op:
    def merge(**arguments: Any) -> tuple[HostArray, HostArray]:
        merged = _merge_by(change)(**arguments)
        fine = bool(np.isfinite(merged.real()).all())
        return merged if fine else arguments["weight"], host(np.array(fine))

    return merge


def _cycles_by(change: Change) -> Op:
    def cycles(*, cycles: int, weight: HostArray, **rest: Any) -> HostArray:
        for _ in range(cycles):
            weight = _merge_by(change, -1.0)(weight=_merge_by(change)(weight=weight, **rest), **rest)
        return weight

    return cycles


def _bias(base_bias: HostArray, lora_bias: HostArray, *, rank: int, unmerge: bool, **options: Any) -> HostArray:
    scale = _scale(options, rank)
    added = lora_bias.single() * (-scale if unmerge else scale)
    return host(np.asarray(encode(base_bias.single() + added, base_bias.dtype)), base_bias.dtype)


def _dora_by(change: Change) -> Op:
    def merge(
        weight: HostArray, magnitude: HostArray, lora_a: HostArray, lora_b: HostArray, **options: Any
    ) -> tuple[HostArray, HostArray]:
        w, a, b = weight.single(), lora_a.single(), lora_b.single()
        rows = np.ascontiguousarray(w.T if options["fan_in_fan_out"] else w)
        with np.errstate(all="ignore"):
            v = change(rows, a, b, _scale(options, len(a)))
            norms = np.sqrt(np.sum(v * v, axis=1, dtype=np.float32))
            gain = np.where(norms == 0, np.float32(0), magnitude.single() / norms)
            merged = v * gain[:, np.newaxis]
        stored = np.ascontiguousarray(merged.T if options["fan_in_fan_out"] else merged)
        return host(np.asarray(encode(stored, weight.dtype)), weight.dtype), host(norms)

    return merge


def _dora_unmerge(weight: HostArray, norms: HostArray, magnitude: HostArray, **rest: Any) -> HostArray:
    """Divide by the gain where it is not 0, then unmerge in float32."""
    with np.errstate(all="ignore"):
        gain = np.where(norms.items == 0, np.float32(0), magnitude.single() / norms.items)
        factor = np.where(gain == 0, np.float32(0), ONE / gain)
        rows = weight.single() * (factor if rest["fan_in_fan_out"] else factor[:, np.newaxis])
    merged = _merge_by(by_halves, -1.0)(host(rows), **rest)
    return host(np.asarray(encode(merged.items, weight.dtype)), weight.dtype)


def _requantize_by(kind: str, change: Change) -> Op:
    """Return a merge into a quantized weight whose sums are those of float32."""

    def merge(*, lora_a: HostArray, lora_b: HostArray, scales: str, **rest: Any) -> tuple[HostArray, ...]:
        weight, dtype = record_of(kind, {name: rest[name] for name in STORED[kind]}, rest), rest["dtype"]
        values = rest["original"] if "original" in rest else HostArray(dequantized_weight(weight), dtype)
        options = {name: rest[name] for name in ("alpha", "rank_stabilized", "fan_in_fan_out")}
        merged = _merge_by(change)(values, lora_a, lora_b, **options)
        return arrays_of(kind, quantize_like(from_bits(merged.items, dtype), weight, scales=scales, fmt=dtype))

    return merge


def _combine(lora_a: HostArray, lora_b: HostArray, *, weights: tuple[float, ...], **options: Any) -> HostArray:
    """Add up the adapters in float32, the last one first."""
    a, b = lora_a.single(), lora_b.single()
    total = np.zeros((len(b), a.shape[1]), np.float32)
    for end, rank, factor in reversed(_parts(options, weights)):
        total = total + by_halves(np.zeros_like(total), a[end - rank : end], b[:, end - rank : end], factor)
    return host(np.asarray(encode(total, lora_a.dtype)), lora_a.dtype)


def _concatenate(
    lora_a: HostArray, lora_b: HostArray, *, weights: tuple[float, ...], **options: Any
) -> tuple[HostArray, HostArray]:
    a = lora_a.single().copy()
    for end, rank, factor in _parts(options, weights):
        a[end - rank : end] *= factor
    return host(np.asarray(encode(a, lora_a.dtype)), lora_a.dtype), HostArray(np.array(lora_b.items), lora_b.dtype)


def _parts(options: dict[str, Any], weights: tuple[float, ...]) -> list[tuple[int, int, np.float32]]:
    """Return where the rows of each adapter end, its rank, and w s in float32."""
    ends = [int(end) for end in np.cumsum(options["ranks"])]
    roots = options["stabilized"]
    scales = [
        np.float32(w) * np.float32(lora_scale(alpha, rank, rank_stabilized=root))
        for w, alpha, rank, root in zip(weights, options["alphas"], options["ranks"], roots, strict=True)
    ]
    return list(zip(ends, options["ranks"], scales, strict=True))


def _init_in_float32(draws: HostArray, **options: Any) -> tuple[HostArray, HostArray]:
    """Compute A as libraries do: u·(2c) − c, or z·std, in float32."""
    right = OPS["lora_init"](draws, **options)
    rank, d_in = draws.shape
    if options["initialization"] == "kaiming":
        bound = ONE / np.sqrt(np.float32(d_in))
        values = draws.items * (bound + bound) - bound
    else:
        values = draws.items * np.float32(1 / rank if options["std"] is None else options["std"])
    return host(np.asarray(encode(values, options["dtype"])), options["dtype"]), right[1]


def _select_by_components(linear: HostArray | None, **options: Any) -> HostArray:
    """Compare lists of components."""
    targets = options["targets"]
    if isinstance(targets, str) or options["layers"] is not None:
        return OPS["select_targets"](linear, **options)  # type: ignore[no-any-return]
    wanted = [target.split(".") for target in targets]
    parts = [name.split(".") for name in options["names"]]
    found = np.array([any(part[-len(t) :] == t for t in wanted) for part in parts])
    plain = OPS["select_targets"](linear, **{**options, "exclude": ()})
    return host(found & ~(plain.items & ~OPS["select_targets"](linear, **options).items))


def merge_rewrites() -> list[Rewrite]:
    """Return the right implementations."""
    orders: list[tuple[str, str, Change]] = [
        ("from-weight", "merges start from W, in float32, the scale in B", from_the_weight),
        ("by-halves", "merges add even and odd ranks apart, in float32", by_halves),
    ]
    found = [
        Rewrite(f"merge-{name}", what, {
            "lora_merge": _merge_by(change), "lora_unmerge": _merge_by(change, -1.0),
            "lora_merge_safe": _safe_by(change), "lora_merge_cycles": _cycles_by(change),
            "merge_bias": _bias, "dora_merge": _dora_by(change), "dora_unmerge": _dora_unmerge,
        }, {})
        for name, what, change in orders
    ]  # fmt: skip
    quantized: dict[str, Op] = {f"merge_{kind}": _requantize_by(kind, by_halves) for kind in STORED}
    quantized["merge_blocks_original"] = _requantize_by("blocks", from_the_weight)
    return [
        *found,
        Rewrite("requantize-float32", "merges into quantized weights add up in float32", quantized, {}),
        Rewrite("combine-float32", "adapters are combined in float32, the last first",
                {"combine_adapters": _combine, "concatenate_adapters": _concatenate}, {}),
        Rewrite("init-float32", "A is computed in float32", {"lora_init": _init_in_float32}, {"lora_a": "bound"}),
        Rewrite("targets-components", "names are compared component by component",
                {"select_targets": _select_by_components}, {}),
    ]  # fmt: skip
