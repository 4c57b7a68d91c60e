"""Faults of merges: scales, orientations, roundings, drift."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.formats import Array, format_named
from qloracle.rounding import encode
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.dora_merge_faults import dora_merge_faults
from qloracle_conformance.mutants.kernels import stored_items, to_bfloat16, to_tf32
from qloracle_conformance.mutants.merge_kernels import (
    WEIGHT,
    Formula,
    Operands,
    coarse,
    merge_by,
    narrow,
    operands_of,
    stored,
)
from qloracle_conformance.mutants.mutant import Mutant, Op
from qloracle_conformance.mutants.safe_merge_faults import safe_merge_faults


def _operands_by(change: Callable[[Array], Array]) -> Formula:
    def formula(o: Operands) -> Array:
        a, b = (change(m.astype(np.float32)).astype(np.float64) for m in (o.lora_a, o.lora_b))
        value: Array = o.weight + o.scale * (b @ a)
        return value

    return formula


def _coarse_back(o: Operands) -> Array:
    return o.weight - coarse(o.scale) * o.product


def _in_16_bits(o: Operands) -> Array:
    """Round s B A to the format of the weight before it is added, as `.to(weight.dtype)` does."""
    return o.weight + narrow(o.scale * o.product, o.dtype)


def _stored_transposed(o: Operands) -> Array:
    change = o.scale * o.product
    square = change.shape[0] == change.shape[1]
    return o.weight + (change.T if square and o.fan else change)


def _tail_rows(o: Operands) -> Array:
    covered = len(o.weight) - len(o.weight) % 8 if len(o.weight) > 8 else len(o.weight)
    kept = (np.arange(len(o.weight)) < covered)[:, np.newaxis]
    return o.weight + np.where(kept, o.scale * o.product, 0.0)


def _last_rank(o: Operands) -> Array:
    value: Array = o.weight + o.scale * (o.lora_b[:, : max(1, o.rank - 1)] @ o.lora_a[: max(1, o.rank - 1)])
    return value


def _sixteen_ranks(o: Operands) -> Array:
    value: Array = o.weight + o.scale * (o.lora_b[:, :16] @ o.lora_a[:16])
    return value


def _truncated(o: Operands) -> Array:
    """Cut the sum off to the format instead of rounding it."""
    value = o.weight + o.scale * o.product
    near = narrow(value, o.dtype)
    words = near.astype(np.float64)
    fmt = format_named(o.dtype)
    step = np.ldexp(1.0, np.frexp(np.where(words == 0, 1.0, words))[1] - 1 - fmt.mantissa_bits)
    return np.where(np.isfinite(near) & (np.abs(near) > np.abs(value)), near - np.sign(near) * step, near)


def _half_away(o: Operands) -> Array:
    """Round exact halves away from zero: add half a unit, then cut."""
    value = o.weight + o.scale * o.product
    mantissa = format_named(o.dtype).mantissa_bits
    step = np.ldexp(1.0, np.maximum(np.frexp(np.where(value == 0, 1.0, value))[1] - 1, -120) - mantissa)
    near = narrow(value, o.dtype)
    away = np.sign(value) * np.floor(np.abs(value) / step + 0.5) * step
    return np.where(np.abs(value) / step % 1 == 0.5, away, near)


def _flushed(o: Operands) -> Array:
    smallest = 2.0 ** format_named(o.dtype).minimum_exponent
    value = o.weight + o.scale * o.product
    return np.where(np.abs(value) < smallest, 0.0, value)


def _saturated(o: Operands) -> Array:
    largest = format_named(o.dtype).largest_finite
    return np.clip(o.weight + o.scale * o.product, -largest, largest)


def _as_stored(**arguments: Any) -> Any:
    """Read A in the order in which it lies in memory, as if it were contiguous."""
    a = arguments["lora_a"]
    if not a.items.flags.c_contiguous:
        arguments = {**arguments, "lora_a": HostArray(stored_items(a.items), a.dtype)}
    return OPS["lora_merge"](**arguments)


def _in_place(**arguments: Any) -> Any:
    """Merge into the weight's own memory."""
    merged = OPS["lora_merge"](**arguments)
    if merged.items.size and np.isfinite(merged.real()).all():
        arguments["weight"].items[...] = merged.items
    return merged


def _cycles_with(wrong: str, op: Op, other: Op | None = None) -> Op:
    def cycles(*, cycles: int, **arguments: Any) -> HostArray:
        weight = arguments.pop("weight")
        for _ in range(cycles):
            weight = (op if wrong == "merge" else OPS["lora_merge"])(weight=weight, **arguments)
            weight = (op if wrong == "unmerge" else other or OPS["lora_unmerge"])(weight=weight, **arguments)
        return HostArray(np.array(weight.items), weight.dtype)

    return cycles


def _unmerge_by_dtype(**arguments: Any) -> HostArray:
    o = operands_of(arguments)
    return stored(o.weight - narrow(o.scale * o.product, "bfloat16"), o)


def _grown(**arguments: Any) -> HostArray:
    """Subtract a little less than was added: alpha/r from another place."""
    return OPS["lora_unmerge"](**{**arguments, "alpha": arguments["alpha"] * (1 - 2.0**-9)})  # type: ignore[no-any-return]


