"""Which results of an embedding with LoRA are allowed.

Clause: ``[bounds.embedding]``. The derivation stands in `tracking`; a looked-up row is exact.
"""

import numpy as np

from qloracle.embedding_lora import checked_ids, embedding_operands
from qloracle.formats import Array
from qloracle.operands import as_rows, real_gradient
from qloracle.tracking.adapter import (
    factors,
    fits,
    foldable,
    in_adapter,
    in_base,
    in_hidden,
    rescalable,
    reshaped,
    scaled_by_alpha,
    sum_fits,
)
from qloracle.tracking.interval import Interval, Tracked, exact_input, interval, product_sum, transposed
from qloracle.tracking.roundings import Roundings


def embedding_lora_forward_bound(
    ids: Array,
    weight: Array,
    lora_a: Array,
    lora_b: Array,
    *,
    alpha: float,
    rank_stabilized: bool = False,
    roundings: Roundings = Roundings(),
) -> Interval:
    """Bound every evaluation of `embedding_lora_forward` that has the declared rounding points.

    Parameters
    ----------
    ids, weight, lora_a, lora_b, alpha, rank_stabilized
        As for `embedding_lora.embedding_lora_forward`.
    roundings : Roundings

    Returns
    -------
    Interval
        Arrays of the shape of y, before the rounding to the output format.

    Notes
    -----
    Clause ``[bounds.embedding]``. Roundings on a path: none for W[i], but one addition for each of the r products;
    r for the product of Aᵀ[i] with B, 4 for s (5 for rsLoRA), one addition; two of the adapter where declared.

    Examples
    --------
    >>> one = np.ones((1, 1), np.float32)
    >>> found = embedding_lora_forward_bound(np.zeros(1, np.int64), 3 * one, one, 0 * one, alpha=16)
    >>> bool(found.lo[0, 0] < 3 < found.hi[0, 0]), bool(found.hi[0, 0] - found.lo[0, 0] < 3 * 2.01 * 2.0**-24)
    (True, True)
    """
    w64, a64, b64 = embedding_operands(weight, lora_a, lora_b)
    index = checked_ids(ids, len(w64))
    how = factors(alpha, len(a64), (), rank_stabilized=rank_stabilized, roundings=roundings)
    flat = index.reshape(-1)
    hidden, b = foldable(a64.T[flat], how), foldable(b64.T, how)
    low, base = product_sum(hidden, b, how.fmt), exact_input(w64[flat])
    total = interval(how.fmt, (in_base(base, how), 1), (scaled_by_alpha(low, how, 2), len(a64)))
    fit = (
        sum_fits(roundings.base, how.fmt, base)
        & fits(low, how, roundings.adapter)
        & fits(hidden, how).all(axis=1, keepdims=True)
        & fits(b, how).all()
    )
    return reshaped(total, fit, (*index.shape, w64.shape[1]))


def embedding_lora_backward_bound(
    dy: Array,
    ids: Array,
    weight: Array,
    lora_a: Array,
    lora_b: Array,
    *,
    alpha: float,
    rank_stabilized: bool = False,
    roundings: Roundings = Roundings(),
) -> dict[str, Interval]:
    """Bound every evaluation of `embedding_lora_backward` that has the declared rounding points.

    Parameters
    ----------
    dy, ids, weight, lora_a, lora_b, alpha, rank_stabilized
        As for `embedding_lora.embedding_lora_backward`.
    roundings : Roundings

    Returns
    -------
    dict
        Intervals for "lora_a" and "lora_b", of the shapes of the gradients.

    Notes
    -----
    Clause ``[bounds.embedding]``. Roundings on a path: d_dim for dy B, and its declared rounding; for a row of dAᵀ as
    many additions, less one, as the most frequent index occurs, in any order; one product for each row of dy in dB; 4
    for s. The 0 of an index that does not occur is exact.

    Examples
    --------
    >>> one, two = np.ones((1, 1), np.float32), np.ones((1, 2), np.float32)
    >>> found = embedding_lora_backward_bound(one, np.ones(1, np.int64), two.T, two, one, alpha=1)["lora_a"]
    >>> (found.hi - found.lo > 0).tolist()
    [[False, True]]
    """
    w64, a64, b64 = embedding_operands(weight, lora_a, lora_b)
    index = checked_ids(ids, len(w64))
    how = factors(alpha, len(a64), (), rank_stabilized=rank_stabilized, roundings=roundings)
    fmt, flat = how.fmt, index.reshape(-1)
    gradient = rescalable(foldable(as_rows(real_gradient(dy, (*index.shape, w64.shape[1]))), how), how)
    looked_up, b = foldable(a64.T[flat], how), foldable(b64, how)
    back = in_hidden(in_adapter(product_sum(gradient, b, fmt), how), how)
    # An implementation may multiply by s at the very end: what fits is decided before.
    sum_a = transposed(_scattered(back, flat, len(w64), fmt.unit_roundoff))
    sum_b = product_sum(transposed(gradient), looked_up, fmt)
    found = {
        "lora_a": interval(fmt, (scaled_by_alpha(sum_a, how, 0), 1)),
        "lora_b": interval(fmt, (scaled_by_alpha(sum_b, how, 1), 1)),
    }
    fit = bool(fits(gradient, how, roundings.adapter).all() and fits(back, how, roundings.intermediate).all())
    fit = fit and bool(fits(looked_up, how).all() and fits(b, how).all())
    judged = {"lora_a": fit & fits(sum_a, how), "lora_b": fit & fits(sum_b, how)}
    return {name: reshaped(each, judged[name], each.lo.shape) for name, each in found.items()}


def _scattered(term: Tracked, index: Array, count: int, unit_roundoff: float) -> Tracked:
    """Track the sums of rows that share an index."""

    def added(values: Array) -> Array:
        total = np.zeros((count, values.shape[1]), values.dtype)
        with np.errstate(invalid="ignore", over="ignore"):
            np.add.at(total, index, values)
        return total

    most = int(np.bincount(index, minlength=1).max())
    exponent = term.exponent + max(most - 1, 0) * unit_roundoff
    unsure = added(term.unsure.astype(np.float64)) > 0
    return Tracked(added(term.value), added(term.magnitude), exponent, added(term.underflow), unsure)
