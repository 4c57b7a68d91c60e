"""Faults of the gradients of adapters: scales, masks, biases, and sums in narrow formats."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.rounding import decode, encode
from qloracle_conformance.mutants.adapter_operands import Single, backward_as
from qloracle_conformance.mutants.mutant import Mutant


def in_float16(values: Any) -> Any:
    """Round to float16, with its overflow."""
    with np.errstate(all="ignore"):
        return np.asarray(values, np.float64).astype(np.float16).astype(np.float64)


def in_bfloat16(values: Any) -> Array:
    """Round to bfloat16."""
    return decode(encode(np.asarray(values, np.float64), "bfloat16"), "bfloat16")


def keep_in(narrow: Callable[[Any], Any]) -> Callable[[Single], Array]:
    """Return mask/(1 − p) with the factor computed in a narrow format."""

    def keep(o: Single) -> Array:
        kept = o.keep != 0
        p = 1 - 1 / np.max(o.keep, initial=1.0)
        return np.where(kept, narrow(1 / narrow(1 - narrow(p))), 0.0) if np.any(o.keep != 1) else o.keep

    return keep


def flushed(values: Array) -> Array:
    """Return numbers with those below the normal float32 as zero."""
    return np.where(np.abs(values) < 2.0**-126, 0.0, values)


def flushed_16(values: Array) -> Array:
    """Return numbers with those below the normal float16 as zero."""
    return np.where(np.abs(values) < 2.0**-14, 0.0, values)


def gradients(
    o: Single, *, scale: Any = None, keep: Any = None, keep_x: Any = None, dropped: Any = None, shift: Any = None,
    bias: Any = None, scale_b: Any = None, weight: Any = None,
) -> tuple[Array, ...]:  # fmt: skip
    """Return gradients with some parts replaced."""
    s, kept = o.scale if scale is None else scale, o.keep if keep is None else keep
    x = o.x * kept if dropped is None else dropped
    back, total = o.dy @ o.lora_b, o.dy.sum(axis=0)
    return (
        o.dy @ (o.weight if weight is None else weight) + s * (kept if keep_x is None else keep_x) * (back @ o.lora_a),
        s * (back.T @ x),
        (s if scale_b is None else scale_b) * (o.dy.T @ (x @ o.lora_a.T)),
        total if bias is None else bias,
        s * total if shift is None else shift,
    )


def _running(rows: Array, dtype: str) -> Array:
    """Add rows up in a narrow format."""
    total = np.zeros(rows.shape[1])
    for row in rows:
        total = decode(encode(total + row, dtype), dtype)
    return total


def _backwards() -> list[tuple[str, str, Callable[[Single], tuple[Array, ...]], tuple[str, ...]]]:
    return [
        ("lora-bias-gradient-unscaled", "the gradient of the adapter's bias lacks the scale",
         lambda o: gradients(o, shift=o.dy.sum(axis=0)), ("lora_bias",)),
        ("lora-bias-gradient-dropped", "rows that are dropped give no gradient of the adapter's bias",
         lambda o: gradients(o, shift=o.scale * (o.dy * np.any(o.keep != 0, axis=1, keepdims=True)).sum(axis=0)),
         ("lora_bias",)),
        ("bias-gradient-scaled", "the gradient of the bias is scaled",
         lambda o: gradients(o, bias=o.scale * o.dy.sum(axis=0)), ("bias",)),
        ("bias-gradient-float16", "the gradient of the bias is added up in float16",
         lambda o: gradients(o, bias=_running(o.dy, "float16")), ("bias",)),
        ("bias-gradient-bfloat16", "the gradient of the bias is added up in bfloat16",
         lambda o: gradients(o, bias=_running(o.dy, "bfloat16")), ("bias",)),
        ("bias-gradient-mean", "the gradient of the bias is a mean",
         lambda o: gradients(o, bias=o.dy.mean(axis=0) if len(o.dy) else o.dy.sum(axis=0)), ("bias",)),
        ("bias-gradient-flushed", "subnormal gradients of the bias become zero",
         lambda o: gradients(o, bias=flushed(o.dy).sum(axis=0)), ("bias",)),
        ("bias-gradient-flushed-16", "gradients of the bias below float16's normal ones become zero",
         lambda o: gradients(o, bias=flushed_16(o.dy).sum(axis=0)), ("bias",)),
        ("gradient-scale-float16", "the scale is a float16 number in the gradients",
         lambda o: gradients(o, scale=in_float16(o.scale)), ("x", "lora_a", "lora_b", "lora_bias")),
        ("gradient-scale-twice", "gradients of B have the scale twice",
         lambda o: gradients(o, scale_b=o.scale**2), ("lora_b",)),
        ("gradient-scale-missing", "all gradients of the adapter lack the scale",
         lambda o: gradients(o, scale=1.0), ("x", "lora_a", "lora_b", "lora_bias")),
        ("gradient-dropout-float16", "1/(1 - p) is computed in float16 in the gradients",
         lambda o: gradients(o, keep=keep_in(in_float16)(o)), ("x", "lora_a", "lora_b")),
        ("gradient-mask-redrawn", "the backward pass draws a mask of its own",
         lambda o: gradients(o, keep=np.roll(o.keep, 1, axis=-1)), ("x", "lora_a", "lora_b")),
        ("gradient-x-unmasked", "the gradient of x lacks the mask but not 1/(1 - p)",
         lambda o: gradients(o, keep_x=np.full(o.keep.shape, np.max(o.keep, initial=0.0))), ("x",)),
        ("gradient-x-undivided", "the gradient of x lacks 1/(1 - p)",
         lambda o: gradients(o, keep_x=o.keep != 0), ("x",)),
        ("gradient-undropped", "gradients of A and B see the undropped x",
         lambda o: gradients(o, dropped=o.x), ("lora_a", "lora_b")),
        ("gradient-without-adapter", "the gradient of x lacks the adapter",
         lambda o: gradients(o, keep_x=0.0), ("x",)),
        ("gradient-weight-bfloat16", "the weight is rounded to bfloat16 in the gradient of x",
         lambda o: gradients(o, weight=in_bfloat16(o.weight)), ("x",)),
    ]  # fmt: skip


def lora_gradient_faults() -> list[Mutant]:
    """Return the mutants of the gradients of adapters."""
    return [Mutant(n, f, {"lora_backward": backward_as(formula, "exact")}, s) for n, f, formula, s in _backwards()]
