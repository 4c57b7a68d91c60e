"""Which results of a floating-point sum are allowed: those that some order of evaluation gives.

Clauses: ``[bounds.lora]``, ``[bounds.scale]``. The derivation stands in `tracking`. It holds for every evaluation with
the declared rounding points: sums in any order, also accumulated one onto the other, with or without fused
multiply-adds; the factors s and 1/(1 − p), together or alone, applied to any operand or result of the adapter.
"""

from dataclasses import dataclass

import numpy as np

from qloracle.errors import reject_value
from qloracle.formats import FLOAT32, Array, Format, format_named
from qloracle.int8 import scale_int8_matmul
from qloracle.lora import as_rows, dropout_factor, lora_scale, real_bias, real_gradient, real_operand, real_operands
from qloracle.rounding import decode, encode
from qloracle.tracking import (
    Interval,
    Tracked,
    exact_input,
    interval,
    largest_result,
    product_sum,
    rounded_to,
    row_sum,
    scaled,
    transposed,
)

__all__ = ["Interval", "Roundings", "lora_backward_bound", "lora_forward_bound", "scale_int8_matmul_bound"]


@dataclass(frozen=True)
class Roundings:
    """The rounding points that an implementation of a sum declares; the default is the strictest."""

    accumulate: str = "float32"  # format of every product and partial sum; no finer than float32
    intermediate: str = "float32"  # what x_d Aᵀ and dy B are rounded to
    weight: str = "float32"  # what a dequantized weight is rounded to before the product


@dataclass(frozen=True)
class _Factors:
    """The numbers that multiply an adapter, and what they cost an implementation."""

    fmt: Format  # of the accumulation
    scale: float  # s
    scale_roundings: float
    dropout_roundings: float
    largest: float  # the most that an operand or an intermediate result may be multiplied by, s and 1/(1 − p) folded in


def lora_forward_bound(
    x: Array,
    weight: Array,
    lora_a: Array,
    lora_b: Array,
    *,
    alpha: float,
    bias: Array | None = None,
    mask: Array | None = None,
    dropout: float = 0.0,
    rank_stabilized: bool = False,
    roundings: Roundings = Roundings(),
) -> Interval:
    """Bound every evaluation of `lora_forward` that has the declared rounding points.

    Parameters
    ----------
    x, weight, lora_a, lora_b, alpha, bias, mask, dropout, rank_stabilized
        As for `lora.lora_forward`. For QLoRA `weight` is the dequantized weight, which is exact by its own rule.
    roundings : Roundings

    Returns
    -------
    Interval
        Arrays of the shape of y, before the rounding to the output format. Not judged where M could overflow the
        accumulator.

    Notes
    -----
    Clause ``[bounds.lora]``. Roundings on a path: K for x Wᵀ; 3 for the dropout factor and its product (1 − p, the
    reciprocal, the product; more where p itself must be rounded; none for p = 0 and p = 1); K for x_d Aᵀ, and its
    declared rounding; r for the product with B; 4 for s (alpha, 1/r, their product, the product with the term; 5 for
    rsLoRA, with the root). In the sum of base, adapter and bias: one addition for each addend of the others.
    """
    operands = real_operands(x, weight, lora_a, lora_b)
    rows, (w, a, b) = as_rows(operands[0]), (operand.T for operand in operands[1:])
    how = _factors(alpha, a.shape[1], rank_stabilized=rank_stabilized, mask=mask, dropout=dropout, roundings=roundings)
    dropped, lora_a_t, lora_b_t = _dropped(rows, mask, dropout, x.shape, how), _foldable(a, how), _foldable(b, how)
    hidden = rounded_to(product_sum(dropped, lora_a_t, how.fmt), roundings.intermediate, how.fmt)
    adapter = _scaled_by_alpha(product_sum(hidden, lora_b_t, how.fmt), how)
    terms = [(product_sum(exact_input(rows), exact_input(w), how.fmt), w.shape[0]), (adapter, a.shape[1])]
    if bias is not None:
        terms.append((exact_input(np.broadcast_to(real_bias(bias, w.shape[1]), adapter.value.shape)), 1))
    total = interval(how.fmt, *terms)
    fits = _fits(dropped, how).all(axis=1, keepdims=True)
    fits = fits & _fits(hidden, how, roundings.intermediate).all(axis=1, keepdims=True)
    fits = fits & _fits(lora_a_t, how).all() & _fits(lora_b_t, how).all()
    shape = (*x.shape[:-1], w.shape[1])
    return Interval(total.lo.reshape(shape), total.hi.reshape(shape), (total.judged & fits).reshape(shape))


