"""Sequences: drawn from claims alone, run with native arrays, judged by the oracles of every step."""

import json
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.adapters.reference import backend as reference
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Backend, Claim, describe
from qloracle_conformance.engine import Session
from qloracle_conformance.execution import Call, InProcess, Outcome
from qloracle_conformance.explain import explain_witness
from qloracle_conformance.files import FileError
from qloracle_conformance.mutants.matrix import kill
from qloracle_conformance.mutants.mutant import Mutant, backend_of
from qloracle_conformance.mutants.sequence_faults import STARTS, sequence_faults
from qloracle_conformance.plan import Plan, make_plan
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.replay import replayed
from qloracle_conformance.run import judge_case, run_task
from qloracle_conformance.search import search
from qloracle_conformance.sequences.step import MOVES, Step, require_runnable, steps_of
from qloracle_conformance.sequences.walks import SEQUENCES, WALKS
from qloracle_conformance.task import Task, case_at
from qloracle_conformance.verdicts import PropertyResult, fresh_state
from qloracle_conformance.witness import read_witness

REFERENCE = reference()


def with_ops(ops: dict[str, Callable[..., Any]], *operations: str) -> Backend:
    claims = tuple(c for c in REFERENCE.claims if not operations or c.operation in operations)
    return replace(REFERENCE, name="mine", ops={**REFERENCE.ops, **ops}, claims=claims)


def task_of(name: str, backend: Backend = REFERENCE, cases: int = 12) -> Task:
    plan: Plan = make_plan(describe(backend), "default", 0, f"{name}.sequence.*")
    return replace(plan.tasks[0], cases=cases, examples=0)


def broken(results: list[PropertyResult]) -> dict[str, PropertyResult]:
    return {r.stage: r for r in results if r.status != "pass"}


@pytest.mark.parametrize("name", [name.partition(".")[0] for name in SEQUENCES])
def test_the_reference_keeps_every_sequence_and_every_stage_is_reached_in_two(name: str) -> None:
    results = run_task(InProcess(REFERENCE), task_of(name, cases=2))
    assert broken(results) == {}
    assert {r.stage for r in results} == {*SEQUENCES[f"{name}.sequence"].stages, "inputs"}


def test_a_sequence_is_a_pure_function_of_its_index_and_the_seed() -> None:
    task = task_of("nf4")
    first, again, other = case_at(task, 3), case_at(task, 3), case_at(replace(task, seed=1), 3)
    assert json.dumps(first.options) == json.dumps(again.options)
    assert json.dumps(first.options) != json.dumps(other.options)


def test_the_operations_follow_each_other_in_many_orders() -> None:
    follows = set()
    for index in range(12):
        does = [step.do for step in steps_of(case_at(task_of("nf4"), index).options)]
        follows |= set(pairwise(does))
    verbs = [*WALKS["nf4.sequence"].verbs, *MOVES]
    assert len(follows) > len(verbs) ** 2 // 3


def test_results_of_steps_are_given_to_later_ones() -> None:
    linked = set()
    for index in range(12):
        made: dict[str, str] = {}
        for step in steps_of(case_at(task_of("nf4"), index).options):
            linked |= {(made[name], step.do) for name in step.given.values() if name in made}
            made |= dict.fromkeys(step.made, step.do)
    assert {("quantize", "dequantize"), ("quantize", "merge_stored"), ("dequantize", "merge"), ("backward", "train"),
            ("train", "train"), ("nest", "unnest"), ("merge_stored", "forward")} <= linked  # fmt: skip


def test_only_what_is_claimed_is_called() -> None:
    backend = with_ops({}, "nf4.quantize", "nf4.dequantize", "packing.pack")
    task = task_of("nf4", backend, 4)
    called = {step.operation for i in range(4) for step in steps_of(case_at(task, i).options) if step.operation}
    assert called <= {"nf4.quantize", "nf4.dequantize", "packing.pack"}
    assert set(task.operation.stages) == {"quantize", "dequantize", "other", "kept"}
    assert broken(run_task(InProcess(backend), task)) == {}


