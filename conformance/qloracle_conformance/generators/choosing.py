"""Inputs of conversions to every format, by every rounding, overflow rule and variant of NaN, from every source."""

from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np

from qloracle.formats import FORMATS, format_named
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case, admitted, fitted
from qloracle_conformance.generators.conversion_options import (
    NO_NAN,
    claimed,
    conversion,
    deterministic,
    floats,
    options_of,
    own_overflow,
)
from qloracle_conformance.generators.converting import SHAPES
from qloracle_conformance.generators.deciding import (
    decisions,
    either_sign,
    in_source,
    magnitude_values,
    turning_words,
)
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.values import numbers_for, words

COUNT = 4099  # no multiple of anything: the tail after the last vector or tile is tried by every rule


def nothing(fmt: str, claim: Claim) -> Case:
    """Return a case for a stage that the claim does not reach: one number, judged at no stage."""
    source = claimed(claim, fmt, "source")[0]
    one = in_source(np.random.default_rng(0), np.ones(1), source)
    return conversion(fmt, claim, one, "none")


def direction_case(draw: Draw, claim: Claim, fmt: str) -> Case:
    """Everything where a rounding turns, by every claimed rounding from every source."""
    rounding, content = draw.choice([*product(deterministic(claim, fmt), (decided, integers, doubles))])
    return conversion(fmt, claim, content(draw, claim, fmt), "rounding", rounding=rounding)


def overflow_case(draw: Draw, claim: Claim, fmt: str) -> Case:
    """Numbers at the end of the format and far beyond, infinities, by every claimed overflow rule and rounding."""
    random, target = draw.random(), format_named(fmt)
    sources = floats(claim, fmt) or claimed(claim, fmt, "source")
    rules = product(deterministic(claim, fmt), claimed(claim, fmt, "overflow"), (sources[0], draw.choice(sources)))
    rounding, overflow, source = draw.choice([*rules])
    place = target.finite_magnitude + random.integers(-2, 3, COUNT)
    with np.errstate(over="ignore"):
        low = np.minimum(magnitude_values(place, target), target.largest_finite * 2)
        high = np.minimum(magnitude_values(place + 1, target), target.largest_finite * 2)
    near = low + random.integers(0, 17, COUNT) / 16 * (high - low)
    with np.errstate(over="ignore"):
        far = np.ldexp(target.largest_finite, random.integers(1, 200, COUNT))
    reals = np.where(random.integers(0, 4, COUNT) == 0, far, np.where(np.isfinite(near), near, target.largest_finite))
    values = either_sign(random, in_source(random, reals, source), fmt)
    if source in FORMATS and format_named(source).infinities:
        infinity = format_named(source).infinity_bits
        bits = values.words().astype(np.uint64)
        infinite = random.integers(0, 8, COUNT) == 0
        bits = np.where(infinite, np.uint64(infinity) | (bits & np.uint64(format_named(source).sign_bit)), bits)
        values = words(bits, source)
    return conversion(fmt, claim, values, "overflow", rounding=rounding, overflow=overflow)


def subnormal_case(draw: Draw, claim: Claim, fmt: str) -> Case:
    """Numbers, ties and their neighbours from zero to just above the smallest normal number, and far below all."""
    random, target = draw.random(), format_named(fmt)
    sources = floats(claim, fmt)
    if not sources:
        return conversion(fmt, claim, decided(draw, claim, fmt), "bits")
    source = draw.choice(sources)
    place = random.integers(0, min((2 << target.mantissa_bits) + 3, target.finite_magnitude), COUNT)
    step = magnitude_values(np.array([1]), target) - magnitude_values(np.array([0]), target)
    low = magnitude_values(place, target)
    reals = low + random.choice([0.0, 0.25, 0.5, 0.5, 0.75], COUNT) * (magnitude_values(place + 1, target) - low)
    tiny = step * np.ldexp(1.0 + random.random(COUNT), -random.integers(1, 60, COUNT))
    reals = np.where(random.integers(0, 6, COUNT) == 0, tiny, reals)
    return conversion(fmt, claim, either_sign(random, in_source(random, reals, source), fmt), "bits")


def stochastic_case(draw: Draw, claim: Claim, fmt: str) -> Case:
    """Any fraction, with random words around the one at which the number turns; numbers of the format; the ends."""
    if "stochastic" not in claimed(claim, fmt, "rounding"):
        return nothing(fmt, claim)
    random, sources = draw.random(), claimed(claim, fmt, "source")
    source, overflow = draw.choice([*product((sources[0], *sources), claimed(claim, fmt, "overflow"))])
    large = [*product(((61, 33), (COUNT,)), claim.layouts)]  # every layout of a matrix and of a row
    small = [(shape, "contiguous") for shape in admitted(claim, ((17,), (1,), (), (0,)))]
    shape, layout = draw.choice([*large, *small])
    if shape == (61, 33):  # from a format that the random bits decide on: in every layout their order is seen
        source = sources[0]
    count = int(np.prod(shape))
    fine = np.concatenate([np.zeros(256), random.random(512), np.ldexp(1.0, -random.integers(1, 53, 256))])
    values = decisions(random, fmt, source, count, fine)
    if source in FORMATS and count > 16:
        named = format_named(source)
        specials = [named.infinity_bits + p for p in (0, 1, (1 << named.mantissa_bits) - 1)] + [named.quiet_nan_bits]
        bits = values.words().copy()
        bits[:8] = [*specials, *(word | named.sign_bit for word in specials)]
        values = numbers_for(fmt, words(bits, source))
    random_bits = host(turning_words(random, values, fmt).reshape(shape))
    values = HostArray(values.items.reshape(shape), source)
    case = conversion(
        fmt, claim, values, "stochastic", random_bits=random_bits, rounding="stochastic", overflow=overflow
    )
    layouts = {"values": draw.choice(claim.layouts), "random_bits": layout}
    return Case(case.operation, case.inputs, case.options, layouts, term=case.term)