def lora_backward_bound(
    dy: Array,
    x: Array,
    weight: Array,
    lora_a: Array,
    lora_b: Array,
    *,
    alpha: float,
    mask: Array | None = None,
    dropout: float = 0.0,
    rank_stabilized: bool = False,
    roundings: Roundings = Roundings(),
) -> dict[str, Interval]:
    """Bound every evaluation of `lora_backward` that has the declared rounding points.

    Parameters
    ----------
    dy, x, weight, lora_a, lora_b, alpha, mask, dropout, rank_stabilized
        As for `lora.lora_backward`.
    roundings : Roundings

    Returns
    -------
    dict
        Intervals for "x", "lora_a", "lora_b" and "bias", of the shapes of the gradients.

    Notes
    -----
    Clause ``[bounds.lora]``. The hidden gradient dy B and x_d Aᵀ carry the declared intermediate rounding.
    """
    x64, w, a64, b64 = real_operands(x, weight, lora_a, lora_b)
    dy64 = as_rows(real_gradient(dy, (*x64.shape[:-1], len(w))))
    how = _factors(alpha, len(a64), rank_stabilized=rank_stabilized, mask=mask, dropout=dropout, roundings=roundings)
    fmt = how.fmt
    gradient, a, b = (_foldable(operand, how) for operand in (dy64, a64, b64))
    dropped = _dropped(as_rows(x64), mask, dropout, x.shape, how)
    hidden = rounded_to(product_sum(dropped, transposed(a), fmt), roundings.intermediate, fmt)
    back = rounded_to(product_sum(gradient, b, fmt), roundings.intermediate, fmt)
    through = _scaled_by_alpha(product_sum(back, a, fmt), how)
    if mask is not None:
        through = scaled(through, as_rows(dropout_factor(mask, dropout, x.shape)), how.dropout_roundings, fmt)
    exact_dy = exact_input(dy64)
    by_a = _scaled_by_alpha(product_sum(transposed(back), dropped, fmt), how)
    by_b = _scaled_by_alpha(product_sum(transposed(gradient), hidden, fmt), how)
    results = {
        "x": interval(fmt, (product_sum(exact_dy, exact_input(w), fmt), len(w)), (through, len(a64))),
        "lora_a": interval(fmt, (by_a, len(dy64))),
        "lora_b": interval(fmt, (by_b, len(dy64))),
        "bias": interval(fmt, (row_sum(exact_dy, fmt), len(dy64))),
    }
    fits = all(_fits(term, how).all() for term in (gradient, a, b, dropped))
    fits = fits and all(_fits(term, how, roundings.intermediate).all() for term in (hidden, back))
    shapes = {"x": x.shape, "lora_a": a64.shape, "lora_b": b64.shape, "bias": (len(w),)}
    return {
        name: Interval(
            i.lo.reshape(shapes[name]),
            i.hi.reshape(shapes[name]),
            (i.judged & (fits or name == "bias")).reshape(shapes[name]),
        )
        for name, i in results.items()
    }


