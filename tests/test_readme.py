"""What the README shows is what happens: its example runs, and prints what stands below it."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
SECONDS = re.compile(r"\d+(\.\d+)? s\b")

SWAPPED = """
from dataclasses import replace
import qloracle_gpu.torch as q
from qloracle_gpu.torch.conformance import backend as right_backend

def quantize_blockwise(x, **options):
    quantized = q.quantize_blockwise(x, **options)
    data = quantized.data
    if options["codebook"] == "nf4":
        data = (data << 4) | (data >> 4)
    return data, quantized.absmax

def backend(device):
    right = right_backend(device)
    return replace(right, ops={**right.ops, "quantize_blockwise": quantize_blockwise})
"""


def block(mark: str) -> str:
    """Return the fenced text between two marks of the README."""
    inside = README.partition(f"<!-- {mark} -->")[2].partition("<!-- end:")[0]
    return inside.partition("```")[2].partition("\n")[2].partition("```")[0]


def check(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `qloracle check` in a folder that holds a backend."""
    command = [sys.executable, "-c", "from qloracle_conformance.cli import main; main()", "check", *arguments]
    paths = os.pathsep.join([str(folder), *(p for p in sys.path if p)])
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def missing_lines(shown: str, printed: str) -> list[str]:
    """Return the lines of a README block that the output lacks, times and runs of blanks aside."""

    def plain(text: str) -> list[str]:
        return [" ".join(SECONDS.sub("- s", line).split()) for line in text.splitlines()]

    return [line for line in plain(shown) if line and line not in plain(printed)]


def test_the_example_backend_runs_and_prints_what_the_readme_shows(tmp_path: Path) -> None:
    (tmp_path / "mymodule.py").write_text(block("example: adapter"))
    result = check(tmp_path, "--backend", "mymodule:backend")
    assert result.returncode == 1, result.stderr
    assert missing_lines(block("output: adapter"), result.stdout) == []


def test_the_example_backend_fits_in_twenty_lines() -> None:
    assert 0 < len(block("example: adapter").strip().splitlines()) <= 20


def test_a_swapped_nibble_is_reported_as_the_readme_shows(tmp_path: Path) -> None:
    (tmp_path / "swapped.py").write_text(SWAPPED)
    result = check(tmp_path, "--backend", "swapped:backend", "--only", "nf4.quantize")
    assert result.returncode == 1, result.stderr
    assert missing_lines(block("output: failure"), result.stdout) == []


def test_a_line_that_is_not_printed_is_noticed() -> None:
    assert missing_lines("one  line 3.2 s\nanother", "one line 0.1 s") == ["another"]
