"""The parts of an adapter with what they cost an implementation: what all bounds of layers are made of."""

from dataclasses import dataclass, replace

import numpy as np

from qloracle.formats import Array, Format, format_named
from qloracle.lora import dropout_factor, lora_scale
from qloracle.operands import as_rows
from qloracle.rounding import decode, encode
from qloracle.tracking.interval import (
    Interval,
    Tracked,
    exact_input,
    largest_result,
    loses,
    product_sum,
    rounded_to,
    scaled,
)
from qloracle.tracking.roundings import Roundings, accumulation_format


@dataclass(frozen=True)
class Factors:
    """The numbers that multiply an adapter, and what they cost an implementation."""

    fmt: Format  # of the accumulation
    declared: Roundings
    scale: float  # s
    scale_roundings: float
    keep: Array | None  # mask/(1 − p) for every row of x, None without a mask
    dropout_roundings: float
    drops_all: bool  # p = 1: x_d is 0, whatever x is
    largest: float  # the most that an operand or an intermediate result may be multiplied by, s and 1/(1 − p) folded in
    in_range: bool  # whether the accumulation format can hold alpha, s and 1/(1 − p), and their product


def factors(
    alpha: float,
    rank: int,
    shape: tuple[int, ...],
    *,
    rank_stabilized: bool = False,
    mask: Array | None = None,
    dropout: float = 0.0,
    roundings: Roundings,
) -> Factors:
    """Return s and mask/(1 − p) for x of a shape, with their roundings.

    Four for s (alpha, 1/r, their product, the product with the term; five for rsLoRA, with the root); one more for a
    rank that the format cannot hold, half a one under a root; three for the dropout factor and its product (1 − p, the
    reciprocal, the product; more where p itself must be rounded; none for p = 0 and p = 1).
    """
    fmt = accumulation_format(roundings)
    scale = lora_scale(alpha, rank, rank_stabilized=rank_stabilized)
    factor = dropout_factor(mask, dropout, shape)
    kept = 1.0 if mask is None or dropout == 1 else 1 / (1 - dropout)
    largest = max(1.0, abs(scale)) * kept
    inexact_rank = 0.0 if is_held(float(rank), fmt) else 1.0
    return Factors(
        fmt=fmt,
        declared=roundings,
        scale=scale,
        scale_roundings=5 + inexact_rank / 2 if rank_stabilized else 4 + inexact_rank,
        keep=None if mask is None else as_rows(factor),
        dropout_roundings=_dropout_roundings(mask, dropout, fmt),
        drops_all=mask is not None and dropout == 1,
        largest=largest,
        in_range=max(abs(alpha), largest, float(rank)) < fmt.largest_finite,
    )


def _dropout_roundings(mask: Array | None, dropout: float, fmt: Format) -> float:
    """Return how many roundings mask/(1 − p) and its product cost.

    p rounded to the format is p(1 + δ), and 1 − p becomes (1 − p)(1 − δ·p/(1 − p)): at most 2p/(1 − p) roundings.
    """
    if mask is None or dropout in (0, 1):
        return 0.0
    return 3.0 if is_held(dropout, fmt) else 3 + 2 * dropout / (1 - dropout)


def is_held(value: float, fmt: Format) -> bool:
    """Return whether a number is one of the format."""
    return bool(decode(encode(np.array(value, np.float64), fmt.name), fmt.name) == value)


def foldable(values: Array, how: Factors) -> Tracked:
    """Track an operand of the adapter, into which an implementation may fold a factor: that product may underflow."""
    return exact_input(values, how.fmt.half_smallest_subnormal)


def rescalable(term: Tracked, how: Factors) -> Tracked:
    """Track a gradient of the output, of which s times is rounded to the declared format of an adapter."""
    target = format_named(how.declared.adapter, "adapter")
    return _losing(term, target.half_smallest_subnormal if loses(target, how.fmt) else 0.0)


def _losing(term: Tracked, underflow: float) -> Tracked:
    return replace(term, underflow=term.underflow + np.where(term.magnitude > 0, underflow, 0.0))


def dropped_input(rows: Array, how: Factors) -> Tracked:
    """Track x_d."""
    return rounded_to(kept(foldable(rows, how), how), how.declared.dropped, how.fmt, "dropped")


def kept(term: Tracked, how: Factors) -> Tracked:
    """Track x, or a gradient of x_d, times mask/(1 − p); 0, an exact number, for p = 1."""
    if how.drops_all:
        return exact_input(np.zeros(term.value.shape))
    return term if how.keep is None else scaled(term, how.keep, how.dropout_roundings, how.fmt)


def scaled_by_alpha(term: Tracked, how: Factors, times: int) -> Tracked:
    """Track s · term, with `times` roundings to the declared format of an adapter on the way.

    Each may come before the product with s, which then multiplies what it loses.
    """
    return scaled(in_adapter(term, how, times), how.scale, how.scale_roundings, how.fmt, how.largest)


def tracked_delta(a64: Array, b64: Array, how: Factors) -> tuple[Tracked, Array]:
    """Track s B A, and return where no part of it can overflow."""
    a, b = foldable(a64, how), foldable(b64, how)
    product = product_sum(b, a, how.fmt)
    fit = fits(product, how, how.declared.adapter) & fits(a, how).all() & fits(b, how).all()
    return scaled_by_alpha(product, how, 2), fit


def in_adapter(term: Tracked, how: Factors, times: int = 1) -> Tracked:
    """Track so many roundings to the declared format of an adapter."""
    for _ in range(times):
        term = rounded_to(term, how.declared.adapter, how.fmt, "adapter")
    return term


def in_hidden(term: Tracked, how: Factors) -> Tracked:
    """Track the rounding of x_d Aᵀ or dy B, into which s may be multiplied."""
    return rounded_to(
        _losing(term, how.fmt.half_smallest_subnormal), how.declared.intermediate, how.fmt, "intermediate"
    )


def in_base(term: Tracked, how: Factors) -> Tracked:
    """Track the rounding of x Wᵀ + b or dy W."""
    return rounded_to(term, how.declared.base, how.fmt, "base")


def fits(term: Tracked, how: Factors, name: str | None = None) -> Array:
    """Return where a term, whatever is folded into it, overflows neither the accumulation nor its declared format.

    Nowhere, if a factor itself does: an infinite factor makes NaN even of zeros.
    """
    formats = (how.fmt, how.fmt if name is None else format_named(name))
    with np.errstate(over="ignore"):
        size = largest_result(term) * how.largest
    below: Array = (size < min(fmt.largest_finite for fmt in formats)) & how.in_range
    return below


def sum_fits(name: str, fmt: Format, *terms: Tracked) -> Array:
    """Return where a sum of terms, none of which is multiplied by anything, fits a declared format and the other."""
    largest = min(format_named(name).largest_finite, fmt.largest_finite)
    below: Array = sum((largest_result(term) for term in terms), np.zeros(())) < largest
    return below


def reshaped(found: Interval, judged: Array | bool, shape: tuple[int, ...]) -> Interval:
    """Return an interval in the shape of a result, not judged where something before it could overflow."""
    everywhere = np.broadcast_to(judged, found.judged.shape)
    return Interval(found.lo.reshape(shape), found.hi.reshape(shape), (found.judged & everywhere).reshape(shape))
