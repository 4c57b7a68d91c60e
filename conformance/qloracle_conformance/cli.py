"""The command line: every command is a thin layer on a module that does the work.

Exit codes: 0 every claim holds; 1 a claim does not hold; 2 wrong usage, an unusable file or backend, or the suite
itself failed; 130 stopped by Ctrl-C.
"""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from qloracle_conformance.commands.bench import bench
from qloracle_conformance.commands.document import explain
from qloracle_conformance.commands.document import spec as render
from qloracle_conformance.commands.footprint import footprint
from qloracle_conformance.commands.guard import console as _console
from qloracle_conformance.commands.guard import guarded as _guarded
from qloracle_conformance.commands.guard import settings as _settings
from qloracle_conformance.commands.pipe import gen, judge
from qloracle_conformance.commands.reports import compare, export, html, merge, new_adapter
from qloracle_conformance.commands.scripts import witness_script
from qloracle_conformance.commands.sweep import sweep
from qloracle_conformance.commands.vectors import header, vectors

app = typer.Typer(
    help="Judge backends of quantized fine-tuning kernels against an executable specification.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 every claim holds; 1 one does not; 2 wrong usage or the suite failed; 130 stopped by Ctrl-C.",
)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error instead of one line.")] = False,
) -> None:
    """Judge backends of quantized fine-tuning kernels against an executable specification."""
    _settings["debug"] = debug


@app.command()
def check(
    backend: Annotated[str, typer.Option(help="Short name (see `qloracle backends`) or module:attribute.")] = "torch",
    device: Annotated[str, typer.Option(help="Device that the backend runs on, for example cpu or cuda.")] = "cpu",
    only: Annotated[str | None, typer.Option(help="Property ids to run, a shell pattern such as 'nf4.*'.")] = None,
    stage: Annotated[str | None, typer.Option(help="Report this stage alone, for example codes.")] = None,
    profile: Annotated[str, typer.Option(help="Size of the run: smoke, default or thorough.")] = "default",
    spec: Annotated[
        str | None, typer.Option(help="Version of the specification to judge by; another one than this is refused.")
    ] = None,
    explore: Annotated[bool, typer.Option("--explore", help="Search with a new random seed.")] = False,
    seed: Annotated[int | None, typer.Option(help="Seed of the cases; 0 if not given, random with --explore.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="FILE.safetensors or package:NAME: judge its matrices too.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write the report (JSON lines) to this file.")] = None,
    witnesses: Annotated[Path, typer.Option(help="Folder for the files of failing cases.")] = Path("witnesses"),
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that one call of the backend may take.")] = 60.0,
    jobs: Annotated[int, typer.Option("-j", "--jobs", min=1, help="Processes that judge; the report is the same.")] = 1,
    deviations: Annotated[
        Path | None, typer.Option(help="TOML file of known deviations; shipped: the one that comes with the suite.")
    ] = None,
    shard: Annotated[str | None, typer.Option(help="i/n: this machine's part of a run; see `qloracle merge`.")] = None,
    max_time: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds after which no further property is begun (exit code 2).")
    ] = None,
    large: Annotated[
        bool, typer.Option("--large", help="Judge tensors around 2^31 elements instead: their ends, and every limit.")
    ] = False,
    elements: Annotated[str, typer.Option(help="With --large: number of elements, as 2^30 or 2^31+64.")] = "2^31",
    memory: Annotated[
        float | None, typer.Option(min=0.001, help="With --large: GiB that may be used. Not given: what is free.")
    ] = None,
) -> None:
    """Judge a backend and print a table: operation x stage, claimed and attained level, cases, what fails and where."""

    def action() -> int:
        from qloracle_conformance.check import check as run
        from qloracle_conformance.settings import Settings, require_specification

        require_specification(spec)
        chosen = int.from_bytes(os.urandom(4), "little") if explore and seed is None else seed or 0
        settings = Settings(backend, device, only, stage, profile, explore, chosen, weights, report, witnesses, timeout,
                            jobs, shard, max_time, deviations)  # fmt: skip
        if large:
            from qloracle_conformance.large.check import check_large

            return check_large(settings, elements, memory, _console(), Console(stderr=True))
        return run(settings, _console(), Console(stderr=True))

    _guarded(action)


@app.command()
def replay(
    witness: Annotated[Path, typer.Argument(help="A witness file that `check` wrote.")],
    backend: Annotated[str | None, typer.Option(help="Another backend than the one that failed.")] = None,
    device: Annotated[str | None, typer.Option(help="Another device than the recorded one.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that the call may take.")] = 60.0,
) -> None:
    """Run one failing case again in a new process; exit 1 if it still fails."""

    def action() -> int:
        from qloracle_conformance.replay import replay as run

        return run(witness, backend, device, timeout, _console())

    _guarded(action)


@app.command()
def backends() -> None:
    """List the backends that are installed, and what each claims."""

    def action() -> int:
        from qloracle_conformance.listing import list_backends

        list_backends(_console())
        return 0

    _guarded(action)


@app.command()
def mutants(
    only: Annotated[str | None, typer.Option(help="Names of mutants, a shell pattern.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the cases.")] = 0,
    jobs: Annotated[int, typer.Option("-j", "--jobs", min=1, help="Number of processes.")] = 1,
    json: Annotated[Path | None, typer.Option(help="Write the kill matrix to this file.")] = None,
    explore: Annotated[
        bool, typer.Option("--explore", help="Run many seeds; stopped, it goes on where it was.")
    ] = False,
    seeds: Annotated[int, typer.Option(min=1, help="With --explore: how many seeds, from --seed on.")] = 20,
    state: Annotated[Path, typer.Option(help="With --explore: the file that results are kept in.")] = Path(
        "mutants.state.json"
    ),
    resume: Annotated[
        bool | None, typer.Option("--resume/--fresh", help="With --explore: go on from the state file, or begin anew.")
    ] = None,
) -> None:
    """Run the suite against deliberately wrong backends; every one must be caught, at the stage where it is wrong."""

    def action() -> int:
        if explore:
            from qloracle_conformance.mutants.explore import Exploration
            from qloracle_conformance.mutants.explore import explore as run

            asked = Exploration(only, seed, seeds, jobs, state, resume, json)
            return run(asked, _console(), Console(stderr=True))
        from qloracle_conformance.mutants.matrix import run_mutants

        return run_mutants(only, seed, _console(), Console(stderr=True), jobs=jobs, json_path=json)

    _guarded(action)


@app.command()
def generate(
    check_only: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 if a file is out of date.")
    ] = False,
    root: Annotated[Path, typer.Option(help="Root of the repository.")] = Path(),
) -> None:
    """Regenerate what is generated in the repository: property ids, and the README's tables from committed reports."""

    def action() -> int:
        from qloracle_conformance.generate import generate_files

        return generate_files(root, check_only, _console())

    _guarded(action)


app.command()(bench)
app.command()(merge)
app.command()(compare)
app.command()(export)
app.command()(html)
app.command("new-adapter")(new_adapter)
app.command()(explain)
app.command()(render)
app.command()(footprint)
app.command()(sweep)
app.command("witness-script")(witness_script)
app.command()(gen)
app.command()(judge)
app.command()(header)
app.add_typer(vectors, name="vectors")


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
