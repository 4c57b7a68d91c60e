"""Tables as people build them by mistake, each from the right codebook."""

from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from qloracle.codebooks import Codebook
from qloracle.formats import Array
from qloracle.tables import CODEBOOKS
from qloracle_conformance.mutants.kernels import to_bfloat16

Table = Callable[[Codebook], Array]  # the entries that a kernel uses in place of a codebook's


def in_half(book: Codebook) -> Array:
    """Keep the table in float16."""
    return book.entries.astype(np.float16)


def in_bfloat16(book: Codebook) -> Array:
    """Keep the table in bfloat16."""
    return np.where(np.isnan(book.entries), book.entries, to_bfloat16(book.entries))


def in_six_digits(book: Codebook) -> Array:
    """Type the table in with six digits."""
    return np.round(book.entries.astype(np.float64), 6)


def spaced_upwards(start: float, stop: float, count: int) -> Array:
    """Space evenly by counting up throughout, as NumPy does in float32."""
    return np.linspace(np.float32(start), np.float32(stop), count, dtype=np.float32)


def nf4_counted_upwards(book: Codebook) -> Array:
    """Derive NF4 with probabilities that are spaced by counting up throughout."""
    quantile = np.vectorize(NormalDist().inv_cdf)
    upper = quantile(spaced_upwards(0.9677083, 0.5, 9)[:-1].astype(np.float64))
    lower = -quantile(spaced_upwards(0.9677083, 0.5, 8)[:-1].astype(np.float64))
    table = np.sort(np.concatenate([lower, [0.0], upper]).astype(np.float32))
    return np.asarray(table / table[-1])


def dynamic_counted_upwards(book: Codebook) -> Array:
    """Derive a dynamic map with cuts that are spaced by counting up throughout."""
    doubling = 1 if book.name == "dynamic_signed" else 2
    parts = []
    for step in range(7):
        cuts = spaced_upwards(0.1, 1.0, doubling * 2**step + 1)
        parts.append(np.float32(10.0 ** (step - 6)) * ((cuts[:-1] + cuts[1:]) / np.float32(2)))
    positive = np.concatenate(parts)
    both = np.concatenate([-positive, positive]) if doubling == 1 else positive
    return np.sort(np.append(both, np.array([0, 1], np.float32)))


def dynamic_without_last_decade(book: Codebook) -> Array:
    """Begin the exponents at 10^-5, one step too late."""
    return np.where(np.abs(book.entries) < 1, book.entries * np.float32(10), book.entries).clip(-1, 1)


def ends_at_both_ones(book: Codebook) -> Array:
    """Hold -1 as well as 1, and lose the entry that is there."""
    return np.concatenate([[np.float32(-1)], book.entries[1:]])


def in_value_order(book: Codebook) -> Array:
    """Take codes for positions in value order."""
    return np.sort(book.entries)


def e2m1(book: Codebook) -> Array:
    """Use the numbers of float4_e2m1fn over 6."""
    positive = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32) / np.float32(6)
    return np.concatenate([positive, -positive])


def subnormal_lost(book: Codebook) -> Array:
    """Lose the subnormal entries."""
    return np.where(np.abs(book.entries) < 0.01, np.float32(0) * book.entries, book.entries)


def zero_unsigned(book: Codebook) -> Array:
    """Give the second zero no sign."""
    return np.where(book.entries == 0, np.float32(0), book.entries)


def by_division(book: Codebook) -> Array:
    """Round k/127 or k/255 instead of spacing evenly in float32."""
    if book.name.startswith("linear_signed"):
        return np.sort(np.append(np.arange(-127, 128) / 127, 0.0))
    last = book.entries.size - 1
    return np.arange(last + 1) / last


def over_the_next_power(book: Codebook) -> Array:
    """Divide by the number of entries."""
    return np.arange(book.entries.size) / book.entries.size


def symmetric_integers(book: Codebook) -> Array:
    """Use the integers -7 to 7 over 7, with two zeros."""
    return np.sort(np.append(np.arange(-7, 8), 0)) / 7


def twos_complement_order(book: Codebook) -> Array:
    """Order entries like two's complement numbers."""
    return np.roll(book.entries, 8)


def e4m3_with(largest: float, bias: int, nan_is_number: bool) -> Table:
    """Return a table of e4m3 with another largest number, another bias, or without NaN."""

    def table(book: Codebook) -> Array:
        exponent, mantissa = np.divmod(np.arange(128), 8)
        values = np.where(exponent > 0, (1 + mantissa / 8) * 2.0 ** (exponent - bias), mantissa * 2.0 ** (-2 - bias))
        values = values / largest
        values[127] = values[127] if nan_is_number else np.nan
        return np.concatenate([values, -values]).astype(np.float32)

    return table


def e5m2(book: Codebook) -> Array:
    """Use the numbers of float8_e5m2 over its largest."""
    with np.errstate(invalid="ignore"):
        return (np.arange(256, dtype=np.uint16) << 8).view(np.float16).astype(np.float64) / 57344


def named(name: str) -> Table:
    """Return a table that is always the one of a name."""
    return lambda _: CODEBOOKS[name].entries
