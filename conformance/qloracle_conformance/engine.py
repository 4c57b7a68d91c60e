"""The engine: pytest runs the tasks, one item each; this module is the thin layer between it and the suite."""

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from qloracle_conformance.execution import Executor
from qloracle_conformance.files import FileError
from qloracle_conformance.generators.case import Case
from qloracle_conformance.operations.operation import CONDUCT
from qloracle_conformance.plan import Plan
from qloracle_conformance.reduction import reduced
from qloracle_conformance.run import judge_case, run_task
from qloracle_conformance.sequences.culprit import culprit, fails_alone
from qloracle_conformance.tally import Tally
from qloracle_conformance.task import Task
from qloracle_conformance.verdict_line import property_line
from qloracle_conformance.verdicts import BROKEN, PropertyResult, TaskState, fresh_state, verdicts
from qloracle_conformance.witness import write_witness

OUT_OF_TIME = "not reached within --max-time"


def deadline(max_time: float | None, started: float) -> float:
    """Return the `time.monotonic` at which `max_time` seconds are over since `started`, a `time.perf_counter`."""
    if max_time is None:
        return math.inf
    return time.monotonic() + max_time - (time.perf_counter() - started)


@dataclass
class Session:
    """A run against one backend, and what it has found so far."""

    executor: Executor
    name: str  # as the user named the backend
    device: str
    plan: Plan
    witness_folder: Path | None  # None writes no witnesses
    on_task: Callable[[str, Sequence[Mapping[str, Any]]], None]  # with the lines of a report
    deadline: float = math.inf  # of time.monotonic, after which no task is begun
    results: list[PropertyResult] = field(default_factory=list)
    interrupted: bool = False
    shared_witnesses: dict[tuple[str, str], str] = field(default_factory=dict)
    foundations: dict[str, frozenset[str]] = field(default_factory=dict)  # stages that fail of what others rest on
    broken: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)  # by task: stages that its cases broke

    def execute(self, task: Task) -> list[PropertyResult]:
        """Run one task, write witnesses, and record the verdicts that were asked for."""
        if time.monotonic() > self.deadline:
            found = [
                replace(r, status="not-judged", message=OUT_OF_TIME) for r in verdicts(task, fresh_state(task), 0.0)
            ]
        else:
            found = run_task(self.executor, task, _search() if task.examples else None)
            if not task.examples:
                self.broken[task.operation.name, task.family] = _broken_stages(found)
        kept = [self.finished(task, result) for result in found if result.id in self.plan.properties]
        self.results += kept
        self.on_task(f"{task.operation.name}.{task.family}", [property_line(result) for result in kept])
        return kept

    def finished(self, task: Task, result: PropertyResult) -> PropertyResult:
        """Block what rests on an operation that failed; reduce and write down what failed itself."""
        needed = task.operation.given
        rests = result.status in ("pass", "fail", "differs") and result.stage not in CONDUCT
        if needed and rests and not self._holds(needed):
            return replace(result, status="blocked", message=f"rests on {needed}, which failed")
        case = result.tally.case
        if result.status not in BROKEN or case is None:
            return result
        at_fault = self._fails_alone(task, result, case) if "steps" in case.options else ""
        if at_fault:
            message = f"rests on {at_fault}, which fails when it is called alone"
            return replace(result, status="blocked", message=message, tally=replace(result.tally, finding=None))
        if self.witness_folder is None:
            return result
        if result.status == "error":
            return self._with_witness(task, result, case)
        smallest = self._reduced(task, result, case)
        finding = smallest.finding or result.tally.finding
        tally = replace(result.tally, finding=finding, case=smallest.case)
        result = replace(result, tally=tally, message=finding.line() if finding else result.message)
        return self._with_witness(task, result, smallest.case or case)

    def _with_witness(self, task: Task, result: PropertyResult, case: Case) -> PropertyResult:
        """Write a witness; the stages of a call that gave no outputs share one."""
        call = (task.operation.name, task.family)
        if result.status == "error" and call in self.shared_witnesses:
            return replace(result, witness=self.shared_witnesses[call])
        folder = self.witness_folder or Path()
        path = str(write_witness(folder, self.name, self.device, self.executor.info, task, result, case))
        if result.status == "error":
            self.shared_witnesses[call] = path
        return replace(result, witness=path)

    def _fails_alone(self, task: Task, result: PropertyResult, case: Case) -> str:
        """Return the operation whose own fault a sequence shows, "" where only the sequence shows it."""
        found = culprit(result.message)
        if found is None or found[1] not in self.plan.foundations or self._holds(found[1], whole=True):
            return ""
        return found[1] if fails_alone(self.executor, task, case, found[0]) else ""

    def _holds(self, operation: str, *, whole: bool = False) -> bool:
        """Return whether the values of an operation that others rest on are right; `whole`: all that is judged of it.

        It is run here, whatever else was selected: so a part of a run blocks what the whole run blocks. Only the same
        cases that this run has judged already are not judged again. What was never claimed holds: the reference's
        weight is all there is.
        """
        if operation not in self.foundations:
            stages = [self._broken_stages_of(task) for task in self.plan.foundations[operation]]
            self.foundations[operation] = frozenset[str]().union(*stages)
        broken = self.foundations[operation]
        return not (broken if whole else broken - set(CONDUCT))

    def _broken_stages_of(self, task: Task) -> frozenset[str]:
        """Return the stages at which the cases of a task break a claim."""
        key = (task.operation.name, task.family)
        if key not in self.broken:
            self.broken[key] = _broken_stages(run_task(self.executor, task))
        return self.broken[key]

    def _reduced(self, task: Task, result: PropertyResult, case: Case) -> Tally:
        """Return the tally of the smallest case that fails at the same stage."""
        if result.tally.finding is None:
            return Tally(case=case)

        last = Tally()

        def still_fails(candidate: Case) -> bool:
            nonlocal last
            state = fresh_state(task)
            judge_case(self.executor, task, candidate, state)
            last = state.tallies[result.stage]
            return state.failure is None and last.failing > 0

        smallest = reduced(case, result.tally.finding.element, still_fails, self.executor.close)
        if smallest is case:
            return Tally(case=case, finding=result.tally.finding)
        # The pattern is that of the whole case; the element and its numbers are those of the reduced one, tried last.
        part, whole = last.finding, result.tally.finding
        return Tally(case=smallest, finding=replace(part, pattern=whole.pattern, error=whole.error) if part else whole)


