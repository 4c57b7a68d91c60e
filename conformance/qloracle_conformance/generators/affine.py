"""Inputs of affine quantizers: ranges whose scale or zero point is a near tie, elements beside every code boundary."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from qloracle.affine import GRANULARITIES
from qloracle.affine_scale import affine_parameters
from qloracle.formats import Array, format_named
from qloracle.groups import group_shape as shape_of_groups
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators import extents, quantizing
from qloracle_conformance.generators.case import Case, each_layout, reshaped
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.quantizing import Quantizer, arrange, group_shape
from qloracle_conformance.generators.restoring import FAMILIES as RESTORING
from qloracle_conformance.generators.restoring import scales, target
from qloracle_conformance.generators.values import any_exponent, moved, rounded, special_words, words

CODE_RANGES: dict[str, tuple[int, int]] = {
    "-128..127": (-128, 127), "0..255": (0, 255), "-8..7": (-8, 7), "0..15": (0, 15),
    "-127..127": (-127, 127), "-7..7": (-7, 7),
}  # fmt: skip
PLAIN = ("specials", "ramps", "shapes", "memory", "normal", "peaks", "extents", "degenerate", "squares")
QUANTIZE_FAMILIES = ("boundaries", "ranges", "ties", *PLAIN)
RESTORE_FAMILIES = RESTORING[1:]
PARAMETER_FAMILIES = ("ranges", "ties", "specials", "normal", "shapes", "memory")


def code_range(draw: Draw, claim: Claim) -> tuple[int, int]:
    """Return the smallest and the largest code of one of the claimed ranges."""
    return CODE_RANGES[str(draw.choice(claim.options.get("code_range", ("-128..127",))))]


def as_quantizer(operation: str, granularity: str) -> Quantizer:
    """Return what the generators of plain tensors need to know; the boundaries are those of signed codes."""
    boundaries = (np.arange(-127, 127) + 0.5) / 127
    flat = "block" if granularity == "group" else granularity
    return Quantizer(operation, boundaries, 254, {"granularity": granularity, "block_size": 0}, flat)


def with_options(case: Case, **options: Any) -> Case:
    """Return a case of a plain tensor with the options of an affine quantizer: the block size is the group size."""
    group = {"granularity": case.options["granularity"], "group_size": case.options["block_size"]}
    return replace(case, options={**options, **group})


def plain_case(draw: Draw, claim: Claim, family: str, quantizer: Quantizer) -> Case:
    """Return a case of a family of plain tensors."""
    return {**quantizing.FAMILIES, **extents.FAMILIES}[family](draw, claim, quantizer)


def quantize_case(draw: Draw, claim: Claim, *, family: str, operation: str, granularity: str) -> Case:
    """Tensors to be quantized by their own range."""
    qmin, qmax = code_range(draw, claim)
    quantizer = as_quantizer(operation, granularity)
    options = {"qmin": qmin, "qmax": qmax}
    if family in PLAIN:
        return with_options(plain_case(draw, claim, family, quantizer), **options)
    dtype = draw.choice(claim.dtypes)
    if family == "ranges" and "float32" in claim.dtypes:
        dtype = "float32"  # only its significands make such sums
    groups, size, tail = group_shape(draw, claim, quantizer)
    random = draw.random()
    lo, hi = ranges(random, groups, dtype, qmax - qmin, family)
    x = filled(random, lo, hi, size, dtype, (qmin, qmax))
    return with_options(quantizing.case_of(quantizer, arrange(x, quantizer, tail, claim), size), **options)


def filled(
    random: np.random.Generator, lo: Array, hi: Array, size: int, dtype: str, codes: tuple[int, int]
) -> HostArray:
    """Return groups with these ends, their elements on, and one number either side of, the boundaries of codes."""
    scale, zero_point = affine_parameters(lo, hi, qmin=codes[0], qmax=codes[1])
    steps = random.integers(codes[0] - 1, codes[1] + 1, (len(lo), size)) + 0.5 - zero_point[:, np.newaxis]
    steps = np.where(random.integers(0, 16, steps.shape) == 0, 0.0, steps)
    largest = format_named(dtype).largest_finite
    near = np.clip(steps * scale[:, np.newaxis].astype(np.float64), -largest, largest)
    values = moved(rounded(near, dtype), random.integers(-1, 2, steps.shape)).real()
    values = np.clip(values, np.minimum(lo, 0)[:, np.newaxis], np.maximum(hi, 0)[:, np.newaxis])
    places = np.argsort(random.random(values.shape), axis=1)
    rows = np.arange(len(lo))
    values[rows, places[:, 0]] = np.where(lo < 0, lo, hi)
    if size > 1:
        values[rows, places[:, 1]] = hi
    return rounded(values, dtype)


def ranges(random: np.random.Generator, count: int, dtype: str, steps: int, family: str) -> tuple[Array, Array]:
    """Return ends of ranges as float32, numbers of `dtype`: one-sided, two-sided, a power of two apart for each step.

    ranges: the real quotient of the width by the number of steps lies on a midpoint of float32, or so close to one that
    neither a float32 nor a float64 difference tells on which side; or the ends are the largest finite numbers. ties:
    −lo/scale is a whole number and a half, or next to it.
    """
    fmt = format_named(dtype)
    if family == "ties":
        lo, hi = zero_point_ties(random, count, steps, (fmt.minimum_exponent + 8, fmt.bias - 9))
    else:
        lo, hi = _any_ranges(random, count, dtype, steps)
    if family == "ranges":
        traps, kind = near_midpoints(random, count, steps), random.integers(0, 5, count)
        lo, hi = np.where(kind == 0, -fmt.largest_finite, lo), np.where(kind == 0, fmt.largest_finite, hi)
        lo, hi = np.where(kind > 1, traps[0], lo), np.where(kind > 1, traps[1], hi)
    swap = random.integers(0, 2, count) == 0
    lo, hi = np.where(swap, -hi, lo), np.where(swap, -lo, hi)
    first_end, second_end = (rounded(end, dtype).single() for end in (lo, hi))
    limit = np.float32(fmt.largest_finite)
    return np.clip(first_end, -limit, limit), np.clip(second_end, -limit, limit)


def _any_ranges(random: np.random.Generator, count: int, dtype: str, steps: int) -> tuple[Array, Array]:
    fmt = format_named(dtype)
    exponent = random.integers(fmt.minimum_exponent - fmt.mantissa_bits + 1, fmt.bias - 9, count)
    first = np.minimum(random.integers(0, steps + 1, count) + random.choice([0.0, 0.0, 0.5], count), steps)
    grid = (-first * 2.0**exponent, (steps - first) * 2.0**exponent)
    wide = (-any_exponent(random, (count,), dtype).real(), any_exponent(random, (count,), dtype).real())
    size = wide[1] * random.uniform(0.25, 1, count)
    alike = (-size * random.uniform(0, 1, count), size)
    kind = random.integers(0, 5, count)
    lo = np.select([kind == 0, kind == 1, kind == 2], [grid[0], wide[0], np.zeros(count)], alike[0])
    return lo, np.select([kind == 0, kind == 1, kind == 2], [grid[1], wide[1], wide[1]], alike[1])


def near_midpoints(random: np.random.Generator, count: int, steps: int) -> tuple[Array, Array]:
    """Return float32 ends whose distance is, but for the last bit of the smaller one, a midpoint times the steps."""
    middle = random.integers(1 << 24, 1 << 25, 1 << 14) | 1  # 25 bits, the last one set
    product = middle * steps
    unit = 1 << (np.frexp(product.astype(np.float64))[1] - 24)
    rest = product % unit
    order = np.argsort(rest + (rest == 0) * unit)[: 2 * count + 4]  # the smaller the rest, the more bits the sum takes
    any_other = random.integers(0, len(middle), count // 2)
    chosen = random.choice(np.concatenate([order, any_other]), count)
    high, low = (product - rest)[chosen].astype(np.float32), rest[chosen].astype(np.float32)
    # Away from the side to which a tie goes, mostly: there a width that was rounded to the tie itself is seen.
    away = ((middle[chosen] >> 1) & 1 == 0) ^ (random.integers(0, 4, count) == 0)
    direction = np.where(away, np.float32(np.inf), np.float32(0))
    low = np.where(random.integers(0, 4, count) == 0, low, np.nextafter(low, direction))
    power = random.integers(-60, 60, count)
    return -np.ldexp(low.astype(np.float64), power), np.ldexp(high.astype(np.float64), power)


def restore_case(draw: Draw, claim: Claim, *, family: str, operation: str, granularity: str) -> Case:
    """All codes, with scales of the family and any zero point."""
    qmin, qmax = code_range(draw, claim)
    quantizer = as_quantizer(operation, granularity)
    shape, size, memory = target(draw, claim, family, quantizer)
    layout, random = draw.choice(claim.layouts) if memory else "contiguous", draw.random()
    group_size = size if granularity == "group" else None
    scale, zero_point = parameters(
        random, family, shape_of_groups(shape, granularity, group_size, GRANULARITIES), (qmin, qmax)
    )
    codes = random.integers(qmin, qmax + 1, shape).astype(np.int8 if qmin < 0 else np.uint8)
    inputs: dict[str, HostArray | None] = {"codes": host(codes), "scale": scale, "zero_point": zero_point}
    options: Mapping[str, Any] = {
        "qmin": qmin, "qmax": qmax, "granularity": granularity, "group_size": group_size,
        "dtype": draw.choice(claim.out_dtypes),
    }  # fmt: skip
    layouts = each_layout(draw, claim, inputs) if family == "layouts" else dict.fromkeys(inputs, layout)
    return Case(operation, inputs, options, layouts=layouts, repeat=bool(memory))


def parameters(
    random: np.random.Generator, family: str, shape: tuple[int, ...], codes: tuple[int, int]
) -> tuple[HostArray, HostArray]:
    """Return scales of a family, and zero points of which half are the outermost codes."""
    count = int(np.prod(shape, dtype=np.int64))
    scale = scales(random, count, family).items.reshape(shape)
    zero_point = random.integers(codes[0], codes[1] + 1, shape).astype(np.int32)
    ends = random.integers(0, 4, shape)
    zero_point = np.where(ends == 0, codes[0], np.where(ends == 1, codes[1], zero_point)).astype(np.int32)
    return host(np.asarray(scale, order="C")), host(np.asarray(zero_point))


def parameters_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Ranges alone, whose scale and zero point are asked for."""
    qmin, qmax = code_range(draw, claim)
    layout = draw.choice(claim.layouts) if family == "memory" else "contiguous"
    shapes: dict[str, tuple[tuple[int, ...], ...]] = {
        "shapes": ((1,), (2, 3), (0,), (), (65,), (4, 0), (3, 2, 2)), "memory": ((6, 10), (65,), (3, 4, 9)),
    }  # fmt: skip
    shape = draw.choice([s for s in shapes.get(family, ((1000,),)) if claim.empty or 0 not in s])
    random, count = draw.random(), int(np.prod(shape, dtype=np.int64))
    content = family if family in ("ranges", "ties") else "ranges"
    lo, hi = ranges(random, max(count, 1), "float32", qmax - qmin, content)
    if family == "specials":
        lo, hi = special_ranges(random, max(count, 1))
    elif family == "normal":
        pair = np.sort(random.standard_normal((2, max(count, 1))).astype(np.float32), axis=0)
        lo, hi = pair[0], pair[1]
    ends = [reshaped(host(np.ascontiguousarray(end[:count].reshape(shape))), claim) for end in (lo, hi)]
    inputs: dict[str, HostArray | None] = dict(zip(("lo", "hi"), ends, strict=True))
    options = {"qmin": qmin, "qmax": qmax}
    return Case("affine.parameters", inputs, options, dict.fromkeys(inputs, layout), repeat=family == "memory")


def zero_point_ties(
    random: np.random.Generator, count: int, steps: int, exponents: tuple[int, int]
) -> tuple[Array, Array]:
    """Return ranges of power-of-two scale in which lo is a whole number and a half of steps, or a float32 beside it."""
    below = random.integers(0, steps, count) + 0.5
    power = 2.0 ** random.integers(*exponents, count)
    lo, hi = rounded(-below * power, "float32"), rounded((steps - below) * power, "float32")
    return moved(lo, random.choice([0, 0, -1, 1], count)).real(), hi.real()


def special_ranges(random: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Return ranges of zeros, subnormals, the largest numbers, infinities and NaN, the lower end first."""
    specials = words(special_words(format_named("float32")), "float32").items
    first, second = (specials[random.integers(0, len(specials), count)] for _ in range(2))
    ordinary = random.standard_normal(count).astype(np.float32)
    second = np.where(random.integers(0, 3, count) == 0, ordinary, second)
    with np.errstate(invalid="ignore"):
        swap = first > second
    return np.where(swap, second, first), np.where(swap, first, second)
