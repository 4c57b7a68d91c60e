"""`qloracle gen` and `qloracle judge`: cases for a program in any language, and the verdict on its answers."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from qloracle_conformance.commands.guard import console, guarded

_Operation = Annotated[str, typer.Argument(help="For example nf4.quantize; `qloracle explain` lists them.")]
_Count = Annotated[int, typer.Option("--count", min=1, help="Cases of each family.")]
_Seed = Annotated[int, typer.Option(min=0, help="Seed of the cases.")]
_Family = Annotated[list[str] | None, typer.Option(help="Only these families of inputs.")]
_Case = Annotated[int | None, typer.Option("--case", min=0, help="Only the case of this number of each family.")]
_Largest = Annotated[int | None, typer.Option(min=1, help="Leave out cases of more elements.")]
_Dtype = Annotated[list[str] | None, typer.Option(help="Float types of inputs that the program takes.")]
_OutDtype = Annotated[list[str] | None, typer.Option(help="Float types of outputs that can be chosen.")]
_BlockSize = Annotated[list[int] | None, typer.Option(help="Block sizes that the program takes.")]
_Ndim = Annotated[list[int] | None, typer.Option(help="Numbers of axes that the main input may have.")]
_NoEmpty = Annotated[bool, typer.Option("--no-empty", help="No arrays without elements.")]
_Feature = Annotated[list[str] | None, typer.Option(help="Optional parts that the program has, as bias.")]
_Option = Annotated[list[str] | None, typer.Option(help="NAME=VALUE that the program takes besides the default.")]
_Rounding = Annotated[list[str] | None, typer.Option(help="NAME=FORMAT: a declared rounding point of sums.")]
_Level = Annotated[str, typer.Option(help="What is claimed: exact, tie or bound; sums are bound anyway.")]

_FORM = (
    "A case is: case ID OPERATION FUNCTION / option NAME KIND VALUE / input NAME TYPE NDIM DIM... and its words in"
    " hexadecimal / end. An answer is: answer ID / output TYPE NDIM DIM... and its words / end; or error REASON"
    " instead of outputs. Words are bit patterns, in row-major order."
)


def gen(
    operation: _Operation,
    count: _Count = 20,
    seed: _Seed = 0,
    family: _Family = None,
    case: _Case = None,
    largest: _Largest = None,
    dtype: _Dtype = None,
    out_dtype: _OutDtype = None,
    block_size: _BlockSize = None,
    ndim: _Ndim = None,
    no_empty: _NoEmpty = False,
    feature: _Feature = None,
    option: _Option = None,
    rounding: _Rounding = None,
) -> None:
    """Write cases of an operation as lines: qloracle gen OP | YOUR_PROGRAM | qloracle judge OP, same options."""
    given = dict(locals())

    def action() -> int:
        from qloracle_conformance.pipe.gen import generate_cases

        return generate_cases(_selection(**given), sys.stdout)

    guarded(action)


def judge(
    operation: _Operation,
    count: _Count = 20,
    seed: _Seed = 0,
    family: _Family = None,
    case: _Case = None,
    largest: _Largest = None,
    dtype: _Dtype = None,
    out_dtype: _OutDtype = None,
    block_size: _BlockSize = None,
    ndim: _Ndim = None,
    no_empty: _NoEmpty = False,
    feature: _Feature = None,
    option: _Option = None,
    rounding: _Rounding = None,
    level: _Level = "exact",
    name: Annotated[str, typer.Option(help="What tables and reports call the program.")] = "program",
    report: Annotated[Path | None, typer.Option(help="Write a report (JSON lines) as `check` does.")] = None,
) -> None:
    """Judge the answers of a program from standard input, stage by stage; tables and exit codes as of `check`."""
    given = {k: v for k, v in locals().items() if k not in ("level", "name", "report")}

    def action() -> int:
        from rich.console import Console

        from qloracle_conformance.pipe.verdict import Program, judge_answers, standard_input

        program = Program(name, standard_input(), options=_words(given))
        return judge_answers(_selection(**given, level=level), program, report, console(), Console(stderr=True))

    guarded(action)


def _selection(**given: Any) -> Any:
    """Return the selection of the common options; what was not given stays as it is by default."""
    from qloracle_conformance.pipe.selection import Selection

    names = {"family": "families", "case": "index"}
    lists = ("dtype", "out_dtype", "ndim", "block_size", "feature", "option", "rounding")
    renamed = {**names, **{name: f"{name}s" for name in lists}}
    empty = not given.pop("no_empty")
    chosen: dict[str, Any] = {
        renamed.get(k, k): tuple(v) if isinstance(v, list) else v for k, v in given.items() if v is not None
    }
    return Selection(**chosen, empty=empty)


def _words(given: dict[str, Any]) -> tuple[str, ...]:
    """Return the options of a run as words of a command line, those that pick cases left out."""
    kept = {k: v for k, v in given.items() if k not in ("operation", "family", "case", "count", "largest")}
    words = [f"--{k.replace('_', '-')} {item}" for k, v in kept.items() if isinstance(v, list) for item in v]
    words += ["--no-empty"] if kept["no_empty"] else []
    return tuple([*words, f"--seed {kept['seed']}"] if kept["seed"] else words)


gen.__doc__ = f"{gen.__doc__}\n\n{_FORM}"
judge.__doc__ = f"{judge.__doc__}\n\n{_FORM}"
