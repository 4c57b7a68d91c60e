"""Faults of safe merges: what is checked, and what remains after a refusal."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.rounding import encode
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.merge_kernels import Operands, operands_of
from qloracle_conformance.mutants.mutant import Mutant, Op


def _safe_by(check: Callable[[Operands, Array], bool], weight: Callable[[HostArray, HostArray], HostArray]) -> Op:
    """Return a safe merge with its own check, and its own idea of what remains after a refusal."""

    def merge(**arguments: Any) -> tuple[HostArray, HostArray]:
        merged = OPS["lora_merge"](**arguments)
        with np.errstate(all="ignore"):
            accepted = check(operands_of(arguments), merged.real())
        kept = merged if accepted else weight(arguments["weight"], merged)
        return kept, host(np.array(bool(accepted)))

    return merge


def _as_it_was(before: HostArray, merged: HostArray) -> HostArray:
    return before


def safe_merge_faults() -> list[Mutant]:
    """Return the mutants of safe merges."""
    safe: list[tuple[str, str, Op]] = [
        ("unchecked", "the result is never checked", _safe_by(lambda o, m: True, _as_it_was)),
        ("nan-only", "infinities pass", _safe_by(lambda o, m: not np.isnan(m).any(), _as_it_was)),
        ("operands-only", "A and B are checked, the result is not",
         _safe_by(lambda o, m: bool(np.isfinite(o.lora_a).all() and np.isfinite(o.lora_b).all()), _as_it_was)),
        ("before-rounding", "the sum is checked before it is rounded to the weight's format",
         _safe_by(lambda o, m: bool(np.isfinite(o.weight + o.scale * o.product).all()), _as_it_was)),
        ("first-row", "only the first row is checked",
         _safe_by(lambda o, m: bool(np.isfinite(m.T[:1] if o.fan else m[:1]).all()), _as_it_was)),
        ("by-sum", "the sum of all elements is checked, which may overflow",
         _safe_by(lambda o, m: bool(np.isfinite(np.sum(m.astype(np.float16), dtype=np.float16))), _as_it_was)),
        ("merged-kept", "a refused merge stays merged",
         _safe_by(lambda o, m: bool(np.isfinite(m).all()), lambda before, merged: merged)),
        ("zeroed", "elements that are not finite become zero",
         _safe_by(lambda o, m: bool(np.isfinite(m).all()),
                  lambda before, merged: host(encode(np.nan_to_num(merged.real(), posinf=0, neginf=0), before.dtype),
                                              before.dtype))),
        ("always-refused", "every merge is refused", _safe_by(lambda o, m: False, _as_it_was)),
    ]  # fmt: skip
    return [Mutant(f"safe-merge-{n}", fault, {"lora_merge_safe": op}, ("accepted", "weight")) for n, fault, op in safe]
