"""The engine: tasks are run, failures are reduced and written down, and a fault of the suite itself is no verdict."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.adapters.reference import backend as reference
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.engine import Session, SuiteError, run_session
from qloracle_conformance.execution import InProcess
from qloracle_conformance.files import FileError
from qloracle_conformance.plan import make_plan
from qloracle_conformance.verdicts import PropertyResult


def wrong_values(data: HostArray, absmax: HostArray, **options: Any) -> HostArray:
    """The reference's values, the first of every block off by one ordinal."""
    values = OPS["dequantize_blockwise"](data, absmax, **options)
    words = values.words().copy()
    words.reshape(-1)[:: options["block_size"]] ^= 1
    return HostArray(words.view(values.items.dtype), values.dtype)


def session(folder: Path | None, only: str, stage: str | None = None, **ops: Callable[..., Any]) -> Session:
    base = reference()
    claims = tuple(replace(claim, block_sizes=(64,)) for claim in base.claims)
    executor = InProcess(replace(base, ops={**OPS, **ops}, claims=claims))
    plan = make_plan(executor.info, "smoke", 0, only, stage)
    return Session(executor, "pkg:backend", "cpu", plan, folder, lambda task, results: None)


def executed(made: Session) -> dict[str, PropertyResult]:
    for task in made.plan.tasks:
        made.execute(task)
    return {result.id: result for result in made.results}


def test_every_task_is_run_and_every_selected_property_has_a_verdict() -> None:
    made = session(None, "packing.*")
    ordinary = {name for name in made.plan.properties if not name.endswith(".huge")}  # of `check --large`
    assert set(executed(made)) == ordinary


def test_only_the_selected_stage_is_reported() -> None:
    results = executed(session(None, "nf4.quantize.*.normal", "codes"))
    assert set(results) == {"nf4.quantize.codes.normal"}


def test_each_task_is_announced_with_its_results() -> None:
    seen: list[tuple[str, int]] = []

    def on_task(name: str, lines: Sequence[Mapping[str, Any]]) -> None:
        seen.append((name, len(lines)))

    made = replace(session(None, "packing.pack.*.shapes"), on_task=on_task)
    executed(made)
    assert seen == [("packing.pack.shapes", 2)]


def test_a_failing_case_is_reduced_and_written_down(tmp_path: Path) -> None:
    made = session(tmp_path, "nf4.dequantize.values.table", dequantize_blockwise=wrong_values)
    (result,) = executed(made).values()
    assert result.status == "differs"
    content = json.loads(Path(result.witness).read_text())
    assert content["options"]["shape"] == [64]
    assert content["inputs"]["absmax"]["shape"] == [1]


def test_the_pattern_is_that_of_the_whole_case_and_the_element_that_of_the_reduced_one(tmp_path: Path) -> None:
    def odd_ones_wrong(values: HostArray, *, fmt: str) -> HostArray:
        bits = OPS["encode"](values, fmt=fmt).items.copy()
        bits[1 if bits.size > 1 else 0 :: 2] ^= 1  # alone, an element is wrong too
        return HostArray(bits, fmt)

    made = session(tmp_path, "bfloat16.encode.bits.random", encode=odd_ones_wrong)
    (result,) = executed(made).values()
    finding = result.tally.finding
    assert finding is not None
    assert finding.pattern.startswith("odd elements (low nibbles): 40"), finding.pattern  # a NaN stays a NaN
    assert finding.element == 0
    assert json.loads(Path(result.witness).read_text())["inputs"]["values"]["shape"] == [1]


def test_no_witness_is_written_where_nobody_asked_for_a_folder() -> None:
    made = session(None, "nf4.dequantize.values.table", dequantize_blockwise=wrong_values)
    assert [r.witness for r in executed(made).values()] == [""]


def test_a_call_that_raises_has_a_witness_of_its_case(tmp_path: Path) -> None:
    def raises(codes: HostArray, *, pad_code: int) -> HostArray:
        raise RuntimeError("no kernel")

    results = executed(session(tmp_path, "packing.pack.packed.shapes", pack_4bit=raises))
    (result,) = results.values()
    content = json.loads(Path(result.witness).read_text())
    assert content["finding"] == {"error": "raised: RuntimeError: no kernel"}
    assert "codes" in content["inputs"]


def test_a_layer_on_quantized_weights_is_blocked_where_restoring_them_fails() -> None:
    results = executed(session(None, "qlora.forward.*.ramps", dequantize_blockwise=wrong_values))
    whole, inputs = results["qlora.forward.whole.ramps"], results["qlora.forward.inputs.ramps"]
    assert (whole.status, whole.message) == ("blocked", "rests on nf4.dequantize, which failed")
    assert inputs.status == "pass"


def test_a_run_collects_its_tasks_and_nothing_of_the_user_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "--nonesuch-option")
    monkeypatch.setenv("PYTEST_PLUGINS", "nonesuch_plugin")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conftest.py").write_text("raise RuntimeError('a conftest of the user')\n")
    (tmp_path / "test_of_the_user.py").write_text("def test_nothing():\n    assert False\n")
    made = session(None, "packing.*.shapes")
    run_session(made)
    assert {r.status for r in made.results} == {"pass"}
    assert {r.id for r in made.results} == made.plan.properties


def with_judge(made: Session, judge: Callable[..., Any]) -> Session:
    (task,) = made.plan.tasks
    broken = replace(task, operation=replace(task.operation, judge=judge))
    return replace(made, plan=replace(made.plan, tasks=[broken]))


def test_a_fault_of_the_suite_itself_is_no_verdict_but_an_error_that_names_it() -> None:
    def judge(*arguments: Any) -> Any:
        raise ZeroDivisionError("in an oracle")

    with pytest.raises(SuiteError, match=r"^ZeroDivisionError: in an oracle$"):
        run_session(with_judge(session(None, "packing.pack.packed.shapes"), judge))


def test_a_witness_that_cannot_be_written_is_an_error_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a_file").write_text("")
    made = session(tmp_path / "a_file", "packing.pack.packed.shapes", pack_4bit=lambda codes, *, pad_code: codes)
    with pytest.raises(FileError, match=r"^cannot write "):
        run_session(made)


def test_ctrl_c_in_a_task_ends_the_run_and_is_remembered() -> None:
    def judge(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    made = with_judge(session(None, "packing.pack.packed.shapes"), judge)
    run_session(made)
    assert made.interrupted


def test_a_run_without_tasks_is_over_at_once() -> None:
    made = session(None, "packing.pack")
    made = replace(made, plan=replace(made.plan, tasks=[]))
    run_session(made)
    assert made.results == []