def decided(draw: Draw, claim: Claim, fmt: str) -> HostArray:
    """Numbers of the format, ties, quarters, and one step beside, from any claimed source."""
    return decisions(draw.random(), fmt, draw.choice(claimed(claim, fmt, "source")), COUNT)


def integers(draw: Draw, claim: Claim, fmt: str) -> HostArray:
    """Integers on and beside ties, decided by one bit however far below; the ends of their type."""
    random, digits = draw.random(), min(format_named(fmt).mantissa_bits, 58)
    whole = [s for s in claimed(claim, fmt, "source") if s not in FORMATS]
    if not whole:
        return decided(draw, claim, fmt)
    source = draw.choice(whole)
    info = np.iinfo(source)
    power = random.integers(0, info.bits - 1, COUNT)
    leading = random.integers(1 << digits, 2 << digits, COUNT) << (60 - digits)
    tie = random.integers(0, 2, COUNT) << (59 - digits)
    values = (leading | tie) >> np.maximum(60 - power, 0) << np.maximum(power - 60, 0)
    values += random.integers(-1, 2, COUNT) << (random.random(COUNT) * (power // 2)).astype(np.int64)
    values = np.clip(values, 0, info.max) * random.choice([-1, 1], COUNT)
    values[:4] = [info.min, info.max, 0, min(16842753, int(info.max))]
    return host(values.astype(source))


def doubles(draw: Draw, claim: Claim, fmt: str) -> HostArray:
    """Ties moved by less than any format between the source and the target can tell."""
    random, target, sources = draw.random(), format_named(fmt), claimed(claim, fmt, "source")
    source = "float64" if "float64" in sources else sources[0]
    values = decisions(random, fmt, source, COUNT)
    if source != "float64":
        return values
    apart = np.ldexp(1.0, -random.integers(24, 52, COUNT)) * random.choice([-1.0, 0.0, 1.0], COUNT)
    with np.errstate(over="ignore"):
        beside = values.items * (1 + apart)
    return host(np.where(np.abs(beside) <= 2 * target.largest_finite, beside, values.items))


def plain_case(draw: Draw, claim: Claim, fmt: str, *, content: Callable[[Draw, Claim, str], HostArray]) -> Case:
    """Contents by the default rounding."""
    return conversion(fmt, claim, content(draw, claim, fmt), "bits")


def nan_case(draw: Draw, claim: Claim, fmt: str) -> Case:
    """NaN of both signs with every single bit of the payload, and with all, between numbers."""
    variants = [v for v in claimed(claim, fmt, "nan") if v != NO_NAN]
    sources = floats(claim, fmt)
    if not variants or not sources:
        return nothing(fmt, claim)
    random, source = draw.random(), draw.choice(sources)
    named = format_named(source)
    digits = named.mantissa_bits
    payloads = [*(1 << k for k in range(digits)), (1 << digits) - 1, (1 << (digits - 1)) - 1, 3 << (digits // 2)]
    bits = np.array([named.infinity_bits | p for p in payloads], np.uint64)
    bits = np.concatenate([bits, bits | np.uint64(named.sign_bit)])
    numbers = decisions(random, fmt, source, 3 * bits.size).words().astype(np.uint64)
    values = words(random.permutation(np.concatenate([bits, numbers])), source)
    overflow, rounding = draw.choice(claimed(claim, fmt, "overflow")), draw.choice(deterministic(claim, fmt))
    return conversion(fmt, claim, values, "nan", overflow=overflow, rounding=rounding, nan=draw.choice(variants))


def shape_case(draw: Draw, claim: Claim, fmt: str, *, family: str) -> Case:
    """Lengths around vector widths; every memory layout, called twice: from the default source."""
    random, source = draw.random(), claimed(claim, fmt, "source")[0]
    shape = draw.choice(admitted(claim, SHAPES if family == "shapes" else ((6, 10), (65,), (3, 4, 9))))
    values = decisions(random, fmt, source, int(np.prod(shape)))
    values = HostArray(values.items.reshape(fitted(shape, claim)), source)
    layout = draw.choice(claim.layouts) if family == "memory" else "contiguous"
    repeat = family == "memory"
    options = {"fmt": fmt, **own_overflow(claim, fmt)}
    return Case(f"{fmt}.encode", {"values": values}, options, {"values": layout}, term="bits", repeat=repeat)


FAMILIES: dict[str, Callable[..., Case]] = {
    "subnormals": subnormal_case,
    "integers": partial(plain_case, content=integers),
    "doubles": partial(plain_case, content=doubles),
    "directions": direction_case,
    "overflow": overflow_case,
    "stochastic": stochastic_case,
    "nans": nan_case,
}
STAGE_OF = {"directions": "rounding", "overflow": "overflow", "stochastic": "stochastic", "nans": "nan"}


def choice_families(fmt: str) -> dict[str, Callable[[Draw, Claim], Case]]:
    """Return the families of a conversion that its options have; those of floats only where a float is a source."""
    floats = set(options_of(fmt)["source"]) & set(FORMATS)
    names = FAMILIES if floats else ("integers", "directions", "stochastic")
    return {name: partial(FAMILIES[name], fmt=fmt) for name in names}


def plain_families(fmt: str) -> dict[str, Callable[[Draw, Claim], Case]]:
    """Return families of shapes and layouts for a format that not every source is wider than."""
    return {family: partial(shape_case, fmt=fmt, family=family) for family in ("shapes", "memory")}
