"""The matrix of libraries shows statuses of groups of operations, from complete reports only."""

import shutil
from pathlib import Path

import pytest

from qloracle_conformance.files import FileError
from qloracle_conformance.library_matrix import GPU_REPORTS, GROUPS, gpu_reports, library_matrix, library_reports
from qloracle_conformance.reading import Run
from qloracle_conformance.registry import MODULES

REPORTS = Path(__file__).parents[2] / "reports"


def run(name: str, **statuses: tuple[str, ...]) -> Run:
    lines = [
        {"operation": operation.replace("_", ".", 1), "stage": "values", "status": status}
        for operation, found in statuses.items()
        for status in found
    ]
    return Run(Path(f"{name}-cpu.jsonl"), {"backend": {"name": name, "version": "1.2+cpu"}}, lines, [], {})


def test_every_module_of_operations_is_a_group() -> None:
    assert {module.__name__.rpartition(".")[2] for module in MODULES} == set(GROUPS)


def test_a_cell_lists_statuses_and_what_was_never_claimed_is_a_dash() -> None:
    first = run("first", nf4_quantize=("pass", "differs", "blocked"), int8_matmul=("fail",))
    second = run("second", nf4_quantize=("pass", "not-claimed"), nf4_sequence=("pass",))
    assert library_matrix([first, second]).splitlines() == [
        "| | first 1.2 | second 1.2 |",
        "|---|---|---|",
        "| blockwise quantization | pass, blocked, differs | pass |",
        "| INT8 | fail | – |",
        "| sequences of calls | – | pass |",
    ]


def test_leaving_inputs_alone_is_no_pass_and_changing_them_is_a_failure() -> None:
    kept = {"operation": "nf4.matmul", "stage": "inputs", "status": "pass"}
    blocked = {"operation": "nf4.matmul", "stage": "y", "status": "blocked"}
    changed = {"operation": "int8.matmul", "stage": "inputs", "status": "differs"}
    one = Run(Path("one-cpu.jsonl"), {"backend": {"name": "one", "version": "1"}}, [kept, blocked, changed], [], {})
    assert library_matrix([one]).splitlines()[2:] == [
        "| INT8 | differs |",
        "| products with quantized weights | blocked |",
    ]


def test_a_report_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine-cpu.jsonl").write_text('{"type": "header"}\n')
    with pytest.raises(FileError, match=r"mine-cpu\.jsonl, line 1"):
        library_reports(tmp_path)


def test_a_report_on_a_gpu_names_it_and_what_is_missing_is_said(tmp_path: Path) -> None:
    runs, missing = gpu_reports(tmp_path)
    assert (runs, missing) == ([], f"On a GPU, not yet run: {', '.join(n.removesuffix('-cuda') for n in GPU_REPORTS)}.")
    shutil.copy(REPORTS / "numpy_casts-cpu.jsonl", tmp_path / "torch-cuda.jsonl")
    (one,), missing = gpu_reports(tmp_path)
    assert missing == "On a GPU, not yet run: torch-affine, torch-layers, torch-adamw, cupy."
    one.header["backend"]["device"], one.header["environment"]["device"] = "cuda", "Some GPU"
    assert library_matrix([one]).startswith(f"| | numpy {one.header['backend']['version']} on Some GPU |")
