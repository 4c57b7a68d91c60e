"""Faults of AdamW steps with float32 moments: decay, hyperparameters, eps, corrections, policies, roundings."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.optim.options import AdamwOptions, bias_correction
from qloracle.rounding import decode, encode
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.mutants.adamw_kernel import Kernel, Values, adamw_with
from qloracle_conformance.mutants.mutant import Mutant

MOMENTS, ALL = ("m", "v"), ("m", "v", "p")
KERNEL = Kernel()


def _with_options(**changed: Any) -> Kernel:
    return Kernel(prepare=lambda x: replace(x, o=replace(x.o, **changed)))


def _at_step(change: Callable[[int], int]) -> Kernel:
    return Kernel(prepare=lambda x: replace(x, step=change(x.step)))


def _to(values: Array, fmt: str) -> Array:
    return decode(encode(values, fmt), fmt)


def _corrections(x: Values) -> tuple[float, float]:
    return bias_correction(x.o.beta1, x.step), bias_correction(x.o.beta2, x.step)


def _decay_with_corrected_rate(x: Values, update: Array) -> Array:
    first, second = _corrections(x)
    return np.asarray(x.p * (1 - x.o.lr * second**0.5 / first * x.o.weight_decay) - x.o.lr * update)


def _swapped(o: AdamwOptions) -> AdamwOptions:
    return replace(o, beta1=o.beta2, beta2=o.beta1)


def _tail_of_four_kept(**arguments: Any) -> tuple[HostArray, ...]:
    """Leave the last elements as they were, which do not fill a vector of four."""
    new = adamw_with(KERNEL)(**arguments)
    outputs = []
    for old, after in zip((arguments["p"], arguments["m"], arguments["v"]), new, strict=True):
        items = after.items.copy().reshape(-1)
        tail = items.size - items.size % 4
        items[tail:] = old.items.reshape(-1)[tail:]
        outputs.append(HostArray(items.reshape(old.shape), old.dtype))
    return tuple(outputs)


def _in_place(**arguments: Any) -> tuple[HostArray, ...]:
    new: tuple[HostArray, ...] = adamw_with(KERNEL)(**arguments)
    arguments["m"].items[...] = new[1].items
    return new


def _neighbours_poisoned(x: Values) -> Array:
    """Reduce a flag over 32 lanes: one NaN reaches all of them."""
    bad = ~np.isfinite(x.g.reshape(-1))
    warp = np.repeat(np.add.reduceat(bad, np.arange(0, bad.size, 32)) > 0, 32)[: bad.size] if bad.size else bad
    mean = KERNEL.mean(x)
    return np.where(warp.reshape(mean.shape), np.nan, mean)


def _nan_alone(x: Values, new: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    return KERNEL.regardless(replace(x, g=np.where(np.isinf(x.g), 0.0, x.g)), new)


def _decays_what_it_skips(x: Values, new: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    decayed = x.p * (1 - x.o.lr * x.o.weight_decay)
    return KERNEL.regardless(replace(x, p=decayed), new)


def _resets_always(x: Values, new: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    changed = "reset" if x.o.nonfinite == "skip" else x.o.nonfinite
    return KERNEL.regardless(replace(x, o=replace(x.o, nonfinite=changed)), new)


def _parameter_faults() -> dict[str, tuple[str, Kernel]]:
    def corrected(first: bool, second: bool) -> Kernel:
        return Kernel(
            numerator=KERNEL.numerator if first else (lambda x: x.m),
            denominator=KERNEL.denominator if second else (lambda x: np.sqrt(x.v) + x.o.eps),
        )

    def root(x: Values) -> Array:
        return np.sqrt(x.v / _corrections(x)[1])

    return {
        "decay-after-update": ("the decay multiplies the new parameter", Kernel(
            combined=lambda x, u: (x.p - x.o.lr * u) * (1 - x.o.lr * x.o.weight_decay))),
        "decay-without-lr": ("the decay is not multiplied by lr", Kernel(
            combined=lambda x, u: x.p * (1 - x.o.weight_decay) - x.o.lr * u)),
        "decay-ignored": ("weight_decay is not forwarded", _with_options(weight_decay=0.0)),
        "decay-default": ("weight_decay is always 0.01", _with_options(weight_decay=0.01)),
        "decay-corrected": ("the decay uses the bias-corrected rate", Kernel(combined=_decay_with_corrected_rate)),
        "decay-grows": ("the decay is added", Kernel(
            combined=lambda x, u: x.p * (1 + x.o.lr * x.o.weight_decay) - x.o.lr * u)),
        "decay-of-update": ("the decay is inside the quotient", Kernel(
            combined=lambda x, u: x.p - x.o.lr * (u + x.o.weight_decay * x.p / np.maximum(1, np.abs(u))))),
        "lr-default": ("lr is always 0.001", _with_options(lr=1e-3)),
        "eps-default": ("eps is always 1e-8", _with_options(eps=1e-8)),
        "eps-inside-root": ("eps is added under the root", Kernel(
            denominator=lambda x: np.sqrt(x.v / _corrections(x)[1] + x.o.eps))),
        "eps-squared-inside-root": ("eps squared is added under the root", Kernel(
            denominator=lambda x: np.sqrt(x.v / _corrections(x)[1] + x.o.eps**2))),
        "eps-before-correction": ("the correction divides eps too", Kernel(
            denominator=lambda x: (np.sqrt(x.v) + x.o.eps) / _corrections(x)[1] ** 0.5)),
        "eps-corrected-away": ("eps is folded without its root", Kernel(
            denominator=lambda x: np.sqrt(x.v / _corrections(x)[1]) + x.o.eps * _corrections(x)[1] ** 0.5)),
        "eps-as-maximum": ("eps is a floor of the root, not added", Kernel(
            denominator=lambda x: np.maximum(root(x), x.o.eps))),
        "eps-missing": ("eps is left out where the root is not 0", Kernel(
            denominator=lambda x: np.where(x.v > 0, root(x), x.o.eps))),
        "mean-uncorrected": ("the first moment lacks its bias correction", corrected(False, True)),
        "square-uncorrected": ("the second moment lacks its bias correction", corrected(True, False)),
        "uncorrected": ("both moments lack their bias correction", corrected(False, False)),
        "corrections-swapped": ("each correction uses the other beta", Kernel(
            numerator=lambda x: x.m / _corrections(x)[1],
            denominator=lambda x: np.sqrt(x.v / _corrections(x)[0]) + x.o.eps)),
        "correction-rooted-twice": ("the second correction is not rooted with the moment", Kernel(
            denominator=lambda x: np.sqrt(x.v) / _corrections(x)[1] + x.o.eps)),
        "step-from-zero": ("the corrections count steps from 0", _at_step(lambda step: max(step - 1, 1))),
        "step-one-ahead": ("the corrections are one step ahead", _at_step(lambda step: step + 1)),
        "step-ignored": ("the corrections are always those of the first step", _at_step(lambda step: 1)),
        "step-saturates": ("the step is kept in eight bits", _at_step(lambda step: (step - 1) % 256 + 1)),
        "square-root-missing": ("the update is divided by the mean square", Kernel(
            denominator=lambda x: x.v / _corrections(x)[1] + x.o.eps)),
        "update-in-bfloat16": ("the update passes through bfloat16", Kernel(
            combined=lambda x, u: KERNEL.combined(x, _to(u, "bfloat16")))),
        "parameter-in-bfloat16": ("the parameter passes through bfloat16", Kernel(
            combined=lambda x, u: _to(KERNEL.combined(x, u), "bfloat16"))),
        "gradient-instead-of-mean": ("the update uses the gradient, not its mean", Kernel(
            combined=lambda x, u: KERNEL.combined(x, x.g / KERNEL.denominator(replace(x, v=KERNEL.square(x)))))),
        "old-moments": ("the update uses the moments before the step", Kernel(
            combined=lambda x, u: KERNEL.combined(x, KERNEL.numerator(x) / KERNEL.denominator(x)))),
        "residue": ("every update moves by at least a residue", Kernel(
            numerator=lambda x: KERNEL.numerator(x) + 1e-12)),
    }  # fmt: skip


def _moment_faults() -> dict[str, tuple[str, Kernel]]:
    return {
        "decay-coupled": ("the decay is added to the gradient", Kernel(
            prepare=lambda x: replace(x, g=x.g + x.o.weight_decay * x.p, o=replace(x.o, weight_decay=0.0)))),
        "decay-coupled-too": ("the decay is added to the gradient and applied as well", Kernel(
            prepare=lambda x: replace(x, g=x.g + x.o.weight_decay * x.p))),
        "decay-coupled-in-square": ("the decay enters the second moment alone", Kernel(
            square=lambda x: KERNEL.square(replace(x, g=x.g + x.o.weight_decay * x.p)))),
        "beta1-default": ("beta1 is always 0.9", _with_options(beta1=0.9)),
        "beta2-default": ("beta2 is always 0.999", _with_options(beta2=0.999)),
        "betas-swapped": ("beta1 and beta2 are exchanged", Kernel(prepare=lambda x: replace(x, o=_swapped(x.o)))),
        "beta1-for-both": ("beta1 serves both moments", Kernel(
            prepare=lambda x: replace(x, o=replace(x.o, beta2=x.o.beta1)))),
        "weight-missing": ("the gradient enters without 1 - beta", Kernel(mean=lambda x: x.o.beta1 * x.m + x.g)),
        "weight-of-square": ("the square enters with 1 - beta squared", Kernel(
            square=lambda x: x.o.beta2 * x.v + ((1 - x.o.beta2) * x.g) ** 2)),
        "weights-exchanged": ("the mean keeps 1 - beta of the old one", Kernel(
            mean=lambda x: (1 - x.o.beta1) * x.m + x.o.beta1 * x.g)),
        "square-of-mean": ("the second moment squares the new mean", Kernel(
            square=lambda x: x.o.beta2 * x.v + (1 - x.o.beta2) * KERNEL.mean(x) ** 2)),
        "square-of-deviation": ("the second moment is that of the deviation from the mean", Kernel(
            square=lambda x: x.o.beta2 * x.v + (1 - x.o.beta2) * (x.g - KERNEL.mean(x)) ** 2)),
        "largest-square": ("the second moment never falls", Kernel(
            square=lambda x: np.maximum(x.v, KERNEL.square(x)))),
        "moments-in-bfloat16": ("moments are stored in bfloat16", Kernel(
            moment=lambda values: _to(values, "bfloat16").astype(np.float32))),
        "moments-in-half": ("moments pass through float16", Kernel(
            moment=lambda values: _to(values, "float16").astype(np.float32))),
        "moments-flushed": ("subnormal moments become 0", Kernel(
            moment=lambda values: np.where(np.abs(values) < 2.0**-126, 0.0, values).astype(np.float32))),
        "gradient-in-bfloat16": ("the gradient passes through bfloat16", Kernel(
            prepare=lambda x: replace(x, g=_to(x.g, "bfloat16")))),
        "gradient-in-half": ("the gradient passes through float16", Kernel(
            prepare=lambda x: replace(x, g=_to(x.g, "float16")))),
        "square-in-half": ("the square of the gradient is computed in float16", Kernel(
            square=lambda x: x.o.beta2 * x.v + (1 - x.o.beta2) * _to(x.g * x.g, "float16"))),
    }  # fmt: skip


def _policy_faults() -> dict[str, tuple[str, Kernel]]:
    return {
        "nan-as-zero": ("NaN gradients count as 0", Kernel(
            prepare=lambda x: replace(x, g=np.where(np.isnan(x.g), 0.0, x.g)))),
        "infinity-clamped": ("infinite gradients become the largest finite number", Kernel(
            prepare=lambda x: replace(x, g=np.where(np.isinf(x.g), np.copysign(3e38, x.g), x.g)))),
        "nan-spreads": ("one NaN reaches 32 neighbours", Kernel(mean=_neighbours_poisoned)),
        "policy-ignored": ("gradients that are not finite always propagate", _with_options(nonfinite="propagate")),
        "policy-always-skip": ("gradients that are not finite are always skipped", _with_options(nonfinite="skip")),
        "policy-tests-nan-alone": ("infinite gradients pass the test for NaN", Kernel(regardless=_nan_alone)),
        "skipped-but-decayed": ("a skipped element decays", Kernel(regardless=_decays_what_it_skips)),
        "skip-resets": ("a skipped element loses its moments", Kernel(regardless=_resets_always)),
    }  # fmt: skip


def adamw_faults() -> list[Mutant]:
    """Return the faults of steps with float32 moments."""
    groups = (
        (_parameter_faults(), ALL, "adamw.step"),
        (_moment_faults(), MOMENTS, "adamw.step"),
        (_policy_faults(), ALL, "adamw.nonfinite"),
    )
    return [
        *(Mutant(f"adamw-{name}", fault, {"adamw_step": adamw_with(kernel)}, stages, operations=operation)
          for faults, stages, operation in groups for name, (fault, kernel) in faults.items()),
        Mutant("adamw-tail-kept", "the tail after the last vector of four is not updated",
               {"adamw_step": _tail_of_four_kept}, ALL, operations="adamw.step"),
        Mutant("adamw-in-place", "the first moment of the input is overwritten", {"adamw_step": _in_place},
               ("inputs",), operations="adamw.step"),
    ]  # fmt: skip
