"""A LoRA layer in exact rational arithmetic, index by index, and its gradients without the gradient formulas.

y is affine in every single entry of x, A, B and the bias, so the derivative of L = Σ dy·y by an entry is exactly
L(entry + 1) − L(entry).
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from .rationals import exact

Matrix = list[list[Fraction]]


def matrix(array: NDArray[np.floating]) -> Matrix:
    """A 2-d float array as rationals."""
    return [[exact(value) for value in row] for row in array]


@dataclass(frozen=True)
class Layer:
    """Everything that a LoRA layer reads."""

    x: Matrix  # (n, d_in)
    weight: Matrix  # (d_out, d_in)
    lora_a: Matrix  # (r, d_in)
    lora_b: Matrix  # (d_out, r)
    scale: Fraction
    bias: Matrix  # (1, d_out)
    kept: Matrix  # (n, d_in): what x is multiplied by before the adapter
    lora_bias: Matrix = field(default_factory=list)  # (1, d_out), or nothing


def forward(layer: Layer) -> Matrix:
    """y[n][o] = Σ_k x W + b + s·(Σ_j B[o][j]·Σ_k A[j][k]·x·kept + b_B)."""
    rows, shift = [], layer.lora_bias[0] if layer.lora_bias else [Fraction(0)] * len(layer.weight)
    for x, kept in zip(layer.x, layer.kept, strict=True):
        hidden = [sum((a * v * f for a, v, f in zip(line, x, kept, strict=True)), Fraction(0)) for line in layer.lora_a]
        rows.append(
            [
                sum((w * v for w, v in zip(layer.weight[o], x, strict=True)), layer.bias[0][o])
                + layer.scale * sum((b * h for b, h in zip(layer.lora_b[o], hidden, strict=True)), shift[o])
                for o in range(len(layer.weight))
            ]
        )
    return rows


def loss(layer: Layer, dy: Matrix) -> Fraction:
    """L = Σ dy·y."""
    pairs = zip(dy, forward(layer), strict=True)
    return sum((d * y for drow, yrow in pairs for d, y in zip(drow, yrow, strict=True)), Fraction(0))


def derivative(layer: Layer, dy: Matrix, name: str) -> Matrix:
    """The derivative of L by every entry of the field `name`, as an exact difference."""
    base, entries = loss(layer, dy), getattr(layer, name)
    result: Matrix = []
    for i, row in enumerate(entries):
        result.append([])
        for k in range(len(row)):
            moved = deepcopy(entries)
            moved[i][k] += 1
            result[-1].append(loss(replace(layer, **{name: moved}), dy) - base)
    return result


def kept_matrix(mask: NDArray[np.bool_] | None, dropout: Fraction, shape: tuple[int, int]) -> Matrix:
    """mask/(1 − p), 0 for p = 1, 1 without a mask."""
    if mask is None:
        return [[Fraction(1)] * shape[1] for _ in range(shape[0])]
    factor = Fraction(0) if dropout == 1 else 1 / (1 - dropout)
    return [[factor if keep else Fraction(0) for keep in row] for row in mask.reshape(shape).tolist()]


def require_equal(got: NDArray[np.float64], expected: Sequence[Sequence[Fraction]], what: str) -> None:
    """Fail with the first entry that is not exactly the rational one."""
    for index, (row, line) in enumerate(zip(got.tolist(), expected, strict=True)):
        for k, (value, real) in enumerate(zip(row, line, strict=True)):
            assert Fraction(value) == real, (
                f"{what}[{index}, {k}] is {value}, the exact value is {real} = {float(real)}"
            )
