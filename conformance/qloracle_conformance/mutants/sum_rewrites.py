"""Right sums: compensated, in lanes, in blocks, split, in double; the same formula, another way to add it up."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.operands import as_rows
from qloracle.rounding import encode
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.adapter_operands import operands
from qloracle_conformance.mutants.mutant import Op, Rewrite
from qloracle_conformance.operations.stored import restored_weight

Dot = Callable[[Array, Array], Array]
F = np.float32


def _compensated(left: Array, right: Array) -> Array:
    """Add up in float32 with Kahan's correction."""
    total = np.zeros((left.shape[0], right.shape[1]), F)
    lost = np.zeros_like(total)
    for k in range(left.shape[1]):
        term = left[:, k, np.newaxis] * right[k] - lost
        raised = total + term
        # A correction of what is not finite is NaN where the sum is not.
        lost = np.where(np.isfinite(raised), (raised - total) - term, F(0))
        total = raised
    return total


def _in_lanes(left: Array, right: Array) -> Array:
    """Let lane j of 8 add up every eighth product, then reduce the lanes as a butterfly."""
    parts: Array = np.stack([_plain(left[:, j::8], right[j::8]) for j in range(8)])
    while len(parts) > 1:
        parts = parts[: len(parts) // 2] + parts[len(parts) // 2 :]
    total: Array = parts[0]
    return total


def _in_blocks(left: Array, right: Array) -> Array:
    """Add up blocks of 32 products, the last block first."""
    total = np.zeros((left.shape[0], right.shape[1]), F)
    for k in reversed(range(0, left.shape[1], 32)):
        total = total + _plain(left[:, k : k + 32], right[k : k + 32])
    return total


def _split_in_four(left: Array, right: Array) -> Array:
    """Split the inner dimension in four, each part on its own, and add the parts from both ends."""
    ends = np.linspace(0, left.shape[1], 5).astype(int)
    parts = [_plain(left[:, a:b], right[a:b]) for a, b in pairwise(ends)]
    total: Array = (parts[0] + parts[3]) + (parts[1] + parts[2])
    return total


def _in_double(left: Array, right: Array) -> Array:
    """Add up in float64 and round the sum to float32."""
    product: Array = (left.astype(np.float64) @ right.astype(np.float64)).astype(F)
    return product


def _plain(left: Array, right: Array) -> Array:
    total = np.zeros((left.shape[0], right.shape[1]), F)
    for k in range(left.shape[1]):
        total = total + left[:, k, np.newaxis] * right[k]
    return total


DOTS: dict[str, tuple[str, Dot]] = {
    "compensated": ("compensated sums", _compensated),
    "lanes": ("sums in 8 lanes", _in_lanes),
    "blocks": ("sums of blocks of 32, the last first", _in_blocks),
    "split-in-four": ("sums split in four", _split_in_four),
    "double": ("sums in float64, rounded to float32", _in_double),
}


def _layer(dot: Dot) -> Op:
    """Return a LoRA layer whose accumulator begins with the biases, x A and B scaled on the way."""

    def forward(**arguments: Any) -> HostArray:
        x = arguments["x"]
        with np.errstate(all="ignore"):
            o = operands(arguments, "")
            scale = F(o.scale)
            low = dot(o.x * o.keep, o.lora_a.T)
            y = (o.bias + scale * o.lora_bias) + dot(o.x, o.weight.T) + scale * dot(low, o.lora_b.T)
        return host(np.asarray(encode(y.reshape(*x.shape[:-1], len(o.weight)), x.dtype)), x.dtype)

    return forward


def _product(dot: Dot) -> Op:
    """Return a product with a quantized weight that is restored first."""

    def matmul(x: HostArray, bias: HostArray | None, **rest: Any) -> HostArray:
        weight = restored_weight(rest)
        with np.errstate(all="ignore"):
            y = dot(as_rows(x.single()), weight.T)
            y = y if bias is None else y + bias.single()
            return host(np.asarray(encode(y.reshape(*x.shape[:-1], len(weight)), x.dtype)), x.dtype)

    return matmul


def _embedding(dot: Dot) -> Op:
    """Return a lookup that multiplies the rows of A that it needs."""

    def forward(
        ids: HostArray, weight: HostArray, lora_a: HostArray, lora_b: HostArray, *, alpha: float, rank_stabilized: bool
    ) -> HostArray:
        rank = F(lora_a.shape[0])
        scale = F(alpha) / (np.sqrt(rank) if rank_stabilized else rank)
        flat = ids.items.reshape(-1)
        with np.errstate(all="ignore"):
            y = weight.single()[flat] + dot(lora_a.single().T[flat], lora_b.single().T * scale)
            return host(np.asarray(encode(y.reshape(*ids.shape, weight.shape[1]), weight.dtype)), weight.dtype)

    return forward


def sum_rewrites() -> list[Rewrite]:
    """Return the right rewrites."""
    return [
        *(Rewrite(f"layer-{name}", f"a LoRA layer with {what}", {"lora_forward": _layer(dot)}, {})
          for name, (what, dot) in DOTS.items()),
        *(Rewrite(f"product-{name}", f"products with restored weights by {what}",
                  {"double_quantized_matmul": _product(dot)}, {}) for name, (what, dot) in DOTS.items()),
        *(Rewrite(f"lookup-{name}", f"embeddings by {what}", {"embedding_lora_forward": _embedding(dot)}, {})
          for name, (what, dot) in DOTS.items()),
    ]  # fmt: skip
