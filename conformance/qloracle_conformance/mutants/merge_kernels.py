"""Merges by formulas of their own, with the places open where a fault may enter."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.lora import lora_scale
from qloracle.rounding import decode, encode
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.mutant import Op

WEIGHT = ("weight",)


@dataclass(frozen=True)
class Operands:
    """The operands of a merge as real numbers, W as (d_out, d_in)."""

    weight: Array
    lora_a: Array
    lora_b: Array
    alpha: float
    rank: int
    stabilized: bool
    fan: bool
    dtype: str
    adapter_dtype: str
    magnitude: Array

    @property
    def scale(self) -> float:
        """The right scale."""
        return lora_scale(self.alpha, self.rank, rank_stabilized=self.stabilized)

    @property
    def product(self) -> Array:
        """B A."""
        product: Array = self.lora_b @ self.lora_a
        return product


Formula = Callable[[Operands], Array]


def operands_of(arguments: dict[str, Any]) -> Operands:
    """Return the operands of a call."""
    real = {n: a.real() for n, a in arguments.items() if isinstance(a, HostArray)}
    fan, weight = arguments["fan_in_fan_out"], arguments["weight"]
    return Operands(
        real["weight"].T if fan else real["weight"], real["lora_a"], real["lora_b"], arguments["alpha"],
        len(real["lora_a"]), arguments["rank_stabilized"], fan, weight.dtype, arguments["lora_a"].dtype,
        real.get("magnitude", np.zeros(0)),
    )  # fmt: skip


def stored(values: Array, o: Operands) -> HostArray:
    """Return a weight rounded to its format, in the orientation in which it is stored."""
    with np.errstate(all="ignore"):
        return host(np.asarray(encode(np.ascontiguousarray(values.T if o.fan else values), o.dtype)), o.dtype)


def merge_by(formula: Formula) -> Op:
    """Return a merge that computes the weight by a formula of its own, in float64."""

    def merge(**arguments: Any) -> HostArray:
        o = operands_of(arguments)
        with np.errstate(all="ignore"):
            return stored(formula(o), o)

    return merge


def narrow(values: Array, fmt: str) -> Array:
    """Return values rounded to a format."""
    return decode(encode(values, fmt), fmt)


def coarse(scale: float) -> float:
    """Return a scale rounded to bfloat16."""
    return float(narrow(np.array(scale), "bfloat16"))