def test_claimed_types_and_block_sizes_are_kept_to() -> None:
    claims = [replace(c, dtypes=("bfloat16",), out_dtypes=("float16",), block_sizes=(128,), ndims=(1,))
              for c in REFERENCE.claims if c.operation in ("nf4.quantize", "nf4.dequantize")]  # fmt: skip
    backend = replace(REFERENCE, claims=tuple(claims))
    for index in range(6):
        case = case_at(task_of("nf4", backend), index)
        steps = [step for step in steps_of(case.options) if step.operation]
        assert {step.options["block_size"] for step in steps} == {128}
        assert {step.options["dtype"] for step in steps if "dtype" in step.options} <= {"float16"}
        assert all(len(step.options["shape"]) == 1 for step in steps if "shape" in step.options)
        used = [case.inputs[step.given["x"]] for step in steps if step.given.get("x") in case.inputs]
        assert {array.dtype for array in used if array is not None} <= {"bfloat16"}


def test_nothing_is_planned_where_no_operation_of_a_sequence_is_claimed() -> None:
    plan = make_plan(describe(with_ops({}, "bfloat16.encode", "lora.merge")), "default", 0)
    assert [t.operation.name for t in plan.tasks if t.family == "walk"] == ["lora.sequence"]


def test_a_step_is_judged_at_the_level_of_its_own_claim() -> None:
    loose = tuple(replace(c, levels={"absmax": "exact", "packing": "exact", "codes": "tie"})
                  if c.operation == "nf4.quantize" else c for c in REFERENCE.claims)  # fmt: skip

    def quantize(x: HostArray, **options: Any) -> Any:
        data, absmax = OPS["quantize_blockwise"](x, **options)
        return data, host(np.nextafter(absmax.items, np.float32(np.inf)))

    backend = replace(REFERENCE, claims=loose, ops={**REFERENCE.ops, "quantize_blockwise": quantize})
    task = task_of("nf4", backend, 1)
    assert task.claim.levels["quantize"] == "tie"
    found = broken(run_task(InProcess(backend), task))
    assert found["quantize"].tally.finding is not None
    assert "stage absmax" in found["quantize"].tally.finding.cause


@pytest.mark.parametrize("mutant", sequence_faults(), ids=lambda m: m.name)
def test_what_a_backend_keeps_between_calls_is_noticed(mutant: Mutant) -> None:
    found = kill(mutant, 0)
    assert (found.right_stage, found.property.partition(".sequence.")[1]) == (True, ".sequence."), found


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["stale-absmax", "merged-flag", "stored-length", "shared-buffer", "stale-weight"])
def test_such_a_backend_is_right_in_every_call_that_stands_alone(name: str) -> None:
    start = next(s for n, _, s, _, _ in STARTS if n == name)
    for claim in backend_of(start(), name).claims:
        for family in OPERATIONS[claim.operation].families:  # each with nothing kept, as in a run of one property
            executor = InProcess(backend_of(start(), name))
            task = Task(OPERATIONS[claim.operation], family, claim, 6, 0, 0)
            assert broken(run_task(executor, task)) == {}, f"{claim.operation}.{family}"


class Startable(InProcess):
    """A backend that `close` starts anew, as a worker process does, with nothing kept."""

    def __init__(self, start: Callable[[], dict[str, Any]], *operations: str) -> None:
        super().__init__(with_ops(start(), *operations))
        self.start = start

    def close(self) -> None:
        self.backend = with_ops(self.start())


def failing(folder: Path, fault: str, group: str, *operations: str) -> tuple[PropertyResult, Path]:
    """The first broken property of a sequence, reduced, and its witness."""
    executor = Startable(next(start for n, _, start, _, _ in STARTS if n == fault), *operations)
    task = task_of(group, executor.backend)
    plan = make_plan(executor.info, "default", 0, f"{group}.sequence.*")
    session = Session(executor, "mine", "cpu", plan, folder, lambda *_: None)
    found = [r for r in session.execute(task) if r.status in ("fail", "differs")]
    return found[0], Path(found[0].witness)