def scale_int8_matmul_bound(acc: Array, row_absmax: Array, column_absmax: Array, bias: Array | None = None) -> Interval:
    """Bound every evaluation of `scale_int8_matmul` in float32 with at most five roundings, and one for the bias.

    Parameters
    ----------
    acc, row_absmax, column_absmax, bias
        As for `int8.scale_int8_matmul`.

    Returns
    -------
    Interval
        Arrays of shape (M, N).

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `int8.scale_int8_matmul`.

    Notes
    -----
    Clause ``[bounds.scale]``. Roundings on a path: the accumulator as float32; row/127 and column/127; the product of
    the two, and that with the accumulator; the bias. With constants instead of quotients the float32 number nearest to
    1/127 is off by u/16, and that counts twice; 1/127² is off by less than a third of u, but needs a product less. No
    intermediate result may overflow or underflow where the product itself is finite and normal; below that the last two
    operations may underflow.
    """
    with_bias = scale_int8_matmul(acc, row_absmax, column_absmax, bias)
    value = with_bias if bias is None else scale_int8_matmul(acc, row_absmax, column_absmax)
    exact = exact_input(value)
    small = (exact.magnitude > 0) & (exact.magnitude < 2.0**FLOAT32.minimum_exponent)
    tiny = np.where(small, 2 * FLOAT32.half_smallest_subnormal, 0.0)
    terms = [(Tracked(value, exact.magnitude, (5 + 2 / 16) * FLOAT32.unit_roundoff, tiny, exact.unsure), 1)]
    if bias is not None:
        terms.append((exact_input(np.broadcast_to(real_operand(bias, "bias"), value.shape)), 1))
    return interval(FLOAT32, *terms)


def _factors(
    alpha: float, rank: int, *, rank_stabilized: bool, mask: Array | None, dropout: float, roundings: Roundings
) -> _Factors:
    fmt = format_named(roundings.accumulate, "accumulate")
    if fmt.unit_roundoff < FLOAT32.unit_roundoff:
        reject_value("accumulate", "no finer than float32, or float64 itself would need a bound", fmt.name)
    scale = lora_scale(alpha, rank, rank_stabilized=rank_stabilized)
    kept = 1.0 if mask is None or dropout == 1 else 1 / (1 - dropout)
    largest = max(1.0, abs(scale)) * kept
    return _Factors(fmt, scale, 5 if rank_stabilized else 4, _dropout_roundings(mask, dropout, fmt), largest)


def _dropout_roundings(mask: Array | None, dropout: float, fmt: Format) -> float:
    """Return how many roundings mask/(1 − p) and its product cost.

    p rounded to the format is p(1 + δ), and 1 − p becomes (1 − p)(1 − δ·p/(1 − p)): at most 2p/(1 − p) roundings.
    """
    if mask is None or dropout in (0, 1):
        return 0.0
    representable = decode(encode(np.array(dropout, np.float64), fmt.name), fmt.name) == dropout
    return 3.0 if representable else 3 + 2 * dropout / (1 - dropout)


def _foldable(values: Array, how: _Factors) -> Tracked:
    """Track an operand of the adapter, into which an implementation may fold a factor: that product may underflow."""
    return exact_input(values, how.fmt.half_smallest_subnormal)


def _dropped(rows: Array, mask: Array | None, dropout: float, shape: tuple[int, ...], how: _Factors) -> Tracked:
    factor = dropout_factor(mask, dropout, shape)
    term = _foldable(rows, how)
    return term if mask is None else scaled(term, as_rows(factor), how.dropout_roundings, how.fmt)


def _scaled_by_alpha(term: Tracked, how: _Factors) -> Tracked:
    return scaled(term, how.scale, how.scale_roundings, how.fmt, how.largest)


def _fits(term: Tracked, how: _Factors, name: str | None = None) -> Array:
    """Return where a term, whatever is folded into it, overflows neither the accumulation nor its declared format."""
    formats = (how.fmt, how.fmt if name is None else format_named(name))
    fits: Array = largest_result(term) * how.largest < min(fmt.largest_finite for fmt in formats)
    return fits
