"""Faults of adapters beyond their sums: scales, masks, biases, how a weight is stored, and numbers at their limits."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import host
from qloracle_conformance.mutants.adapter_operands import Single, backward_as, forward_as
from qloracle_conformance.mutants.lora_gradient_faults import (
    flushed,
    flushed_16,
    gradients,
    in_bfloat16,
    in_float16,
    keep_in,
    lora_gradient_faults,
)
from qloracle_conformance.mutants.mutant import Mutant
from qloracle_conformance.operations.stored import restored_weight

STORED_TERMS = ("base", "bias", "adapter", "scale", "dropout", "whole")  # of a stored weight
TERMS = (*STORED_TERMS, "lora_bias", "fan_in_fan_out")
STORED = ("qlora_double", "qlora_int8", "qlora_affine")


def output(
    o: Single, *, scale: Any = None, keep: Any = None, bias: Any = None, shift: Any = None, dropped: Any = None,
    weight: Any = None, base: Any = None,
) -> Array:  # fmt: skip
    """Return y with some parts replaced."""
    s, kept = o.scale if scale is None else scale, o.keep if keep is None else keep
    x = o.x * kept if dropped is None else dropped
    b, w = o.bias if bias is None else bias, o.weight if weight is None else weight
    low = s * (x @ o.lora_a.T @ o.lora_b.T)
    y: Array = (o.x if base is None else base) @ w.T + b + low + (s * o.lora_bias if shift is None else shift)
    return y


def _turned(o: Single) -> Array:
    """Read a weight that was declared transposed as it is where it is square."""
    return o.weight.T if o.weight.shape[0] == o.weight.shape[1] else o.weight


def _kept_weight(function: str) -> Callable[..., Any]:
    """Keep the first dequantized weight of a shape, whatever is stored there later."""
    first: dict[tuple[int, ...], Array] = {}

    def layer(**arguments: Any) -> Any:
        weight = restored_weight(arguments)
        stale = first.setdefault(weight.shape, weight)
        names = ("dy", "x", "lora_a", "lora_b", "bias", "mask", "alpha", "dropout", "rank_stabilized")
        rest = {n: arguments[n] for n in names if n in arguments}
        result = OPS[function](**rest, weight=host(stale))
        return result[:4] if isinstance(result, tuple) else result

    return layer


def _weight_by(change: Callable[[Array], Array]) -> Callable[[Single], Array]:
    return lambda o: output(o, weight=change(o.weight))


def _adapter_in_bfloat16(o: Single) -> Array:
    base = o.x @ o.weight.T + o.bias
    return base + in_bfloat16(output(o) - base)


def _forgetting(name: str, function: str) -> dict[str, Callable[..., Any]]:
    """Return the layer that keeps a weight, before it has kept one."""
    return {name: _kept_weight(function)}


def _stored_with(**changes: Any) -> Callable[..., Any]:
    """Read an affine weight with some of its parts replaced."""

    def layer(**arguments: Any) -> Any:
        changed = {name: host(change(arguments[name].items)) for name, change in changes.items()}
        return OPS["qlora_affine_forward"](**{**arguments, **changed})

    return layer


def _forwards() -> list[tuple[str, str, Callable[[Single], Array]]]:
    return [
        ("lora-bias-unscaled", "the bias of the adapter is not scaled", lambda o: output(o, shift=o.lora_bias)),
        ("lora-bias-missing", "the bias of the adapter is missing", lambda o: output(o, shift=0.0)),
        ("lora-bias-twice-scaled", "the bias of the adapter is scaled twice",
         lambda o: output(o, shift=o.scale**2 * o.lora_bias)),
        ("lora-bias-first-row", "the bias of the adapter reaches the first row only",
         lambda o: output(o, shift=o.scale * o.lora_bias * (np.arange(len(o.x)) == 0)[:, np.newaxis])),
        ("lora-bias-dropped", "the bias of the adapter vanishes where all of x is dropped",
         lambda o: output(o, shift=o.scale * o.lora_bias * np.any(o.keep != 0, axis=1, keepdims=True))),
        ("scale-twice", "the scale multiplies the adapter twice", lambda o: output(o, scale=o.scale**2)),
        ("scale-missing", "the scale is missing", lambda o: output(o, scale=1.0)),
        ("scale-float16", "the scale is a float16 number", lambda o: output(o, scale=in_float16(o.scale))),
        ("scale-bfloat16", "the scale is a bfloat16 number", lambda o: output(o, scale=in_bfloat16(o.scale))),
        ("scale-integer", "the scale is an integer quotient", lambda o: output(o, scale=np.floor(o.scale))),
        ("scale-on-base", "the scale multiplies the base too", lambda o: output(o, weight=o.scale * o.weight)),
        ("dropout-factor-float16", "1/(1 - p) is computed in float16",
         lambda o: output(o, keep=keep_in(in_float16)(o))),
        ("dropout-factor-bfloat16", "1/(1 - p) is computed in bfloat16",
         lambda o: output(o, keep=keep_in(in_bfloat16)(o))),
        ("dropped-bfloat16", "x_d is rounded to bfloat16", lambda o: output(o, dropped=in_bfloat16(o.x * o.keep))),
        ("dropped-float16", "x_d is rounded to float16", lambda o: output(o, dropped=in_float16(o.x * o.keep))),
        ("dropout-on-base", "the base is dropped too", lambda o: output(o, base=o.x * o.keep)),
        ("dropout-unscaled", "what is kept is not divided by 1 - p", lambda o: output(o, keep=o.keep != 0)),
        ("dropout-inverted", "the mask is inverted",
         lambda o: output(o, keep=np.where(o.keep == 0, np.max(o.keep, initial=0.0), 0.0)) if np.any(o.keep != 1)
         else output(o)),
        ("bias-flushed", "subnormal bias values become zero", lambda o: output(o, bias=flushed(o.bias))),
        ("bias-flushed-16", "bias values below float16's normal ones become zero",
         lambda o: output(o, bias=flushed_16(o.bias))),
        ("bias-float16", "the bias passes through float16", lambda o: output(o, bias=in_float16(o.bias))),
        ("bias-bfloat16", "the bias passes through bfloat16", lambda o: output(o, bias=in_bfloat16(o.bias))),
        ("a-float16", "A is cast to float16", lambda o: output(replace(o, lora_a=in_float16(o.lora_a)))),
        ("b-bfloat16", "B is cast to bfloat16", lambda o: output(replace(o, lora_b=in_bfloat16(o.lora_b)))),
        ("weight-bfloat16", "the weight is cast to bfloat16", _weight_by(in_bfloat16)),
        ("adapter-in-bfloat16", "the adapter is rounded to bfloat16, undeclared", _adapter_in_bfloat16),
    ]  # fmt: skip


def lora_faults() -> list[Mutant]:
    """Return the mutants of adapters."""
    x_weight, x_turned = (
        (lambda o: gradients(o, weight=in_bfloat16(o.weight))[:4]),
        (lambda o: output(o, weight=_turned(o))),
    )
    made = [Mutant(n, f, {"lora_forward": forward_as(formula, "exact")}, TERMS) for n, f, formula in _forwards()]
    made += lora_gradient_faults()
    for kind in STORED:
        made += [
            Mutant(f"{kind}-weight-bfloat16", "the dequantized weight is rounded to bfloat16, undeclared",
                   {f"{kind}_forward": forward_as(_weight_by(in_bfloat16), "exact")}, STORED_TERMS),
            Mutant(f"{kind}-weight-turned", "a square weight is read the other way round",
                   {f"{kind}_forward": forward_as(x_turned, "exact")}, STORED_TERMS),
            Mutant(f"{kind}-gradient-weight-bfloat16", "the weight is rounded to bfloat16 in the gradient of x",
                   {f"{kind}_backward": backward_as(x_weight, "exact")}, ("x",)),
            Mutant(f"{kind}-stale-weight", "the first weight of a shape is kept",
                   {f"{kind}_backward": _kept_weight("lora_backward")}, ("x",),
                   start=partial(_forgetting, f"{kind}_backward", "lora_backward")),
        ]  # fmt: skip
    return [
        *made,
        Mutant("qlora-stale-weight", "the first weight of a shape is kept",
               {"qlora_forward": _kept_weight("lora_forward")}, STORED_TERMS,
               start=partial(_forgetting, "qlora_forward", "lora_forward")),
        Mutant("qlora-affine-zero-point", "the zero point is not subtracted",
               {"qlora_affine_forward": _stored_with(zero_point=np.zeros_like)}, STORED_TERMS),
        Mutant("qlora-affine-scale-of-row-0", "the scale of the first row serves all",
               {"qlora_affine_forward": _stored_with(scale=lambda v: np.resize(v.reshape(-1)[:1], v.shape))},
               STORED_TERMS),
    ]  # fmt: skip
