"""Faults of DoRA layers: other norms, other places of g, other formulas under dropout, gradients that miss a part."""

from collections.abc import Callable

import numpy as np

from qloracle.formats import Array
from qloracle.rounding import decode, encode
from qloracle_conformance.mutants.adapter_operands import Single, forward_as
from qloracle_conformance.mutants.dora_gradient_faults import (
    dora_gradient_faults,
    gain_of,
    merged,
    norms,
    right_gain,
)
from qloracle_conformance.mutants.mutant import Mutant

Norms = Callable[[Single, Array], Array]
EPSILON = 1e-6


def output(o: Single, gain: Array, own: float = 1.0) -> Array:
    """Return y with a given g; `own` multiplies what is taken away of the dropped base."""
    dropped = o.x * o.keep
    low = o.scale * (dropped @ o.lora_a.T @ o.lora_b.T)
    y: Array = o.x @ o.weight.T + o.bias + (gain - own) * (dropped @ o.weight.T) + gain * low
    return y


def _with_norms(found: Norms) -> Callable[[Single], Array]:
    return lambda o: output(o, gain_of(o, found(o, merged(o))))


def _of_base(o: Single, v: Array) -> Array:
    return norms(o, o.weight)


def _without_scale(o: Single, v: Array) -> Array:
    return norms(o, o.weight + o.lora_b @ o.lora_a)


def _scale_twice(o: Single, v: Array) -> Array:
    return norms(o, o.weight + o.scale**2 * (o.lora_b @ o.lora_a))


def _over_outputs(o: Single, v: Array) -> Array:
    return np.resize(np.sqrt(np.sum(v * v, axis=0)), len(v))


def _largest(o: Single, v: Array) -> Array:
    y: Array = np.max(np.abs(v), axis=1, initial=0.0)
    return y


def _sum_of_sizes(o: Single, v: Array) -> Array:
    y: Array = np.sum(np.abs(v), axis=1)
    return y


def _squared(o: Single, v: Array) -> Array:
    y: Array = np.sum(v * v, axis=1)
    return y


def _without_last(o: Single, v: Array) -> Array:
    return norms(o, v[:, :-1] if v.shape[1] > 1 else v)


def _first_64(o: Single, v: Array) -> Array:
    return norms(o, v[:, :64])


def _in_float16(o: Single, v: Array) -> Array:
    narrow = v.astype(np.float16)
    return np.sqrt(np.sum(narrow * narrow, axis=1, dtype=np.float16)).astype(np.float64)


def _in_bfloat16(o: Single, v: Array) -> Array:
    return decode(encode(norms(o, decode(encode(v, "bfloat16"), "bfloat16")), "bfloat16"), "bfloat16")


def _of_all_rows(o: Single, v: Array) -> Array:
    return np.full(len(v), np.sqrt(np.sum(v * v)))


def _with_epsilon(o: Single) -> Array:
    n = norms(o, merged(o))
    return output(o, o.magnitude / (n + EPSILON))


def _unguarded(o: Single) -> Array:
    return output(o, o.magnitude / norms(o, merged(o)))


def _clamped(o: Single) -> Array:
    return output(o, o.magnitude / np.maximum(norms(o, merged(o)), EPSILON))


def _gain_in_float16(o: Single) -> Array:
    return output(o, right_gain(o).astype(np.float16).astype(np.float64))


def _size_of_magnitude(o: Single) -> Array:
    return output(o, np.abs(right_gain(o)))


def _reciprocal_root(o: Single) -> Array:
    """Multiply by a reciprocal root of 12 bits, as fast approximations have."""
    n = norms(o, merged(o))
    mantissa, exponent = np.frexp(np.where(n == 0, 1.0, 1 / np.where(n == 0, 1.0, n)))
    return output(o, np.where(n == 0, 0.0, o.magnitude * np.ldexp(np.floor(mantissa * 4096 - 0.5) / 4096, exponent)))


def _base_dropped(o: Single) -> Array:
    dropped, g = o.x * o.keep, right_gain(o)
    y: Array = g * (dropped @ o.weight.T + o.scale * (dropped @ o.lora_a.T @ o.lora_b.T)) + o.bias
    return y


def _base_not_dropped(o: Single) -> Array:
    g = right_gain(o)
    y: Array = g * (o.x @ o.weight.T + o.scale * ((o.x * o.keep) @ o.lora_a.T @ o.lora_b.T)) + o.bias
    return y


def _bias_gained(o: Single) -> Array:
    y: Array = output(o, right_gain(o)) + (right_gain(o) - 1) * o.bias
    return y


