"""The search: Hypothesis draws from the same generators, and shrinks what it finds."""

from collections.abc import Sequence
from typing import Any

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from qloracle_conformance.execution import Executor
from qloracle_conformance.generators.draw import Option
from qloracle_conformance.run import judge_case
from qloracle_conformance.sequences.walks import SEQUENCES
from qloracle_conformance.task import Task
from qloracle_conformance.verdicts import TaskState


class HypothesisDraw:
    """Choices made, recorded and shrunk by Hypothesis."""

    def __init__(self, draw: st.DrawFn) -> None:
        """Keep Hypothesis's own draw function."""
        self._draw = draw

    def choice(self, options: Sequence[Option]) -> Option:
        """Return one of the options; shrinks towards the first."""
        return self._draw(st.sampled_from(options))

    def integer(self, low: int, high: int) -> int:
        """Return an integer; shrinks towards `low`."""
        return self._draw(st.integers(low, high))

    def random(self) -> np.random.Generator:
        """Return a generator keyed by a drawn number; shrinks towards key 0."""
        return np.random.Generator(np.random.Philox(key=self._draw(st.integers(0, 2**32 - 1))))


class ClaimBrokenError(AssertionError):
    """A case that Hypothesis found breaks a claim."""


def search(executor: Executor, task: Task, state: TaskState) -> None:
    """Search for a case that breaks a claim, and count every case that was tried.

    The random source is the task's seed; nothing is read from or written to Hypothesis's example database.
    """
    if task.operation.name in SEQUENCES:
        from qloracle_conformance.sequences.machine import search_sequences

        search_sequences(executor, task, state)
        return
    generate = task.operation.families[task.family]

    @st.composite
    def cases(draw: st.DrawFn) -> Any:
        return generate(HypothesisDraw(draw), task.claim)

    # At most one failure a property is looked for beyond what the enumerated cases found already.
    if any(tally.failing for tally in state.tallies.values()):
        return

    @hypothesis.seed(task.seed)
    @settings(
        max_examples=task.examples,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
    )
    @hypothesis.given(cases())
    def attempt(case: Any) -> None:
        if state.failure is not None:
            return  # the backend raised, hung or crashed: said once, not shrunk at a time limit a try
        if not judge_case(executor, task, case, state).kept:
            raise ClaimBrokenError

    try:
        attempt()
    except (ClaimBrokenError, hypothesis.errors.Flaky):
        return
