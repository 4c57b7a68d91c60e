"""The operands of adapters as kernels see them, and layers computed from formulas on them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.operands import as_rows
from qloracle.rounding import encode
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.kernels import summed
from qloracle_conformance.operations.stored import restored_weight

Op = Callable[..., Any]


@dataclass(frozen=True)
class Single:
    """The operands of a layer in float32 (float64 in the order "exact"); x, dy, mask as matrices of all rows."""

    x: Array
    weight: Array
    lora_a: Array
    lora_b: Array
    bias: Array
    lora_bias: Array
    magnitude: Array
    dy: Array
    keep: Array  # mask/(1 − p)
    scale: Any  # s, a number
    order: str

    def dot(self, left: Array, right: Array) -> Array:
        """Return left @ right in float32, added up in the order; in float64 in the order "exact"."""
        if self.order == "exact":
            product: Array = left @ right
            return product
        return summed(left, right, self.order)

    def total(self, rows: Array) -> Array:
        """Return the sum of all rows."""
        total: Array = self.dot(np.ones((1, len(rows)), rows.dtype), rows)[0]
        return total


def operands(arguments: dict[str, Any], order: str) -> Single:
    """Return the arguments of a layer as float32, or as float64 in the order "exact"."""
    if order == "exact":
        single = vars(operands(arguments, ""))
        wide = {n: v.astype(np.float64) for n, v in single.items() if isinstance(v, np.ndarray)}
        unit = np.sqrt(arguments["lora_a"].shape[0]) if arguments["rank_stabilized"] else arguments["lora_a"].shape[0]
        keep = 0.0 if arguments["dropout"] == 1 else 1 / (1 - arguments["dropout"])
        wide["keep"] = (wide["keep"] != 0) * keep if arguments["mask"] is not None else wide["keep"]
        return Single(**wide, scale=arguments["alpha"] / unit, order=order)
    x, weight = arguments["x"].single(), restored_weight(arguments)
    weight = weight.T if arguments.get("fan_in_fan_out") else weight
    rows, d_out = as_rows(x), len(weight)

    def given(name: str, shape: tuple[int, ...]) -> Array:
        array = arguments.get(name)
        return np.zeros(shape, np.float32) if array is None else array.single()

    mask, p = arguments["mask"], np.float32(arguments["dropout"])
    factor = np.float32(0) if p == 1 else np.float32(1) / (np.float32(1) - p)
    keep = np.ones(rows.shape, np.float32) if mask is None else mask.items.reshape(rows.shape) * factor
    rank = arguments["lora_a"].shape[0]
    unit = np.sqrt(np.float32(rank)) if arguments["rank_stabilized"] else np.float32(rank)
    return Single(
        x=rows, weight=weight, lora_a=arguments["lora_a"].single(), lora_b=arguments["lora_b"].single(),
        bias=given("bias", (d_out,)), lora_bias=given("lora_bias", (d_out,)), magnitude=given("magnitude", (d_out,)),
        dy=as_rows(given("dy", (*x.shape[:-1], d_out))), keep=keep,
        scale=np.float32(arguments["alpha"]) / unit, order=order,
    )  # fmt: skip


def forward_as(formula: Callable[[Single], Array], order: str) -> Op:
    """Return a layer that computes y by a formula in float32."""

    def forward(**arguments: Any) -> HostArray:
        x = arguments["x"]
        with np.errstate(all="ignore"):
            o = operands(arguments, order)
            y = formula(o)
        return host(np.asarray(encode(y.reshape(*x.shape[:-1], len(o.weight)), x.dtype)), x.dtype)

    return forward


def backward_as(formula: Callable[[Single], tuple[Array, ...]], order: str) -> Op:
    """Return a backward pass that computes all gradients by formulas in float32."""

    def backward(**arguments: Any) -> tuple[HostArray, ...]:
        x = arguments["x"]
        with np.errstate(all="ignore"):
            first, *others = formula(operands(arguments, order))
        parts = (first.reshape(x.shape), *others)
        return tuple(host(np.asarray(encode(part, x.dtype)), x.dtype) for part in parts)

    return backward