def _bias_by(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Op:
    def merge(**arguments: Any) -> HostArray:
        return OPS["merge_bias"](**{**arguments, **change(arguments)})  # type: ignore[no-any-return]

    return merge


def _bias_in_half(**arguments: Any) -> HostArray:
    narrow = host(encode(arguments["lora_bias"].real(), "bfloat16"), "bfloat16")
    return OPS["merge_bias"](**{**arguments, "lora_bias": narrow})  # type: ignore[no-any-return]


def merge_faults() -> list[Mutant]:
    """Return the mutants of merges."""
    merges: list[tuple[str, str, Formula]] = [
        ("alpha", "alpha is used instead of alpha/r", lambda o: o.weight + o.alpha * o.product),
        ("scale-missing", "B A is added without a scale", lambda o: o.weight + o.product),
        ("scale-twice", "B A is scaled twice", lambda o: o.weight + o.scale * o.scale * o.product),
        ("root-ignored", "rsLoRA's root is ignored", lambda o: o.weight + o.alpha / o.rank * o.product),
        ("root-always", "every adapter is scaled as rsLoRA", lambda o: o.weight + o.alpha / o.rank**0.5 * o.product),
        ("rank-in-int", "alpha/r is an integer division", lambda o: o.weight + float(int(o.scale)) * o.product),
        ("scale-in-bfloat16", "the scale is rounded to bfloat16", lambda o: o.weight + coarse(o.scale) * o.product),
        ("sign", "the adapter is subtracted", lambda o: o.weight - o.scale * o.product),
        ("nothing", "the adapter is not merged at all", lambda o: o.weight),
        ("square-transposed", "a square change is not transposed for a transposed weight", _stored_transposed),
        ("change-in-weight-dtype", "s B A is rounded to the format of the weight first", _in_16_bits),
        ("operands-bfloat16", "A and B are rounded to bfloat16", _operands_by(to_bfloat16)),
        ("operands-tf32", "A and B are rounded to TF32", _operands_by(to_tf32)),
        ("tail-rows", "rows beyond the last multiple of 8 are not merged", _tail_rows),
        ("last-rank", "the last rank is left out", _last_rank),
        ("sixteen-ranks", "ranks from 16 on are left out", _sixteen_ranks),
        ("truncated", "the result is cut off to the format of the weight", _truncated),
        ("half-away", "halves are rounded away from zero", _half_away),
        ("flushed", "subnormal results become zero", _flushed),
        ("saturated", "results beyond the format become its largest number", _saturated),
    ]  # fmt: skip
    unmerges: list[tuple[str, str, Formula]] = [
        ("adds", "the adapter is added again", lambda o: o.weight + o.scale * o.product),
        ("alpha", "alpha is used instead of alpha/r", lambda o: o.weight - o.alpha * o.product),
        ("root-ignored", "rsLoRA's root is ignored", lambda o: o.weight - o.alpha / o.rank * o.product),
        ("nothing", "the weight stays merged", lambda o: o.weight),
        ("change-in-bfloat16", "s B A is rounded to bfloat16 first",
         lambda o: o.weight - narrow(o.scale * o.product, "bfloat16")),
        ("square-transposed", "a square change is not transposed for a transposed weight",
         lambda o: 2 * o.weight - _stored_transposed(o)),
    ]  # fmt: skip
    cycles: list[tuple[str, str, Op]] = [
        ("adds-twice", "unmerging adds", _cycles_with("unmerge", OPS["lora_merge"])),
        ("bfloat16-once", "only unmerging rounds the change to bfloat16", _cycles_with("unmerge", _unmerge_by_dtype)),
        ("grows", "unmerging takes a little less than merging added", _cycles_with("unmerge", _grown)),
        (
            "scale-in-bfloat16",
            "unmerging rounds the scale to bfloat16",
            _cycles_with("unmerge", merge_by(_coarse_back)),
        ),
        ("never-unmerged", "the weight stays merged", _cycles_with("unmerge", lambda **a: a["weight"])),
    ]
    biases: list[tuple[str, str, Op]] = [
        ("unscaled", "the adapter's bias is not scaled",
         _bias_by(lambda a: {"alpha": float(a["rank"]), "rank_stabilized": False})),
        ("alpha", "the adapter's bias is scaled by alpha",
         _bias_by(lambda a: {"alpha": a["alpha"] * a["rank"], "rank_stabilized": False})),
        ("root-ignored", "rsLoRA's root is ignored for the bias", _bias_by(lambda a: {"rank_stabilized": False})),
        ("dropped", "the adapter's bias is lost", _bias_by(lambda a: {"alpha": 0.0})),
        ("sign", "unmerging adds", _bias_by(lambda a: {"unmerge": False})),
        ("bfloat16", "the adapter's bias passes through bfloat16", _bias_in_half),
    ]  # fmt: skip
    return [
        *(Mutant(f"merge-{n}", fault, {"lora_merge": merge_by(f)}, WEIGHT) for n, fault, f in merges),
        Mutant("merge-a-as-stored", "A is read as it lies in memory", {"lora_merge": _as_stored}, WEIGHT),
        Mutant("merge-in-place", "the weight that was given is overwritten", {"lora_merge": _in_place}, ("inputs",)),
        *(Mutant(f"unmerge-{n}", fault, {"lora_unmerge": merge_by(f)}, WEIGHT) for n, fault, f in unmerges),
        *safe_merge_faults(),
        *(Mutant(f"merge-cycles-{n}", fault, {"lora_merge_cycles": op}, WEIGHT) for n, fault, op in cycles),
        *(Mutant(f"merge-bias-{n}", fault, {"merge_bias": op}, ("bias",)) for n, fault, op in biases),
        *dora_merge_faults(),
    ]