def test_a_witness_is_reduced_to_the_steps_that_matter_and_replays(tmp_path: Path) -> None:
    start = next(s for n, _, s, _, _ in STARTS if n == "block-size-of-quantize")
    result, path = failing(tmp_path, "block-size-of-quantize", "fp4", "fp4.quantize", "fp4.dequantize")
    content = json.loads(path.read_text(encoding="utf-8"))
    does = [step["do"] for step in content["options"]["steps"]]
    assert does[-1] in ("dequantize", "other")
    assert 2 <= len(does) <= 4, does
    witness = read_witness(path)
    assert replayed(witness, InProcess(with_ops(start()))).status == result.status
    assert replayed(witness, InProcess(REFERENCE)).status == "pass"


def verdicts_on(tmp_path: Path, ops: dict[str, Callable[..., Any]], *operations: str) -> list[PropertyResult]:
    executor = InProcess(with_ops(ops, *operations))
    plan = make_plan(executor.info, "smoke", 0, "nf4.sequence.*")
    session = Session(executor, "mine", "cpu", plan, tmp_path, lambda *_: None)
    return session.execute(plan.tasks[0])


def test_a_fault_that_one_call_alone_shows_is_that_operations_and_blocks_the_sequence(tmp_path: Path) -> None:
    def quantize(x: HostArray, **options: Any) -> Any:
        data, absmax = OPS["quantize_blockwise"](x, **options)
        return host(data.items ^ np.uint8(1)), absmax

    results = verdicts_on(tmp_path, {"quantize_blockwise": quantize}, "nf4.quantize", "nf4.dequantize")
    found = broken(results)
    assert {r.status for r in found.values()} == {"blocked"}
    assert found["quantize"].message == "rests on nf4.quantize, which fails when it is called alone"
    assert list(tmp_path.iterdir()) == []


def test_an_operation_that_always_raises_blocks_the_sequence_too(tmp_path: Path) -> None:
    ops = {"dequantize_blockwise": raising_at_the_end()["dequantize_blockwise"]}
    found = broken(verdicts_on(tmp_path, ops, "nf4.quantize", "nf4.dequantize"))
    assert {r.status for r in found.values()} == {"blocked"}


