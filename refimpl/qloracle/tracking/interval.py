"""How far any rounded evaluation of an expression may lie from its exact value.

Clause: ``[bounds.sum]``. Roundings on a path: one for each operation that is not exact, counted as follows.

Each operation of an implementation returns (exact result)·(1 + δ) + η with |δ| ≤ u and |η| ≤ η₀, where u = 2^−p and η₀
is half the smallest subnormal of the format it rounds to; η = 0 for additions, which underflow exactly. (Rounding to
nearest even gives |δ| ≤ u/(1 + u), so that dividing by a rounded number costs no more than another factor in [1 − u,
1 + u].) Along any path from an input to an output let n_f operations round to format f. Then a sum of products,
evaluated in any order and with or without fused multiply-adds, differs from the exact one by at most

    Σ_t (exp(e_t) − 1)·M_t + exp(e_t)·H_t,    e_t = Σ_f n_f·u_f,

over the terms t of the outermost sum, where M is the same expression on absolute values and H collects every η₀ times
the magnitudes that multiply it later (none where M = 0, for zeros are exact): Π(1 + δ_i) − 1 ≤ Π(1 + u_i) − 1 ≤
exp(Σ u_i) − 1. A sum of K products puts 1 + (K − 1) roundings on a path, whatever its order; where sums are added, an
implementation may go on accumulating in the same register, so a product of one passes at most one more addition for
each product of the others. (Higham 2002, "Accuracy and Stability of Numerical Algorithms", sections 3.1 and 4.2; the
exponential form needs no restriction on n·u.) `Tracked` carries value, M, e and H through an expression.

Examples
--------
>>> x, w = exact_input(np.array([[1.0, 2.0]])), exact_input(np.array([[3.0], [-4.0]]))
>>> product = product_sum(x, w, format_named("float32"))
>>> product.value, product.magnitude, product.exponent * 2**24
(array([[-5.]]), array([[11.]]), 2.0)
>>> allowed = interval(format_named("float32"), (product, 1))
>>> [round(float(end[0, 0] + 5) * 2**24) for end in (allowed.lo, allowed.hi)]
[-22, 22]
"""

from dataclasses import dataclass

import numpy as np

from qloracle.formats import Array, Format, format_named


@dataclass(frozen=True)
class Tracked:
    """A real expression and what is needed to bound any rounded evaluation of it."""

    value: Array  # float64, the exact value but for float64 rounding; 2-d
    magnitude: Array  # M: the same expression on absolute values, inputs that are not finite counted as 0
    exponent: float  # e along the longest path
    underflow: Array  # H
    unsure: Array  # bool: where the value is not finite, another evaluation may give another infinity, or NaN


@dataclass(frozen=True)
class Interval:
    """Real numbers that an output may be rounded from; where nothing can be said, `judged` is False."""

    lo: Array  # float64
    hi: Array  # float64
    judged: Array  # bool


def exact_input(values: Array, underflow: float = 0.0) -> Tracked:
    """Track numbers that are given, not computed; `underflow` is for those that a factor may be multiplied into."""
    magnitude = np.abs(np.where(np.isfinite(values), values, 0.0))
    under = np.where(magnitude > 0, underflow, 0.0) if underflow else np.zeros(values.shape)
    return Tracked(values, magnitude, 0.0, under, np.zeros(values.shape, np.bool_))


def transposed(term: Tracked) -> Tracked:
    """Track the transpose."""
    return Tracked(term.value.T, term.magnitude.T, term.exponent, term.underflow.T, term.unsure.T)


def product_sum(left: Tracked, right: Tracked, fmt: Format) -> Tracked:
    """Track left @ right accumulated in `fmt`: K roundings on a path, K products that may underflow."""
    terms = left.value.shape[-1]
    with np.errstate(invalid="ignore", over="ignore"):
        value = left.value @ right.value
    magnitude = left.magnitude @ right.magnitude
    # Both operands may carry an underflow: (M + H)(M' + H') − M·M'.
    under = left.underflow @ (right.magnitude + right.underflow) + left.magnitude @ right.underflow
    return Tracked(
        value,
        magnitude,
        left.exponent + right.exponent + terms * fmt.unit_roundoff,
        np.where(magnitude > 0, under + terms * fmt.half_smallest_subnormal, 0.0),
        left.unsure.any(axis=1, keepdims=True) | right.unsure.any(axis=0, keepdims=True) | _meets(left, right),
    )


def row_sum(term: Tracked, fmt: Format) -> Tracked:
    """Track the sum over the rows, as a matrix of one row: one addition less than there are rows on a path."""
    rows = len(term.value)
    with np.errstate(invalid="ignore"):
        value, magnitude = term.value.sum(axis=0, keepdims=True), term.magnitude.sum(axis=0, keepdims=True)
    exponent = term.exponent + max(rows - 1, 0) * fmt.unit_roundoff
    unsure: Array = np.any(term.unsure, axis=0, keepdims=True)
    return Tracked(value, magnitude, exponent, term.underflow.sum(axis=0, keepdims=True), unsure)


