"""The kill matrix: which property catches which mutant, after how many cases; and that no right rewrite is accused."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cache
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from threadpoolctl import threadpool_limits

from qloracle_conformance.backend import Claim
from qloracle_conformance.execution import InProcess
from qloracle_conformance.files import write_atomically
from qloracle_conformance.generators.case import Case
from qloracle_conformance.generators.draw import CounterDraw, Option
from qloracle_conformance.generators.linear import WIDE_LENGTHS
from qloracle_conformance.mutants.catalogue import catalogue
from qloracle_conformance.mutants.kills import Kill, as_json, covered, print_matrix
from qloracle_conformance.mutants.mutant import Mutant, Rewrite, backend_of
from qloracle_conformance.mutants.rewrites import rewrites
from qloracle_conformance.operations.operation import with_default_options
from qloracle_conformance.plan import sequence_tasks
from qloracle_conformance.pools import results
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.run import judge_case
from qloracle_conformance.sequences.walks import SEQUENCES
from qloracle_conformance.spec.clauses import clauses
from qloracle_conformance.task import Task
from qloracle_conformance.usage import UsageError
from qloracle_conformance.verdicts import fresh_state

MOST_CASES = 20  # a family, before the mutant counts as survivor of it: the size of the default profile
MOST_WALKS = 12  # of a kind, as in the default profile
REWRITE_CASES = 12


class OneLength(CounterDraw):
    """Draws for a wide lattice of one inner dimension."""

    length = 0

    def choice(self, options: Sequence[Option]) -> Option:
        """Return the fixed length where lengths are the options, else a choice as ever."""
        chosen = super().choice(options)
        return self.length if self.length and tuple(options) == WIDE_LENGTHS else chosen  # type: ignore[return-value]


def tasks_of(claims: Sequence[Claim], prefix: str, seed: int) -> Iterator[Task]:
    """Yield one task for each family of each claimed operation, boundary-seeking families first as they stand."""
    for claim in claims:
        if claim.operation.startswith(prefix):
            operation = OPERATIONS[claim.operation]
            for family in operation.families:
                yield Task(operation, family, claim, MOST_CASES, 0, seed)
    complete = {claim.operation: with_default_options(claim, OPERATIONS[claim.operation]) for claim in claims}
    for name in SEQUENCES:
        if name.startswith(prefix):
            yield from sequence_tasks(name, complete, MOST_WALKS, 0, seed)


def kill(mutant: Mutant, seed: int, length: int = 0) -> Kill:
    """Run the properties that read the changed function until one fails."""
    executor = InProcess(backend_of(mutant.fresh_ops(), mutant.name))
    tried = 0
    for task, index in _in_turn(tasks_of(executor.info.claims, mutant.operations, seed)):
        if length and task.family != "wide_lattice":
            continue
        draw = OneLength(f"{task.operation.name}.{task.family}", index, seed)
        draw.length = length
        tried += 1
        case = task.operation.families[task.family](draw, task.claim)
        stage = _failing_stage(executor, task, case)
        if stage:
            name = f"{task.operation.name}.{stage}.{task.family}"
            clause = task.operation.stages.get(stage, "")
            bound = "" if case.lattice else task.operation.bound_of(stage)
            return Kill(mutant.name, mutant.fault, length, name, clause, bound, tried, stage in mutant.stages)
    return Kill(mutant.name, mutant.fault, length, "", "", "", tried, False)


def _in_turn(tasks: Iterator[Task]) -> Iterator[tuple[Task, int]]:
    """Yield the cases of one operation after the other: the first case of each of its families, the second, and so on.

    What a family sees it mostly sees in its first cases: a mutant is dead long before the slowest family has ended.
    """
    for _, group in groupby(tasks, key=lambda task: task.operation.name):
        members = list(group)
        for index in range(max(task.cases for task in members)):
            yield from ((task, index) for task in members if index < task.cases)


def _failing_stage(executor: InProcess, task: Task, case: Case) -> str:
    state = fresh_state(task)
    judge_case(executor, task, case, state)
    if state.failure is not None:
        return f"error: {state.failure.message}"
    return next((stage for stage, tally in state.tallies.items() if tally.failing), "")


def accused(rewrite: Rewrite, seed: int) -> list[str]:
    """Return the properties that a right rewrite fails: there must be none."""
    executor = InProcess(backend_of(rewrite.ops, rewrite.name, rewrite.levels, rewrite.roundings))
    found = []
    for task in tasks_of(executor.info.claims, "", seed):
        for index in range(min(REWRITE_CASES, task.cases)):
            draw = CounterDraw(f"{task.operation.name}.{task.family}", index, seed)
            case = task.operation.families[task.family](draw, task.claim)
            stage = _failing_stage(executor, task, case)
            if stage:
                found.append(f"{task.operation.name}.{stage}.{task.family} at case {index}")
    return found


def members() -> list[Mutant | Rewrite]:
    """Return what is shipped, in the order of the matrix."""
    return [*catalogue(), *rewrites()]


def run_mutants(
    only: str | None, seed: int, out: Console, progress_to: Console, *, jobs: int = 1, json_path: Path | None = None
) -> int:
    """Print the kill matrix; return 0 if every mutant is caught at the right stage and no rewrite is accused.

    Without a pattern, every clause of the reference must also be covered: a mutant of it must die by a property that
    names it.

    Raises
    ------
    UsageError
        If the pattern names nothing.
    FileError
        If the matrix cannot be written.
    """
    chosen = [member for member in members() if only is None or fnmatchcase(member.name, only)]
    if not chosen:
        raise UsageError(f"no mutant or rewrite matches --only {only}")
    kills: list[Kill] = []
    accusations: dict[str, list[str]] = {}
    with Progress(console=progress_to, transient=True) as progress:
        bar = progress.add_task("mutants", total=len(chosen))
        for member, found in zip(chosen, _results(chosen, seed, jobs), strict=True):
            if isinstance(member, Rewrite):
                accusations[member.name] = [str(f) for f in found]
            else:
                kills += [f for f in found if isinstance(f, Kill)]
            progress.advance(bar)
    uncovered = [] if only else sorted(set(clauses()) - covered(kills))
    if json_path is not None:
        write_atomically(json_path, as_json(kills, accusations, seed))
    return print_matrix(kills, accusations, uncovered, out)


def _results(members: Sequence[Mutant | Rewrite], seed: int, jobs: int) -> Iterator[Sequence[Kill | str]]:
    """Yield the result of each mutant and rewrite in their order, whatever the number of processes."""
    if jobs == 1:
        yield from (_result(member, seed) for member in members)
        return
    yield from results(result_of, [(member.name, isinstance(member, Mutant), seed) for member in members], jobs)


def result_of(name: str, is_mutant: bool, seed: int) -> Sequence[Kill | str]:
    """Return the result of a member by name: functions do not travel to another process."""
    return _result(_shipped(is_mutant)[name], seed)


@cache
def _shipped(mutants: bool) -> dict[str, Mutant | Rewrite]:
    shipped: Sequence[Mutant | Rewrite] = catalogue() if mutants else rewrites()
    return {member.name: member for member in shipped}


def _result(member: Mutant | Rewrite, seed: int) -> Sequence[Kill | str]:
    with threadpool_limits(limits=1):
        if isinstance(member, Rewrite):
            return accused(member, seed)
        return [kill(member, seed, length) for length in (member.lengths or (0,))]