def _bias_lost(o: Single) -> Array:
    return output(o, right_gain(o)) - o.bias


def _adapter_ungained(o: Single) -> Array:
    g = right_gain(o)
    y: Array = output(o, g) + (1 - g) * o.scale * ((o.x * o.keep) @ o.lora_a.T @ o.lora_b.T)
    return y


def _adapter_alone_gained(o: Single) -> Array:
    y: Array = output(o, right_gain(o)) - (right_gain(o) - 1) * ((o.x * o.keep) @ o.weight.T)
    return y


def _base_added_twice(o: Single) -> Array:
    return output(o, right_gain(o), own=0.0)


def _unscaled(o: Single) -> Array:
    low = (o.x * o.keep) @ o.lora_a.T @ o.lora_b.T
    y: Array = output(o, right_gain(o)) + right_gain(o) * (1 - o.scale) * low
    return y


def _magnitude_of_next(o: Single) -> Array:
    n = norms(o, merged(o))
    return output(o, np.where(n == 0, 0.0, np.roll(o.magnitude, 1) / np.where(n == 0, 1.0, n)))


def dora_faults() -> list[Mutant]:
    """Return the mutants of DoRA layers."""
    anywhere = ("norm", "base", "adapter", "dropout", "bias", "whole")
    norm = ("norm", "adapter", "dropout", "whole")
    forward: list[tuple[str, str, Callable[[Single], Array], tuple[str, ...]]] = [
        ("norm-of-base", "the norm leaves the adapter out", _with_norms(_of_base), anywhere),
        ("norm-unscaled", "the norm has the adapter without its scale", _with_norms(_without_scale), anywhere),
        ("norm-scale-twice", "the scale is in the norm twice", _with_norms(_scale_twice), anywhere),
        ("norm-over-outputs", "the norm runs over the outputs", _with_norms(_over_outputs), anywhere),
        ("norm-largest", "the norm is the largest element", _with_norms(_largest), anywhere),
        ("norm-sum-of-sizes", "the norm is the sum of magnitudes", _with_norms(_sum_of_sizes), anywhere),
        ("norm-squared", "the root of the norm is missing", _with_norms(_squared), anywhere),
        ("norm-without-last", "the last element is not in the norm", _with_norms(_without_last), anywhere),
        ("norm-first-64", "the norm covers the first 64 elements", _with_norms(_first_64), anywhere),
        ("norm-in-float16", "the norm is computed in float16", _with_norms(_in_float16), anywhere),
        ("norm-in-bfloat16", "the norm is rounded to bfloat16", _with_norms(_in_bfloat16), anywhere),
        ("norm-of-all-rows", "one norm for the whole matrix", _with_norms(_of_all_rows), anywhere),
        ("norm-epsilon", "1e-6 is added to the norm", _with_epsilon, anywhere),
        ("norm-unguarded", "a row of zeros divides by zero", _unguarded, norm),
        ("norm-clamped", "norms below 1e-6 become 1e-6", _clamped, norm),
        ("gain-in-float16", "g is rounded to float16", _gain_in_float16, anywhere),
        ("gain-size", "g is |m|/n", _size_of_magnitude, anywhere),
        ("gain-reciprocal", "g comes from a reciprocal root of 12 bits", _reciprocal_root, anywhere),
        ("base-dropped", "the base is dropped too", _base_dropped, anywhere),
        ("base-not-dropped", "g multiplies the undropped base", _base_not_dropped, anywhere),
        ("bias-gained", "g multiplies the bias", _bias_gained, anywhere),
        ("bias-lost", "the bias is lost", _bias_lost, anywhere),
        ("adapter-ungained", "g does not multiply the adapter", _adapter_ungained, anywhere),
        ("adapter-alone-gained", "g multiplies the adapter alone", _adapter_alone_gained, anywhere),
        ("base-twice", "the base is added to its multiple by g", _base_added_twice, anywhere),
        ("adapter-unscaled", "the adapter lacks its scale outside of the norm", _unscaled, anywhere),
        ("magnitude-of-next", "magnitudes are off by one output", _magnitude_of_next, anywhere),
    ]
    return [
        *(Mutant(f"dora-{n}", f, {"dora_forward": forward_as(formula, "exact")}, stages)
          for n, f, formula, stages in forward),
        Mutant("qdora-norm-of-base", "the norm leaves the adapter out",
               {"qdora_forward": forward_as(_with_norms(_of_base), "exact")}, anywhere),
        *dora_gradient_faults(),
    ]  # fmt: skip
