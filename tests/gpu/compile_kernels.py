"""Compile the Triton kernels for GPUs that are not there, and print what their code holds, as JSON.

Run in a process of its own: a process that interprets kernels cannot compile them.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from qloracle_gpu.torch.kernels.availability import OPTIONS

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}


def compiled(case: Any, target: GPUTarget) -> Any:
    names = case.function.arg_names
    constants = {**case.constants, **{name: None for name, kind in case.arguments.items() if kind is None}}
    kinds = {**case.arguments, **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(
        fn=case.function,
        signature={name: kinds[name] for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={  # what a launch finds out
            (names.index(name),): [["tt.divisibility", 16]]
            for name, kind in case.arguments.items()
            if name not in constants and kind != "fp32"
        },
    )
    return triton.compile(source, target=target, options={**OPTIONS, "num_warps": case.warps})


def counted(mnemonics: list[str]) -> dict[str, int]:
    return {name: mnemonics.count(name) for name in sorted(set(mnemonics))}


def nvidia(asm: Any) -> dict[str, Any]:
    """Instructions of the PTX, and bytes of local memory a thread of the machine code."""
    operations = re.findall(r"^\s+(?:@!?%p\d+ )?([a-z][\w.:]*)", asm["ptx"], re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(asm["cubin"])
        command = [knobs.nvidia.cuobjdump.path, "-res-usage", str(cubin)]
        usage = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    local = sum(int(count) for count in re.findall(r"(?:STACK|LOCAL):(\d+)", usage))
    registers = max(int(count) for count in re.findall(r"REG:(\d+)", usage))
    return {"operations": counted(operations), "local": local, "registers": registers}


def amd(asm: Any) -> dict[str, Any]:
    """Instructions of the machine code, its local memory, spills, and whether it keeps subnormals."""
    text = asm["amdgcn"]
    operations = re.findall(r"^\s+([a-z]+_[a-z0-9_]+)", text, re.MULTILINE)
    spilled = re.findall(r"(?:private_segment_fixed_size|vgpr_spill_count): +(\d+)", text)
    modes = re.findall(r"amdhsa_float_denorm_mode_\w+ (\d)", text)
    return {"operations": counted(operations), "local": sum(map(int, spilled)), "keeps_subnormals": set(modes) == {"3"}}


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[2]))  # where this file is run as a script
    from tests.gpu.kernel_cases import all_cases

    chosen = sys.argv[1:] or list(TARGETS)
    for case in all_cases():
        for name in chosen:
            kernel = compiled(case, TARGETS[name])
            found = amd(kernel.asm) if "amdgcn" in kernel.asm else nvidia(kernel.asm)
            found["shared"] = kernel.metadata.shared
            print(json.dumps({"name": case.name, "target": name, **found}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
