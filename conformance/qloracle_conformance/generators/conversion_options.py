"""What a claim may choose of a conversion: rounding, overflow, bits of NaN, type of the source.

An option is passed only where it is not the default, so that an adapter need not know those that it does not claim.
"""

from typing import Any

from qloracle.directions import ROUNDINGS
from qloracle.formats import FORMATS, format_named
from qloracle.rounding import nan_rules_of, overflows_of
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case, reshaped
from qloracle_conformance.generators.values import numbers_for

SOURCES = ("float32", "float64", "float16", "bfloat16", "int8", "int32", "int64")
ANY_BITS, NO_NAN = "class", "unspecified"  # bits of NaN are not judged; NaN does not occur


def options_of(fmt: str) -> dict[str, tuple[object, ...]]:
    """Return the options of a conversion to a format, the default of each first."""
    target, float32 = format_named(fmt), format_named("float32")
    if target.mantissa_bits > float32.mantissa_bits:  # only integers are rounded
        return {"rounding": tuple(ROUNDINGS), "overflow": ("ieee",), "nan": (ANY_BITS,), "source": ("int64",)}
    exact = target.mantissa_bits == float32.mantissa_bits
    return {
        "rounding": tuple(ROUNDINGS),
        "overflow": overflows_of(fmt),
        "nan": (ANY_BITS, *nan_rules_of(fmt)) if target.has_nan else (NO_NAN, *nan_rules_of(fmt)[1:]),
        "source": tuple(name for name in SOURCES if "64" in name or not exact),
    }


def optional_of(fmt: str) -> dict[str, tuple[str, tuple[object, ...]]]:
    """Return the stages that a claim reaches only with some value of an option."""
    nan = {} if format_named(fmt).has_nan else {"nan": ("nan", nan_rules_of(fmt)[1:])}
    return {"stochastic": ("rounding", ("stochastic",)), **nan}


def claimed(claim: Claim, fmt: str, option: str) -> tuple[str, ...]:
    """Return the values of an option that a claim lists, or the default alone."""
    return tuple(map(str, claim.options.get(option, options_of(fmt)[option][:1])))


def own_overflow(claim: Claim, fmt: str) -> dict[str, str]:
    """Return the option that asks for the claim's overflow rule, where the default is none that it lists."""
    rules = claimed(claim, fmt, "overflow")
    return {} if options_of(fmt)["overflow"][0] in rules else {"overflow": rules[0]}


def deterministic(claim: Claim, fmt: str) -> tuple[str, ...]:
    """Return the claimed roundings that take no random bits."""
    return tuple(name for name in claimed(claim, fmt, "rounding") if name != "stochastic") or ("ties_to_even",)


def conversion(
    fmt: str, claim: Claim, values: HostArray, stage: str, *, random_bits: HostArray | None = None, **chosen: str
) -> Case:
    """Return a case judged at one stage, its options only where they are not the default."""
    defaults = options_of(fmt)
    asked = {**own_overflow(claim, fmt), **chosen}
    options: dict[str, Any] = {"fmt": fmt, **{k: v for k, v in asked.items() if v != defaults[k][0]}}
    if values.dtype in FORMATS and chosen.get("nan", NO_NAN) in (ANY_BITS, NO_NAN):
        values = numbers_for(fmt, values)
    inputs: dict[str, HostArray | None] = {"values": reshaped(values, claim)}
    if random_bits is not None:
        inputs["random_bits"] = reshaped(random_bits, claim)
    return Case(f"{fmt}.encode", inputs, options, term=stage)


def floats(claim: Claim, fmt: str) -> tuple[str, ...]:
    """Return the claimed sources that are floats."""
    return tuple(name for name in claimed(claim, fmt, "source") if name in FORMATS)
