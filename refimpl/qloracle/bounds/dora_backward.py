"""Which gradients of a DoRA layer are allowed.

Clause: ``[bounds.dora]``. The derivations stand in `tracking` and `tracking.norm`; what evaluations are meant, in
`bounds.dora`.
"""

import numpy as np

from qloracle.formats import Array
from qloracle.operands import as_rows, real_gradient, real_operands, real_vector
from qloracle.qlora import QuantizedWeight
from qloracle.tracking.adapter import (
    Factors,
    dropped_input,
    factors,
    fits,
    foldable,
    in_adapter,
    in_base,
    in_hidden,
    kept,
    rescalable,
    reshaped,
    scaled_by_alpha,
    sum_fits,
)
from qloracle.tracking.interval import (
    Interval,
    Tracked,
    exact_input,
    interval,
    joined,
    product_sum,
    row_sum,
    times,
    transposed,
)
from qloracle.tracking.norm import Gain, tracked_gain
from qloracle.tracking.roundings import Roundings
from qloracle.tracking.weight import WeightOperand, later_fits, merged_first, weight_operand, weight_product


def dora_backward_bound(
    dy: Array,
    x: Array,
    weight: Array,
    lora_a: Array,
    lora_b: Array,
    magnitude: Array,
    *,
    alpha: float,
    mask: Array | None = None,
    dropout: float = 0.0,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
    roundings: Roundings = Roundings(),
    stored: QuantizedWeight | None = None,
) -> dict[str, Interval]:
    """Bound every evaluation of `dora_backward` that has the declared rounding points.

    Parameters
    ----------
    dy, x, weight, lora_a, lora_b, magnitude, alpha, mask, dropout, rank_stabilized, fan_in_fan_out
        As for `dora.dora_backward`.
    roundings, stored
        As for `dora_forward_bound`.

    Returns
    -------
    dict
        Intervals for "x", "lora_a", "lora_b", "magnitude" and "bias", of the shapes of the gradients. Gradients that
        an unbounded g is a part of are not judged, but for the class of NaN in the one of its own magnitude.

    Notes
    -----
    Clause ``[bounds.dora]``. Products with dy∘g and dy∘(g − 1) cost one rounding more than those with dy. For the
    magnitude: K + 1 for x_d Wᵀ, those of the adapter, one for the product with dy, one addition for each row, and the
    quotient by n.

    Examples
    --------
    >>> import numpy as np
    >>> one = np.ones((1, 1), np.float32)
    >>> found = dora_backward_bound(one, one, 3 * one, one, 2 * one, 7 * one[0], alpha=1)["magnitude"]
    >>> bool(found.lo[0] < 1 < found.hi[0]), bool(found.hi[0] - found.lo[0] < 48 * 2.0**-24)
    (True, True)
    """
    x64, w64, a64, b64 = real_operands(x, weight, lora_a, lora_b, fan_in_fan_out=fan_in_fan_out)
    dy64 = as_rows(real_gradient(dy, (*x64.shape[:-1], len(w64))))
    how = factors(alpha, len(a64), x64.shape, rank_stabilized=rank_stabilized, mask=mask, dropout=dropout,
                  roundings=roundings)  # fmt: skip
    fmt, size = how.fmt, real_vector(magnitude, len(w64), "magnitude")
    found = tracked_gain(w64, a64, b64, size, how)
    given, gradient, a, b = exact_input(dy64), *(foldable(operand, how) for operand in (dy64, a64, b64))
    weights = weight_operand(w64, stored, roundings, fmt, fan_in_fan_out=fan_in_fan_out, merged=True)
    dropped = dropped_input(as_rows(x64), how)
    hidden = in_hidden(product_sum(dropped, transposed(a), fmt), how)
    gained, rescaled = (in_adapter(times(gradient, g, fmt), how) for g in (found.gain, found.less_one))
    gained = rescalable(gained, how)
    back = in_hidden(in_adapter(product_sum(gained, b, fmt), how), how)
    # An implementation may multiply by s at the very end: what fits is decided before.
    sums = {
        "x": product_sum(back, a, fmt),
        "lora_a": product_sum(transposed(back), dropped, fmt),
        "lora_b": product_sum(transposed(gained), hidden, fmt),
    }
    low = scaled_by_alpha(sums["x"], how, 1)
    own = in_base(weight_product(rescaled, weights, fmt), how)
    through = joined(fmt, (merged_first(low, gained, len(a64), how), len(a64)), (own, len(w64)))
    through = in_adapter(kept(in_adapter(through, how), how), how)
    base = weight_product(given, weights, fmt)
    by_magnitude, usable = _magnitude_gradient(
        gradient, dropped, hidden, weights.transposed(), transposed(b), found, how
    )
    results = {
        "x": interval(fmt, (in_base(base, how), len(w64)), (through, len(a64) + len(w64))),
        "lora_a": interval(fmt, (scaled_by_alpha(sums["lora_a"], how, 0), len(dy64))),
        "lora_b": interval(fmt, (scaled_by_alpha(sums["lora_b"], how, 1), len(dy64))),
        "magnitude": interval(fmt, (by_magnitude, 1)),
        "bias": interval(fmt, (row_sum(given, fmt), len(dy64))),
    }
    terms = (
        (roundings.dropped, (dropped,)),
        (roundings.intermediate, (hidden, back)),
        (roundings.adapter, (gained, rescaled, through)),
        (roundings.base, (own,)),
    )
    inner = all(fits(term, how, name).all() for name, parts in terms for term in parts)
    inner = inner and all(fits(term, how).all() for term in (a, b))
    everywhere = inner and bool((found.bounded & found.in_range).all())
    later = later_fits(given, weights, fmt) & later_fits(rescaled, weights, fmt)
    judged: dict[str, Array | bool] = {
        "x": everywhere & fits(sums["x"], how, roundings.adapter) & sum_fits(roundings.base, fmt, base) & later,
        "lora_a": everywhere & fits(sums["lora_a"], how),
        "lora_b": inner & (found.bounded & found.in_range).T & fits(sums["lora_b"], how),
        "magnitude": inner & found.bounded & found.in_range & usable,
        "bias": True,
    }
    shapes = {"x": x64.shape, "lora_a": a64.shape, "lora_b": b64.shape}
    return {n: reshaped(i, judged[n], shapes.get(n, (len(w64),))) for n, i in results.items()}


def _magnitude_gradient(
    gradient: Tracked,
    dropped: Tracked,
    hidden: Tracked,
    weight: WeightOperand,
    lora_b: Tracked,
    found: Gain,
    how: Factors,
) -> tuple[Tracked, Array]:
    """Track Σ dy∘(x_d Vᵀ)/n over all rows, and return where nothing on the way to it can overflow."""
    fmt, rank, name = how.fmt, lora_b.value.shape[0], how.declared.adapter
    product = merged_first(product_sum(hidden, lora_b, fmt), dropped, rank, how)
    own = in_base(weight_product(dropped, weight, fmt), how)
    merged = in_adapter(joined(fmt, (own, weight.term.value.shape[0]), (scaled_by_alpha(product, how, 2), rank)), how)
    total = in_adapter(row_sum(in_adapter(times(merged, gradient, fmt), how), fmt), how)
    result = in_adapter(times(total, found.inverse, fmt), how)
    early = times(gradient, found.inverse, fmt)
    parts = ((product, name), (own, how.declared.base), (merged, name), (total, name), (result, name), (early, name))
    usable = [fits(term, how, rounded).all(axis=0, keepdims=True) for term, rounded in parts]
    return result, np.all(usable, axis=0) & later_fits(dropped, weight, fmt).all()
