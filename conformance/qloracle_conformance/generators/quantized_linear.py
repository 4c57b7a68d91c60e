"""Inputs of layers whose weight is INT8 or affine: lattices on which every order is exact, and ordinary numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from qloracle.formats import Array, format_named
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.affine import code_range
from qloracle_conformance.generators.case import Case, each_layout
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.grouping import claimed_groups
from qloracle_conformance.generators.linear import COUNTS, PRIMES, WIDE_LENGTHS, batch_shapes, one_hot
from qloracle_conformance.generators.tiles import ROWS
from qloracle_conformance.generators.values import full_significand, normal, rounded

LATTICES = (
    "small_lattice", "wide_lattice", "wide_inputs", "ramps", "bias", "squares", "exponents", "shapes", "memory",
    "tiles",
)  # fmt: skip
FAMILIES = (*LATTICES, "normal", "specials")
BACKWARD_FAMILIES = tuple(f for f in FAMILIES if f != "bias")
WIDE = 96  # rows of x with one nonzero element each
# Inputs and outputs: more than a tile has, no multiples of one.
TILES = ((131, 67), (333, 129), (520, 70), (1031, 20), (67, 300))


def weight_case(draw: Draw, claim: Claim, *, family: str, kind: str, backward: bool) -> Case:
    """A layer with floating-point activations, or its gradient: on a lattice but for `normal` and `specials`."""
    dtype, random = draw.choice(claim.dtypes), draw.random()
    inner, outer, rows = _sizes(draw, claim, family)
    shape = (inner, outer) if backward else (outer, inner)
    weight, options = quantized(draw, claim, random, shape, kind, family, backward)
    x = activations(draw, random, (*rows, inner), dtype, family)
    bias = _bias(random, outer, dtype, family) if "bias" in claim.features and not backward else None
    if family == "specials":  # zeros, and rows of them, do not hide what is not finite
        kept = random.integers(0, 2, x.shape) * random.integers(0, 3, (*x.shape[:-1], 1)).astype(np.bool_)
        x = _poisoned(random, rounded(x.real() * kept, x.dtype))
    inputs: dict[str, HostArray | None] = {"dy" if backward else "x": x, **weight}
    inputs |= {} if backward else {"bias": bias}
    layout = draw.choice(claim.layouts) if family == "memory" else "contiguous"
    layouts = each_layout(draw, claim, inputs) if family == "squares" else dict.fromkeys(inputs, layout)
    operation = f"{kind}_weight.{'backward' if backward else 'forward'}"
    return Case(operation, inputs, options, layouts, family in LATTICES, repeat=family == "memory")


def _sizes(draw: Draw, claim: Claim, family: str) -> tuple[int, int, tuple[int, ...]]:
    """Return the inner dimension, the outer one, and the leading dimensions of the activations."""
    rows: tuple[int, ...] = (draw.choice(COUNTS if family in ("small_lattice", "normal") else (5, 1, 16)),)
    inner, outer = draw.choice((33, 8, 64, 100)), draw.choice((5, 16, 70))
    if family in ("wide_lattice", "wide_inputs"):
        length = draw.choice(WIDE_LENGTHS)
        return length, 3, (min(length, WIDE),) if family == "wide_lattice" else (1,)  # one row: its sum is itself
    if family == "squares":
        inner = outer = draw.choice((8, 16, 3))
        rows = (inner,)
    elif family == "shapes":
        inner, outer, rows = draw.choice((8, 1, 3, 17, 33)), draw.choice((5, 1, 3)), draw.choice(batch_shapes(claim))
    elif family == "ramps":
        inner, outer, rows = 8, 6, (5,)
    elif family == "tiles":
        (inner, outer), rows = draw.choice(TILES), draw.choice(ROWS)
    elif family == "normal":
        inner, outer = draw.choice((64, 200, 1000)), draw.choice((24, 7))
    return inner, outer, rows


def activations(draw: Draw, random: np.random.Generator, shape: tuple[int, ...], dtype: str, family: str) -> HostArray:
    """Return x, or dy."""
    if family in ("normal", "specials"):
        return normal(random, shape, dtype)
    if family == "wide_inputs":
        return full_significand(random, shape, dtype)
    whole = random.integers(-2, 3, shape).astype(np.float64)
    if family == "wide_lattice":
        whole = one_hot(random, shape[0], shape[1], (-3, 3))
    elif family == "ramps":
        whole = PRIMES[np.arange(shape[0]) % len(PRIMES)][:, np.newaxis] * whole
    elif family == "bias":
        whole = whole * 0
    elif family == "exponents":
        fmt = format_named(dtype)
        # Only single factors are so small, and their products with the weights, which are at least 2^8, are normal; and
        # a sum of a thousand products with weights below 2^17 is finite, whatever their signs and their order.
        whole *= 2.0 ** draw.choice((fmt.minimum_exponent - 3, fmt.bias - 28 if fmt.exponent_bits == 8 else 3))
    return rounded(whole, dtype)


def _bias(random: np.random.Generator, outer: int, dtype: str, family: str) -> HostArray | None:
    if family == "bias":
        return full_significand(random, (outer,), dtype)
    if family in ("wide_lattice", "wide_inputs", "exponents"):
        return None
    if family in ("normal", "specials"):
        return normal(random, (outer,), dtype)
    return rounded(random.integers(-7, 8, outer).astype(np.float64), dtype)


def _poisoned(random: np.random.Generator, x: HostArray) -> HostArray:
    """Return activations with a NaN or an infinity at one place, in half of the cases."""
    values = x.real()
    if random.integers(0, 2) and values.size:
        values.reshape(-1)[random.choice([0, values.size // 2, values.size - 1])] = random.choice(
            [np.nan, np.inf, -np.inf]
        )
    return rounded(values, x.dtype)


def quantized(
    draw: Draw, claim: Claim, random: np.random.Generator, shape: tuple[int, int], kind: str, family: str,
    backward: bool,
) -> tuple[dict[str, HostArray | None], dict[str, Any]]:  # fmt: skip
    """Return the parts of a quantized weight and their options."""
    granularity, flat, groups = claimed_groups(draw, claim, shape)
    if kind == "int8":
        scale = _scales(random, groups, family) * (127 if family in LATTICES else 1)
        low = -128 if "minus_128" in claim.features else -127
        codes = _codes(random, shape, family, (low, 127), backward)
        parts: dict[str, HostArray | None] = {
            "codes": host(codes.astype(np.int8)),
            "absmax": host(scale.astype(np.float32)),
        }
        return parts, {"granularity": granularity, "block_size": flat}
    qmin, qmax = code_range(draw, claim)
    zero_point = random.integers(qmin, qmax + 1, groups)
    if family == "wide_inputs":
        zero_point = np.full(groups, qmin if draw.choice((True, False)) else max(qmin, 0))
    codes = _codes(random, shape, family, (qmin, qmax), backward, int(zero_point.flat[0]) if zero_point.size else 0)
    parts = {
        "codes": host(codes.astype(np.int8 if qmin < 0 else np.uint8)),
        "scale": host(_scales(random, groups, family).astype(np.float32)),
        "zero_point": host(np.asarray(zero_point, np.int32)),
    }
    return parts, {"qmin": qmin, "qmax": qmax, "granularity": granularity, "group_size": flat}


def _scales(random: np.random.Generator, groups: tuple[int, ...], family: str) -> Array:
    """Return scales, or absmax over 127: powers of two on a lattice."""
    if family in LATTICES:
        exponent = random.integers(-1, 2, groups)
        if family == "ramps":
            exponent = np.arange(int(np.prod(groups, dtype=np.int64))).reshape(groups) % 6 - 3
        return np.asarray(np.ldexp(1.0, exponent) * (2.0**8 if family == "exponents" else 1.0))
    scale = random.uniform(0.01, 0.1, groups)
    if family == "specials":
        kinds = random.choice([np.nan, 0.0, 1e-40], groups)
        scale = np.where(random.integers(0, 8, groups) == 0, kinds, scale)
        if scale.size and random.integers(0, 2):  # a NaN that no odds can miss, in half of the cases
            scale = np.array(scale)
            scale.reshape(-1)[random.integers(0, scale.size)] = np.nan
    return np.asarray(scale)


def _codes(
    random: np.random.Generator, shape: tuple[int, int], family: str, ends: tuple[int, int], backward: bool,
    zero: int = 0,
) -> Array:  # fmt: skip
    """Return codes: all of them; for wide inputs one power of two in each row of the product, else zero."""
    codes = random.integers(ends[0], ends[1] + 1, shape)
    if family != "wide_inputs":
        return codes
    hot = one_hot(random, shape[1] if backward else shape[0], shape[0] if backward else shape[1], (0, 2)).astype(
        np.int64
    )
    hot = np.abs(hot) if zero + 4 <= ends[1] and zero - 4 < ends[0] else hot
    return zero + (hot.T if backward else hot)


def shape_options(case: Case) -> Mapping[str, Any]:
    """Return the options of a case that say how its weight is grouped."""
    return {name: value for name, value in case.options.items() if name != "dtype"}
