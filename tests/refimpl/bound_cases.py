"""Operands that press on the bounds: wide exponents, cancellation, subnormals, every rounding in one direction."""

from dataclasses import replace

import numpy as np

from qloracle.formats import Array

from .evaluated_layers import Case

N, D_IN, D_OUT, RANK = 3, 37, 5, 6


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng([101, seed]).standard_normal(shape).astype(np.float32)


def ordinary(seed: int) -> Case:
    """Normal operands, bias, half of the elements dropped, alpha/r not a power of two."""
    mask = np.random.default_rng([102, seed]).random((N, D_IN)) < 0.5
    parts = (normal(seed, N, D_IN), normal(seed + 1, D_OUT, D_IN), normal(seed + 2, RANK, D_IN))
    lora_b, dy, bias = normal(seed + 3, D_OUT, RANK), normal(seed + 4, N, D_OUT), normal(seed + 5, D_OUT)
    return Case(*parts, lora_b, dy, alpha=16.1, bias=bias, mask=mask, dropout=0.1)


def wide(seed: int) -> Case:
    """Every operand over 40 binades."""
    case, rng = ordinary(seed), np.random.default_rng([103, seed])

    def stretch(values: Array) -> Array:
        return np.ldexp(values, rng.integers(-20, 21, values.shape)).astype(np.float32)

    parts = (stretch(part) for part in (*case.operands, case.dy))
    return Case(*parts, alpha=0.3, mask=case.mask, dropout=0.9, rank_stabilized=True)


def cancelling(seed: int) -> Case:
    """Columns in pairs of opposite sign: the sums are tiny against their addends."""
    case = ordinary(seed)
    x, weight, lora_a = (np.repeat(part, 2, axis=1) for part in case.operands[:3])
    x[:, 1::2] *= np.float32(-1)
    weight[:, 1::2] = np.nextafter(weight[:, 1::2], np.float32(0))
    mask = None if case.mask is None else np.repeat(case.mask, 2, axis=1)
    return replace(case, x=x, weight=weight, lora_a=lora_a, mask=mask, bias=None, dropout=0.5)


def subnormal(seed: int) -> Case:
    """Products and factors below the normal range, and hidden values that magnify what was lost."""
    case = ordinary(seed)
    x, weight = case.x * np.float32(2.0**-70), case.weight * np.float32(2.0**-75)
    lora_a, lora_b = case.lora_a * np.float32(2.0**80), case.lora_b * np.float32(2.0**-140)
    dy = case.dy * np.float32(2.0**-10)
    return Case(x, weight, lora_a, lora_b, dy, alpha=0.7, mask=case.mask, dropout=0.3)


def no_dropout(seed: int) -> Case:
    return replace(ordinary(seed), mask=None, dropout=0.0, rank_stabilized=True, alpha=3.0)


def all_dropped(seed: int) -> Case:
    return replace(ordinary(seed), dropout=1.0)


KINDS = {
    "ordinary": ordinary,
    "wide": wide,
    "cancelling": cancelling,
    "subnormal": subnormal,
    "no dropout": no_dropout,
    "all dropped": all_dropped,
}

# A number a little above half a unit in the last place of 1: added to anything in [1, 2), it rounds up to a whole one.
NUDGE = np.float32(2.0**-24 * (1 + 2.0**-23))
