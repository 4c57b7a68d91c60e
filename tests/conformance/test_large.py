"""Large tensors: windows at every limit, kernels whose index wraps or whose grid ends, memory that does not suffice."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.adapters.reference import backend as reference
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.execution import InProcess
from qloracle_conformance.large.check import LargeJob, judge_large, parse_elements
from qloracle_conformance.large.extent import GRID, windows_of
from qloracle_conformance.large.memory import available, needed
from qloracle_conformance.large.operations import LARGE, PERIOD, block_of, large_case
from qloracle_conformance.registry import properties
from qloracle_conformance.usage import UsageError
from qloracle_conformance.verdicts import PropertyResult

from .claims import CLAIMS
from .commands import REFERENCE, qloracle, require_one_message, write_module

ELEMENTS = (1 << 17) + 64


def judged(
    operation: str, function: Callable[..., Any] | None = None, elements: int = ELEMENTS
) -> dict[str, PropertyResult]:
    changed = {} if function is None else {LARGE_FUNCTIONS[operation]: function}
    backend = replace(reference(), ops={**OPS, **changed})
    job = LargeJob(operation, CLAIMS[operation], large_case(operation, CLAIMS[operation], elements, 0), True)
    return {r.stage: r for r in judge_large(InProcess(backend), job)}


LARGE_FUNCTIONS = {"nf4.quantize": "quantize_blockwise", "nf4.dequantize": "dequantize_blockwise",
                   "packing.pack": "pack_4bit", "packing.unpack": "unpack_4bit"}  # fmt: skip


@pytest.mark.parametrize("operation", LARGE)
def test_the_reference_passes_at_every_stage(operation: str) -> None:
    assert {r.status for r in judged(operation).values()} == {"pass"}


@pytest.mark.slow
@pytest.mark.parametrize("elements", [ELEMENTS - 1, ELEMENTS - 64, 1 << 12])
def test_lengths_that_are_no_multiple_of_a_block_pass_too(elements: int) -> None:
    for operation in LARGE:
        assert {r.status for r in judged(operation, elements=elements).values()} == {"pass"}, operation


def wrapped_quantize(x: HostArray, **options: Any) -> Any:
    """A kernel whose element index has 16 bits: int32 at 2^31, in small."""
    index = np.arange(x.items.size).astype(np.uint16).astype(np.int64)
    return OPS["quantize_blockwise"](HostArray(x.items[index], x.dtype), **options)


def wrapped_codes(x: HostArray, **options: Any) -> Any:
    """A kernel that reads all and writes its bytes by an index of 16 bits."""
    data, absmax = OPS["quantize_blockwise"](x, **options)
    return host(data.items[np.arange(data.items.size).astype(np.uint16)]), absmax


def short_grid(data: HostArray, absmax: HostArray, **options: Any) -> HostArray:
    """A kernel of one block of threads for every block, with no more of them than a grid axis has: 1000 here."""
    restored: HostArray = OPS["dequantize_blockwise"](data, absmax, **options)
    restored.items[1000 * options["block_size"] :] = 0
    return restored


def byte_index(packed: HostArray, *, size: int) -> HostArray:
    """A kernel that addresses bytes with 16 bits."""
    index = np.arange(packed.items.size).astype(np.uint16)
    unpacked: HostArray = OPS["unpack_4bit"](host(packed.items[index]), size=size)
    return unpacked


@pytest.mark.parametrize(
    ("operation", "function", "stage", "elements"),
    [
        ("nf4.quantize", wrapped_codes, "codes", 2 * ELEMENTS),
        ("nf4.quantize", wrapped_quantize, "absmax", ELEMENTS),
        ("nf4.dequantize", short_grid, "values", ELEMENTS),
        ("packing.unpack", byte_index, "codes", 1 << 18),
    ],
)
def test_a_kernel_whose_index_or_grid_ends_early_is_caught_behind_its_end(
    operation: str, function: Callable[..., Any], stage: str, elements: int
) -> None:
    result = judged(operation, function, elements)[stage]
    assert result.status == "differs"
    assert result.tally.finding is not None
    assert "elements " in result.tally.finding.cause
    assert judged(operation, function, 1 << 12)[stage].status == "pass", "below the limit the kernel is right"


def test_a_wrong_length_and_an_exception_are_errors() -> None:
    def shorter(codes: HostArray, *, pad_code: int) -> HostArray:
        packed = OPS["pack_4bit"](codes, pad_code=pad_code)
        return host(packed.items[:-1])

    def refused(codes: HostArray, *, pad_code: int) -> HostArray:
        raise MemoryError("no memory")

    assert "must have shape" in judged("packing.pack", shorter)["packed"].message
    assert judged("packing.pack", refused)["packed"].status == "error"


def test_an_input_that_is_changed_is_noticed() -> None:
    def pack(codes: HostArray, *, pad_code: int) -> HostArray:
        packed: HostArray = OPS["pack_4bit"](codes, pad_code=pad_code)
        codes.items[-1] ^= 1
        return packed

    assert judged("packing.pack", pack)["inputs"].status == "differs"


@pytest.mark.parametrize("elements", [1 << 31, (1 << 31) + 192, (1 << 32) + 1, 1 << 30])
def test_windows_cover_the_ends_and_every_limit_and_are_small(elements: int) -> None:
    windows = windows_of(elements, 128)
    assert windows[0][0] == 0
    assert windows[-1][1] == elements
    assert all(begin % 128 == 0 and begin < end for begin, end in windows)
    assert all(first[1] < second[0] for first, second in pairwise(windows))
    for limit in (1 << 29, 1 << 30, (1 << 31) - 1, 1 << 31, 1 << 32, GRID * 64, GRID * 1024):
        if 0 < limit < elements:
            assert any(begin < limit < end for begin, end in windows), limit
    assert sum(end - begin for begin, end in windows) < 60_000


def test_a_wrapped_index_meets_other_contents() -> None:
    case = large_case("nf4.quantize", CLAIMS["nf4.quantize"], 1 << 31, 0)
    assert case.extent.period == PERIOD * 128
    assert all((1 << k) % case.extent.period for k in range(20, 40))
    assert all((GRID * threads) % case.extent.period for threads in (64, 128, 256, 512, 1024))


def test_the_estimate_counts_what_is_placed_and_what_is_returned() -> None:
    claim = replace(CLAIMS["nf4.quantize"], dtypes=("bfloat16", "float32"))
    case = large_case("nf4.quantize", claim, 1 << 31, 0)
    assert case.bytes_in == 2 << 31
    assert case.bytes_out == (1 << 30) + 4 * (1 << 31) // 64
    assert needed(case) == 2 * (case.bytes_in + case.bytes_out)


def test_the_block_size_is_one_that_is_claimed() -> None:
    assert [block_of(replace(CLAIMS["nf4.quantize"], block_sizes=sizes)) for sizes in ((32, 64), (1, 100), (7,))] == [
        64, 100, 7]  # fmt: skip


def test_free_memory_is_the_smaller_of_machine_and_control_group(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 100 kB\nMemAvailable:   60 kB\n")
    assert available(meminfo, tmp_path) == 60 * 1024
    (tmp_path / "memory.max").write_text("40960\n")
    (tmp_path / "memory.current").write_text("10240\n")
    assert available(meminfo, tmp_path) == 30720
    (tmp_path / "memory.max").write_text("max\n")
    assert available(meminfo, tmp_path) == 60 * 1024
    assert available(tmp_path / "none", tmp_path / "none") is None


@pytest.mark.parametrize(("text", "number"), [("2^31", 1 << 31), ("2**30+64", (1 << 30) + 64), ("5000", 5000)])
def test_numbers_of_elements_are_read(text: str, number: int) -> None:
    assert parse_elements(text) == number


@pytest.mark.parametrize("text", ["2^40", "many", "2^", "-5", "100", "2^3"])
def test_other_numbers_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--elements must be a number such as 2\\^31"):
        parse_elements(text)


def test_large_properties_are_known_and_belong_to_no_ordinary_run() -> None:
    assert {p.operation for p in properties().values() if p.family == "huge"} == set(LARGE)


def test_the_command_prints_an_estimate_first_and_judges(tmp_path: Path) -> None:
    ended = qloracle(tmp_path, "check", "--backend", REFERENCE, "--large", "--elements", "2^17", "--only", "nf4.*")
    assert ended.code == 0, ended
    lines = ended.out.splitlines()
    assert lines[0].startswith("large: 2^17 elements; free: ")
    assert any(line.startswith("nf4.quantize") and "MiB" in line for line in lines)
    assert "8 pass" in ended.out


def test_the_command_refuses_what_does_not_fit(tmp_path: Path) -> None:
    arguments = ("check", "--backend", REFERENCE, "--large", "--elements", "2^31", "--memory", "0.001")
    ended = qloracle(tmp_path, *arguments, "--only", "nf4.*")
    assert "refused: does not fit" in ended.out
    require_one_message(ended, 2, "nothing that was selected fits into memory")


def test_a_wrapped_index_fails_the_command(tmp_path: Path) -> None:
    source = """
        from dataclasses import replace
        import numpy as np
        from qloracle_conformance.adapters.reference import OPS, backend as reference
        from qloracle_conformance.arrays import HostArray

        def quantize(x, **options):
            index = np.arange(x.items.size).astype(np.uint16)
            return OPS["quantize_blockwise"](HostArray(x.items[index], x.dtype), **options)

        def backend(device="cpu"):
            right = reference()
            claims = tuple(c for c in right.claims if c.operation == "nf4.quantize")
            return replace(right, ops={"quantize_blockwise": quantize}, claims=claims)
        """
    name = write_module(tmp_path, "wrapped", source)
    ended = qloracle(tmp_path, "check", "--backend", name, "--large", "--elements", "2^17+64", first=(tmp_path,))
    assert ended.code == 1, ended
    assert "nf4.quantize.absmax.huge: differs" in ended.out.replace("\n", " ")
