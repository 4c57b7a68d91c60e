"""Compiling the C program of `tests/conformance/c`: the right one, and each deliberately wrong one."""

import shutil
import subprocess
from pathlib import Path

import pytest

from qloracle_conformance.c_header import text

SOURCES = Path(__file__).resolve().parent / "c"
HEADER = Path(text.__file__).parent
# The fault, the operation that shows it, and the stage where it must be found.
FAULTS = {
    "FAULT_TRUNCATED": ("bfloat16.encode", "bits"),
    "FAULT_SWAPPED": ("nf4.quantize", "packing"),
    "FAULT_RECIPROCAL": ("nf4.quantize", "codes"),
    "FAULT_TIE": ("nf4.quantize", "codes"),
    "FAULT_TAIL": ("nf4.quantize", "absmax"),
    "FAULT_READ_SWAPPED": ("nf4.dequantize", "unpacking"),
}
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-pedantic")


def compiler(name: str) -> str:
    """The compiler's path; where there is none, the test says that it did not run."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"NOT RUN: compiling C needs {name}, which is not installed here")
    return found


def compiled(folder: Path, fault: str = "") -> Path:
    """Compile the program, with one of its faults if one is named."""
    program = folder / f"program{fault}"
    define = [f"-D{fault}"] if fault else []
    command = [compiler("gcc"), "-std=c99", "-O2", *WARNINGS, *define, f"-I{HEADER}", str(SOURCES / "program.c")]
    subprocess.run([*command, "-o", str(program), "-lm"], check=True, timeout=120)
    return program
