"""Which results of a LoRA layer are allowed: those that some order of evaluation gives.

Clause: ``[bounds.lora]``. The derivation stands in `tracking`. It holds for every evaluation with the declared rounding
points: sums in any order, also accumulated one onto the other, with or without fused multiply-adds; the factors s and
1/(1 − p), together or alone, applied to any operand or result of the adapter.
"""

import numpy as np

from qloracle.formats import Array
from qloracle.operands import as_rows, real_gradient, real_operands, real_vector
from qloracle.qlora import QuantizedWeight
from qloracle.tracking.adapter import (
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
from qloracle.tracking.interval import Interval, Tracked, exact_input, interval, product_sum, row_sum, transposed
from qloracle.tracking.roundings import Roundings
from qloracle.tracking.weight import later_fits, weight_operand, weight_product


def lora_forward_bound(
    x: Array,
    weight: Array,
    lora_a: Array,
    lora_b: Array,
    *,
    alpha: float,
    bias: Array | None = None,
    lora_bias: Array | None = None,
    mask: Array | None = None,
    dropout: float = 0.0,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
    roundings: Roundings = Roundings(),
    stored: QuantizedWeight | None = None,
) -> Interval:
    """Bound every evaluation of `lora_forward` that has the declared rounding points.

    Parameters
    ----------
    x, weight, lora_a, lora_b, alpha, bias, lora_bias, mask, dropout, rank_stabilized, fan_in_fan_out
        As for `lora.lora_forward`. For QLoRA `weight` is the dequantized weight.
    roundings : Roundings
    stored : QuantizedWeight, optional
        The record that `weight` was dequantized from, where an implementation is given that: it may apply the scales
        after the sum, see `tracking.weight`.

    Returns
    -------
    Interval
        Arrays of the shape of y, before the rounding to the output format. Not judged where M could overflow the
        accumulator or a declared format.

    Notes
    -----
    Clause ``[bounds.lora]``. Roundings on a path: K for x Wᵀ; 3 for the dropout factor and its product, see
    `tracked_adapter.factors`; K for x_d Aᵀ, and its declared rounding; r for the product with B; 4 for s (5 for
    rsLoRA). In the sum of base, adapter and biases: one addition for each addend of the others. Where they are
    declared: one for x_d, one for the base with its bias, two for the adapter (the product with B, its multiple by s).

    Examples
    --------
    >>> one = np.ones((1, 1), np.float32)
    >>> found = lora_forward_bound(one, 3 * one, one, 2 * one, alpha=16)
    >>> bool(found.lo[0, 0] < 35 < found.hi[0, 0]), bool(found.hi[0, 0] - found.lo[0, 0] < 35 * 16 * 2.0**-24)
    (True, True)
    """
    x64, w64, a64, b64 = real_operands(x, weight, lora_a, lora_b, fan_in_fan_out=fan_in_fan_out)
    rows, d_out = as_rows(x64), len(w64)
    how = factors(alpha, len(a64), x64.shape, rank_stabilized=rank_stabilized, mask=mask, dropout=dropout,
                  roundings=roundings)  # fmt: skip
    dropped, a, b = dropped_input(rows, how), foldable(a64.T, how), foldable(b64.T, how)
    hidden = in_hidden(product_sum(dropped, a, how.fmt), how)
    low = product_sum(hidden, b, how.fmt)
    operand = weight_operand(w64, stored, roundings, how.fmt, fan_in_fan_out=fan_in_fan_out).transposed()
    base = weight_product(exact_input(rows), operand, how.fmt)
    terms = [(in_base(base, how), len(w64.T)), (scaled_by_alpha(low, how, 2), len(a64))]
    biases: list[Tracked] = []
    if bias is not None:
        biases.append(_for_each_row(real_vector(bias, d_out, "bias"), low))
        terms.append((in_base(biases[0], how), 1))
    if lora_bias is not None:
        shift = foldable(_for_each_row(real_vector(lora_bias, d_out, "lora_bias"), low).value, how)
        terms.append((scaled_by_alpha(shift, how, 2), 1))
    fit = fits(dropped, how, roundings.dropped).all(axis=1, keepdims=True)
    fit = fit & fits(hidden, how, roundings.intermediate).all(axis=1, keepdims=True) & fits(low, how, roundings.adapter)
    fit = fit & fits(a, how).all() & fits(b, how).all() & sum_fits(roundings.base, how.fmt, base, *biases)
    fit = fit & later_fits(exact_input(rows), operand, how.fmt)
    return reshaped(interval(how.fmt, *terms), fit, (*x64.shape[:-1], d_out))


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
    fan_in_fan_out: bool = False,
    roundings: Roundings = Roundings(),
    stored: QuantizedWeight | None = None,
) -> dict[str, Interval]:
    """Bound every evaluation of `lora_backward` that has the declared rounding points.

    Parameters
    ----------
    dy, x, weight, lora_a, lora_b, alpha, mask, dropout, rank_stabilized, fan_in_fan_out
        As for `lora.lora_backward`.
    roundings, stored
        As for `lora_forward_bound`.

    Returns
    -------
    dict
        Intervals for "x", "lora_a", "lora_b", "bias" and "lora_bias", of the shapes of the gradients.

    Notes
    -----
    Clause ``[bounds.lora]``. The hidden gradient dy B and x_d Aᵀ carry the declared intermediate rounding. Where a
    rounding of the adapter is declared: one for s·dy, and in the gradient of x one for (dy B) A and one for its product
    with mask/(1 − p).

    Examples
    --------
    >>> one = np.ones((1, 1), np.float32)
    >>> found = lora_backward_bound(one, one, 3 * one, one, 2 * one, alpha=16)["bias"]
    >>> found.lo, found.hi
    (array([1.]), array([1.]))
    """
    x64, w, a64, b64 = real_operands(x, weight, lora_a, lora_b, fan_in_fan_out=fan_in_fan_out)
    dy64 = as_rows(real_gradient(dy, (*x64.shape[:-1], len(w))))
    how = factors(alpha, len(a64), x64.shape, rank_stabilized=rank_stabilized, mask=mask, dropout=dropout,
                  roundings=roundings)  # fmt: skip
    fmt, given = how.fmt, exact_input(dy64)
    gradient, a, b = (foldable(operand, how) for operand in (dy64, a64, b64))
    gradient = rescalable(gradient, how)
    dropped = dropped_input(as_rows(x64), how)
    hidden = in_hidden(product_sum(dropped, transposed(a), fmt), how)
    back = in_hidden(in_adapter(product_sum(gradient, b, fmt), how), how)
    # An implementation may multiply by s at the very end: what fits is decided before.
    sums = {
        "x": product_sum(back, a, fmt),
        "lora_a": product_sum(transposed(back), dropped, fmt),
        "lora_b": product_sum(transposed(gradient), hidden, fmt),
        "lora_bias": row_sum(gradient, fmt),
    }
    through = scaled_by_alpha(sums["x"], how, 1)
    through = through if mask is None else in_adapter(kept(through, how), how)
    operand = weight_operand(w, stored, roundings, fmt, fan_in_fan_out=fan_in_fan_out)
    base = weight_product(given, operand, fmt)
    results = {
        "x": interval(fmt, (in_base(base, how), len(w)), (through, len(a64))),
        "lora_a": interval(fmt, (scaled_by_alpha(sums["lora_a"], how, 0), len(dy64))),
        "lora_b": interval(fmt, (scaled_by_alpha(sums["lora_b"], how, 1), len(dy64))),
        "bias": interval(fmt, (row_sum(given, fmt), len(dy64))),
        "lora_bias": interval(fmt, (scaled_by_alpha(sums["lora_bias"], how, 1), len(dy64))),
    }
    inner = all(fits(term, how).all() for term in (a, b))
    inner = inner and bool(fits(dropped, how, roundings.dropped).all() and fits(gradient, how, roundings.adapter).all())
    inner = inner and all(fits(term, how, roundings.intermediate).all() for term in (hidden, back))
    judged: dict[str, Array | bool] = {name: inner & fits(term, how) for name, term in sums.items()}
    judged["x"] = judged["x"] & fits(sums["x"], how, roundings.adapter) & sum_fits(roundings.adapter, fmt, through)
    judged["x"] = judged["x"] & sum_fits(roundings.base, fmt, base) & later_fits(given, operand, fmt)
    judged["bias"] = True
    judged["lora_bias"] = fits(gradient, how, roundings.adapter).all() & fits(sums["lora_bias"], how)
    shapes = {"x": x64.shape, "lora_a": a64.shape, "lora_b": b64.shape}
    return {n: reshaped(i, judged[n], shapes.get(n, (len(w),))) for n, i in results.items()}


def _for_each_row(vector: Array, like: Tracked) -> Tracked:
    return exact_input(np.broadcast_to(vector, like.value.shape))
