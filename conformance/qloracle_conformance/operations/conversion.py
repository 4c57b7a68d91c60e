"""Judging format conversions, absmax alone, and packing alone."""

from dataclasses import replace

import numpy as np

from qloracle.blocks import block_absmax
from qloracle.formats import FORMATS, Array, format_named
from qloracle.packing import pack_4bit
from qloracle.rounding import decode, encode
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import StageResult, exactly
from qloracle_conformance.operations.operation import Outputs, expect, float_stage, integer_stage

NO_STAGE = "none"  # a case that only calls: what it would show is not claimed


def encoded(case: Case) -> Array:
    """Return the words that the rule gives for the inputs and options of a case."""
    values, random = case.array("values"), case.inputs.get("random_bits")
    options = {name: value for name, value in case.options.items() if name != "fmt"}
    return encode(
        values.items, case.options["fmt"], source=values.dtype if values.is_float else None,
        random_bits=None if random is None else random.items, **options,
    )  # fmt: skip


def judge_encode(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge a rounding to a format, at the stage that the case was made for."""
    values, fmt, stage = case.array("values"), case.options["fmt"], case.term or "bits"
    if stage == NO_STAGE:
        return []
    got = expect(outputs, 0, stage, fmt, values.shape)
    if isinstance(got, StageResult):
        return [got]
    expected = encoded(case)
    if "nan" in case.options:
        return [_every_bit(stage, got, expected)]
    result = float_stage(stage, got, expected, fmt)
    return [replace(result, distance=tie_distance(values.words(), values.dtype, fmt))]


def _every_bit(stage: str, got: HostArray, expected: Array) -> StageResult:
    """Judge words of which the claim fixes the bits of NaN too."""
    words, width = got.words(), 8 * got.words().dtype.itemsize
    return StageResult(
        stage=stage,
        got=words.astype(np.uint64).view(np.int64),
        allowed={"exact": exactly(expected.astype(np.uint64).view(np.int64))},
        words=words,
        dtype=f"uint{width}",
        row_length=got.shape[-1] if got.shape else 0,
    )


def tie_distance(words: Array, source: str, target: str) -> Array | None:
    """Return how many source words away the nearest tie of a conversion lies, for numbers normal in the target."""
    if source not in FORMATS or format_named(source).mantissa_bits <= format_named(target).mantissa_bits:
        return None
    dropped = format_named(source).mantissa_bits - format_named(target).mantissa_bits
    low = (words & words.dtype.type((1 << dropped) - 1)).astype(np.float64)
    distance: Array = np.abs(low - (1 << (dropped - 1)))
    return distance


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
    bits = encoded(case)
    random = case.inputs.get("random_bits")
    drawn = {} if random is None else {"random bits": random.items}
    return {
        "value": values.real(),
        "word": values.words(),
        **drawn,
        f"{fmt} word": bits,
        "rounded value": decode(bits, fmt),
    }


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
