"""Running the command line in a process of its own, as a user does."""

import os
import subprocess
import sys
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

from typer.testing import CliRunner

from qloracle_conformance.cli import app

PROGRAM = (sys.executable, "-c", "from qloracle_conformance.cli import main; main()")
REFERENCE = "qloracle_conformance.adapters.reference:backend"
TORCH = "qloracle_gpu.torch.conformance:backend"
COLOUR_VARIABLES = ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE")


def environment(*first: Path) -> dict[str, str]:
    """The environment of a child process that imports what this process can, and what lies in `first` before that."""
    kept = {name: value for name, value in os.environ.items() if name not in COLOUR_VARIABLES}
    return {**kept, "PYTHONPATH": os.pathsep.join([*map(str, first), *filter(None, sys.path)])}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"exit code {self.code}\n--- standard output\n{self.out}\n--- standard error\n{self.err}"


def qloracle(folder: Path, *arguments: str, first: tuple[Path, ...] = ()) -> Ended:
    """Run the command in `folder`."""
    done = subprocess.run(
        [*PROGRAM, *arguments],
        cwd=folder,
        env=environment(*first),
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def refused(folder: Path, *arguments: str) -> Ended:
    """Run a command that comes to nothing in `folder`, in this process: what does no work needs none of its own."""
    with chdir(folder):
        result = CliRunner().invoke(app, arguments)
    return Ended(result.exit_code, result.stdout, result.stderr)


def write_module(folder: Path, name: str, source: str) -> str:
    """Write a module into `folder` and return how `--backend` names the backend in it."""
    (folder / f"{name}.py").write_text(dedent(source), encoding="utf-8")
    return f"{name}:backend"


def require_one_message(ended: Ended, code: int, text: str) -> None:
    """Require the exit code, and one line on standard error that holds `text`, and no traceback anywhere."""
    lines = [line for line in ended.err.splitlines() if line.strip()]
    assert ended.code == code, f"exit code {code} was expected\n{ended}"
    assert len(lines) == 1, f"one line on standard error was expected\n{ended}"
    assert lines[0].startswith("qloracle: "), f"the message must begin with the program's name\n{ended}"
    assert text in lines[0], f"the message must hold {text!r}\n{ended}"
    assert "Traceback" not in ended.out + ended.err, f"a traceback was printed\n{ended}"
