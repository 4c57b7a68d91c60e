"""Judging format conversions, absmax alone, and packing alone."""

from dataclasses import replace

import numpy as np

from qloracle.blocks import block_absmax
from qloracle.formats import Array, format_named
from qloracle.packing import pack_4bit
from qloracle.rounding import decode, encode
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import StageResult
from qloracle_conformance.operations.operation import Outputs, expect, float_stage, integer_stage


def judge_encode(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge a rounding to a narrower format."""
    values, fmt = case.array("values"), case.options["fmt"]
    got = expect(outputs, 0, "bits", fmt, values.shape)
    if isinstance(got, StageResult):
        return [got]
    result = float_stage("bits", got, encode(values.items, fmt), fmt)
    return [replace(result, distance=tie_distance(values.words(), values.dtype, fmt))]


def tie_distance(words: Array, source: str, target: str) -> Array:
    """Return how many source words away the nearest tie of a conversion lies, for numbers normal in the target."""
    dropped = format_named(source).mantissa_bits - format_named(target).mantissa_bits
    low = (words & ((1 << dropped) - 1)).astype(np.float64)
    return np.abs(low - (1 << (dropped - 1)))


def judge_decode(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge a widening: exact."""
    bits, dtype = case.array("bits"), case.options["dtype"]
    got = expect(outputs, 0, "values", dtype, bits.shape)
    if isinstance(got, StageResult):
        return [got]
    return [float_stage("values", got, encode(bits.real(), dtype), dtype)]


def judge_block_absmax(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the absmax of flat blocks."""
    exact = block_absmax(case.array("x").single(), case.options["block_size"])
    got = expect(outputs, 0, "absmax", "float32", exact.shape)
    if isinstance(got, StageResult):
        return [got]
    return [float_stage("absmax", got, exact.view(np.uint32), "float32")]


def judge_pack(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the packing of codes."""
    exact = pack_4bit(case.array("codes").items, case.options["pad_code"])
    packed = expect(outputs, 0, "packed", "uint8", exact.shape)
    return [packed] if isinstance(packed, StageResult) else [integer_stage("packed", packed, exact)]


def encode_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: value, words before and after, value after."""
    values, fmt = case.array("values"), case.options["fmt"]
    bits = encode(values.items, fmt)
    return {"value": values.real(), "word": values.words(), f"{fmt} word": bits, "rounded value": decode(bits, fmt)}


def decode_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: word and value."""
    return {"word": case.array("bits").words(), "value": case.array("bits").real()}


def absmax_only_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: the absmax."""
    return {"absmax": block_absmax(case.array("x").single(), case.options["block_size"])}


def packing_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: the bytes."""
    name = "codes" if "codes" in case.inputs else "packed"
    return {name: case.array(name).items.reshape(-1)}
