"""Run the code blocks of docs/tutorial.md in order, in one folder; as a program, write what they print under them."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TUTORIAL = Path(__file__).resolve().parent.parent / "docs" / "tutorial.md"
FENCE = re.compile(r"^```(?P<kind>\w+)(?: file=(?P<file>\S+))?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
SECONDS = 280


@dataclass(frozen=True)
class Step:
    """One command of the tutorial."""

    command: str
    shown: tuple[str, ...]  # the lines under it
    printed: tuple[str, ...]


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a user who has installed the package and works in a folder."""
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    paths = os.pathsep.join([str(folder), *(p for p in sys.path if p)])
    ours = ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "PYTEST_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    return {**kept, "PATH": programs, "PYTHONPATH": paths}


def commands(text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield every command of a block, and the lines that are shown under it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *shown = part.rstrip("\n").split("\n")
        yield command, tuple(line for line in shown if line)


def steps(text: str, folder: Path) -> Iterator[Step]:
    """Write the files and run the commands of a tutorial, in its order."""
    for fence in FENCE.finditer(text):
        if fence["file"]:
            path = folder / fence["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(fence["text"], encoding="utf-8")
            continue
        if fence["kind"] != "console":
            raise ValueError(f"a block of {fence['kind']} has neither a file= nor commands: {fence['text'][:40]!r}")
        for command, shown in commands(fence["text"]):
            done = subprocess.run(
                ["bash", "-c", command], cwd=folder, env=environment(folder), capture_output=True, text=True,
                check=False, timeout=SECONDS,
            )  # fmt: skip
            lines = tuple(line.rstrip() for line in (done.stdout + done.stderr).splitlines() if line.strip())
            yield Step(command, shown, lines)


def main() -> None:
    """Write what every command prints under it."""
    left, written = TUTORIAL.read_text(encoding="utf-8"), ""
    with tempfile.TemporaryDirectory() as folder:
        for step in steps(left, Path(folder)):
            before = "\n".join([f"$ {step.command}", *step.shown, ""])
            head, _, left = left.partition(before)
            written += head + "\n".join([f"$ {step.command}", *step.printed, ""])
    TUTORIAL.write_text(written + left, encoding="utf-8")


if __name__ == "__main__":
    main()
