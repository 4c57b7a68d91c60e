"""The search among sequences: a Hypothesis state machine with one rule for each verb, which shrinks what it finds."""

from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.reporting import with_reporter
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from qloracle_conformance.execution import Executor
from qloracle_conformance.run import judge_case
from qloracle_conformance.search import ClaimBrokenError, HypothesisDraw
from qloracle_conformance.sequences.bench import Bench
from qloracle_conformance.sequences.step import MOVES
from qloracle_conformance.sequences.walks import OTHER, Walk, finished, take
from qloracle_conformance.task import Task
from qloracle_conformance.verdicts import TaskState

LONGEST = 25  # rules of an example


class Sequence(RuleBasedStateMachine):
    """A sequence that grows by a rule at a time and is run, whole, when no more rules come."""

    executor: Executor
    task: Task
    state: TaskState
    walk: Walk

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self.bench = Bench(self.task.operation.families[next(iter(self.task.operation.families))].keywords["claims"])  # type: ignore[attr-defined]

    def teardown(self) -> None:
        """Run the sequence and judge all its steps."""
        if not self.bench.steps or self.state.failure is not None:
            return  # the backend raised, hung or crashed: said once, not shrunk at a time limit a try
        if not judge_case(self.executor, self.task, finished(self.bench, self.walk), self.state).kept:
            raise ClaimBrokenError


def machine_of(executor: Executor, task: Task, state: TaskState) -> type[Sequence]:
    """Return the machine of a task: a rule for each verb that is claimed, and for each move."""
    walk: Walk = next(iter(task.operation.families.values())).keywords["walk"]  # type: ignore[attr-defined]
    rules = {what: _rule(what) for what in (*walk.verbs, OTHER, *MOVES)}
    fixed = {"executor": executor, "task": task, "state": state, "walk": walk}
    return type("Sequence", (Sequence,), {**rules, **fixed})


def _rule(what: str) -> Any:
    def act(self: Sequence, data: st.DataObject) -> None:
        take(self.bench, HypothesisDraw(data.draw), self.walk, what)  # type: ignore[arg-type]

    act.__name__ = what
    return rule(data=st.data())(act)


def search_sequences(executor: Executor, task: Task, state: TaskState) -> None:
    """Search for a sequence that breaks a claim, and count every one that was tried.

    The random source is the task's seed; nothing is read from or written to Hypothesis's example database.
    """
    chosen = settings(
        max_examples=task.examples, stateful_step_count=LONGEST, database=None, deadline=None,
        phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
        print_blob=False,
    )  # fmt: skip
    machine = hypothesis.seed(task.seed)(machine_of(executor, task, state))
    try:
        with with_reporter(lambda _: None):
            run_state_machine_as_test(machine, settings=chosen)
    except (ClaimBrokenError, hypothesis.errors.Flaky):
        return
