"""Judging LoRA and QLoRA layers, forward and backward."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from qloracle.bounds import lora_backward_bound, lora_forward_bound
from qloracle.formats import Array, format_named
from qloracle.lora import dropout_factor, lora_backward, lora_forward, lora_scale
from qloracle.operands import dropped
from qloracle.qlora import qlora_weight
from qloracle.rounding import decode, encode
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import StageResult
from qloracle_conformance.operations.operation import Outputs, expect
from qloracle_conformance.operations.stored import is_stored, record_of
from qloracle_conformance.operations.sums import bound_stage, lattice_stage

Arguments = dict[str, Any]

SCALE_MISTAKES = (
    "alpha is used instead of alpha/r",
    "the scale alpha/r is missing",
    "the scale is applied twice",
    "alpha/r and alpha/sqrt(r) are mixed up",
)


def arguments_of(case: Case, claim: Claim | None = None) -> Arguments:
    """Return the arguments of the reference's function: arrays as float32, the weight dequantized."""
    names = ("dy", "x", "weight", "lora_a", "lora_b", "magnitude", "bias", "lora_bias")
    arrays = {n: a.single() for n in names if (a := case.inputs.get(n)) is not None}
    mask = case.inputs["mask"]
    if is_stored(case.inputs):
        rounding = claim.roundings.weight if claim else "float32"
        arrays["weight"] = qlora_weight(given_weight(case)["stored"], weight_rounding=rounding)
    options = {name: case.options[name] for name in ("alpha", "dropout", "rank_stabilized")}
    options |= {"fan_in_fan_out": True} if case.options.get("fan_in_fan_out") else {}
    return {**arrays, **options, "mask": None if mask is None else mask.items}


