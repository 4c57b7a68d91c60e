"""Compiling the unmodified kernel sources for the CPU, together with the emulator."""

import re
import subprocess
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from shutil import which

from qloracle_gpu.cupy.sources import module_source

HEADER = Path(__file__).with_name("cuda_on_cpu.h")
FOLDER = Path(__file__).resolve().parents[3] / "build" / "emulator"
FLAGS = (
    "-std=c++17", "-O2", "-fPIC", "-shared", "-ffp-contract=off", "-fno-strict-aliasing", "-fvisibility=hidden",
    "-U_FORTIFY_SOURCE", "-Wall", "-Wno-unknown-pragmas", "-Wno-unused-variable", "-Wno-unused-function",
)  # fmt: skip
SANITIZERS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
COMPILER = "g++"

ENTRY = """
extern "C" __attribute__((visibility("default"))) int emulator_launch(
    const char* name, const unsigned* dims, void** parameters, const size_t* sizes, int count, int order,
    unsigned seed, char* message, size_t room
) {{
    using emulator::Order;
    gridDim = {{dims[0], dims[1], dims[2]}};
    blockDim = {{dims[3], dims[4], dims[5]}};
    emulator::failure.clear();
    emulator::random_state = seed;
    bool found = false;
{kernels}
    if (!found) emulator::fail("there is no such kernel");
    std::snprintf(message, room, "%s", emulator::failure.c_str());
    return emulator::failure.empty() ? 0 : 1;
}}
"""
CHOICE = """    if (!std::strcmp(name, "{0}")) {{
        found = true;
        emulator::start({0}, parameters, sizes, count, (Order)order);
    }}"""


def has_compiler() -> bool:
    """Whether there is a C++ compiler."""
    return which(COMPILER) is not None


def built_module(module: str, *, sanitize: bool = False, replaced: Mapping[str, str] | None = None) -> Path:
    """Return the shared library of a kernel module, compiled if the text, the emulator or the flags are new.

    Parameters
    ----------
    module : str
    sanitize : bool
        With AddressSanitizer and UndefinedBehaviorSanitizer.
    replaced : mapping of str to str, optional
        Other texts for kernel files of these names.
    """
    return built_source(module, module_source(module, replaced), sanitize=sanitize)


def built_source(name: str, kernels: str, *, sanitize: bool = False) -> Path:
    """Return the shared library of any text with kernels."""
    flags = (*FLAGS, *SANITIZERS) if sanitize else FLAGS
    source = f'#include "{HEADER.name}"\n{kernels}'
    key = sha256("\0".join([HEADER.read_text(encoding="utf-8"), source, ENTRY, CHOICE, *flags]).encode()).hexdigest()
    library = FOLDER / f"{name}-{key[:24]}.so"
    if not library.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
            text = Path(folder, f"{name}.cpp")
            text.write_text(source, encoding="utf-8")
            choices = "\n".join(CHOICE.format(kernel) for kernel in _kernels(text))
            text.write_text(source + ENTRY.format(kernels=choices), encoding="utf-8")
            made = Path(folder, library.name)
            _compile(["-D__global__=", *flags, str(text), "-o", str(made)])
            made.replace(library)
    return library


def sanitizer_library() -> str | None:
    """Return the library to preload into a process that loads sanitized ones, or None if there is none."""
    found = subprocess.run(
        [COMPILER, "-print-file-name=libasan.so"], check=False, capture_output=True, text=True, timeout=60
    ).stdout.strip()
    return str(Path(found).resolve()) if Path(found).is_absolute() else None


def _kernels(text: Path) -> list[str]:
    """Return the names of the kernels of a text, once macros are expanded."""
    marked = _compile(["-D__global__=EMULATED_KERNEL", "-std=c++17", "-E", "-P", str(text)])
    return re.findall(r'extern "C" EMULATED_KERNEL void\s+(\w+)\s*\(', marked)


def _compile(arguments: list[str]) -> str:
    result = subprocess.run(
        [COMPILER, f"-I{HEADER.parent}", *arguments], check=False, capture_output=True, text=True, timeout=300
    )
    if result.returncode != 0:
        raise RuntimeError(f"{COMPILER} ended with {result.returncode}:\n{result.stderr}")
    return result.stdout
