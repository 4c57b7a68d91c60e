"""How every command runs: where it prints, and what becomes of an error."""

import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

import typer
from rich.console import Console

from qloracle.errors import QloracleError

settings = {"debug": False}


def console() -> Console:
    """Return the console of standard output."""
    # A pipe or a log has no width of its own; tables need room to keep one row on one line.
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False)


def fail(message: str, code: int = 2) -> NoReturn:
    """End the program with one line on standard error."""
    if settings["debug"]:
        traceback.print_exc()
    sys.stderr.write(f"qloracle: {' '.join(message.split())}\n")
    raise typer.Exit(code)


def guarded(action: Callable[[], int]) -> None:
    """Run a command's action; every expected error is one line on standard error and the right exit code."""
    try:
        code = action()
    except KeyboardInterrupt as error:
        fail(str(error) or "stopped by Ctrl-C; a report lacks its footer, which marks it as cut short", 130)
    except ModuleNotFoundError as error:
        fail(f"this command needs the module {error.name!r}: pip install 'qloracle[conformance]'")
    except QloracleError as error:
        fail(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(141) from None  # as a shell reports a program that SIGPIPE ended: no verdict
    except Exception as error:  # noqa: BLE001  # the last line of defence: one line instead of a traceback
        fail(f"the suite itself failed: {type(error).__name__}: {error} (--debug shows where)")
    raise typer.Exit(code)