def _broken_stages(found: Sequence[PropertyResult]) -> frozenset[str]:
    return frozenset(result.stage for result in found if result.status in BROKEN)


def _search() -> Callable[[Executor, Task, TaskState], None]:
    from qloracle_conformance.search import search

    return search


class TaskItem(pytest.Item):
    """One task as a pytest item."""

    task: Task
    session_of_suite: Session

    def runtest(self) -> None:
        """Run the task; fail if a claim is broken."""
        broken = [r for r in self.session_of_suite.execute(self.task) if r.status in BROKEN]
        if broken:
            pytest.fail("\n".join(f"{r.id}: {r.status}: {r.message}" for r in broken), pytrace=False)

    def reportinfo(self) -> tuple[str, int, str]:
        """Name the item as the suite does."""
        return "qloracle", 0, self.name


def collect_tasks(collection: pytest.Session, tasks: Sequence[Task], session: Session) -> bool:
    """Make one item of each task."""
    for task in tasks:
        item = TaskItem.from_parent(collection, name=f"{task.operation.name}.{task.family}")
        item.task, item.session_of_suite = task, session
        collection.items.append(item)
    collection.testscollected = len(collection.items)
    collection.config.hook.pytest_collection_finish(session=collection)
    return True


class SuitePlugin:
    """Collects the tasks of a session instead of files, and records how the run ended."""

    def __init__(self, session: Session) -> None:
        """Keep the session."""
        self.session = session
        self.errors: list[BaseException] = []

    def pytest_collection(self, session: pytest.Session) -> bool:
        """Make one item of each task."""
        return collect_tasks(session, self.session.plan.tasks, self.session)

    def pytest_exception_interact(self, call: pytest.CallInfo[None]) -> None:
        """Keep what was no verdict: a fault of the suite itself."""
        if call.excinfo is not None and not call.excinfo.errisinstance(pytest.fail.Exception):
            self.errors.append(call.excinfo.value)

    def pytest_keyboard_interrupt(self) -> None:
        """Remember that the user stopped the run."""
        self.session.interrupted = True


class SuiteError(Exception):
    """The suite itself failed; no verdict can be trusted."""


# Of pytest's own plugins those that look after tests: they cost more time than many a property.
_UNUSED = ("cacheprovider", "terminal", "logging", "warnings", "unraisableexception", "threadexception")
ISOLATED = ("-c", os.devnull, *(part for name in _UNUSED for part in ("-p", f"no:{name}")), "--capture=no")


@contextmanager
def isolated() -> Iterator[None]:
    """Let nothing of the user's environment take part in a run, and leave it as it was."""
    names = ("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "PYTEST_ADDOPTS", "PYTEST_PLUGINS")
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    try:
        yield
    finally:
        del os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def run_session(session: Session) -> None:
    """Run all tasks of a session.

    Raises
    ------
    FileError
        If a witness cannot be written.
    SuiteError
        If something else than a verdict came out of a task.
    """
    if not session.plan.tasks:
        return
    plugin = SuitePlugin(session)
    with isolated(), tempfile.TemporaryDirectory() as folder:
        code = pytest.main([*ISOLATED, "--rootdir", folder, folder], plugins=[plugin])
    if plugin.errors:
        error = plugin.errors[0]
        if isinstance(error, FileError):
            raise error
        raise SuiteError(f"{type(error).__name__}: {error}") from error
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED):
        raise SuiteError(f"pytest ended with {code!r}")
