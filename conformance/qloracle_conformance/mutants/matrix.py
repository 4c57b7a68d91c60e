"""The kill matrix: which property catches which mutant, after how many cases; and that no right rewrite is accused."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from qloracle_conformance.backend import Claim
from qloracle_conformance.execution import InProcess
from qloracle_conformance.generators.case import Case
from qloracle_conformance.generators.draw import CounterDraw, Option
from qloracle_conformance.generators.linear import WIDE_LENGTHS
from qloracle_conformance.mutants.catalogue import catalogue
from qloracle_conformance.mutants.mutant import Mutant, Rewrite, backend_of
from qloracle_conformance.mutants.rewrites import rewrites
from qloracle_conformance.plan import UsageError
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.run import Task, fresh_state, judge_case

MOST_CASES = 20  # a family, before the mutant counts as survivor of it: the size of the default profile
REWRITE_CASES = 12


@dataclass(frozen=True)
class Kill:
    """How a mutant was caught, or that it was not."""

    mutant: str
    length: int  # inner dimension that it was confined to, 0 if to none
    property: str  # "" for a survivor
    stage: str
    cases: int  # that it took
    right_stage: bool


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


def kill(mutant: Mutant, seed: int, length: int = 0) -> Kill:
    """Run the properties that read the changed function until one fails."""
    executor = InProcess(backend_of(mutant.ops, mutant.name))
    tried = 0
    for task in tasks_of(executor.info.claims, mutant.operations, seed):
        if length and task.family != "wide_lattice":
            continue
        generate = task.operation.families[task.family]
        for index in range(task.cases):
            draw = OneLength(f"{task.operation.name}.{task.family}", index, seed)
            draw.length = length
            tried += 1
            stage = _failing_stage(executor, task, generate(draw, task.claim))
            if stage:
                name = f"{task.operation.name}.{stage}.{task.family}"
                return Kill(mutant.name, length, name, stage, tried, stage in mutant.stages)
    return Kill(mutant.name, length, "", "", tried, False)


def _failing_stage(executor: InProcess, task: Task, case: Case) -> str:
    state = fresh_state(task)
    judge_case(executor, task, case, state)
    if state.failure is not None:
        return f"error: {state.failure.message}"
    return next((stage for stage, tally in state.tallies.items() if tally.failing), "")


def accused(rewrite: Rewrite, seed: int) -> list[str]:
    """Return the properties that a right rewrite fails: there must be none."""
    executor = InProcess(backend_of(rewrite.ops, rewrite.name, rewrite.levels))
    found = []
    for task in tasks_of(executor.info.claims, "", seed):
        for index in range(REWRITE_CASES):
            draw = CounterDraw(f"{task.operation.name}.{task.family}", index, seed)
            case = task.operation.families[task.family](draw, task.claim)
            stage = _failing_stage(executor, task, case)
            if stage:
                found.append(f"{task.operation.name}.{stage}.{task.family} at case {index}")
    return found


def run_mutants(only: str | None, seed: int, out: Console, progress_to: Console) -> int:
    """Print the kill matrix and return 0 if every mutant is caught at the right stage and no rewrite is accused.

    Raises
    ------
    UsageError
        If the pattern names nothing.
    """
    wrong = [m for m in catalogue() if only is None or fnmatchcase(m.name, only)]
    right = [r for r in rewrites() if only is None or fnmatchcase(r.name, only)]
    if not wrong and not right:
        raise UsageError(f"no mutant or rewrite matches --only {only}")
    kills, accusations = [], {}
    with Progress(console=progress_to, transient=True) as progress:
        bar = progress.add_task("mutants", total=len(wrong) + len(right))
        for mutant in wrong:
            kills += [kill(mutant, seed, length) for length in (mutant.lengths or (0,))]
            progress.advance(bar)
        for rewrite in right:
            accusations[rewrite.name] = accused(rewrite, seed)
            progress.advance(bar)
    return _print(kills, accusations, {m.name: m.fault for m in wrong}, out)


def _print(kills: list[Kill], accusations: dict[str, list[str]], faults: dict[str, str], out: Console) -> int:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("mutant", "fault", "caught by", "cases"):
        table.add_column(name)
    for k in kills:
        verdict = (
            k.property
            if k.right_stage
            else f"[bold red]{k.property + ': wrong stage' if k.property else 'survived'}[/]"
        )
        at = f" at K = {k.length}" if k.length else ""
        table.add_row(k.mutant, faults[k.mutant] + at, verdict, str(k.cases))
    out.print(table)
    for name, found in accusations.items():
        out.print(
            f"right rewrite {name}: "
            + (f"[bold red]accused by {found[0]}, {len(found)} in all[/]" if found else "not accused")
        )
    missed = [k for k in kills if not k.right_stage]
    blamed = [name for name, found in accusations.items() if found]
    out.print(
        f"{len(kills) - len(missed)} of {len(kills)} caught at the right stage,"
        f" {len(blamed)} of {len(accusations)} rewrites accused"
    )
    return 1 if missed or blamed else 0
