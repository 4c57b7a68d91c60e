"""The tutorial is what happens: every file of it is written, every command run, every line compared."""

import re
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

TOOL: dict[str, Any] = runpy.run_path(str(Path(__file__).resolve().parent.parent / "tools" / "tutorial.py"))
TEXT: str = TOOL["TUTORIAL"].read_text(encoding="utf-8")
SECONDS = re.compile(r"\d+(\.\d+)? s\b")


def plain(lines: tuple[str, ...]) -> list[str]:
    """Lines, times and runs of blanks aside."""
    return [" ".join(SECONDS.sub("- s", line).split()) for line in lines if line.strip()]


def test_every_command_of_the_tutorial_prints_what_stands_under_it(tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("NOT RUN: the tutorial's last part needs a C compiler")
    for step in TOOL["steps"](TEXT, tmp_path):
        assert plain(step.printed) == plain(step.shown), f"$ {step.command}: `python tools/tutorial.py` writes it anew"


def test_the_adapter_has_twenty_lines() -> None:
    block = next(f["text"] for f in TOOL["FENCE"].finditer(TEXT) if f["file"] == "mine.py")
    assert 0 < len([line for line in block.splitlines() if line.strip()]) <= 20


def test_no_block_of_the_tutorial_is_left_out() -> None:
    assert len(TOOL["FENCE"].findall(TEXT)) == TEXT.count("\n```") / 2
    with pytest.raises(ValueError, match="neither a file= nor commands"):
        list(TOOL["steps"]("```python\nprint(1)\n```\n", Path()))


def test_another_output_is_noticed(tmp_path: Path) -> None:
    (step,) = TOOL["steps"]("```console\n$ echo one 2.5 s\ntwo 0.1 s\n```\n", tmp_path)
    assert (plain(step.shown), plain(step.printed)) == (["two - s"], ["one - s"])
