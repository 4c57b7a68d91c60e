"""From the source of a kernel module to a cubin, and the folder where cubins wait for the next process.

CuPy's own compile path appends ``-ftz=true``, which flushes subnormals even in ``__fdiv_rn``; so NVRTC is called here
with every flag that rounding depends on, or nvcc where there is no NVRTC. A cubin that was compiled once needs neither.
"""

import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from shutil import which

from qloracle_gpu.cupy.errors import KernelCompileError, NoDeviceError
from qloracle_gpu.cupy.sources import module_source

FLAGS = ("--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true")
CACHE_VARIABLE = "QLORACLE_KERNEL_CACHE"
NO_COMPILER = (
    "no compiler for CUDA kernels: neither NVRTC (pip install nvidia-cuda-nvrtc) nor nvcc on the PATH, and the kernels "
    "were not compiled here before; qloracle (NumPy) and qloracle_gpu.torch need none"
)


@dataclass(frozen=True)
class Compiler:
    """A way to compile kernels."""

    version: str  # part of the key of the cache
    compile: Callable[[str, str, str], bytes]  # source, name of the module, architecture → cubin


def cubin_of(module: str, architecture: str) -> bytes:
    """Return a kernel module compiled for an architecture such as "sm_90", from the cache if it was before.

    Raises
    ------
    NoDeviceError
        If there is no compiler and no cubin.
    KernelCompileError
        If the compiler refuses the source.
    """
    source, folder = module_source(module), cache_folder()
    key = sha256("\0".join([source, architecture, *FLAGS]).encode()).hexdigest()[:32]
    compiler = found_compiler()
    pattern = f"{module}-{architecture}-{key}-{'*' if compiler is None else compiler.version}.cubin"
    for path in sorted(folder.glob(pattern)):
        cubin = path.read_bytes()
        if cubin.startswith(b"\x7fELF"):
            return cubin
    if compiler is None:
        raise NoDeviceError(NO_COMPILER)
    cubin = compiler.compile(source, module, architecture)
    _keep(folder / pattern, cubin)
    return cubin


def cache_folder() -> Path:
    """Return where cubins are kept: $QLORACLE_KERNEL_CACHE, else a folder in the user's cache."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "qloracle" / "kernels"


def _keep(path: Path, cubin: bytes) -> None:
    """Write a cubin so that other processes see all of it or nothing; a folder that cannot be written is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(cubin)
        Path(file.name).replace(path)
    except OSError:
        return


@cache
def found_compiler() -> Compiler | None:
    """Return NVRTC, else nvcc, else None."""
    return _nvrtc() or _nvcc()


def _nvrtc() -> Compiler | None:
    try:
        from cupy.cuda import nvrtc

        major, minor = nvrtc.getVersion()
    except (ImportError, OSError, RuntimeError):  # no CuPy, or it finds no library
        return None

    def compile_with_nvrtc(source: str, module: str, architecture: str) -> bytes:
        cubin: bytes = compile_nvrtc(source, module, (*FLAGS, f"--gpu-architecture={architecture}"))[0]
        return cubin

    return Compiler(f"nvrtc{major}.{minor}", compile_with_nvrtc)


def compile_nvrtc(source: str, module: str, flags: tuple[str, ...]) -> tuple[bytes, str]:
    """Return what NVRTC makes of a source, a cubin for ``sm_`` and PTX for ``compute_`` architectures, and its log.

    Raises
    ------
    KernelCompileError
        With NVRTC's log, if it refuses the source.
    """
    from cupy.cuda import nvrtc

    program = nvrtc.createProgram(source, f"{module}.cu", (), ())
    try:
        nvrtc.compileProgram(program, flags)
        is_cubin = any("architecture=sm_" in flag for flag in flags)
        made = nvrtc.getCUBIN(program) if is_cubin else nvrtc.getPTX(program)
        return made if isinstance(made, bytes) else made.encode(), nvrtc.getProgramLog(program)
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program)
        raise KernelCompileError(f"{module}.cu does not compile with {' '.join(flags)}: {error}\n{log}") from error
    finally:
        nvrtc.destroyProgram(program)


def _nvcc() -> Compiler | None:
    command = which("nvcc")
    if command is None:
        return None
    result = subprocess.run([command, "--version"], check=False, capture_output=True, text=True, timeout=60)
    if result.returncode != 0:
        return None
    version = "nvcc" + sha256(result.stdout.encode()).hexdigest()[:12]
    return Compiler(version, lambda source, module, architecture: compile_nvcc(command, source, module, architecture))


def compile_nvcc(command: str, source: str, module: str, architecture: str) -> bytes:
    """Return a cubin made by nvcc.

    Raises
    ------
    KernelCompileError
        With its messages, if it refuses the source.
    """
    with tempfile.TemporaryDirectory() as folder:
        text, made = Path(folder, f"{module}.cu"), Path(folder, f"{module}.cubin")
        text.write_text(source, encoding="utf-8")
        arguments = [command, "-cubin", f"-arch={architecture}", *FLAGS, str(text), "-o", str(made)]
        result = subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=600)
        if result.returncode != 0:
            raise KernelCompileError(f"{module}.cu does not compile with nvcc for {architecture}:\n{result.stderr}")
        return made.read_bytes()
