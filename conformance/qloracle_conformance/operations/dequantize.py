"""Judging blockwise dequantization, plain and with nested absmax, and the restoring of absmax."""

from dataclasses import replace

import numpy as np

from qloracle.blocks import spread
from qloracle.blockwise import dequantize_codes
from qloracle.formats import Array, to_bits
from qloracle.nested_absmax import NESTED_BLOCK_SIZE, NESTED_CODEBOOK, QuantizedAbsmax, dequantize_absmax
from qloracle.packing import unpack_4bit
from qloracle.tables import codebook_named
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import StageResult, blocked_stage, exactly, failed_stage
from qloracle_conformance.operations.nibbles import unpack_judged
from qloracle_conformance.operations.operation import Outputs, expect, float_stage, integer_stage


def stored_codes(case: Case) -> Array:
    """Return the codes of a case that carries packed or plain data."""
    table = codebook_named(case.options["codebook"])
    size = int(np.prod(case.options["shape"], dtype=np.int64))
    data = case.array("data").items.reshape(-1)
    return unpack_4bit(data, size) if table.code_bits == 4 else data


def block_scales(case: Case) -> Array:
    """Return the absmax of every block, restored first where the case carries nested ones."""
    if "nested_absmax" not in case.inputs:
        return case.array("absmax").items
    return dequantize_absmax(nested_of(case), codebook=case.options.get("nested_codebook", NESTED_CODEBOOK))


def nested_of(case: Case) -> QuantizedAbsmax:
    """Return the quantized absmax of a case."""
    offset = np.float32(case.array("offset").items)
    return QuantizedAbsmax(case.array("absmax_codes").items, case.array("nested_absmax").items, offset)


def judge_dequantize(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the values, after asking whether the nibbles were read in another order."""
    dtype, shape = case.options["dtype"], tuple(case.options["shape"])
    outputs, shaped = judge_shape(outputs, shape)
    values = expect(outputs, 0, "values", dtype, shape)
    table, absmax = codebook_named(case.options["codebook"]), block_scales(case)
    packed = table.code_bits == 4
    if isinstance(values, StageResult):
        return [*([blocked_stage("unpacking")] if packed else []), values, shaped]
    got = values.words().reshape(-1)

    def expected(codes: Array) -> Array:
        words = dequantize_codes(codes, absmax, table, case.options["block_size"], dtype)
        return to_bits(words, dtype).reshape(-1)

    codes = stored_codes(case)
    stages = []
    if packed:
        nan = np.isnan(values.real().reshape(-1))
        unpacked = unpack_judged(
            "unpacking", case.array("data"), codes.size, None, lambda c: (expected(c) == got) | nan
        )
        stages, codes = [unpacked.stage], unpacked.codes
    result = float_stage("values", values, expected(codes).reshape(shape), dtype)
    return [*stages, replace(result, block_size=case.options["block_size"]), shaped]


def judge_shape(outputs: Outputs, shape: tuple[int, ...]) -> tuple[Outputs, StageResult]:
    """Judge the shape alone; values in another shape but of the right number are still judged as values."""
    right = StageResult("shape", np.zeros(1, np.int64), {"exact": exactly(np.zeros(1, np.int64))})
    if not outputs or outputs[0].shape == shape:
        return outputs, right
    got = outputs[0]
    wrong = failed_stage("shape", f"the original had shape {shape}, got {got.shape}")
    if got.items.size != int(np.prod(shape, dtype=np.int64)):
        return outputs, wrong
    return (HostArray(got.items.reshape(shape), got.dtype), *outputs[1:]), wrong


def judge_unpack(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the codes read from packed bytes."""
    size = case.options["size"]
    codes = expect(outputs, 0, "codes", "uint8", (size,))
    if isinstance(codes, StageResult):
        return [codes]
    return [integer_stage("codes", codes, unpack_4bit(case.array("packed").items, size))]


def judge_dequantize_absmax(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the restored absmax."""
    expected = dequantize_absmax(nested_of(case), codebook=case.options.get("codebook", NESTED_CODEBOOK))
    restored = expect(outputs, 0, "absmax", "float32", expected.shape)
    if isinstance(restored, StageResult):
        return [restored]
    return [float_stage("absmax", restored, expected.view(np.uint32), "float32")]


def dequantize_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: code, entry, absmax, float32 product, result."""
    table, codes = codebook_named(case.options["codebook"]), stored_codes(case)
    absmax = spread(block_scales(case), codes.size, case.options["block_size"])
    values = dequantize_codes(codes, block_scales(case), table, case.options["block_size"], "float32")
    result = dequantize_codes(codes, block_scales(case), table, case.options["block_size"], case.options["dtype"])
    return {
        "code": codes,
        "entry": table.entries[codes],
        "absmax of its block": absmax,
        "float32 product": values,
        f"as {case.options['dtype']}": result,
    }


def absmax_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints of restoring absmax: code, entry, nested absmax, product, offset, restored."""
    nested, codebook = nested_of(case), case.options.get("codebook", NESTED_CODEBOOK)
    table = codebook_named(codebook)
    return {
        "code": nested.codes,
        "entry": table.entries[nested.codes],
        "nested absmax": spread(nested.absmax, nested.codes.size, NESTED_BLOCK_SIZE),
        "float32 product": dequantize_codes(nested.codes, nested.absmax, table, NESTED_BLOCK_SIZE, "float32"),
        "offset": np.full(nested.codes.shape, nested.offset),
        "restored": dequantize_absmax(nested, codebook=codebook),
    }
