"""Faults of DoRA merges: gains, norms, rows of zeros, the order of unmerging."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.dora import merged_rows, over_norms, row_norms
from qloracle.formats import Array
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.merge_kernels import WEIGHT, Formula, Operands, coarse, narrow, operands_of, stored
from qloracle_conformance.mutants.mutant import Mutant, Op


def dora_by(gain: Callable[[Operands, Array], Array], rows: Formula | None = None, norms: Formula | None = None) -> Op:
    """Return a DoRA merge whose V, norms or gain are computed another way."""

    def merge(**arguments: Any) -> tuple[HostArray, HostArray]:
        o = operands_of(arguments)
        with np.errstate(all="ignore"):
            v = merged_rows(o.weight, o.lora_a, o.lora_b, o.scale) if rows is None else rows(o)
            lengths = row_norms(merged_rows(o.weight, o.lora_a, o.lora_b, o.scale)) if norms is None else norms(o)
            merged = gain(o, lengths)[:, np.newaxis] * v
            return stored(merged, o), host(lengths.astype(np.float32))

    return merge


def _right_gain(o: Operands, norms: Array) -> Array:
    return over_norms(o.magnitude, norms)


def _norms_in_half(o: Operands) -> Array:
    rows = narrow(merged_rows(o.weight, o.lora_a, o.lora_b, o.scale), "float16")
    return np.sqrt(narrow((narrow(rows * rows, "float16")).sum(axis=1), "float16"))


def _norms_of_columns(o: Operands) -> Array:
    rows = merged_rows(o.weight, o.lora_a, o.lora_b, o.scale)
    return row_norms(rows.T if rows.shape[0] == rows.shape[1] and o.fan else rows)


def _norms_of_base(o: Operands) -> Array:
    return row_norms(o.weight)


def _scale_twice_in_norms(o: Operands) -> Array:
    return row_norms(merged_rows(o.weight, o.lora_a, o.lora_b, o.scale * o.scale))


def _divided(o: Operands, norms: Array) -> Array:
    return o.magnitude / norms


def _with_eps(o: Operands, norms: Array) -> Array:
    return o.magnitude / (norms + 1e-6)


def _gain_of_base(o: Operands) -> Array:
    """Scale W alone and add the change unscaled."""
    change = o.scale * o.product
    norms = row_norms(o.weight + change)
    gain = over_norms(o.magnitude, norms)[:, np.newaxis]
    return np.where(gain == 0, 0.0, o.weight + change / np.where(gain == 0, 1.0, gain))


def _unmerged_with_own_norms(**arguments: Any) -> HostArray:
    """Compute the norms from the merged weight instead of taking those of the merge."""
    o = operands_of(arguments)
    norms = host(row_norms(o.weight).astype(np.float32))
    return OPS["dora_unmerge"](**{**arguments, "norms": norms})  # type: ignore[no-any-return]


def _unmerge_order(**arguments: Any) -> HostArray:
    """Subtract the change before the rows are scaled back."""
    o = operands_of(arguments)
    norms, m = arguments["norms"].real(), o.magnitude
    with np.errstate(all="ignore"):
        factor = np.where(norms == 0, 0.0, norms / np.where(m == 0, 1.0, m))
        return stored(factor[:, np.newaxis] * (o.weight - o.scale * o.product), o)


def _unmerge_no_guard(**arguments: Any) -> HostArray:
    o = operands_of(arguments)
    with np.errstate(all="ignore"):
        gain = o.magnitude / arguments["norms"].real()
        return stored(o.weight / gain[:, np.newaxis] - o.scale * o.product, o)


def dora_merge_faults() -> list[Mutant]:
    """Return the mutants of DoRA merges."""
    merges: list[tuple[str, str, Op, tuple[str, ...]]] = [
        ("unit-rows", "the magnitude is left out", dora_by(lambda o, n: over_norms(np.ones(len(n)), n)), WEIGHT),
        ("not-normed", "rows are multiplied by the magnitude alone", dora_by(lambda o, n: o.magnitude), WEIGHT),
        ("zero-rows", "a row of zeros is divided by its norm", dora_by(_divided), WEIGHT),
        ("eps", "1e-6 is added to every norm", dora_by(_with_eps), WEIGHT),
        ("base-norms", "norms are those of W without the adapter", dora_by(_right_gain, norms=_norms_of_base),
         ("norms",)),
        ("scale-twice", "the scale is in the norms twice", dora_by(_right_gain, norms=_scale_twice_in_norms),
         ("norms",)),
        ("norms-in-half", "squares are added up in float16", dora_by(_right_gain, norms=_norms_in_half), ("norms",)),
        ("columns", "norms of a square transposed weight are those of the other side",
         dora_by(_right_gain, norms=_norms_of_columns), ("norms",)),
        ("gain-on-base", "only W is brought to the magnitude", dora_by(_right_gain, rows=_gain_of_base), WEIGHT),
        ("adapter-missing", "the adapter is in the norms and not in the rows",
         dora_by(_right_gain, rows=lambda o: o.weight), WEIGHT),
        ("one-less", "rows are scaled by g − 1", dora_by(lambda o, n: over_norms(o.magnitude, n) - 1), WEIGHT),
        ("scale-in-bfloat16", "the scale of the rows is rounded to bfloat16",
         dora_by(_right_gain, rows=lambda o: merged_rows(o.weight, o.lora_a, o.lora_b, coarse(o.scale))), WEIGHT),
        ("alpha", "alpha is used instead of alpha/r",
         dora_by(_right_gain, rows=lambda o: merged_rows(o.weight, o.lora_a, o.lora_b, o.alpha)), WEIGHT),
    ]  # fmt: skip
    unmerges: list[tuple[str, str, Op]] = [
        ("own-norms", "norms are those of the merged weight", _unmerged_with_own_norms),
        ("order", "the change is taken out before the rows are scaled back", _unmerge_order),
        ("no-guard", "rows of norm 0 are divided by their gain", _unmerge_no_guard),
        ("plain", "the magnitude is left as it is", lambda norms, magnitude, **a: OPS["lora_unmerge"](**a)),
    ]
    return [
        *(Mutant(f"dora-merge-{n}", fault, {"dora_merge": op}, stages) for n, fault, op, stages in merges),
        *(Mutant(f"dora-unmerge-{n}", fault, {"dora_unmerge": op}, WEIGHT) for n, fault, op in unmerges),
    ]
