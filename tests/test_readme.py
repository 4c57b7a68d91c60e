"""What the README shows is what happens: its example runs, and prints what stands below it."""

import re
import runpy
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

TOOL = runpy.run_path(str(Path(__file__).resolve().parent.parent / "tools" / "readme_outputs.py"))
SECONDS = re.compile(r"\d+(\.\d+)? s\b")


@pytest.fixture(scope="module")
def runs() -> dict[str, subprocess.CompletedProcess[str]]:
    found: dict[str, subprocess.CompletedProcess[str]] = TOOL["runs"]()
    return found


def plain(text: str) -> list[str]:
    """The lines of a text, times and runs of blanks aside."""
    return [" ".join(SECONDS.sub("- s", line).split()) for line in text.splitlines()]


def missing_lines(shown: str, printed: str) -> list[str]:
    """The lines of a README block that the output lacks."""
    known = plain(printed)
    return [line for line in plain(shown) if line and line not in known]


@pytest.mark.slow
@pytest.mark.parametrize("mark", ["output: adapter", "output: failure"])
def test_a_command_of_the_readme_fails_and_prints_what_stands_below_it(
    mark: str, runs: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    if mark == "output: failure" and find_spec("torch") is None:
        pytest.skip("NOT RUN: the example changes the torch backend, and torch is not installed here")
    assert runs[mark].returncode == 1, runs[mark].stderr
    shown = TOOL["block"](mark)
    assert len(plain(shown)) > 8, "the block is empty: python tools/readme_outputs.py fills it"
    assert missing_lines(shown, runs[mark].stdout) == [], "python tools/readme_outputs.py makes the block anew"


def test_the_example_backend_fits_in_twenty_lines() -> None:
    assert 0 < len(TOOL["block"]("example: adapter").strip().splitlines()) <= 20


def test_a_line_that_is_not_printed_is_noticed() -> None:
    assert missing_lines("one  line 3.2 s\nanother", "one line 0.1 s") == ["another"]
