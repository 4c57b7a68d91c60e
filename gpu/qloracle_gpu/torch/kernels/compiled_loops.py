"""The C loops of the CPU (`loops.c`): compiled once on a machine that has a C compiler, kept for the next process.

A machine without one computes the same bits by the eager code, in several times the time. A loop is given whole pieces
of a tensor that nobody else writes; ctypes releases the interpreter's lock meanwhile, so that pieces go in parallel.
"""

import ctypes
import os
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from platform import machine, processor
from shutil import which
from typing import Any

from torch import Tensor

# No licence to change a value: what is switched off are exceptions and errno, which nobody here reads.
FLAGS = ("-std=c11", "-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
SWITCH = "QLORACLE_TORCH_LOOPS"  # 0: never use them
CACHE_VARIABLE = "QLORACLE_KERNEL_CACHE"
SECONDS = 120  # that a compiler may take
_SOURCE = Path(__file__).with_name("loops.c")


@dataclass(frozen=True)
class Loops:
    """The loops of this process."""

    library: ctypes.CDLL
    compiler: str  # the first line of its --version


def loops_take(*tensors: Tensor) -> bool:
    """Return whether the loops work on the memory of tensors: on a CPU, of no class that hides it, as it stands."""
    plain = (tensor.device.type == "cpu" and type(tensor) is Tensor and not tensor.is_neg() for tensor in tensors)
    return all(plain) and loops() is not None


def has_loop(name: str) -> bool:
    """Return whether there are loops, and one of this name among them: some need instructions that not all have."""
    found = loops()
    return found is not None and hasattr(found.library, name)


def loops_named() -> str:
    """Return what computes on a CPU, for reports."""
    found = loops()
    return "eager" if found is None else f"C loops by {found.compiler}"


def run_loop(name: str, *arguments: Tensor | int) -> None:
    """Call a loop with the memory of tensors, contiguous ones, and with integers.

    Which dtypes it takes, and how many elements, its source says: nothing here can check it.
    """
    _call(name, None, arguments)


def count_by_loop(name: str, *arguments: Tensor | int) -> int:
    """Call a loop as `run_loop` does, and return what it counted."""
    return int(_call(name, ctypes.c_int64, arguments))


def broadcast_steps(values: Tensor) -> tuple[int, int]:
    """Return how far apart the values for neighbouring rows and columns lie: 0 where one is for all."""
    row, column = (0 if size == 1 else step for size, step in zip(values.shape, values.stride(), strict=True))
    return row, column


def _call(name: str, restype: type[ctypes.c_int64] | None, arguments: tuple[Tensor | int, ...]) -> Any:
    found = loops()
    if found is None:
        raise RuntimeError(f"no compiled loop {name}")
    function = found.library[name]  # a new object for each call, so that threads share none
    function.restype = restype
    return function(*map(_c_argument, arguments))


def _c_argument(argument: Tensor | int) -> ctypes.c_void_p | ctypes.c_int64:
    return ctypes.c_int64(argument) if isinstance(argument, int) else ctypes.c_void_p(argument.data_ptr())


@cache
def loops() -> Loops | None:
    """Return the compiled loops, or None: switched off, no compiler, or one that does not know the source."""
    command = which(os.environ.get("CC", "cc"))
    if os.environ.get(SWITCH) == "0" or command is None:
        return None
    try:
        told = subprocess.run([command, "--version"], check=True, capture_output=True, text=True, timeout=SECONDS)
        version = told.stdout.splitlines()[0] if told.stdout else command
        key = sha256("\0".join([_SOURCE.read_text("utf-8"), *FLAGS, told.stdout, _instructions()]).encode()).hexdigest()
        return Loops(_library(command, key[:32]), version)
    except (OSError, subprocess.SubprocessError):
        return None


def _instructions() -> str:
    """Return what tells apart processors for which the same source is compiled differently."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text("utf-8").splitlines() if known.exists() else []
    named = {line for line in lines if line.lower().startswith(("flags", "features", "model name"))}
    return "\n".join([machine(), processor(), *sorted(named)])


def _library(command: str, key: str) -> ctypes.CDLL:
    """Return the compiled source, from the user's cache if it was compiled before."""
    kept = cache_folder() / f"loops-{key}.so"
    try:
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            _compile(command, kept)
        return ctypes.CDLL(str(kept))
    except OSError:  # a cache that cannot be written, or whose files must not be executed
        with tempfile.TemporaryDirectory(prefix="qloracle-") as folder:
            alone = Path(folder, "loops.so")
            _compile(command, alone)
            return ctypes.CDLL(str(alone))


def cache_folder() -> Path:
    """Return where compiled loops are kept: $QLORACLE_KERNEL_CACHE, else a folder in the user's cache."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "qloracle" / "kernels"


def _compile(command: str, made: Path) -> None:
    """Compile the source so that other processes see the whole library or none."""
    with tempfile.TemporaryDirectory(dir=made.parent) as folder:
        unfinished = Path(folder, made.name)
        arguments = [command, *FLAGS, "-shared", "-fPIC", str(_SOURCE), "-o", str(unfinished), "-lm"]
        subprocess.run(arguments, check=True, capture_output=True, timeout=SECONDS)
        unfinished.replace(made)
