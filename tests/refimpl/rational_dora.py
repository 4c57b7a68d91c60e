"""A DoRA layer in exact rational arithmetic, index by index, and its gradients without the gradient formulas.

With the norms given, y is affine in every single entry of x, A, B, the magnitude and the bias, so the derivative of
L = Σ dy·y by an entry is exactly L(entry + 1) − L(entry).
"""

from copy import deepcopy
from dataclasses import dataclass, replace
from fractions import Fraction
from math import isqrt

from .rational_layers import Matrix


@dataclass(frozen=True)
class Dora:
    """Everything that a DoRA layer reads; the norms are constants of a gradient."""

    x: Matrix  # (n, d_in)
    weight: Matrix  # (d_out, d_in)
    lora_a: Matrix  # (r, d_in)
    lora_b: Matrix  # (d_out, r)
    magnitude: Matrix  # (1, d_out)
    bias: Matrix  # (1, d_out)
    scale: Fraction
    kept: Matrix  # (n, d_in)
    norms: tuple[Fraction, ...]


def merged(weight: Matrix, lora_a: Matrix, lora_b: Matrix, scale: Fraction) -> Matrix:
    """W + s B A."""
    return [
        [
            w + scale * sum((b * a[k] for b, a in zip(lora_b[o], lora_a, strict=True)), Fraction(0))
            for k, w in enumerate(row)
        ]
        for o, row in enumerate(weight)
    ]


def exact_root(value: Fraction) -> Fraction:
    """The root of a square of a rational; an error if it is none."""
    numerator, denominator = isqrt(value.numerator), isqrt(value.denominator)
    root = Fraction(numerator, denominator)
    assert root * root == value, f"{value} is no square"
    return root


def norms_of(weight: Matrix, lora_a: Matrix, lora_b: Matrix, scale: Fraction) -> tuple[Fraction, ...]:
    return tuple(exact_root(sum((v * v for v in row), Fraction(0))) for row in merged(weight, lora_a, lora_b, scale))


def forward(layer: Dora) -> Matrix:
    """y[n][o], the base on x, what g changes on x·kept."""
    rows = []
    for x, kept in zip(layer.x, layer.kept, strict=True):
        dropped = [v * f for v, f in zip(x, kept, strict=True)]
        hidden = [sum((a * v for a, v in zip(line, dropped, strict=True)), Fraction(0)) for line in layer.lora_a]
        row = []
        for o, weight in enumerate(layer.weight):
            gain = layer.magnitude[0][o] / layer.norms[o] if layer.norms[o] else Fraction(0)
            base = sum((w * v for w, v in zip(weight, x, strict=True)), Fraction(0))
            own = sum((w * v for w, v in zip(weight, dropped, strict=True)), Fraction(0))
            low = layer.scale * sum((b * h for b, h in zip(layer.lora_b[o], hidden, strict=True)), Fraction(0))
            row.append(base + layer.bias[0][o] + (gain - 1) * own + gain * low)
        rows.append(row)
    return rows


def loss(layer: Dora, dy: Matrix) -> Fraction:
    pairs = zip(dy, forward(layer), strict=True)
    return sum((d * y for drow, yrow in pairs for d, y in zip(drow, yrow, strict=True)), Fraction(0))


def derivative(layer: Dora, dy: Matrix, name: str) -> Matrix:
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
