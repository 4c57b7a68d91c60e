"""Layers evaluated twice: exactly, and in float32 in a given order of summation."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qloracle.blockwise import QuantizedBlocks, dequantize_blockwise
from qloracle_conformance.generators.case import Case

Matrix = NDArray[Any]
Product = Callable[[Matrix, Matrix], Matrix]
Sum = Callable[[Matrix, Matrix], Matrix]
ORDERS = ("sequential", "reversed", "shuffled", "halves", "matmul")


def exact_product(left: Matrix, right: Matrix) -> Matrix:
    """left @ right as float64, proved to be exact: in integers times a power of two, else in rational numbers."""
    a, b = _finest(left), _finest(right)
    whole = [np.ldexp(m.astype(np.float64), -e) for m, e in ((left, a), (right, b))]
    largest = max((np.abs(m).max(initial=0.0) for m in whole), default=0.0)
    if largest < 2.0**53 and (np.abs(whole[0]) @ np.abs(whole[1])).max(initial=0.0) < 2.0**53:
        result = whole[0].astype(np.int64) @ whole[1].astype(np.int64)
        return np.ldexp(result.astype(np.float64), a + b)
    fractions = [np.array([Fraction(float(v)) for v in m.reshape(-1)], object).reshape(m.shape) for m in (left, right)]
    sums = fractions[0] @ fractions[1]
    rounded = sums.astype(np.float64)
    assert all(Fraction(r) == s for r, s in zip(rounded.reshape(-1).tolist(), sums.reshape(-1), strict=True))
    return np.asarray(rounded)


def _finest(values: Matrix) -> int:
    """The largest e for which all values are integers times 2^e."""
    mantissa, exponent = np.frexp(values[values != 0].astype(np.float64))
    if not mantissa.size:
        return 0
    bits = np.ldexp(mantissa, 53).astype(np.int64)
    trailing = np.log2((bits & -bits).astype(np.float64)).astype(np.int64)
    return int((exponent - 53 + trailing).min())


def exact_sum(left: Matrix, right: Matrix) -> Matrix:
    """left + right as float64; an error if that rounds (Knuth's two-sum gives what was rounded away)."""
    total = left + right
    part = total - left
    lost = (left - (total - part)) + (right - part)
    assert not np.any(lost), "the sum is no float64 number"
    return np.asarray(total)


def float32_sum(left: Matrix, right: Matrix) -> Matrix:
    """left + right, rounded to float32."""
    total = left + right
    assert total.dtype == np.float32
    return total


def float32_product(order: str) -> Product:
    """A product of float32 matrices that rounds every partial sum to float32, in one order."""

    def product(left: Matrix, right: Matrix) -> Matrix:
        inner = left.shape[1]
        if order == "matmul":
            return left @ right
        if order == "halves" and inner > 4:
            half = inner // 2
            return product(left[:, :half], right[:half]) + product(left[:, half:], right[half:])
        indices = np.arange(inner)
        if order == "reversed":
            indices = indices[::-1]
        if order == "shuffled":
            indices = np.random.Generator(np.random.Philox(inner)).permutation(inner)
        acc = np.zeros((left.shape[0], right.shape[1]), np.float32)
        for k in indices:
            acc = acc + left[:, k, np.newaxis] * right[k]
        return acc

    return product


def operands(case: Case) -> dict[str, Matrix]:
    """The operands of a layer as float32 matrices: the batch flattened, the weight dequantized, the mask as factors."""
    found = {}
    for name in ("dy", "x", "weight", "lora_a", "lora_b", "mask"):
        array = case.inputs.get(name)
        if array is not None:
            values = array.items.astype(np.float32) if name == "mask" else array.single()
            found[name] = np.ascontiguousarray(values.reshape(-1, values.shape[-1]))
    if "data" in case.inputs:
        data, absmax = case.array("data").items, case.array("absmax").items
        quantized = QuantizedBlocks(
            data, absmax, case.options["codebook"], case.options["block_size"], case.options["shape"], "float32"
        )
        found["weight"] = dequantize_blockwise(quantized)
    if case.options.get("fan_in_fan_out"):
        found["weight"] = np.ascontiguousarray(found["weight"].T)
    dropout = case.options["dropout"]
    keep = np.float32(0.0 if dropout == 1 else 1 / (1 - dropout))
    found["mask"] = found["mask"] * keep if "mask" in found else np.ones_like(found["x"])
    return found


def scale_of(case: Case) -> np.float32:
    """alpha/r, or alpha/sqrt(r): a power of two on a lattice."""
    rank = case.array("lora_a").shape[0]
    scale = np.float32(case.options["alpha"] / (rank**0.5 if case.options["rank_stabilized"] else rank))
    assert np.frexp(scale)[0] == 0.5, f"the scale {scale} is no power of two"
    return scale


def evaluated(case: Case, product: Product, add: Sum, rounded: Callable[[Matrix], Matrix]) -> dict[str, Matrix]:
    """Every output of a layer with the given arithmetic; `rounded` is applied to x_d Aᵀ and to dy B."""
    o, scale = operands(case), scale_of(case)
    dropped = o["x"] * o["mask"]
    hidden = rounded(product(dropped, o["lora_a"].T)) * scale
    if case.operation.endswith("forward"):
        y = add(product(o["x"], o["weight"].T), product(hidden, o["lora_b"].T))
        shifts = [(case.inputs.get("bias"), np.float32(1)), (case.inputs.get("lora_bias"), scale)]
        for shift, factor in shifts:
            y = y if shift is None else add(y, np.broadcast_to(shift.single() * factor, y.shape))
        return {"y": y}
    through = rounded(product(o["dy"], o["lora_b"])) * scale
    total = product(np.ones((1, len(o["dy"])), np.float32), o["dy"]).reshape(-1)
    return {
        "x": add(product(o["dy"], o["weight"]), o["mask"] * product(through, o["lora_a"])),
        "lora_a": product(through.T, dropped),
        "lora_b": product(o["dy"].T, hidden),
        "bias": total,
        "lora_bias": total * scale,
    }
