"""The matrix of verdicts over backends: groups of operations by library, statuses only."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from qloracle_conformance.operations.operation import CONDUCT
from qloracle_conformance.reading import Run, read_run
from qloracle_conformance.registry import MODULES
from qloracle_conformance.summary import ORDER
from qloracle_conformance.verdicts import BROKEN

# Reports of the backends of this project, which have a matrix of their own.
OWN_REPORTS = ("torch-cpu", "torch-affine-cpu", "torch-layers-cpu", "torch-adamw-cpu", "cupy-emulated")
# Those of them on a GPU, where one was at hand; `make gpu` makes them.
GPU_REPORTS = ("torch-cuda", "torch-affine-cuda", "torch-layers-cuda", "torch-adamw-cuda", "cupy-cuda")
GROUPS = {
    "conversions": "conversions between formats",
    "packing": "packing",
    "tables": "codebooks",
    "blockwise": "blockwise quantization",
    "double": "double quantization",
    "int8": "INT8",
    "affine": "affine quantization",
    "int8_linear": "INT8 and affine layers, LLM.int8()",
    "layers": "LoRA and QLoRA layers",
    "dora": "DoRA layers",
    "products": "products with quantized weights",
    "merging": "merging",
    "requantizing": "merging into quantized weights",
    "adapters": "starting and combining adapters",
    "optimizers": "optimizers",
    "footprint": "memory",
}
SEQUENCES = "sequences of calls"


def library_reports(folder: Path) -> list[Run]:
    """Return the reports of libraries on the CPU, by name.

    Raises
    ------
    FileError
        If one is no complete report.
    """
    return [read_run(path) for path in sorted(folder.glob("*-cpu.jsonl")) if path.stem not in OWN_REPORTS]


def library_matrix(runs: Sequence[Run]) -> str:
    """Return the matrix as Markdown: of every group of operations each status that one of its properties has."""
    heads = [f"{run.header['backend']['name']} {_version(run)}{_where(run)}" for run in runs]
    group = _group_of()
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'---|' * len(runs)}"]
    cells = [_cells(run, group) for run in runs]
    for title in (*GROUPS.values(), SEQUENCES):
        row = [_cell(found.get(title, set())) for found in cells]
        if any(cell != "–" for cell in row):
            lines.append(f"| {title} | {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def _version(run: Run) -> str:
    return str(run.header["backend"]["version"]).partition("+")[0]


def _where(run: Run) -> str:
    """Return the name of the device that a report is of, if it is not the CPU."""
    device = str(run.header["backend"].get("device", "cpu"))
    return "" if device == "cpu" else f" on {run.header['environment'].get('device', device)}"


def gpu_reports(folder: Path) -> tuple[list[Run], str]:
    """Return the reports on a GPU that there are, and a sentence on those that there are not.

    Raises
    ------
    FileError
        If one is no complete report.
    """
    paths = [folder / f"{name}.jsonl" for name in GPU_REPORTS]
    missing = [path.stem.removesuffix("-cuda") for path in paths if not path.exists()]
    return [
        read_run(p) for p in paths if p.exists()
    ], f"On a GPU, not yet run: {', '.join(missing)}." if missing else ""


def _group_of() -> Mapping[str, str]:
    """Return the title of the group of every operation."""
    return {
        operation.name: GROUPS[module.__name__.rpartition(".")[2]]
        for module in MODULES
        for operation in module.operations()
    }


def _cells(run: Run, group: Mapping[str, str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for line in run.properties:
        # That a call leaves its inputs alone is no pass of the operation, but a failure to do so is one.
        if line["stage"] in CONDUCT and line["status"] not in BROKEN:
            continue
        found.setdefault(group.get(line["operation"], SEQUENCES), set()).add(line["status"])
    return found


def _cell(statuses: set[str]) -> str:
    return ", ".join(status for status in reversed(ORDER) if status in statuses - {"not-claimed"}) or "–"
