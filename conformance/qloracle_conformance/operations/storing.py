"""Judging what a backend's tables hold, and storage views: bits, never values."""

from dataclasses import replace

import numpy as np

from qloracle.formats import Array
from qloracle.packing import storage_bytes, storage_view
from qloracle.tables import codebook_named
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import StageResult, exactly
from qloracle_conformance.operations.operation import Outputs, expect, float_stage


def judge_entries(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the entries of a codebook, in code order: NaN by class, zeros by sign."""
    expected = codebook_named(case.options["codebook"]).entries
    got = expect(outputs, 0, "entries", "float32", expected.shape)
    return [got if isinstance(got, StageResult) else float_stage("entries", got, expected.view(np.uint32), "float32")]


def judge_midpoints(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the midpoints of a codebook, ascending."""
    expected = codebook_named(case.options["codebook"]).midpoints
    got = expect(outputs, 0, "midpoints", "float64", expected.shape)
    return [got if isinstance(got, StageResult) else float_stage("midpoints", got, expected.view(np.uint64), "float64")]


def judge_stored(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge a storage view: the bits of every item, payloads of NaN included."""
    storage = case.options["storage"]
    expected = storage_view(case.array("packed").items, storage)
    got = expect(outputs, 0, "items", storage, expected.shape)
    return [got if isinstance(got, StageResult) else _same_bits("items", got, host(expected, storage).words())]


def judge_restored(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the bytes of storage items."""
    expected = storage_bytes(case.array("stored").items)
    got = expect(outputs, 0, "bytes", "uint8", expected.shape)
    return [got if isinstance(got, StageResult) else _same_bits("bytes", got, expected)]


def _same_bits(stage: str, got: HostArray, expected: Array) -> StageResult:
    bits = got.words()
    result = StageResult(stage, bits.astype(np.int64), {"exact": exactly(expected.astype(np.int64))}, words=bits)
    width = bits.dtype.itemsize
    swapped = (
        width > 1 and bits.size and np.array_equal(bits.byteswap(), expected) and not np.array_equal(bits, expected)
    )
    return replace(result, dtype=f"uint{8 * width}", cause="the bytes of every item are swapped" if swapped else "")


def table_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints of a table: code, entry, word, position in value order."""
    table = codebook_named(case.options["codebook"])
    return {
        "code": np.arange(table.entries.size),
        "entry": table.entries,
        "word": table.entries.view(np.uint32),
        "position in value order": table.position,
    }


def midpoint_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints of midpoints: the entry below, the entry above, the midpoint."""
    table = codebook_named(case.options["codebook"])
    values = table.entries[table.value_order]
    return {"entry below": values[:-1], "entry above": values[1:], "midpoint": table.midpoints}


def storage_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints of a storage view: its bytes."""
    storing = "packed" in case.inputs
    return {"byte": case.array("packed").items.reshape(-1) if storing else storage_bytes(case.array("stored").items)}
