"""Inputs of merges: lattices that are exact in every order of summation, ties of the last rounding, normal numbers."""

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from qloracle.formats import Array, format_named
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case, each_layout
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.linear import PRIMES, one_hot
from qloracle_conformance.generators.values import any_exponent, full_significand, normal, rounded

LATTICES = ("small_lattice", "wide_lattice", "ties", "ramps", "squares", "tiles", "shapes", "exponents", "memory")
FAMILIES = (*LATTICES, "normal", "specials")
SIZES = ((6, 9, 2), (1, 1, 1), (5, 17, 4), (24, 33, 8), (3, 64, 1), (65, 7, 4), (16, 100, 16))  # d_out, d_in, rank
TILES = ((131, 67, 64), (300, 129, 16), (70, 257, 32), (33, 1031, 4))
RANKS_WITH_ROOTS = {1: 1, 2: 4, 4: 4, 8: 16, 16: 16, 32: 64, 64: 64}  # ranks whose root is a power of two


@dataclass(frozen=True)
class Merge:
    """The arrays of one merge as real numbers still to be rounded to a format; W as (d_out, d_in)."""

    weight: Array
    lora_a: Array
    lora_b: Array
    alpha: float
    rank_stabilized: bool = False


def merge_case(draw: Draw, claim: Claim, *, family: str, operation: str) -> Case:
    """A weight and an adapter."""
    layout, dtype = draw.choice(claim.layouts), draw.choice(claim.dtypes)
    merge = merge_arrays(draw, claim, family, dtype)
    case = case_of(draw, claim, operation, merge, family, dtype, layout)
    if operation == "lora.merge_cycles":
        return replace(case, options={**case.options, "cycles": draw.choice((1, 2, 10))})
    return case


def case_of(
    draw: Draw, claim: Claim, operation: str, merge: Merge, family: str, dtype: str, layout: str, **more: Any
) -> Case:
    """Return the case of a merge, stored in one of the claimed orientations; `more` are further inputs."""
    fan = bool(option(draw, claim, "fan_in_fan_out", False))
    single = option(draw, claim, "adapter_dtype", "same") == "float32" and "float32" in claim.dtypes
    adapter = "float32" if single else dtype
    weight = np.ascontiguousarray(merge.weight.T) if fan else merge.weight
    inputs: dict[str, HostArray | None] = {
        "weight": rounded(weight, dtype),
        **more,
        "lora_a": rounded(merge.lora_a, adapter),
        "lora_b": rounded(merge.lora_b, adapter),
    }
    options = {"alpha": merge.alpha, "rank_stabilized": merge.rank_stabilized, "fan_in_fan_out": fan}
    layouts = layouts_of(draw, claim, inputs, family, layout)
    return Case(operation, inputs, options, layouts, family in LATTICES, repeat=family == "memory")


def layouts_of(
    draw: Draw, claim: Claim, inputs: dict[str, HostArray | None], family: str, layout: str
) -> dict[str, str]:
    """Return the layout of each input: independent ones for squares, `layout` in memory, contiguous elsewhere."""
    if family == "squares":
        return each_layout(draw, claim, inputs)
    return dict.fromkeys(inputs, layout if family == "memory" else "contiguous")


def option(draw: Draw, claim: Claim, name: str, default: object) -> Any:
    """Return one of the claimed values of a plain option."""
    return draw.choice(claim.options.get(name, (default,)))


def merge_arrays(draw: Draw, claim: Claim, family: str, dtype: str) -> Merge:
    """Return the arrays of a family."""
    if family in ("normal", "specials"):
        merge = normal_merge(draw, claim, dtype)
        return poisoned(draw, merge) if family == "specials" else merge
    if family == "wide_lattice":
        return wide_merge(draw, claim, dtype)
    if family == "ties":
        return tie_merge(draw, dtype)
    merge = integer_merge(draw, claim, family)
    if family == "exponents":
        narrow = format_named(claim.roundings.adapter).exponent_bits < format_named(dtype).exponent_bits
        return extreme(draw, replace(merge, lora_b=merge.lora_b * (not narrow)), dtype, claim.roundings.adapter)
    return merge


