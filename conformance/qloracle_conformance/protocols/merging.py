"""Signatures of merges of adapters into weights. Arguments are passed by name; stored weights keep type and shape."""

from typing import Any, Protocol

Native = Any


class LoraMerge(Protocol):
    """``lora_merge``: W + s B A in the format of W. Clause [lora.merge]."""

    def __call__(
        self, weight: Native, lora_a: Native, lora_b: Native, *, alpha: float, rank_stabilized: bool,
        fan_in_fan_out: bool,
    ) -> Native:  # fmt: skip
        """Return the merged weight; with `fan_in_fan_out` it is stored as (d_in, d_out)."""
        ...


class LoraUnmerge(Protocol):
    """``lora_unmerge``: W − s B A in the format of W. Clause [lora.unmerge]."""

    def __call__(
        self, weight: Native, lora_a: Native, lora_b: Native, *, alpha: float, rank_stabilized: bool,
        fan_in_fan_out: bool,
    ) -> Native:  # fmt: skip
        """Return the unmerged weight."""
        ...


class LoraMergeSafe(Protocol):
    """``lora_merge_safe``: a merge that refuses a result that is not finite. Clause [lora.merge_safe]."""

    def __call__(
        self, weight: Native, lora_a: Native, lora_b: Native, *, alpha: float, rank_stabilized: bool,
        fan_in_fan_out: bool,
    ) -> tuple[Native, Native]:  # fmt: skip
        """Return the merged weight and a 0-d bool True, or the weight as it was and False where the merge raises."""
        ...


class LoraMergeCycles(Protocol):
    """``lora_merge_cycles``: merge and unmerge in turn, so many times. Clause [bounds.merge_cycles]."""

    def __call__(
        self, weight: Native, lora_a: Native, lora_b: Native, *, alpha: float, rank_stabilized: bool,
        fan_in_fan_out: bool, cycles: int,
    ) -> Native:  # fmt: skip
        """Return the weight after the last unmerge; every step rounds it to its format."""
        ...


class MergeBias(Protocol):
    """``merge_bias``: b + s b_B in the format of b. Clause [lora.merge_bias]."""

    def __call__(
        self, base_bias: Native, lora_bias: Native, *, alpha: float, rank: int, rank_stabilized: bool, unmerge: bool
    ) -> Native:
        """Return the merged bias, or with `unmerge` the unmerged one."""
        ...


class DoraMerge(Protocol):
    """``dora_merge``: the rows of W + s B A brought to their magnitudes. Clause [dora.merge]."""

    def __call__(
        self, weight: Native, magnitude: Native, lora_a: Native, lora_b: Native, *, alpha: float,
        rank_stabilized: bool, fan_in_fan_out: bool,
    ) -> tuple[Native, Native]:  # fmt: skip
        """Return the merged weight and the norms of W + s B A as float32."""
        ...


class DoraUnmerge(Protocol):
    """``dora_unmerge``: its inverse, given the norms of the merge. Clause [dora.unmerge]."""

    def __call__(
        self, weight: Native, norms: Native, magnitude: Native, lora_a: Native, lora_b: Native, *, alpha: float,
        rank_stabilized: bool, fan_in_fan_out: bool,
    ) -> Native:  # fmt: skip
        """Return the unmerged weight."""
        ...


PROTOCOLS: dict[str, type] = {
    "lora_merge": LoraMerge,
    "lora_unmerge": LoraUnmerge,
    "lora_merge_safe": LoraMergeSafe,
    "lora_merge_cycles": LoraMergeCycles,
    "merge_bias": MergeBias,
    "dora_merge": DoraMerge,
    "dora_unmerge": DoraUnmerge,
}
