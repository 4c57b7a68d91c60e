"""Judging merges into quantized weights: scales, then codes given the backend's own scales.

On a lattice the merged weight is known, and what was made of it is judged as by the quantizer itself. Elsewhere it lies
in an interval, and so do the scales and, given those that the backend wrote, the codes.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from qloracle.affine import QuantizedAffine
from qloracle.affine_scale import affine_parameters, zero_point_of
from qloracle.bounds.cycles import requantize_cycles_bound
from qloracle.bounds.requantize import absmax_bound, code_bound, code_positions, merged_values_bound
from qloracle.formats import Array, from_bits
from qloracle.observers import minmax_range
from qloracle.qlora import QuantizedWeight
from qloracle.quantizing_like import dequantized_weight
from qloracle.rounding import decode, encode
from qloracle.tracking.interval import Interval
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.generators.requantizing import STORED, record_of, stored_of
from qloracle_conformance.judge import Allowed, StageResult, blocked_stage
from qloracle_conformance.operations import affine, double, int8, quantize
from qloracle_conformance.operations.merging import merged_value
from qloracle_conformance.operations.operation import Judge, Outputs, expect, float_stage, integer_stage
from qloracle_conformance.operations.sums import bound_stage

QUANTIZERS: dict[str, Judge] = {
    "blocks": quantize.judge_quantize,
    "double": double.judge_quantize_double,
    "int8": int8.judge_quantize_int8,
    "affine": affine.judge_quantize,
}
TYPES = {"data": "uint8", "absmax": "float32", "absmax_codes": "uint8", "nested_absmax": "float32", "offset": "float32",
         "scale": "float32", "zero_point": "int32"}  # fmt: skip


def judge_of(kind: str) -> Judge:
    """Return the judge of merges into one kind of quantized weight."""

    def judge(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
        values = base_values(case, kind)
        if case.options["scales"] == "kept":
            return _judge_kept(case, outputs, claim, kind, values)
        if not case.lattice:
            return _judge_interval(case, outputs, claim, kind, values)
        merged = HostArray(from_bits(_merged_words(case, values), case.options["dtype"]), case.options["dtype"])
        found = QUANTIZERS[kind](replace(case, inputs={"x": merged}), outputs, claim)
        return _without_packing(found)

    return judge


def base_values(case: Case, kind: str) -> Array:
    """Return the values that the adapter is merged into, as float32."""
    if "original" in case.inputs:
        return case.array("original").single()
    stored = dequantized_weight(stored_of(case, kind))
    return HostArray(stored, case.options["dtype"]).single()


def _merge_arguments(case: Case, values: Array) -> dict[str, object]:
    options = {n: case.options[n] for n in ("alpha", "rank_stabilized", "fan_in_fan_out")}
    return {"weight": values, **{n: case.array(n).single() for n in ("lora_a", "lora_b")}, **options}


def _merged_words(case: Case, values: Array) -> Array:
    return encode(merged_value(_merge_arguments(case, values)), case.options["dtype"])


def merged_interval(case: Case, claim: Claim, values: Array) -> Interval:
    """Return where the merged values lie: at one number each on a lattice."""
    dtype = case.options["dtype"]
    if case.lattice:
        exact = decode(_merged_words(case, values), dtype)
        return Interval(exact, exact, np.ones(exact.shape, np.bool_))
    arguments = _merge_arguments(case, values)
    arguments["values"] = from_bits(encode(arguments.pop("weight"), dtype), dtype)  # type: ignore[arg-type]
    return merged_values_bound(**arguments, fmt=dtype, roundings=claim.roundings)  # type: ignore[arg-type]


def _without_packing(found: list[StageResult]) -> list[StageResult]:
    """Count packing as part of the codes: its own operation judges it, and 8-bit codebooks have none."""
    packing = next((r for r in found if r.stage == "packing"), None)
    rest = [r for r in found if r.stage != "packing"]
    if packing is None or not (packing.problem or packing.failing("exact").any()):
        return rest
    return [replace(packing, stage="codes") if r.stage == "codes" else r for r in rest]


def _outputs_of(case: Case, outputs: Outputs, kind: str) -> tuple[QuantizedWeight | None, list[StageResult]]:
    """Return the record that the backend wrote, or the failed stages."""
    like, problems = stored_of(case, kind), []
    for index, name in enumerate(STORED[kind]):
        given = case.array(name)
        dtype = TYPES.get(name, given.dtype)
        got = expect(outputs, index, _stage(name), dtype, given.shape)
        if isinstance(got, StageResult):
            problems.append(got)
    if problems:
        failed = {p.stage for p in problems}
        stages = dict.fromkeys(_stage(name) for name in STORED[kind])
        return None, [*problems, *(blocked_stage(s) for s in stages if s not in failed)]
    arrays = dict(zip(STORED[kind], outputs, strict=False))
    return replace(record_of(kind, arrays, case.options), dtype=like.dtype), []


def _stage(name: str) -> str:
    return {"absmax_codes": "nested_codes", "data": "codes"}.get(name, name)


def _judge_kept(case: Case, outputs: Outputs, claim: Claim, kind: str, values: Array) -> list[StageResult]:
    """Judge scales that must be the given ones, and the codes given those."""
    own, problems = _outputs_of(case, outputs, kind)
    if own is None:
        return problems
    stages = []
    for index, name in enumerate(STORED[kind]):
        if name not in ("data", "codes"):
            given, got, stage = case.array(name), outputs[index], _stage(name)
            words = given.words().astype(np.uint64).astype(np.int64)
            judged = (
                float_stage(stage, got, given.words(), got.dtype)
                if got.is_float
                else integer_stage(stage, got, words.reshape(given.shape) if got.dtype == "uint8" else given.items)
            )
            stages.append(judged)
    return [*stages, _codes_stage(own, merged_interval(case, claim, values), outputs[0], case.lattice)]


def _codes_stage(own: QuantizedWeight, values: Interval, data: HostArray, lattice: bool) -> StageResult:
    """Judge codes as positions in value order, between those of the ends of the merged values."""
    lo, hi = code_bound(values, own)
    judged = values.judged.reshape(-1)
    info = np.iinfo(np.int64)
    allowed = Allowed(np.where(judged, lo, info.min), np.where(judged, hi, info.max))
    got = code_positions(own)
    level = "exact" if lattice else "bound"
    columns = values.lo.shape[-1] if values.lo.ndim else 0
    return StageResult("codes", got, {level: allowed}, words=got, dtype="uint8", row_length=columns)


def _judge_interval(case: Case, outputs: Outputs, claim: Claim, kind: str, values: Array) -> list[StageResult]:
    """Judge scales by where the merged values lie, and the codes given the backend's own scales."""
    own, problems = _outputs_of(case, outputs, kind)
    if own is None:
        return problems
    interval = merged_interval(case, claim, values)
    codes = _codes_stage(own, interval, outputs[0], lattice=False)
    if isinstance(own, QuantizedAffine):
        return [*affine_stages(own, interval, outputs), codes]
    limits = absmax_bound(interval, own)
    middle = (limits.lo + limits.hi) / 2
    return [bound_stage("absmax", outputs[1], middle, limits), codes]


