"""Faults of stochastic rounding: off by one, too few bits, the wrong fraction, special values carried away."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.rounding import decode
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.changed_conversions import right
from qloracle_conformance.mutants.mutant import Mutant

LAST = (1 << 32) - 1


def with_random(change: Callable[[Array], Array]) -> Callable[..., HostArray]:
    """Return a conversion that compares the fraction with something else than its random bits."""

    def op(values: HostArray, random_bits: HostArray | None = None, *, fmt: str, **options: Any) -> HostArray:
        if random_bits is None:
            return right(values, fmt=fmt, **options)
        return right(values, host(change(random_bits.items).astype(np.uint32)), fmt=fmt, **options)

    return op


def stochastic(make: Callable[[HostArray, HostArray, str, dict[str, Any]], HostArray]) -> Callable[..., HostArray]:
    """Return a conversion that rounds stochastically in another way, and else as the reference does."""

    def op(values: HostArray, random_bits: HostArray | None = None, *, fmt: str, **options: Any) -> HostArray:
        if random_bits is None:
            return right(values, fmt=fmt, **options)
        return make(values, random_bits, fmt, options)

    return op


def _at_most(values: HostArray, random_bits: HostArray, fmt: str, options: dict[str, Any]) -> HostArray:
    """Go up where R <= frac · 2^32: a number of the format moves when R is 0."""
    below = right(values, fmt=fmt, **{**options, "rounding": "toward_zero"})
    earlier = host(np.where(random_bits.items > 0, random_bits.items - 1, 0).astype(np.uint32))
    words = right(values, earlier, fmt=fmt, **options).words()
    exact = decode(below.words(), fmt) == values.real()
    up = exact & (random_bits.items == 0) & (np.abs(values.real()) > 0)
    return host(np.where(up, words + words.dtype.type(1), words).astype(words.dtype), fmt)


def _signed_floor(values: HostArray, random_bits: HostArray, fmt: str, options: dict[str, Any]) -> HostArray:
    """Take the fraction from the number below, not from the one nearer to zero."""
    flipped = host(np.where(values.real() < 0, LAST - random_bits.items, random_bits.items).astype(np.uint32))
    return right(values, flipped, fmt=fmt, **options)


def _then_nearest(values: HostArray, random_bits: HostArray, fmt: str, options: dict[str, Any]) -> HostArray:
    """Add noise of half a unit, then round to nearest: the fraction is off by a half."""
    shifted = host(((random_bits.items.astype(np.uint64) + (1 << 31)) & LAST).astype(np.uint32))
    return right(values, shifted, fmt=fmt, **options)


def _added_to_the_word(values: HostArray, random_bits: HostArray, fmt: str, options: dict[str, Any]) -> HostArray:
    """Add 16 random bits to a float32 word and cut it: NaN and the largest numbers are carried away."""
    if values.dtype != "float32" or fmt != "bfloat16" or options.get("overflow", "ieee") != "ieee":
        return right(values, random_bits, fmt=fmt, **options)
    noise = np.uint64(0xFFFF) - (random_bits.items >> np.uint32(16)).astype(np.uint64)
    return host(
        (((values.words().astype(np.uint64) + noise) >> np.uint64(16)) & np.uint64(0xFFFF)).astype(np.uint16), fmt
    )


def _of_normal_step(values: HostArray, random_bits: HostArray, fmt: str, options: dict[str, Any]) -> HostArray:
    """Flush what is below the normal numbers, whose step the fraction does not know."""
    smallest = {"float16": 2.0**-14, "float8_e4m3fn": 2.0**-6, "float8_e5m2": 2.0**-14}.get(fmt, 0.0)
    below = right(values, fmt=fmt, **{**options, "rounding": "toward_zero"}).words()
    words = right(values, random_bits, fmt=fmt, **options).words()
    return host(np.where(np.abs(values.real()) < smallest, below, words), fmt)


def _never_beyond(values: HostArray, random_bits: HostArray, fmt: str, options: dict[str, Any]) -> HostArray:
    """Leave a finite number finite, whatever the random bits say."""
    return right(values, random_bits, fmt=fmt, **{**options, "overflow": "saturate"})


def _one_word_for_all(values: HostArray, random_bits: HostArray, fmt: str, options: dict[str, Any]) -> HostArray:
    """Use the random word of each vector's first element for all four."""
    flat = random_bits.items.reshape(-1)
    shared = flat[np.arange(flat.size) // 4 * 4].reshape(random_bits.shape)
    return right(values, host(shared), fmt=fmt, **options)


def _dense_random(values: HostArray, random_bits: HostArray, fmt: str, options: dict[str, Any]) -> HostArray:
    """Read the random bits in the order of memory."""
    order = np.ascontiguousarray(random_bits.items.ravel(order="K"))
    return right(values, host(order.reshape(random_bits.shape)), fmt=fmt, **options)


def _by_float32(values: HostArray, random_bits: HostArray, fmt: str, options: dict[str, Any]) -> HostArray:
    """Compare with R · 2^-32 as a float32, which is 1 for the last 128 words."""
    rounded = np.minimum(random_bits.items.astype(np.float32).astype(np.float64), LAST).astype(np.uint32)
    return right(values, host(rounded), fmt=fmt, **options)


def stochastic_faults() -> list[Mutant]:
    """Return the mutants."""

    def wrong(name: str, fault: str, op: Callable[..., Any], fmt: str = "") -> Mutant:
        prefix = f"{fmt}.encode" if fmt else "bfloat16.encode"
        return Mutant(f"stochastic-{name}", fault, {"encode": op}, ("stochastic",), operations=prefix)

    return [
        wrong("at-most", "the magnitude goes up at R <= frac", stochastic(_at_most)),
        wrong("at-most-e4m3", "the magnitude goes up at R <= frac", stochastic(_at_most), "float8_e4m3fn"),
        wrong("reversed", "the magnitude goes up at R >= 1 - frac", with_random(lambda r: LAST - r)),
        wrong("off-by-one", "R + 1 is compared with the fraction", with_random(lambda r: np.minimum(r, LAST - 1) + 1)),
        wrong("16-bits", "only the high 16 random bits are used", with_random(lambda r: r >> 16 << 16)),
        wrong("24-bits", "only the high 24 random bits are used", with_random(lambda r: r >> 8 << 8)),
        wrong("low-half", "the low 16 random bits are used as the high ones",
              with_random(lambda r: (r & 0xFFFF) << np.uint32(16))),
        wrong("never-up", "the number is cut off", with_random(lambda r: np.full_like(r, LAST))),
        wrong("always-up", "whatever is cut off goes up", with_random(np.zeros_like)),
        wrong("signed-floor", "the fraction of a negative number counts from below", stochastic(_signed_floor)),
        wrong("then-nearest", "noise of half a unit is added before rounding to nearest", stochastic(_then_nearest)),
        wrong("added-to-the-word", "random bits are added to the word of NaN too", stochastic(_added_to_the_word)),
        *(wrong(f"normal-step-{fmt}", "subnormals are cut off", stochastic(_of_normal_step), fmt)
          for fmt in ("float16", "float8_e4m3fn", "float8_e5m2")),
        wrong("never-beyond", "the largest finite number never goes up", stochastic(_never_beyond), "float16"),
        wrong("never-beyond-e4m3", "the largest finite number never goes up",
              stochastic(_never_beyond), "float8_e4m3fn"),
        wrong("one-word-for-four", "four elements share a random word", stochastic(_one_word_for_all)),
        wrong("random-in-memory-order", "the layout of the random bits is ignored", stochastic(_dense_random)),
        wrong("random-as-float32", "random bits are converted to float32 before the comparison",
              stochastic(_by_float32)),
    ]  # fmt: skip
