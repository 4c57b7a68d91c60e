"""Calls with out=: given arrays are written whole, nothing beside them, and claimed by the feature "out" alone."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qloracle_conformance.adapters.reference import OPS, whole
from qloracle_conformance.adapters.reference import backend as reference
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Backend
from qloracle_conformance.execution import InProcess, run_call
from qloracle_conformance.mutants.matrix import kill
from qloracle_conformance.mutants.mutant import Mutant
from qloracle_conformance.mutants.out_faults import out_faults
from qloracle_conformance.out_arrays import PATTERNS, poisoned
from qloracle_conformance.registry import OPERATIONS, properties
from qloracle_conformance.run import run_task
from qloracle_conformance.task import call_of
from qloracle_conformance.verdicts import PropertyResult

from .claims import case_of, task_of

REFERENCE = reference()


def written(function: Callable[..., Any], operation: str = "packing.pack", **changes: Any) -> str:
    """What is wrong with a function that takes out=, on one case of its operation."""
    backend = replace(REFERENCE, ops={**REFERENCE.ops, OPERATIONS[operation].function: function}, **changes)
    call = replace(call_of(case_of(operation, "memory"), OPERATIONS[operation]), out=True)
    outcome = run_call(backend, call)
    assert outcome.failure == ""
    return outcome.out


def packing(write: Callable[[HostArray, HostArray], None]) -> Callable[..., HostArray]:
    def pack(codes: HostArray, *, pad_code: int, out: HostArray | None = None) -> HostArray:
        packed: HostArray = OPS["pack_4bit"](codes, pad_code=pad_code)
        if out is not None:
            write(out, packed)
        return packed

    return pack


def right(out: HostArray, packed: HostArray) -> None:
    out.items[...] = packed.items


def reversed_order(out: HostArray, packed: HostArray) -> None:
    out.items[...] = packed.items[::-1]


def first_left(out: HostArray, packed: HostArray) -> None:
    out.items[1:] = packed.items[1:]


def behind(out: HostArray, packed: HostArray) -> None:
    right(out, packed)
    np.lib.stride_tricks.as_strided(out.items, (packed.items.size + 2,))[-1] = 3


def test_a_function_that_writes_all_and_nothing_else_is_right_whatever_it_returns() -> None:
    assert written(packing(right)) == ""


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (first_left, "1 of 33 elements were not written, the first is 0"),
        (reversed_order, "elements are others than without out=, the first is 0"),
        (behind, "1 items beside it were overwritten, the first is 2 past its end"),
        (lambda out, packed: None, "33 of 33 elements were not written"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(write: Callable[[HostArray, HostArray], None], message: str) -> None:
    assert message in written(packing(write))


def test_a_function_that_does_not_take_out_is_said_to_raise() -> None:
    def pack(codes: HostArray, *, pad_code: int) -> HostArray:
        packed: HostArray = OPS["pack_4bit"](codes, pad_code=pad_code)
        return packed

    assert "with out= it raised TypeError" in written(pack)


def test_what_was_overwritten_beside_is_not_seen_where_a_backend_does_not_show_it() -> None:
    assert written(packing(behind), whole=None) == ""


def test_the_two_patterns_differ_in_every_byte_and_no_value_is_both() -> None:
    assert len(set(PATTERNS)) == 2
    array = host(np.arange(5, dtype=np.float32))
    first, second = (poisoned(array, pattern, 64).buffer.view(np.uint8) for pattern in PATTERNS)
    assert not np.any(first == second)


def test_the_whole_buffer_of_the_reference_is_the_one_that_was_placed() -> None:
    place = poisoned(host(np.zeros((2, 3), np.float32)), 0x5A, 64)
    native = REFERENCE.place(place.buffer, place.dtype, place.shape, place.strides, place.offset)
    assert whole(native).items.tobytes() == place.buffer.tobytes()


def results(operation: str, backend: Backend = REFERENCE, **restricted: Any) -> dict[str, PropertyResult]:
    found = run_task(InProcess(backend), task_of(operation, "memory", cases=3, **restricted))
    return {r.stage: r for r in found}


@pytest.mark.parametrize(
    "operation", ["nf4.quantize", "nf4_double.quantize", "int8_tensor.quantize", "lora.merge_safe"]
)
def test_the_reference_writes_every_given_output(operation: str) -> None:
    assert results(operation)["out"].status == "pass"
    assert results(operation)["out"].tally.cases == 3


def test_without_the_feature_nothing_is_called_with_out_and_nothing_is_reported() -> None:
    assert "out" not in results("packing.pack", features=())


def test_every_operation_with_a_family_memory_has_the_property() -> None:
    with_memory = {name for name, operation in OPERATIONS.items() if "memory" in operation.families}
    assert {p.operation for p in properties().values() if p.stage == "out"} == with_memory


@pytest.mark.parametrize("mutant", out_faults(), ids=lambda m: m.name)
def test_every_fault_of_a_given_output_is_caught_at_its_stage(mutant: Mutant) -> None:
    assert kill(mutant, 0).right_stage


def test_the_out_argument_of_a_library_is_judged_through_its_own_adapter() -> None:
    pytest.importorskip("torch", reason="NOT RUN: needs torch")
    pytest.importorskip("bitsandbytes", reason="NOT RUN: needs bitsandbytes")
    import bitsandbytes.functional as library

    from qloracle_conformance.adapters import torch_arrays
    from qloracle_conformance.adapters.bitsandbytes import backend as bitsandbytes

    right_one = bitsandbytes("cpu")
    ops = {**right_one.ops, "int8_matmul": lambda a, b, out=None: library.int8_linear_matmul(a, b, out=out)}
    claims = tuple(replace(c, features=("out",)) for c in right_one.claims if c.operation == "int8.matmul")
    backend = replace(right_one, ops=ops, claims=claims, whole=torch_arrays.whole)
    task = replace(task_of("int8.matmul", "memory", cases=3), claim=claims[0])
    found = {r.stage: r for r in run_task(InProcess(backend), task)}
    assert (found["acc"].status, found["out"].status) == ("pass", "pass"), found["out"].message

    def one_short(a: Any, b: Any, out: Any = None) -> Any:
        product = library.int8_linear_matmul(a, b)
        if out is not None:
            out.view(-1)[:-1] = product.view(-1)[:-1]
        return product

    broken = replace(backend, ops={**ops, "int8_matmul": one_short})
    assert {r.stage: r.status for r in run_task(InProcess(broken), task)}["out"] in ("fail", "differs")