def judge_forward(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge y; the stage is the part of the formula that the case singles out."""
    arguments = arguments_of(case, claim)
    value = lora_forward(**arguments)
    y = expect(outputs, 0, case.term, case.array("x").dtype, value.shape)
    if isinstance(y, StageResult):
        return [y]
    if not case.lattice or rounds_on_the_way(claim):
        interval = lora_forward_bound(**arguments, **given_weight(case), roundings=claim.roundings)
        return [bound_stage(case.term, y, value, interval)]
    result = lattice_stage(case.term, y, value)
    if result.allowed["exact"].accepts(result.got).all():
        return [result]
    cause = named_mistake(arguments, lambda a: {"y": lora_forward(**a)}, {"y": y.words()}, y.dtype)
    if cause in SCALE_MISTAKES and case.term in ("adapter", "dropout"):
        # Given the backend's own scale the product is right; what is wrong is the scale.
        with np.errstate(all="ignore"):
            given = lora_forward(**mistakes(arguments)[cause])
        return [lattice_stage(case.term, y, given), lattice_stage("scale", y, value, cause)]
    return [replace(result, cause=cause)]


def judge_backward(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the gradients of x, A, B and the bias."""
    arguments = arguments_of(case, claim)
    values = dict(vars(lora_backward(**arguments)))
    inexact = not case.lattice or rounds_on_the_way(claim)
    how = {**given_weight(case), "roundings": claim.roundings}
    intervals = lora_backward_bound(**arguments, **how) if inexact else None
    if "lora_bias" not in claim.features or is_stored(case.inputs):
        del values["lora_bias"]
    results = []
    for index, (name, value) in enumerate(values.items()):
        got = expect(outputs, index, name, case.array("x").dtype, value.shape)
        if isinstance(got, StageResult):
            results.append(got)
        elif intervals is not None:
            results.append(bound_stage(name, got, value, intervals[name]))
        else:
            results.append(_gradient_stage(name, arguments, got.words(), got.dtype, lattice_stage(name, got, value)))
    return results


def rounds_on_the_way(claim: Claim) -> bool:
    """Return whether a claim declares roundings that even the numbers of a lattice may not survive."""
    declared = claim.roundings
    return any(fmt != "float32" for fmt in (declared.dropped, declared.base, declared.adapter, declared.norm))


def given_weight(case: Case) -> Arguments:
    """Return the record of a stored weight, whose scales an implementation may apply later; nothing for any other."""
    if not is_stored(case.inputs):
        return {}
    return {"stored": record_of({n: a for n, a in case.inputs.items() if a is not None}, case.options)}


def _gradient_stage(name: str, arguments: Arguments, words: Array, dtype: str, result: StageResult) -> StageResult:
    if result.allowed["exact"].accepts(result.got).all():
        return result
    cause = named_mistake(arguments, lambda a: {name: vars(lora_backward(**a))[name]}, {name: words}, dtype)
    return replace(result, cause=cause)


def named_mistake(
    arguments: Arguments, evaluate: Callable[[Arguments], dict[str, Array]], got: dict[str, Array], dtype: str
) -> str:
    """Return the known mistake under which the formula gives exactly what the backend returned, if there is one."""
    with np.errstate(all="ignore"):
        known = mistakes(arguments)
    for name, changed in known.items():
        with np.errstate(all="ignore"):
            values = evaluate(changed)
        if all(same_as(values[key], words, dtype) for key, words in got.items()):
            return name
    return ""


def same_as(values: Array, words: Array, dtype: str) -> bool:
    """Return whether numbers, rounded to a format, are the given words but for the sign of zero."""
    rounded = encode(values, dtype)
    zero = format_named(dtype).sign_bit - 1
    return bool(np.array_equal(rounded, words) or not np.any((rounded ^ words) & zero))


def mistakes(arguments: Arguments) -> dict[str, Arguments]:
    """Return arguments that turn the right formula into well-known wrong ones."""
    rank, alpha = arguments["lora_a"].shape[0], arguments["alpha"]
    root = float(np.sqrt(rank))
    unit = root if arguments["rank_stabilized"] else rank
    scale = alpha / unit
    wrong: dict[str, Arguments] = {
        "alpha is used instead of alpha/r": {**arguments, "alpha": alpha * unit},
        "the scale alpha/r is missing": {**arguments, "alpha": float(unit)},
        "the scale is applied twice": {**arguments, "alpha": alpha * scale},
        "alpha/r and alpha/sqrt(r) are mixed up": {**arguments, "rank_stabilized": not arguments["rank_stabilized"]},
        "the adapter is missing": {**arguments, "alpha": 0.0},
        "the last element of the inner dimension is left out": {**arguments, "x": _without_last(arguments["x"])},
    }
    if arguments["mask"] is not None:
        wrong["the dropout mask is ignored"] = {**arguments, "mask": None, "dropout": 0.0}
        wrong["the factor 1/(1 - p) is missing"] = {**arguments, "dropout": 0.0}
    if arguments.get("fan_in_fan_out") and len(set(arguments["weight"].shape)) == 1:
        wrong["the weight is read the other way round"] = {**arguments, "fan_in_fan_out": False}
    if arguments.get("lora_bias") is not None:
        wrong["the bias of the adapter is missing"] = {**arguments, "lora_bias": None}
        wrong["the bias of the adapter is not scaled"] = {
            **arguments, "lora_bias": None, "bias": arguments.get("bias", np.float32(0)) + arguments["lora_bias"]
        }  # fmt: skip
    if arguments.get("bias") is not None:
        wrong["the bias is missing"] = {**arguments, "bias": None}
        wrong["the bias is added twice"] = {**arguments, "bias": arguments["bias"] * np.float32(2)}
    for narrow in ("bfloat16", "float16"):
        wrong[f"operands are rounded to {narrow}"] = _with_operands(arguments, narrow)
    wrong["operands are rounded to TF32"] = _with_operands(arguments, "tf32")
    return wrong


def _without_last(x: Array) -> Array:
    shortened = x.copy()
    shortened[..., -1:] = 0
    return shortened


def _with_operands(arguments: Arguments, narrow: str) -> Arguments:
    def rounded(values: Array) -> Array:
        if narrow == "tf32":  # 10 mantissa bits of float32, to nearest with ties away as tensor cores do
            return ((values.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)
        return decode(encode(values, narrow), narrow).astype(np.float32)

    names = ("dy", "x", "weight", "lora_a", "lora_b")
    return {**arguments, **{n: rounded(np.ascontiguousarray(arguments[n])) for n in names if n in arguments}}


def forward_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: the parts of the sum."""
    arguments = arguments_of(case)
    base = {**arguments, "alpha": 0.0}
    x, a = (arguments[name].astype(np.float64) for name in ("x", "lora_a"))
    scale = lora_scale(arguments["alpha"], len(a), rank_stabilized=arguments["rank_stabilized"])
    with np.errstate(all="ignore"):
        factor = dropout_factor(arguments["mask"], arguments["dropout"], x.shape)
        share = dropped(x, factor, arguments["dropout"])
        narrow = share @ a.T
    of_bias = " + s b_B" if arguments.get("lora_bias") is not None else ""
    return {
        "s": np.asarray(scale),
        "x_d": share,
        "x_d A^T": narrow,
        "x W^T + b": lora_forward(**base),
        f"s (x_d A^T) B^T{of_bias}": lora_forward(**arguments) - lora_forward(**base),
        "y": lora_forward(**arguments),
    }


def backward_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: the gradients."""
    return {f"gradient of {n}": v for n, v in vars(lora_backward(**arguments_of(case))).items()}
