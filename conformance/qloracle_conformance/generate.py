"""Regenerating what is generated: the locked property ids, the README's tables and the page of results."""

from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from qloracle_conformance.c_header.text import header_text
from qloracle_conformance.files import FileError, read_text, write_atomically
from qloracle_conformance.library_matrix import OWN_REPORTS, gpu_reports, library_matrix, library_reports
from qloracle_conformance.plan import Plan
from qloracle_conformance.reading import Run, read_run
from qloracle_conformance.registry import properties
from qloracle_conformance.results_page import results_page
from qloracle_conformance.speed_tables import backend_speed, reference_speed, sweeps
from qloracle_conformance.table import print_matrices, print_verdicts
from qloracle_conformance.vectors.canonical import canonical_files
from qloracle_conformance.weights import MatrixResult

HEADER = Path("conformance/qloracle_conformance/c_header/qloracle.h")
IDS = Path("conformance/qloracle_conformance/property_ids.txt")
README = Path("README.md")
RESULTS = Path("reports/results.md")
REPORTS = (*OWN_REPORTS, "bitsandbytes-cpu")  # of the page of results
BENCHMARKS = {
    "PyTorch on the CPU": Path("reports/bench-torch-cpu.json"),
    "PyTorch on a GPU": Path("reports/bench-torch-cuda.json"),
    "CuPy on a GPU": Path("reports/bench-cupy-cuda.json"),
}
REFERENCE_SPEED = Path("reports/bench-reference.json")
SWEEPS = [Path(f"reports/sweeps/{name}.json") for name in ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")]
EXCERPT = ("nf4.quantize", "nf4.dequantize", "lora.forward")
_HEAD = "# Ids of properties, locked: an id never changes its meaning and is never used again.\n"


def generate_files(root: Path, check_only: bool, console: Console) -> int:
    """Write the generated files, or say which are out of date, and return the exit code.

    Raises
    ------
    FileError
        If `root` is no checkout of the repository, a report is cut short, or an id would disappear.
    """
    stale = 0
    for path, text in (*_ids(root), *_readme(root), *_shipped(root)):
        if (root / path).exists() and read_text(root / path) == text:
            continue
        stale += 1
        console.print(f"{path} {'is out of date' if check_only else 'written'}")
        if not check_only:
            write_atomically(root / path, text)
    console.print("generated files are up to date" if not stale else f"{stale} generated files")
    return 1 if stale and check_only else 0


def _ids(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield the lock file; ids that were there must stay."""
    known = list(properties())
    if (root / IDS).exists():
        locked = [line for line in read_text(root / IDS).splitlines() if line and not line.startswith("#")]
        missing = [i for i in locked if i not in known]
        if missing:
            raise FileError(f"{IDS} locks ids that no property has any more: {', '.join(missing[:3])}")
    yield IDS, _HEAD + "\n".join(known) + "\n"


def _readme(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield the README with every marked part made from its report, and the page of all results."""
    if not (root / README).exists():
        raise FileError(f"{README} not found below {root.resolve()}: run this in the root of the repository")
    text = read_text(root / README)
    reports = [read_run(root / "reports" / f"{name}.jsonl") for name in REPORTS]
    own, (on_gpu, missing) = reports[: len(OWN_REPORTS)], gpu_reports(root / "reports")
    parts = {
        "conformance": excerpt(own[0]),
        "bench": "\n".join(backend_speed(root / path, where) for where, path in BENCHMARKS.items()),
        "sweeps": sweeps([root / path for path in SWEEPS]),
        "backends": library_matrix([*own, *on_gpu]) + (f"\n{missing}\n" if missing else ""),
        "libraries": library_matrix(library_reports(root / "reports")),
    }
    for name, body in parts.items():
        begin, end = f"<!-- generated: {name} -->", f"<!-- end: {name} -->"
        if begin not in text or end not in text:
            raise FileError(f"{README} lacks the marks {begin} and {end}")
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{body}{end}{rest.partition(end)[2]}"
    yield README, text
    yield RESULTS, results_page([*reports, *on_gpu], missing, reference_speed(root / REFERENCE_SPEED))


def _shipped(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield the C header and the vectors that are part of the package."""
    yield HEADER, header_text()
    yield from canonical_files(root, Console(stderr=True))


def excerpt(run: Run) -> str:
    """Return a part of what the terminal shows of a report: two operations, and the first matrices."""
    console = Console(file=StringIO(), width=118, highlight=False, color_system=None)
    shown = [x for x in run.properties if x["operation"] in EXCERPT and x["family"] != "weights"]
    print_verdicts(console, shown, Plan([], frozenset(), [], []))
    matrices = [_matrix(x) for x in run.matrices[:4]]
    console.print()
    print_matrices(console, matrices)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "```\n" + "\n".join(line.rstrip() for line in text.splitlines()) + "\n```\n"


def _matrix(line: Mapping[str, Any]) -> MatrixResult:
    shape = tuple(line["shape"])
    return MatrixResult(
        line["name"], shape, line["dtype"], line["not_finite"], line["bits_per_weight"], line["sqnr_db"]
    )