def test_a_fault_that_only_a_sequence_shows_is_not_blocked_by_a_fault_of_another_operation(tmp_path: Path) -> None:
    def packed(codes: HostArray, *, pad_code: int) -> HostArray:
        return host(np.zeros((codes.items.size + 1) // 2, np.uint8))

    start = next(s for n, _, s, _, _ in STARTS if n == "absmax-as-scratch")
    ops = {**start(), "pack_4bit": packed}
    found = broken(verdicts_on(tmp_path, ops, "nf4.quantize", "nf4.dequantize", "packing.pack"))
    assert found["kept"].status == "differs"


def test_explain_prints_every_step_of_a_witness_and_what_the_reference_makes_of_it(tmp_path: Path) -> None:
    _, path = failing(tmp_path, "shared-buffer", "lora", "lora.merge", "lora.unmerge")
    console = Console(file=StringIO(), width=160, color_system=None)
    explain_witness(console, read_witness(path))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "step 1: " in text
    assert "lora.unmerge(" in text
    assert "changed" in text
    assert "0x" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: o["steps"][0].update(operation="nf4.melt"), "step 1 calls 'nf4.melt', which is no operation"),
        (lambda o: o["steps"][0]["given"].update(x="nothing"), "step 1 uses nothing, which no input and no earlier"),
        (lambda o: o["steps"].append({"do": "load", "names": ["r"]}), "uses r, which no input"),
        (lambda o: o["steps"][0].pop("given"), "no complete witness file: KeyError: 'given'"),
        (lambda o: o.pop("claims"), "no complete witness file: KeyError: 'claims'"),
        (lambda o: o.update(steps=3), "no complete witness file: TypeError"),
    ],
)
def test_a_corrupt_sequence_is_one_message_that_names_file_and_step(
    tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    _, path = failing(tmp_path, "absmax-as-scratch", "nf4", "nf4.quantize", "nf4.dequantize")
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content["options"])
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(FileError, match="is no complete witness file") as caught:
        read_witness(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([Step("load", names=("w",))], "step 1 loads w, not all of which was saved"),
        ([Step("move", names=("w",), layout="diagonal")], "layout of step 1 must be among contiguous"),
        ([Step("drop", names=("w",)), Step("save", names=("w",))], "step 2 uses w"),
    ],
)
def test_a_sequence_that_cannot_be_run_is_refused(steps: list[Step], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        require_runnable(steps, ["w"], [])


def raising_at_the_end() -> dict[str, Callable[..., Any]]:
    """A quantize that is wrong, and a dequantize that raises."""

    def quantize(x: HostArray, **options: Any) -> Any:
        data, absmax = OPS["quantize_blockwise"](x, **options)
        return host(data.items ^ np.uint8(1)), absmax

    def dequantize(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("no kernel")

    return {"quantize_blockwise": quantize, "dequantize_blockwise": dequantize}


def test_a_sequence_that_ends_early_is_an_error_that_names_the_step() -> None:
    backend = with_ops({"dequantize_blockwise": raising_at_the_end()["dequantize_blockwise"]},
                       "nf4.quantize", "nf4.dequantize")  # fmt: skip
    found = broken(run_task(InProcess(backend), task_of("nf4", backend)))
    assert {r.status for r in found.values()} == {"error"}
    assert "(nf4.dequantize): RuntimeError: no kernel" in found["dequantize"].message
    assert found["dequantize"].message.startswith("raised: step ")


def test_what_was_wrong_before_the_end_is_said_besides() -> None:
    backend = with_ops(raising_at_the_end(), "nf4.quantize", "nf4.dequantize")
    task = task_of("nf4", backend)
    state = fresh_state(task)
    for index in range(6):
        judge_case(InProcess(backend), task, case_at(task, index), state)
    assert state.tallies["quantize"].failing


def test_the_state_machine_finds_a_fault_and_shrinks_the_sequence() -> None:
    start = next(s for n, _, s, _, _ in STARTS if n == "merged-flag")

    class Anew(InProcess):
        def run(self, call: Call, meanwhile: Callable[[], None] | None = None) -> Outcome:
            self.backend = with_ops(start())
            return super().run(call, meanwhile)

    backend = with_ops(start(), "lora.merge", "lora.forward")
    task = replace(task_of("lora", backend), cases=0, examples=20)
    state = fresh_state(task)
    search(Anew(backend), task, state)
    failing_tallies = [t for t in state.tallies.values() if t.failing]
    assert failing_tallies
    called = [
        [s["do"] for s in t.case.options["steps"] if s["do"] != "drop"] for t in failing_tallies if t.case is not None
    ]
    smallest = min(called, key=len)
    assert smallest[-2:] == ["merge", "forward"]
    assert len(smallest) <= 3, smallest


def test_the_state_machine_accuses_the_reference_of_nothing_and_counts_what_it_tried() -> None:
    task = replace(task_of("lora"), cases=0, examples=5)
    state = fresh_state(task)
    search(InProcess(REFERENCE), task, state)
    assert state.failure is None
    assert not any(t.failing for t in state.tallies.values())
    assert state.tallies["kept"].cases > 10


def test_a_claim_follows_from_those_of_the_operations() -> None:
    promised = tuple(replace(c, basis="promised", source="here") for c in REFERENCE.claims)
    assert task_of("nf4", replace(REFERENCE, claims=promised)).claim.basis == "promised"
    mixed = (*promised[:-1], *REFERENCE.claims[-1:])
    assert task_of("nf4", replace(REFERENCE, claims=mixed)).claim.basis == "promised"
    assert task_of("nf4").claim.basis == "assumed"
    assert isinstance(task_of("nf4").claim, Claim)


def test_a_fault_of_one_layout_is_the_operations_too_where_the_sequence_moved_an_array_there(tmp_path: Path) -> None:
    def dequantize(data: HostArray, absmax: HostArray, **options: Any) -> Any:
        if data.items.strides != data.items.itemsize * np.ones(1) and data.items.size > 1:
            data = HostArray(np.zeros_like(data.items), data.dtype)
        return OPS["dequantize_blockwise"](data, absmax, **options)

    ops = {"dequantize_blockwise": dequantize}
    executor = InProcess(with_ops(ops, "nf4.quantize", "nf4.dequantize"))
    plan = make_plan(executor.info, "default", 0, "nf4.sequence.*")
    session = Session(executor, "mine", "cpu", plan, tmp_path, lambda *_: None)
    found = broken(session.execute(plan.tasks[0]))
    assert {r.status for r in found.values()} == {"blocked"}, {s: r.message for s, r in found.items()}
