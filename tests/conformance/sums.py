"""Layers evaluated twice: exactly, in rational numbers, and in float32 in a given order of summation."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qloracle.blockwise import QuantizedBlocks, dequantize_blockwise
from qloracle_conformance.generators.case import Case

Matrix = NDArray[Any]
Product = Callable[[Matrix, Matrix], Matrix]
ORDERS = ("sequential", "reversed", "shuffled", "halves", "matmul")


def exact_product(left: Matrix, right: Matrix) -> Matrix:
    """left @ right in rational numbers, over the inner indices at which neither is all zero."""
    used = np.flatnonzero(np.any(left != 0, axis=0) & np.any(right != 0, axis=1))
    if not used.size:
        return np.zeros((left.shape[0], right.shape[1]), object)
    return np.asarray(rational(left[:, used]) @ rational(right[used]))


def rational(values: Matrix) -> Matrix:
    """Floats as exact Python numbers: an int where the value is whole, for speed, else a Fraction."""
    if values.dtype == object:
        return values
    found = np.empty(values.size, object)
    found[:] = [int(v) if v.is_integer() else Fraction(v) for v in values.astype(np.float64).reshape(-1).tolist()]
    return found.reshape(values.shape)


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
    """The operands of a layer as float32 matrices, the batch flattened, the weight dequantized, the mask as numbers."""
    found = {}
    for name in ("dy", "x", "weight", "lora_a", "lora_b", "mask"):
        array = case.inputs.get(name)
        if array is not None:
            values = array.items.astype(np.float32) if name == "mask" else array.single()
            found[name] = np.ascontiguousarray(values.reshape(-1, values.shape[-1]))
    if "data" in case.inputs:
        data, absmax = case.array("data").items, case.array("absmax").items
        shape = case.options["shape"]
        found["weight"] = dequantize_blockwise(
            QuantizedBlocks(data, absmax, case.options["codebook"], case.options["block_size"], shape, "float32")
        )
    return found


def factors(case: Case) -> tuple[float, float]:
    """The scale of the adapter, and what a kept element of x is multiplied by; both are powers of two on a lattice."""
    rank, dropout = case.array("lora_a").shape[0], case.options["dropout"]
    scale = case.options["alpha"] / (rank**0.5 if case.options["rank_stabilized"] else rank)
    return scale, 0.0 if dropout == 1 else 1 / (1 - dropout)


def forward(case: Case, product: Product, rounded: Callable[[Matrix], Matrix], number: type) -> Matrix:
    """y = x Wᵀ + b + s (x_d Aᵀ) Bᵀ with the given product, x_d Aᵀ rounded."""
    o, (scale, keep) = operands(case), factors(case)
    dropped = o["x"] * o["mask"] * np.float32(keep) if "mask" in o else o["x"]
    y = product(o["x"], o["weight"].T)
    y = y + product(rounded(product(dropped, o["lora_a"].T)) * number(scale), o["lora_b"].T)
    bias = case.inputs.get("bias")
    return y if bias is None else y + (bias.single() if number is np.float32 else rational(bias.single()))


def backward(case: Case, product: Product, rounded: Callable[[Matrix], Matrix], number: type) -> dict[str, Matrix]:
    """The four gradients with the given product; x_d Aᵀ and dy B rounded."""
    o, (scale, keep) = operands(case), factors(case)
    mask = o["mask"] * np.float32(keep) if "mask" in o else np.ones_like(o["x"])
    through = rounded(product(o["dy"], o["lora_b"])) * number(scale)
    hidden = rounded(product(o["x"] * mask, o["lora_a"].T)) * number(scale)
    ones = np.ones((1, len(o["dy"])), np.float32)
    factor = mask if number is np.float32 else rational(mask)
    return {
        "x": product(o["dy"], o["weight"]) + factor * product(through, o["lora_a"]),
        "lora_a": product(through.T, o["x"] * mask),
        "lora_b": product(o["dy"].T, hidden),
        "bias": product(ones, o["dy"]).reshape(-1),
    }
