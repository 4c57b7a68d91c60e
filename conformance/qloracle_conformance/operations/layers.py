"""Judging LoRA and QLoRA layers, forward and backward."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from qloracle.blockwise import QuantizedBlocks
from qloracle.bounds import lora_backward_bound, lora_forward_bound
from qloracle.formats import Array, format_named
from qloracle.lora import lora_backward, lora_forward
from qloracle.qlora import qlora_weight
from qloracle.rounding import decode, encode
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import StageResult
from qloracle_conformance.operations.operation import Outputs, expect
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
    names = ("dy", "x", "weight", "lora_a", "lora_b", "bias")
    arrays = {n: a.single() for n in names if (a := case.inputs.get(n)) is not None}
    mask = case.inputs["mask"]
    if "data" in case.inputs:
        shape = tuple(case.options["shape"])
        quantized = QuantizedBlocks(
            case.array("data").items, case.array("absmax").items, case.options["codebook"],
            case.options["block_size"], shape, "float32",
        )  # fmt: skip
        arrays["weight"] = qlora_weight(quantized, weight_rounding=claim.roundings.weight if claim else "float32")
    options = {name: case.options[name] for name in ("alpha", "dropout", "rank_stabilized")}
    return {**arrays, **options, "mask": None if mask is None else mask.items}


def judge_forward(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge y; the stage is the part of the formula that the case singles out."""
    arguments = arguments_of(case, claim)
    value = lora_forward(**arguments)
    y = expect(outputs, 0, case.term, case.array("x").dtype, value.shape)
    if isinstance(y, StageResult):
        return [y]
    if not case.lattice:
        return [bound_stage(case.term, y, value, lora_forward_bound(**arguments, roundings=claim.roundings))]
    result = lattice_stage(case.term, y, value)
    if result.allowed["exact"].accepts(result.got).all():
        return [result]
    cause = named_mistake(arguments, lambda a: {"y": lora_forward(**a)}, {"y": y.words()}, y.dtype)
    if cause in SCALE_MISTAKES and case.term in ("adapter", "dropout"):
        # Given the backend's own scale the product is right; what is wrong is the scale.
        given = lora_forward(**mistakes(arguments)[cause])
        return [lattice_stage(case.term, y, given), lattice_stage("scale", y, value, cause)]
    return [replace(result, cause=cause)]


def judge_backward(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the gradients of x, A, B and the bias."""
    arguments = arguments_of(case, claim)
    values = vars(lora_backward(**arguments))
    intervals = None if case.lattice else lora_backward_bound(**arguments, roundings=claim.roundings)
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


def _gradient_stage(name: str, arguments: Arguments, words: Array, dtype: str, result: StageResult) -> StageResult:
    if result.allowed["exact"].accepts(result.got).all():
        return result
    cause = named_mistake(arguments, lambda a: {name: vars(lora_backward(**a))[name]}, {name: words}, dtype)
    return replace(result, cause=cause)


def named_mistake(
    arguments: Arguments, evaluate: Callable[[Arguments], dict[str, Array]], got: dict[str, Array], dtype: str
) -> str:
    """Return the known mistake under which the formula gives exactly what the backend returned, if there is one."""
    for name, changed in mistakes(arguments).items():
        with np.errstate(all="ignore"):
            values = evaluate(changed)
        words = {key: encode(value, dtype) for key, value in values.items()}
        zero = format_named(dtype).sign_bit - 1  # compare −0 and +0 as one
        if all(np.array_equal(words[k], got[k]) or not np.any((words[k] ^ got[k]) & zero) for k in got):
            return name
    return ""


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
    return {
        "x W^T + b": lora_forward(**base),
        "s (x_d A^T) B^T": lora_forward(**arguments) - lora_forward(**base),
        "y": lora_forward(**arguments),
    }


def backward_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: the gradients."""
    return {f"gradient of {n}": v for n, v in vars(lora_backward(**arguments_of(case))).items()}