def times(left: Tracked, right: Tracked, fmt: Format) -> Tracked:
    """Track the product of elements, one rounding; `right` may be multiplied into the operands of `left` instead.

    Then what underflows there is not multiplied by a `right` below 1: its size counts as at least 1.
    """
    magnitude = left.magnitude * right.magnitude
    size = np.maximum(right.magnitude, 1.0) + right.underflow
    under = (
        left.underflow * size + left.magnitude * right.underflow + (left.magnitude + 1) * fmt.half_smallest_subnormal
    )
    under = np.where((left.magnitude > 0) & (right.magnitude + right.underflow > 0), under, 0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        value = left.value * right.value
    exponent = left.exponent + right.exponent + fmt.unit_roundoff
    return Tracked(value, magnitude, exponent, under, left.unsure | right.unsure | _touch(left, right))


def joined(fmt: Format, *terms: tuple[Tracked, int]) -> Tracked:
    """Track the sum of terms that are each made of so many addends, added up in any order."""
    addends = sum(count for _, count in terms)
    first, *others = (term for term, _ in terms)
    value, magnitude, underflow, unsure = first.value, first.magnitude, first.underflow, first.unsure
    with np.errstate(invalid="ignore", over="ignore"):
        for term in others:
            value, magnitude = value + term.value, magnitude + term.magnitude
            underflow, unsure = underflow + term.underflow, unsure | term.unsure
    exponent = max(term.exponent + (addends - count) * fmt.unit_roundoff for term, count in terms)
    return Tracked(value, magnitude, exponent, underflow, unsure)


def scaled(term: Tracked, factor: float | Array, roundings: float, fmt: Format, largest: float = 0.0) -> Tracked:
    """Track term · factor, with `roundings` operations for the factor's own value and the product.

    An implementation may apply factors elsewhere; `largest` is the most that an earlier underflow is multiplied by. A
    factor α·(1/r) is off by η₀/r where α is subnormal, and by η₀ where the product is: less than 2η₀ times the term.
    """
    size = np.abs(factor)
    magnitude = term.magnitude * size
    under = term.underflow * np.maximum(size, largest) + (2 * term.magnitude + roundings) * fmt.half_smallest_subnormal
    with np.errstate(invalid="ignore", over="ignore"):
        value = term.value * factor
    # A dropped infinity is 0 · ∞ = NaN for one implementation, and left out by another.
    unsure = term.unsure | (~np.isfinite(term.value) & (size == 0))
    under = np.where(magnitude > 0, under, 0.0)
    return Tracked(value, magnitude, term.exponent + roundings * fmt.unit_roundoff, under, unsure)


def loses(target: Format, fmt: Format) -> bool:
    """Return whether rounding numbers of a format to another one changes any of them."""
    return target.mantissa_bits < fmt.mantissa_bits or target.exponent_bits < fmt.exponent_bits


def rounded_to(term: Tracked, name: str, fmt: Format, argument: str = "intermediate") -> Tracked:
    """Track a rounding to a declared format; none if that holds whatever the accumulation format holds."""
    target = format_named(name, argument)
    if not loses(target, fmt):
        return term
    under = np.where(term.magnitude > 0, term.underflow + target.half_smallest_subnormal, 0.0)
    return Tracked(term.value, term.magnitude, term.exponent + target.unit_roundoff, under, term.unsure)


def largest_result(term: Tracked) -> Array:
    """Return the largest magnitude that any evaluation, and any of its partial sums, can reach."""
    largest: Array = (term.magnitude + term.underflow) * np.exp(term.exponent)
    return largest


def interval(fmt: Format, *terms: tuple[Tracked, int]) -> Interval:
    """Turn a sum of tracked terms into the interval of real results that its evaluation may have.

    Each term comes with the number of addends that it is itself made of: N addends in all put N − 1 additions on a
    path, in any order. The factor 1 + 2^−20 covers the float64 rounding of this very computation: value, M and H are
    evaluated with the same number of operations, each of roundoff 2^−53 ≤ 2^−29·u.

    Where the value is not finite it is the only answer, for every order meets the same infinity or NaN; where M could
    overflow, or the sign of a rounded zero decides which infinity it is, there is no verdict.
    """
    addends = sum(count for _, count in terms)
    first, *others = (term for term, _ in terms)
    value, magnitude, unsure = first.value, first.magnitude, first.unsure
    with np.errstate(invalid="ignore", over="ignore"):
        for term in others:
            value, magnitude, unsure = value + term.value, magnitude + term.magnitude, unsure | term.unsure
        radius = np.zeros_like(value)
        for term, count in terms:
            exponent = term.exponent + (addends - count) * fmt.unit_roundoff
            radius += np.expm1(exponent) * term.magnitude + np.exp(exponent) * term.underflow
        radius *= 1 + 2.0**-20
        judged = (magnitude + radius < fmt.largest_finite) & ~(unsure & ~np.isfinite(value))
        radius = np.where(np.isfinite(value), radius, 0.0)
        return Interval(value - radius, value + radius, judged)


def _meets(left: Tracked, right: Tracked) -> Array:
    """Return where a product takes its class from the sign of a computed number that may as well be 0: ±∞ · 0̃."""
    shape = (left.value.shape[0], right.value.shape[1])
    if np.isfinite(left.value).all() and np.isfinite(right.value).all():
        return np.zeros(shape, np.bool_)
    wavering = _wavering(left).astype(np.float32) @ ~np.isfinite(right.value)
    met: Array = wavering + ~np.isfinite(left.value) @ _wavering(right).astype(np.float32) > 0
    return met


def _touch(left: Tracked, right: Tracked) -> Array:
    """Return where an infinity is multiplied by a computed number that may as well be 0 or of the other sign."""
    touch: Array = (_wavering(left) & ~np.isfinite(right.value)) | (~np.isfinite(left.value) & _wavering(right))
    return touch


def _wavering(term: Tracked) -> Array:
    """Return where evaluations may differ in sign, or in being zero."""
    radius = np.expm1(term.exponent) * term.magnitude + np.exp(term.exponent) * term.underflow
    wavering: Array = (np.abs(term.value) <= radius) & (term.magnitude > 0)
    return wavering
