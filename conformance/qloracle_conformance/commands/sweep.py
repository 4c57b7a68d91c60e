"""`qloracle sweep`: a conversion against a second opinion, over every float32 number."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from qloracle.rounding import OVERFLOWS, ROUNDINGS
from qloracle_conformance.commands.guard import console, guarded

_ROUNDINGS = ", ".join(name for name in ROUNDINGS if name != "stochastic")


def sweep(
    to: Annotated[str, typer.Option(help="Target format, for example bfloat16 or float8_e4m3fn.")],
    against: Annotated[
        str, typer.Option(help="Library ml_dtypes, numpy, torch or gfloat, a backend, or module:attribute.")
    ],
    rounding: Annotated[str, typer.Option(help=f"Rounding of both sides: {_ROUNDINGS}.")] = "ties_to_even",
    overflow: Annotated[
        str | None, typer.Option(help=f"{' or '.join(OVERFLOWS)}. Not given: what the other side does.")
    ] = None,
    nan: Annotated[
        str | None, typer.Option(help="What NaN becomes where the format has none: zero or largest.")
    ] = None,
    words: Annotated[str | None, typer.Option(help="FIRST:LAST, float32 words. Not given: all 2^32.")] = None,
    processes: Annotated[int | None, typer.Option("-j", min=1, help="Processes. Not given: one a core.")] = None,
    resume: Annotated[
        bool | None, typer.Option("--resume/--fresh", help="Go on from the state file, or begin anew.")
    ] = None,
    state: Annotated[Path | None, typer.Option(help="State file; sweep-FORMAT-OTHER.state.json if not given.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write what was found to this file, as JSON.")] = None,
) -> None:
    """Compare a conversion of the reference with another one on all float32 inputs; exit 1 if any answer differs.

    Every NaN equals every NaN; all else must agree bit for bit. Stopped, it goes on where it was.
    """

    def action() -> int:
        from qloracle_conformance.sweep.run import Settings
        from qloracle_conformance.sweep.run import sweep as run

        settings = Settings(to, against, rounding, overflow, nan, words, processes, resume, state, report)
        return run(settings, console(), Console(stderr=True))

    guarded(action)
