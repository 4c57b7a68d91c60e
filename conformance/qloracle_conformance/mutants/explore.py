"""The kill matrix under many seeds: every mutant must die under each, and no right rewrite be accused under any."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from qloracle_conformance.files import write_atomically
from qloracle_conformance.mutants import matrix
from qloracle_conformance.mutants.explored import (
    Found,
    load_state,
    matrix_text,
    mutant_rows,
    rewrite_rows,
    save_state,
    suite_digest,
)
from qloracle_conformance.mutants.kills import Kill
from qloracle_conformance.mutants.mutant import Mutant
from qloracle_conformance.pools import results
from qloracle_conformance.usage import UsageError

_BETWEEN_SAVES = 5.0  # seconds
Unit = tuple[str, bool, int]  # a mutant or rewrite, which of both, and a seed


@dataclass(frozen=True)
class Exploration:
    """What the command line asks for."""

    only: str | None
    first: int  # seed
    seeds: int  # how many
    jobs: int
    state: Path
    resume: bool | None
    json: Path | None


class Stopped(KeyboardInterrupt):
    """Ctrl-C, after the state was kept; the message says how to go on."""


def explore(asked: Exploration, out: Console, progress_to: Console) -> int:
    """Run all seeds that no earlier run did, print the matrix, and return 0 if the suite was right about everything.

    Raises
    ------
    UsageError
        If the pattern names nothing, or the state is of another catalogue or suite.
    FileError
        If the state cannot be read or written, or the matrix cannot be written.
    Stopped
        If the user stops it.
    """
    units = _units(asked)
    digest = suite_digest()
    kept = {(f.member, f.is_mutant, f.seed): f for f in load_state(asked.state, digest, resume=asked.resume)}
    missing = [unit for unit in units if unit not in kept]
    if len(missing) < len(units):
        told = f"goes on: {len(units) - len(missing)} of {len(units)} results were kept in {asked.state}"
        progress_to.print(told, markup=False, soft_wrap=True)
    try:
        _run(asked, missing, kept, digest, progress_to)
    except KeyboardInterrupt:
        done = sum(unit in kept for unit in units)
        how = "the same command without --fresh" if asked.resume is False else "the same command"
        raise Stopped(f"stopped; {done} of {len(units)} results kept in {asked.state}; {how} goes on") from None
    found = [kept[unit] for unit in units]
    if asked.json is not None:
        write_atomically(asked.json, matrix_text(found, range(asked.first, asked.first + asked.seeds)))
    return print_explored(found, asked.seeds, out)


def _units(asked: Exploration) -> list[Unit]:
    """Return every member and seed in the order of the matrix: members as they are shipped, each with its seeds."""
    shipped = [(m.name, isinstance(m, Mutant)) for m in matrix.members()]
    named = [pair for pair in shipped if asked.only is None or fnmatchcase(pair[0], asked.only)]
    if not named:
        raise UsageError(f"no mutant or rewrite matches --only {asked.only}")
    return [(name, kind, seed) for name, kind in named for seed in range(asked.first, asked.first + asked.seeds)]


def _run(
    asked: Exploration, missing: Sequence[Unit], kept: dict[Unit, Found], digest: str, progress_to: Console
) -> None:
    """Fill `kept`, one seed after the other, saving it now and then and at the end, however that comes."""
    ordered = sorted(missing, key=lambda unit: unit[2])
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    saved = time.monotonic()
    with Progress(*columns, console=progress_to, transient=True) as progress:
        bar, wrong = progress.add_task("0 misjudged", total=len(ordered)), 0
        try:
            for found in results(result_of, [(unit,) for unit in ordered], asked.jobs, in_order=False):
                kept[found.member, found.is_mutant, found.seed] = found
                wrong += not found.good
                progress.update(bar, advance=1, description=f"seed {found.seed}, {wrong} misjudged")
                if time.monotonic() - saved > _BETWEEN_SAVES:
                    save_state(asked.state, digest, list(kept.values()))
                    saved = time.monotonic()
        finally:
            if ordered:
                save_state(asked.state, digest, list(kept.values()))


def result_of(unit: Unit) -> Found:
    """Return what a seed finds about a mutant or rewrite: the same in every process, whatever ran there before."""
    name, is_mutant, seed = unit
    found = matrix.result_of(name, is_mutant, seed)
    kills = tuple(f for f in found if isinstance(f, Kill))
    return Found(name, is_mutant, seed, kills, tuple(f for f in found if isinstance(f, str)))


def print_explored(found: Sequence[Found], seeds: int, out: Console) -> int:
    """Print the matrix and its summary; return 0 if there is nothing to complain about."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("mutant", "fault", "seeds", "caught by", "cases"):
        table.add_column(name)
    rows = mutant_rows(found)
    for row in rows:
        cases = [count for by in row["by"].values() for count in by["cases"].values()]
        most = sorted(row["by"], key=lambda name: -len(row["by"][name]["cases"]))
        more = f" and {len(most) - 1} more" if len(most) > 1 else ""
        by = f"{most[0]}{more}" if most else "[bold red]none[/]"
        count = f"{len(cases)} of {seeds}"
        at = f" at K = {row['length']}" if row["length"] else ""
        spread = f"{min(cases)} to {max(cases)}" if cases else "-"
        table.add_row(row["mutant"], escape(row["fault"] + at), count if not row["missed"] else f"[bold red]{count}[/]",
                      by, spread)  # fmt: skip
    out.print(table)
    missed = [row for row in rows if row["missed"]]
    for row in missed:
        for miss in row["missed"]:
            how = f"wrong stage {miss['property']}" if miss["property"] else f"survived {miss['cases']} cases"
            out.print(f"[bold red]{row['mutant']} under seed {miss['seed']}: {escape(how)}[/]")
    judged = rewrite_rows(found)
    accused = [row for row in judged if row["accused"]]
    for row in accused:
        for seed, names in row["accused"].items():
            out.print(f"[bold red]right rewrite {row['rewrite']} under seed {seed}: accused by {escape(names[0])}[/]")
    out.print(
        f"{len(rows) - len(missed)} of {len(rows)} caught at the right stage under {seeds} of {seeds} seeds,"
        f" {len(accused)} of {len(judged)} rewrites accused"
    )
    return 1 if missed or accused else 0
