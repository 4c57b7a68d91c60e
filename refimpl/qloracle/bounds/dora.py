"""Which results of a DoRA layer are allowed.

Clause: ``[bounds.dora]``. The derivations stand in `tracking` and `tracking.norm`. Beside the evaluations that
`bounds.lora` names, g may be multiplied into the rows of W and B, the layer may be computed from merged rows W + sBA,
and (g − 1)∘(x_d Wᵀ) as the difference of two products.
"""

import numpy as np

from qloracle.formats import Array, format_named
from qloracle.operands import as_rows, real_operands, real_vector
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
    reshaped,
    scaled_by_alpha,
    sum_fits,
)
from qloracle.tracking.interval import (
    Interval,
    Tracked,
    exact_input,
    interval,
    largest_result,
    product_sum,
    times,
)
from qloracle.tracking.norm import Gain, tracked_gain
from qloracle.tracking.roundings import Roundings
from qloracle.tracking.weight import later_fits, merged_first, weight_operand, weight_product

SMALLEST_ROOT = 2.0**-76  # less than the root of the smallest float32: g of an unbounded row is at most |m| over that


def dora_forward_bound(
    x: Array,
    weight: Array,
    lora_a: Array,
    lora_b: Array,
    magnitude: Array,
    *,
    alpha: float,
    bias: Array | None = None,
    mask: Array | None = None,
    dropout: float = 0.0,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
    roundings: Roundings = Roundings(),
    stored: QuantizedWeight | None = None,
) -> Interval:
    """Bound every evaluation of `dora_forward` that has the declared rounding points.

    Parameters
    ----------
    x, weight, lora_a, lora_b, magnitude, alpha, bias, mask, dropout, rank_stabilized, fan_in_fan_out
        As for `dora.dora_forward`. For a quantized base `weight` is the dequantized weight.
    roundings : Roundings
    stored : QuantizedWeight, optional
        As for `bounds_lora.lora_forward_bound`; the norms are those of the given weight.

    Returns
    -------
    Interval
        Arrays of the shape of y, before the rounding to the output format. From −∞ to ∞, which excludes NaN alone, for
        outputs whose g is unbounded; not judged where M could overflow the accumulator or a declared format.

    Notes
    -----
    Clause ``[bounds.dora]``. Roundings on a path: K + 1 for each product with W (one if it is merged first) and one
    for the product with g − 1; those of a LoRA adapter and one for the product with g; those of g, see `tracking.norm`;
    one addition for each addend of the other terms. Where they are declared: one for each product of the base, one for
    V, the norm, g and g − 1, and of the adapter two for the base's part, four for the low-rank part.

    Examples
    --------
    >>> one = np.ones((1, 1), np.float32)
    >>> found = dora_forward_bound(one, 3 * one, one, 2 * one, 7 * one[0], alpha=1)
    >>> bool(found.lo[0, 0] < 7 < found.hi[0, 0]), bool(found.hi[0, 0] - found.lo[0, 0] < 7 * 64 * 2.0**-24)
    (True, True)
    """
    x64, w64, a64, b64 = real_operands(x, weight, lora_a, lora_b, fan_in_fan_out=fan_in_fan_out)
    rows, d_out = as_rows(x64), len(w64)
    how = factors(alpha, len(a64), x64.shape, rank_stabilized=rank_stabilized, mask=mask, dropout=dropout,
                  roundings=roundings)  # fmt: skip
    fmt, size = how.fmt, real_vector(magnitude, d_out, "magnitude")
    found = tracked_gain(w64, a64, b64, size, how)
    dropped, a, b = dropped_input(rows, how), foldable(a64.T, how), foldable(b64.T, how)
    merged = weight_operand(w64, stored, roundings, fmt, fan_in_fan_out=fan_in_fan_out, merged=True).transposed()
    base, own = (weight_product(term, merged, fmt) for term in (exact_input(rows), dropped))
    hidden = in_hidden(product_sum(dropped, a, fmt), how)
    low = merged_first(product_sum(hidden, b, fmt), dropped, len(a64), how)
    change = scaled_by_alpha(low, how, 2)
    adapter = times(change, found.gain, fmt)
    rescaled = times(in_base(own, how), found.less_one, fmt)
    terms = [
        (in_base(base, how), len(w64.T)),
        (in_adapter(rescaled, how, 2), len(w64.T)),
        (in_adapter(adapter, how, 2), len(a64)),
    ]
    biases: list[Tracked] = []
    if bias is not None:
        biases.append(exact_input(np.broadcast_to(real_vector(bias, d_out, "bias"), low.value.shape)))
        terms.append((in_base(biases[0], how), 1))
    fit = fits(dropped, how, roundings.dropped).all(axis=1, keepdims=True)
    fit = fit & fits(hidden, how, roundings.intermediate).all(axis=1, keepdims=True) & fits(low, how, roundings.adapter)
    fit = fit & fits(a, how).all() & fits(b, how).all() & sum_fits(roundings.base, fmt, base, *biases)
    fit = fit & later_fits(exact_input(rows), merged, fmt) & later_fits(dropped, merged, fmt) & found.in_range
    # What is merged first has the sum of both on the way to its product with g.
    inner = sum_fits(roundings.base, fmt, own) & sum_fits(fmt.name, fmt, own, change)
    inner = inner & sum_fits(roundings.adapter, fmt, rescaled, adapter)
    inner = inner & fits(times(low, found.gain, fmt), how)
    total = reshaped(interval(fmt, *terms), fit & inner, base.value.shape)
    reach = [largest_result(t) for t in (base, own, low, *biases)]
    return _in_shape(_unbounded(total, found, fit & (sum(reach) < _room(size, how))), (*x64.shape[:-1], d_out))


def _room(magnitude: Array, how: Factors) -> Array:
    """Return what the parts of an output may reach, so that no g of an unbounded row makes an infinity of them."""
    declared = (how.declared.base, how.declared.adapter, how.declared.norm)
    largest = min(how.fmt.largest_finite, *(format_named(name).largest_finite for name in declared))
    with np.errstate(over="ignore"):
        room: Array = largest * SMALLEST_ROOT / (8 * (1 + np.abs(magnitude))) / max(1.0, how.largest)
    return room


def _unbounded(total: Interval, found: Gain, finite: Array) -> Interval:
    """Allow any number but NaN where g is unbounded and nothing can become infinite on the way."""
    free = np.broadcast_to(~found.bounded, total.lo.shape)
    lo, hi = np.where(free, -np.inf, total.lo), np.where(free, np.inf, total.hi)
    return Interval(lo, hi, np.where(free, finite, total.judged))


def _in_shape(found: Interval, shape: tuple[int, ...]) -> Interval:
    return Interval(found.lo.reshape(shape), found.hi.reshape(shape), found.judged.reshape(shape))
