"""Operations on codebooks: tables and storage judged by bits, ties that tell one rounding from two, nested options."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qloracle.blocks import spread
from qloracle.formats import format_named
from qloracle.tables import CODEBOOKS
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.execution import InProcess
from qloracle_conformance.judge import StageResult
from qloracle_conformance.mutants.mutant import backend_of
from qloracle_conformance.operations.dequantize import stored_codes
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.run import run_task

from .claims import CLAIMS, case_of, cases_of, task_of

NESTED = [
    "absmax.quantize",
    "absmax.dequantize",
    *(f"{book}_double.{verb}quantize" for book in ("nf4", "fp4") for verb in ("", "de")),
]


def judged(operation: str, family: str, function: Callable[..., Any], index: int = 0) -> dict[str, StageResult]:
    """What the oracle says about a function's outputs for one case."""
    case = case_of(operation, family, index)
    result = function(**case.inputs, **case.options)
    outputs = result if isinstance(result, tuple) else (result,)
    return {s.stage: s for s in OPERATIONS[operation].judge(case, outputs, CLAIMS[operation])}


@pytest.mark.parametrize("name", CODEBOOKS)
def test_one_changed_bit_of_any_entry_fails_the_table(name: str) -> None:
    entries = CODEBOOKS[name].entries
    for code in range(entries.size):
        words = entries.view(np.uint32).copy()
        words[code] ^= 1 if not np.isnan(entries[code]) else 0x7F800000
        table = host(words.view(np.float32))
        (result,) = judged(f"{name}.entries", "table", lambda codebook, table=table: table).values()
        assert np.flatnonzero(result.failing("exact")).tolist() == [code], f"{name}, code {code}: not noticed"


def test_any_nan_stands_for_a_code_that_is_never_written() -> None:
    words = CODEBOOKS["float8"].entries.view(np.uint32).copy()
    words[[0x7F, 0xFF]] = 0xFFC00001, 0x7F800001
    (result,) = judged("float8.entries", "table", lambda codebook: host(words.view(np.float32))).values()
    assert not result.failing("exact").any()


def test_a_table_of_another_length_fails_as_a_whole() -> None:
    (result,) = judged("fp4.entries", "table", lambda codebook: host(np.zeros(256, np.float32))).values()
    assert result.problem == "output 0 must have shape (16,), got (256,)"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", CODEBOOKS)
def test_most_blocks_of_the_ties_have_a_product_halfway_between_two_numbers(name: str, dtype: str) -> None:
    dropped = 23 - format_named(dtype).mantissa_bits
    ties = total = 0
    for case in cases_of(f"{name}.dequantize", "ties", 3, out_dtypes=(dtype,), block_sizes=(2,)):
        entries = CODEBOOKS[name].entries[stored_codes(case)]
        with np.errstate(invalid="ignore"):
            product = entries * spread(case.array("absmax").items, entries.size, 2)
        low = product[::2].view(np.uint32) & ((1 << dropped) - 1)
        usable = np.isfinite(entries[::2]) & (entries[::2] != 0)
        ties += int(np.sum(low[usable] == 1 << (dropped - 1)))
        total += int(np.sum(usable))
    assert ties > total // 2 > 100, f"{name} to {dtype}: {ties} ties in {total} blocks"


@pytest.mark.parametrize("storage", ["float16", "bfloat16", "float32"])
def test_swapped_bytes_of_items_are_named(storage: str) -> None:
    case = case_of("packing.store", "shapes", 1, options={"storage": (storage,)})
    words = OPS["storage_view"](**case.inputs, **case.options).words()
    claim = CLAIMS["packing.store"]
    (result,) = OPERATIONS["packing.store"].judge(case, (host(words.byteswap(), storage),), claim)
    assert result.failing("exact").any(), "random bytes that read the same both ways"
    assert result.cause == "the bytes of every item are swapped"


def test_a_payload_of_a_stored_nan_is_judged() -> None:
    def quieted(packed: HostArray, *, storage: str) -> HostArray:
        items = OPS["storage_view"](packed, storage=storage)
        if storage != "bfloat16":
            return items  # type: ignore[no-any-return]
        words = items.words()
        return host(np.where((words & 0x7FFF) > 0x7F80, words | 0x40, words), storage)

    executor = InProcess(backend_of({"storage_view": quieted}, "quieted"))
    task = task_of("packing.store", "specials", cases=6, options={"storage": ("bfloat16",)})
    assert {r.stage: r.status for r in run_task(executor, task)}["items"] != "pass"


@pytest.mark.parametrize("operation", NESTED)
def test_a_claim_that_names_no_nested_codebook_gets_the_dynamic_map_alone(operation: str) -> None:
    option = next(o for o in ("codebook", "nested_codebook") if o in OPERATIONS[operation].options)
    families = OPERATIONS[operation].families
    default: dict[str, tuple[object, ...]] = {option: OPERATIONS[operation].options[option][:1]}
    plain = {case_of(operation, f, i, options=default).options.get(option) for f in families for i in range(4)}
    assert plain <= {"dynamic_signed", None}, f"{operation} draws {plain}"
    every = {case_of(operation, f, i).options.get(option) for f in families for i in range(4)}
    assert {"dynamic_signed", "nf4"} <= every, f"{operation} draws {every} under a claim of both"


def test_the_code_of_nan_is_wrong_at_every_level_and_the_second_zero_at_none() -> None:
    def quantize(x: HostArray, *, codebook: str, block_size: int) -> tuple[HostArray, HostArray]:
        data, absmax = OPS["quantize_blockwise"](x, codebook=codebook, block_size=block_size)
        codes = np.where(data.items == 0, np.uint8(0x80), data.items)
        return host(np.where(codes == 0x7E, np.uint8(0x7F), codes)), absmax

    result = judged("float8.quantize", "specials", quantize)["codes"]
    words = result.words
    assert words is not None
    assert (words == 0x80).any(), "no zero was quantized"
    assert (words == 0x7F).any(), "no element at the largest entry was quantized"
    for level in ("exact", "tie"):
        assert result.failing(level).tolist() == (words == 0x7F).tolist(), f"at level {level}"


def test_an_nf4_code_beyond_15_of_nested_absmax_is_a_finding_and_no_crash() -> None:
    claim: Claim = CLAIMS["absmax.quantize"]
    case = next(c for c in cases_of("absmax.quantize", "tails", 8) if c.options["codebook"] == "nf4")
    codes, nested, offset = OPS["quantize_absmax"](**case.inputs, **case.options)
    wrong = host(np.full_like(codes.items, 200))
    results = OPERATIONS["absmax.quantize"].judge(case, (wrong, nested, offset), claim)
    assert results[-1].problem == "codes must be 0 to 15, got 200"