def integer_merge(draw: Draw, claim: Claim, family: str) -> Merge:
    """Integers whose every sum is exact in float32, and rounded once to 16 bits.

    Where no rounding of s B A is declared, it has too many bits for any 16-bit format; else it stays below 2^8.
    """
    random = draw.random()
    d_out, d_in, rank = draw.choice(TILES if family == "tiles" else SIZES)
    if family == "squares":
        d_out = d_in = rank = draw.choice((8, 4, 16))
    elif family == "shapes":
        filled = ((1, 33), (7, 1), (1, 1), (3, 129))
        d_out, d_in = draw.choice((*filled, (0, 5), (5, 0)) if claim.empty else filled)
    elif family == "ramps":
        d_out, d_in, rank = 7, 11, 2
    stabilized = "rank_stabilized" in claim.features and family != "squares" and draw.choice((False, True))
    rank = RANKS_WITH_ROOTS.get(rank, 4) if stabilized else rank
    unit = float(np.sqrt(rank)) if stabilized else float(rank)
    most = 250 if format_named(claim.roundings.adapter).mantissa_bits >= 23 else max(1, 16 // rank)
    a = random.integers(-most, most + 1, (rank, d_in)) * (random.integers(0, max(1, rank // 16), (rank, d_in)) == 0)
    b = random.integers(-1, 2, (d_out, rank))
    weight = random.integers(-4000, 4001, (d_out, d_in)) * (random.integers(0, 4, (d_out, d_in)) > 0)
    if family == "ramps":
        row, column = np.arange(d_out)[:, np.newaxis], np.arange(d_in)
        weight, a = PRIMES[row % 6] * 2.0 ** (row - 3) + column, (np.arange(rank)[:, np.newaxis] + column) % 5 - 2
        b = (row * 2 + np.arange(rank)) % 3 - 1
    return Merge(weight, a, b, unit * draw.choice((2.0, 0.5, -4.0, 1.0)), stabilized)


def wide_merge(draw: Draw, claim: Claim, dtype: str) -> Merge:
    """One nonzero power of two in each row of B against words of full significand; rows of W alone in between."""
    random = draw.random()
    d_out, d_in, rank = draw.choice(((24, 33, 64), (40, 9, 256), (17, 70, 16), (48, 21, 1)))
    b = one_hot(random, d_out, rank, (-3, 3))
    alone = random.integers(0, 3, d_out) == 0
    b[alone] = 0.0
    words = full_significand(random, (d_out, d_in), dtype).real()
    a = full_significand(random, (rank, d_in), adapter_format(dtype, claim)).real()
    return Merge(words * alone[:, np.newaxis], a, b, rank * draw.choice((1.0, 4.0, -0.5)))


def adapter_format(dtype: str, claim: Claim) -> str:
    """Return the format of fewest significand bits among the operands' and what an adapter is declared to pass."""
    return min((dtype, claim.roundings.adapter), key=lambda name: format_named(name).mantissa_bits)


def tie_merge(draw: Draw, dtype: str) -> Merge:
    """Sums on a tie between two numbers of the weight's format, and one step of float32, or less, beside it.

    Only one product of each sum is not zero, so that every order adds once.
    """
    random, fmt = draw.random(), format_named(dtype)
    d_out, d_in, rank = 12, 40, draw.choice((1, 4, 8))
    words = full_significand(random, (d_out, d_in), dtype).real()
    even = random.integers(0, 2, (d_out, d_in)) == 0
    weight = np.where(even, np.round(words * 2.0 ** (fmt.mantissa_bits - 1)) * 2.0 ** (1 - fmt.mantissa_bits), words)
    # Half a unit of numbers from 1 to 2, or three halves; beside it by 2^−6 of that, which float32 holds for 16 bits.
    half = 2.0 ** (-fmt.mantissa_bits - 1) * random.choice([1.0, 3.0, 1.0 + 2.0**-6, 1.0 - 2.0**-6], (1, d_in))
    a = np.zeros((rank, d_in))
    a[rank - 1] = half
    b = np.zeros((d_out, rank))
    b[:, rank - 1] = random.choice([-1.0, 1.0], d_out)
    # 2^12: float16, too, holds the change as a normal number.
    return Merge(2.0**12 * weight * random.choice([-1.0, 1.0], (d_out, 1)), 2.0**12 * a, b, float(rank))


def extreme(draw: Draw, merge: Merge, dtype: str, adapter: str) -> Merge:
    """Sums near either end of the weight's format: subnormals, or the largest number and a few units beside it.

    At the upper end only one product of a sum is not zero: in every order either the result overflows, or nothing does.
    """
    fmt, random = format_named(dtype), draw.random()
    if draw.choice(("small", "large")) == "small":
        lowest = max(f.minimum_exponent - f.mantissa_bits for f in (fmt, format_named(adapter)))
        power = 2.0 ** max(lowest, -140)  # W is subnormal, and s·b a number of every format on the way
        small = np.sign(merge.weight) * (np.abs(merge.weight) % (2**fmt.mantissa_bits))
        unit = float(np.sqrt(len(merge.lora_a)) if merge.rank_stabilized else len(merge.lora_a))
        # s = 2: halves would be no numbers of a format in which an adapter may be declared to pass.
        return replace(merge, weight=small * power, lora_b=merge.lora_b * power, alpha=2 * unit)
    shape, rank = merge.weight.shape, len(merge.lora_a)
    below = random.integers(0, 3, shape) * np.ldexp(1.0, fmt.bias - fmt.mantissa_bits)
    weight = (fmt.largest_finite - below) * random.choice([-1.0, 1.0], shape)
    a, b = np.zeros(merge.lora_a.shape), np.zeros(merge.lora_b.shape)
    a[rank - 1] = random.choice([0.25, 0.5, 0.75, 1.0, -0.5, -1.0, 1.5, 0.0], shape[1])
    b[:, rank - 1] = np.ldexp(1.0, fmt.bias - fmt.mantissa_bits) * random.choice([-1.0, 1.0], shape[0])
    safe = random.integers(0, 2) == 0  # in half of the cases no sum overflows
    return Merge(weight, a * (not safe), b * bool(np.any(merge.lora_b)), float(rank))


def normal_merge(draw: Draw, claim: Claim, dtype: str) -> Merge:
    """Ordinary numbers, or numbers over many binades, and a scale that is no power of two."""
    random = draw.random()
    d_out, d_in, rank = draw.choice(((24, 33, 3), (31, 40, 1), (7, 200, 8), (70, 64, 17), (64, 31, 40), (9, 130, 1)))
    weight = normal(random, (d_out, d_in), dtype, draw.choice((0.05, 1.0))).real()
    if draw.choice((False, True)):
        power = 2.0 ** random.integers(-6, 7, (d_out, 1))
        weight = np.where(random.integers(0, 4, weight.shape) == 0, 0.0, weight * power)
    stabilized = "rank_stabilized" in claim.features and draw.choice((False, True))
    # In the format of the adapter at the end, which may be wider than that of the weight.
    a = normal(random, (rank, d_in), "float32", 0.5).real()
    b = normal(random, (d_out, rank), "float32", 0.5).real()
    return Merge(weight, a, b, draw.choice((7.3, 16.0, 1.0, -2.7)), stabilized)


def poisoned(draw: Draw, merge: Merge) -> Merge:
    """A NaN or an infinity in one operand: it reaches every element that it is a term of, and no other."""
    name, part = draw.choice([*product(("lora_b", "lora_a", "weight"), (2, 0, 1))])
    operand = np.array(getattr(merge, name), np.float64)
    operand.reshape(-1)[(0, operand.size // 2, operand.size - 1)[part]] = draw.choice((np.nan, np.inf, -np.inf))
    changed: dict[str, Any] = {name: operand}
    return replace(merge, **changed)


def bias_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """A bias and that of an adapter."""
    layout = draw.choice(claim.layouts) if family == "memory" else "contiguous"
    dtype, random = draw.choice(claim.dtypes), draw.random()
    size = draw.choice((9, 1, 64, 1031, 0) if claim.empty else (9, 1, 64, 1031))
    rank = draw.choice((8, 1, 4, 16))
    stabilized = "rank_stabilized" in claim.features and rank != 8 and draw.choice((False, True))
    unit = float(np.sqrt(rank)) if stabilized else float(rank)
    alpha = unit * draw.choice((4.0, 0.5, -2.0))
    bias, added = random.integers(-99, 100, size), random.integers(-60, 61, size)
    arrays = rounded(bias, dtype), rounded(added, dtype)
    if family == "normal":
        alpha = draw.choice((7.3, 32.0))
        arrays = normal(random, (size,), dtype), normal(random, (size,), dtype)
    if family == "exponents":
        sign = random.choice([-1.0, 1.0], size)
        arrays = rounded(any_exponent(random, (size,), dtype).real() * sign, dtype), rounded(bias * 0, dtype)
    inputs: dict[str, HostArray | None] = {"base_bias": arrays[0], "lora_bias": arrays[1]}
    options = {"alpha": alpha, "rank": rank, "rank_stabilized": stabilized, "unmerge": draw.choice((False, True))}
    layouts = dict.fromkeys(inputs, layout)
    return Case("bias.merge", inputs, options, layouts, family != "normal", repeat=family == "memory")


BIAS_FAMILIES = ("small_lattice", "exponents", "memory", "normal")
