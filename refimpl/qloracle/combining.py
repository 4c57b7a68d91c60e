"""Several adapters of one layer, combined with weights.

    Δ = Σ_i w_i s_i B_i A_i        A = [w_1 s_1 A_1; w_2 s_2 A_2; …],  B = [B_1, B_2, …],  s = 1

The second form is one adapter of rank Σ r_i whose B A is the very same Δ. Every adapter brings its own rank, alpha and
kind of scale; its scale is in Δ once, and the combined adapter is not scaled again. One adapter with weight 1 is
combined to itself. Combinations that change Δ are out of scope: by singular values, by pruning (TIES, DARE), and the
sum of the factors, (Σ √(w_i s_i) B_i)(Σ √(w_i s_i) A_i), whose cross terms belong to no adapter.

Clauses: ``[adapters.combine]``, ``[adapters.concatenate]``.
Source: the "cat" of the PEFT library's ``add_weighted_adapter``; Hu et al. 2021, "LoRA", section 4.1 (Δ is additive).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qloracle.errors import reject_type, reject_value, require_items, require_number
from qloracle.formats import Array, format_of
from qloracle.lora import lora_scale
from qloracle.merge_operands import low_rank, real_values
from qloracle.records import require_fields
from qloracle.rounding import round_to


@dataclass(frozen=True)
class LoraAdapter:
    """One adapter of a layer, with all that its scale depends on."""

    lora_a: Array  # (r, d_in)
    lora_b: Array  # (d_out, r)
    alpha: float
    rank_stabilized: bool = False
    fmt: str | None = None  # format of matrices that are bit patterns

    def __post_init__(self) -> None:
        """Refuse fields of other types."""
        require_fields(self)


def combine_adapters(adapters: Sequence[LoraAdapter], weights: Sequence[float]) -> Array:
    """Return the change of the weight that several adapters make together.

    Δ = Σ_i w_i s_i B_i A_i

    Parameters
    ----------
    adapters : sequence of LoraAdapter
        At least one, of any ranks, all of one layer.
    weights : sequence of float
        One for each adapter, finite; negative ones subtract.

    Returns
    -------
    array of float64, shape (d_out, d_in)
        The real value up to float64 rounding; `bounds_combine.combine_bound` says which results are allowed.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If there is no adapter, a weight is missing or not finite, or shapes do not belong together.

    Notes
    -----
    Clause ``[adapters.combine]``. Rounding points of an implementation: see the bound.

    Examples
    --------
    >>> one = np.ones((1, 1), np.float32)
    >>> combine_adapters([LoraAdapter(one, one, alpha=4), LoraAdapter(one, 3 * one, alpha=2)], [0.5, -1])
    array([[-4.]])
    """
    parts = combined_operands(adapters, weights)
    total = np.zeros((parts[0][1].shape[0], parts[0][0].shape[1]))
    with np.errstate(invalid="ignore", over="ignore"):
        for a64, b64, factor in parts:
            total = total + factor * low_rank(a64, b64)
    return total


def concatenate_adapters(
    adapters: Sequence[LoraAdapter], weights: Sequence[float], *, fmt: str = "float32"
) -> LoraAdapter:
    """Return one adapter that makes the same change of the weight: the factors side by side.

    A = RN_fmt([w_1 s_1 A_1; w_2 s_2 A_2; …]), B = [B_1, B_2, …], alpha = rank, so that s = 1.

    Parameters
    ----------
    adapters, weights
        As for `combine_adapters`.
    fmt : {"float32", "float16", "bfloat16"}
        Format of the result.

    Returns
    -------
    LoraAdapter
        Of rank Σ r_i, which may exceed the layer's smaller side. Where no product w s a is rounded (all w s powers of
        two, say), B A equals `combine_adapters` exactly; `bounds_combine.concatenate_bound` says which A are allowed.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `combine_adapters`, and if `fmt` is unknown or cannot hold B.

    Notes
    -----
    Clause ``[adapters.concatenate]``. Rounding points of an implementation: those of w, s and their products, and one
    to `fmt`. B is copied.

    Examples
    --------
    >>> one = np.ones((1, 1), np.float32)
    >>> made = concatenate_adapters([LoraAdapter(one, one, alpha=4), LoraAdapter(one, 3 * one, alpha=2)], [0.5, -1])
    >>> made.lora_a.tolist(), made.lora_b.tolist(), made.alpha
    ([[2.0], [-2.0]], [[1.0, 3.0]], 2.0)
    """
    parts = combined_operands(adapters, weights)
    with np.errstate(invalid="ignore"):  # infinity times a weight of 0 is NaN
        stacked = np.concatenate([factor * a64 for a64, _, factor in parts])
    beside = np.concatenate([b64 for _, b64, _ in parts], axis=1)
    lora_b = np.asarray(round_to(beside, fmt))
    if not np.array_equal(real_values(lora_b, fmt, "lora_b"), beside, equal_nan=True):
        reject_value("fmt", "a format that holds every element of lora_b", repr(fmt))
    return LoraAdapter(np.asarray(round_to(stacked, fmt)), lora_b, float(len(stacked)), False, fmt)


def combined_operands(adapters: Sequence[LoraAdapter], weights: Sequence[float]) -> list[tuple[Array, Array, float]]:
    """Return A, B and w s of each adapter in float64, after checking that all belong to one layer."""
    adapters = require_items("adapters", adapters, "a sequence of LoraAdapter")
    weights = require_items("weights", weights, "a sequence of numbers")
    if not len(adapters) or len(adapters) != len(weights):
        reject_value("weights", f"one for each of at least one adapter, {len(adapters)}", len(weights))
    parts = []
    for index, (adapter, weight) in enumerate(zip(adapters, weights, strict=True)):
        if not isinstance(adapter, LoraAdapter):
            reject_type(f"adapters[{index}]", "a LoraAdapter", type(adapter).__name__)
        number = require_number(f"weights[{index}]", weight)
        if not np.isfinite(number):
            reject_value(f"weights[{index}]", "finite", number)
        a64, b64 = _matrices(adapter, index)
        scale = lora_scale(adapter.alpha, len(a64), rank_stabilized=adapter.rank_stabilized)
        parts.append((a64, b64, number * scale))
    shape = (len(parts[0][1]), parts[0][0].shape[1])
    for index, (a64, b64, _) in enumerate(parts):
        if (len(b64), a64.shape[1]) != shape:
            reject_value(f"adapters[{index}]", f"of a layer of shape {shape}", (len(b64), a64.shape[1]))
    return parts


def _matrices(adapter: LoraAdapter, index: int) -> tuple[Array, Array]:
    found = []
    for name in ("lora_a", "lora_b"):
        array = getattr(adapter, name)
        format_of(array, adapter.fmt if array.dtype.kind == "u" else None, f"adapters[{index}].{name}")
        real = real_values(array, adapter.fmt, f"adapters[{index}].{name}")
        if real.ndim != 2:
            reject_value(f"adapters[{index}].{name}", "2-d", f"{real.ndim}-d")
        found.append(real)
    if found[1].shape[1] != len(found[0]):
        reject_value(f"adapters[{index}].lora_b", f"of shape (d_out, {len(found[0])})", found[1].shape)
    return found[0], found[1]
