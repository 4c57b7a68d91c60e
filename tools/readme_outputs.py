"""Fill the README's output blocks with what the commands above them print; `tests/test_readme.py` compares."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"

# The fault of the section "Read a failure".
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
    inside = README.read_text(encoding="utf-8").partition(f"<!-- {mark} -->")[2].partition("<!-- end:")[0]
    return inside.partition("```")[2].partition("\n")[2].partition("```")[0]


def check(module: str, source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `qloracle check` on a backend whose module is given as text."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"{module}.py").write_text(source, encoding="utf-8")
        paths = os.pathsep.join([folder, *(p for p in sys.path if p)])
        command = [sys.executable, "-c", "from qloracle_conformance.cli import main; main()", "check"]
        return subprocess.run(
            [*command, "--backend", f"{module}:backend", *arguments],
            cwd=folder, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False,
        )  # fmt: skip


def runs() -> dict[str, subprocess.CompletedProcess[str]]:
    """Return what the commands of both output blocks printed, by mark."""
    return {
        "output: adapter": check("mymodule", block("example: adapter")),
        "output: failure": check("swapped", SWAPPED, "--only", "nf4.quantize"),
    }


def main() -> None:
    """Write the blocks; a long list of unclaimed operations is left out."""
    text = README.read_text(encoding="utf-8")
    for mark, run in runs().items():
        begin, end = f"<!-- {mark} -->", f"<!-- end: {mark.partition(': ')[2]} -->"
        head, _, tail = run.stdout.partition("not claimed: ")
        shown = head + tail.partition("\n\n")[2] if tail and "\n\n" in tail else run.stdout
        lines = "\n".join(line.rstrip() for line in shown.splitlines())
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n```\n{lines}\n```\n{end}{rest.partition(end)[2]}"
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
