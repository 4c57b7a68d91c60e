"""AdamW in rational numbers, with roots to 60 digits; written without a look at the code under test."""

from collections.abc import Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache

from .adamw_evaluations import Hyperparameters

DIGITS = 80


def root(value: Fraction) -> Fraction:
    """√value, wrong by less than 10^−60 of itself."""
    with localcontext() as context:
        context.prec = DIGITS
        return Fraction((Decimal(value.numerator) / Decimal(value.denominator)).sqrt())


@cache
def correction(beta: float, step: int) -> Fraction:
    """1 − β^t, to 60 digits."""
    with localcontext() as context:
        context.prec = DIGITS
        return Fraction(1 - Decimal(beta) ** step)


def moments(g: Fraction, m: Fraction, v: Fraction, h: Hyperparameters) -> tuple[Fraction, Fraction]:
    """β₁m + (1 − β₁)g and β₂v + (1 − β₂)g²."""
    first, second = Fraction(h.beta1), Fraction(h.beta2)
    return first * m + (1 - first) * g, second * v + (1 - second) * g * g


def update(m: Fraction, v: Fraction, h: Hyperparameters, step: int) -> Fraction:
    """m̂/(√v̂ + eps)."""
    first, second = correction(h.beta1, step), correction(h.beta2, step)
    return m / first / (root(v / second) + Fraction(h.eps))


def parameter(p: Fraction, m: Fraction, v: Fraction, h: Hyperparameters, step: int) -> Fraction:
    """p(1 − lr·wd) − lr·m̂/(√v̂ + eps)."""
    lr = Fraction(h.lr)
    return p * (1 - lr * Fraction(h.weight_decay)) - lr * update(m, v, h, step)


def norm(values: Sequence[Fraction]) -> Fraction:
    """√Σ values²."""
    return root(sum((value * value for value in values), Fraction(0)))
