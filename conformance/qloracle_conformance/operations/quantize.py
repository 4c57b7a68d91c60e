"""Judging blockwise quantization: absmax, then packing, then codes, each given what came before."""

from dataclasses import replace
from math import prod

import numpy as np

from qloracle.blocks import block_absmax, block_count, spread
from qloracle.codebooks import Codebook
from qloracle.formats import Array
from qloracle.nearest import quantize_codes
from qloracle.tables import codebook_named
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import StageResult, blocked_stage
from qloracle_conformance.operations.codes import code_limits, code_stage
from qloracle_conformance.operations.nibbles import unpack_judged
from qloracle_conformance.operations.operation import Outputs, broken, expect, float_stage


def judge_quantize(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge (data, absmax)."""
    x, block_size = case.array("x").single().reshape(-1), case.options["block_size"]
    absmax = expect(outputs, 1, "absmax", "float32", (block_count(x.size, block_size),))
    table = codebook_named(case.options["codebook"])
    if isinstance(absmax, StageResult):
        counted = replace(absmax, cause=count_cause(case, outputs))
        return [counted, *(blocked_stage(stage) for stage in code_stages(table))]
    first = float_stage("absmax", absmax, block_absmax(x, block_size).view(np.uint32), "float32")
    first = with_cause(first, absmax.items, case)
    blocked = spread(broken(first, claim, "absmax"), x.size, block_size)
    return [first, *judge_codes(x, absmax.items, table, block_size, outputs, blocked)]


def count_cause(case: Case, outputs: Outputs) -> str:
    """Name the mistake that explains a wrong number of absmax, if it is the known one."""
    shape, block_size = case.array("x").shape, case.options["block_size"]
    if len(outputs) < 2 or len(shape) < 2:
        return ""
    by_rows = prod(shape[:-1]) * block_count(shape[-1], block_size)
    wrong = outputs[1].items.size != block_count(prod(shape), block_size)
    return "every row begins a new block" if wrong and outputs[1].items.size == by_rows else ""


def code_stages(table: Codebook) -> tuple[str, ...]:
    """Return the stages after the absmax: 8-bit codes are not packed."""
    return ("packing", "codes") if table.code_bits == 4 else ("codes",)


def judge_codes(
    x: Array, absmax: Array, table: Codebook, block_size: int, outputs: Outputs, blocked: Array | None
) -> list[StageResult]:
    """Judge output 0, packed bytes or codes, given the absmax of every block."""
    size = x.size
    packed = table.code_bits == 4
    data = expect(outputs, 0, "packing" if packed else "codes", "uint8", ((size + 1) // 2 if packed else size,))
    if isinstance(data, StageResult):
        return [data, blocked_stage("codes")] if packed else [data]
    exact = table.position[quantize_codes(x, absmax, table, block_size)]
    element_absmax, group = spread(absmax, size, block_size), np.arange(size) // block_size

    def fits(codes: Array) -> Array:
        got = table.position[codes]
        allowed = code_limits(x, element_absmax, table.midpoints, exact, got, group)["tie"]
        return allowed.accepts(got) if blocked is None else allowed.accepts(got) | blocked

    stages = []
    codes = data.items.reshape(-1)
    if packed:
        unpacked = unpack_judged("packing", data, size, table.zero_code, fits, blocked)
        stages, codes = [unpacked.stage], unpacked.codes
    got = table.position[codes]
    judged = code_stage("codes", x, element_absmax, table.midpoints, exact, got, group, blocked, codebook=table.name)
    stages.append(replace(judged, words=codes, block_size=block_size))
    return stages


def with_cause(result: StageResult, absmax: Array, case: Case) -> StageResult:
    """Name the mistake that explains a wrong absmax, if one of the known ones does."""
    x, block_size = case.array("x").single(), case.options["block_size"]
    if not np.any(~result.allowed["exact"].accepts(result.got)):
        return result
    flat = x.reshape(-1)
    with np.errstate(invalid="ignore"):
        clean = np.where(np.isnan(flat), np.float32(0), flat)
        candidates = {
            "NaN elements are left out of the absmax": block_absmax(np.where(np.isinf(clean), 0, clean), block_size),
            "infinite elements enter the absmax": np.array(
                [np.max(np.abs(flat[i : i + block_size])) for i in range(0, flat.size, block_size)], np.float32
            ),
            "the absmax has a floor": np.maximum(block_absmax(x, block_size), np.nanmin(absmax, initial=np.inf)),
        }
    for name, candidate in candidates.items():
        if np.array_equal(candidate, absmax, equal_nan=True):
            return replace(result, cause=name)
    return result


def quantize_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: absmax, exact quotient, neighbouring midpoints, code, entry."""
    x, block_size = case.array("x").single().reshape(-1), case.options["block_size"]
    table = codebook_named(case.options["codebook"])
    absmax = block_absmax(x, block_size)
    codes = quantize_codes(x, absmax, table, block_size)
    element_absmax = spread(absmax, x.size, block_size)
    with np.errstate(invalid="ignore", divide="ignore"):
        quotient = x.astype(np.float64) / element_absmax
    edges = np.concatenate([[-np.inf], table.midpoints, [np.inf]])
    rank = table.position[codes]
    return {
        "x": x,
        "absmax of its block": element_absmax,
        "x/absmax": quotient,
        "midpoint below": edges[rank],
        "midpoint above": edges[rank + 1],
        "code": codes,
        "entry": table.entries[codes],
    }
