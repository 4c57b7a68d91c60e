"""The source of a kernel module as a compiler gets it: one text without includes.

The `.cuh` and `.cu` files include each other by name; what a rule's tables and numbers are is generated from
`qloracle.formats` and from the names below, so that each stands once.
"""

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from qloracle.formats import FORMATS, Format

ROUNDINGS = ("ties_to_even", "ties_to_away", "toward_zero", "toward_positive", "toward_negative", "stochastic")
NAN_BITS = ("payload", "sign", "canonical")  # where there is NaN
NAN_VALUES = ("reject", "zero", "largest")  # where there is none
NAN_RULES = (*NAN_BITS, *NAN_VALUES)
FORMAT_NUMBERS = {name: number for number, name in enumerate(FORMATS)}
MODULES = (
    "adamw", "adamw_parts", "adapters", "affine", "blocks", "convert", "dequantize", "dora", "embedding", "gemv",
    "gradients", "int8", "int8_matmul", "integer_gemv", "layers", "mean", "observe", "order", "packing", "quantize",
)  # fmt: skip
GENERATED = "generated.cuh"
_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"$')


def module_source(module: str, replaced: Mapping[str, str] | None = None) -> str:
    """Return the whole text of a module; `#line` tells a compiler which file and line each part comes from.

    Parameters
    ----------
    module : str
        One of `MODULES`.
    replaced : mapping of str to str, optional
        Other texts for files of these names: how tests plant a fault.
    """
    seen: set[str] = set()
    return "\n".join(_expanded(f"{module}.cu", replaced or {}, seen)) + "\n"


def _expanded(name: str, replaced: Mapping[str, str], seen: set[str]) -> list[str]:
    if name in seen:
        return []
    seen.add(name)
    text = generated_text() if name == GENERATED else replaced.get(name) or kernel_text(name)
    lines = [f'#line 1 "{name}"']
    for number, line in enumerate(text.splitlines(), start=1):
        found = _INCLUDE.match(line)
        if found:
            lines += [*_expanded(found[1], replaced, seen), f'#line {number + 1} "{name}"']
        else:
            lines.append("" if line == "#pragma once" else line)
    return lines


def kernel_text(name: str) -> str:
    """Return the text of a file of the folder `kernels`."""
    return files("qloracle_gpu.cupy").joinpath("kernels", name).read_text(encoding="utf-8")


@cache
def generated_text() -> str:
    """Return the formats as C++ data, and the numbers of formats and rules."""
    lines = ['#include "formats.cuh"']
    lines += [f"constexpr int {name.upper()} = {number};" for number, name in enumerate(ROUNDINGS)]
    lines += [f"constexpr int NAN_{name.upper()} = {number};" for number, name in enumerate(NAN_RULES)]
    for name, fmt in FORMATS.items():
        lines.append(f"HOST_DEVICE constexpr Format format_{name}() {{ return {_initializer(fmt)}; }}")
    table = ",\n".join(f"    {_initializer(fmt)}" for fmt in FORMATS.values())
    lines.append(f"__constant__ Format FORMATS[{len(FORMATS)}] = {{\n{table},\n}};")
    return "\n".join(lines) + "\n"


def _initializer(fmt: Format) -> str:
    """Return a format in the order of the fields of the struct `Format`."""
    quiet = fmt.quiet_nan_bits if fmt.has_nan else 0
    flags = (
        fmt.signed, fmt.negative_zero, fmt.subnormals, fmt.infinities, fmt.has_nan, fmt.top_nans > 1,
    )  # fmt: skip
    numbers = (fmt.mantissa_bits, fmt.minimum_exponent, fmt.code_bits, fmt.padding)
    words = (f"{fmt.finite_magnitude:#x}ull", f"{quiet:#x}ull")
    return "{" + ", ".join([*map(str, numbers), *words, *(str(flag).lower() for flag in flags)]) + "}"


def kernel_names(source: str) -> tuple[str, ...]:
    """Return the names of all kernels of a preprocessed text."""
    return tuple(
        dict.fromkeys(re.findall(r'extern "C" __global__ void(?: __launch_bounds__\(\d+\))? (\w+)\s*\(', source))
    )