def affine_stages(own: QuantizedAffine, values: Interval, outputs: Outputs) -> list[StageResult]:
    """Judge scale and, given the scale, the zero point, from where the smallest and the largest value lie."""
    ends = [minmax_range(end.astype(np.float32), granularity=own.granularity, group_size=own.group_size)
            for end in (values.lo, values.hi)]  # fmt: skip
    (lowest, low_top), (high_bottom, highest) = (ends[0][0], ends[1][0]), (ends[0][1], ends[1][1])
    code_range = {"qmin": own.qmin, "qmax": own.qmax}
    narrow, _ = affine_parameters(np.minimum(low_top, 0), np.maximum(high_bottom, 0), **code_range)  # zero is in it
    wide, _ = affine_parameters(lowest, highest, **code_range)
    judged = np.broadcast_to(values.judged.all(), narrow.shape)
    spread = 1 + 4 * 2.0**-24  # a scale may be rounded three times itself
    limits = Interval(narrow / spread, wide * spread, judged)
    first = bound_stage("scale", outputs[1], (limits.lo + limits.hi) / 2, limits)
    points = [zero_point_of(lo, highest, own.scale, **code_range) for lo in (lowest, low_top)]
    got = outputs[2].items.astype(np.int64)
    allowed = Allowed(*(f.reduce(points).astype(np.int64) for f in (np.minimum, np.maximum)))
    return [first, StageResult("zero_point", got, {"bound": allowed}, words=outputs[2].words(), dtype="int32")]


def judge_cycles(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the values after some cycles of merging and unmerging into blocks."""
    stored, dtype = stored_of(case, "blocks"), case.options["dtype"]
    values = expect(outputs, 0, "values", dtype, tuple(case.options["shape"]))
    if isinstance(values, StageResult):
        return [values]
    arguments = {n: case.array(n).single() for n in ("lora_a", "lora_b")}
    options = {n: case.options[n] for n in ("alpha", "rank_stabilized", "fan_in_fan_out", "cycles")}
    limits = requantize_cycles_bound(stored, **arguments, **options, roundings=claim.roundings)  # type: ignore[arg-type]
    with np.errstate(invalid="ignore"):  # −∞ + ∞ where nothing is judged
        middle = (limits.lo + limits.hi) / 2
    return [bound_stage("values", values, middle, limits)]


def intermediates_of(kind: str) -> Callable[[Case], dict[str, Array]]:
    """Return what `explain` prints: the values before and after the merge."""

    def intermediates(case: Case) -> dict[str, Array]:
        values = base_values(case, kind)
        return {"value": values, "merged": decode(_merged_words(case, values), case.options["dtype"])}

    return intermediates
