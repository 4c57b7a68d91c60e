"""Compile the Triton kernels for GPUs that are not there, and print what their PTX holds, as JSON.

Run in a process of its own: a process that interprets kernels cannot compile them.
"""

import json
import re
import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from qloracle.tables import CODEBOOKS
from qloracle_gpu.torch.kernels import blockwise
from qloracle_gpu.torch.kernels.availability import OPTIONS
from qloracle_gpu.torch.kernels.cells import MARGIN, cell_table

POINTERS = {"float32": "*fp32", "float16": "*fp16", "bfloat16": "*i16"}


def cases() -> list[tuple[str, Any, dict[str, str], dict[str, object]]]:
    found, table = [], cell_table(CODEBOOKS["nf4"], torch.device("cpu"))
    for fmt, pointer in POINTERS.items():
        found += [
            (
                f"quantize {fmt}", blockwise.quantize_kernel,
                {"x_ptr": pointer, "data_ptr": "*u8", "absmax_ptr": "*fp32", "cells_ptr": "*i64",
                 "midpoints_ptr": "*fp64", "codes_ptr": "*u8", "size": "i64", "data_size": "i64"},
                {"BLOCK": 64, "WIDTH": 64, "ROWS": 64, "FORMAT": fmt, "PACKED": True, "ORDERED": True,
                 "SHIFT": table.shift, "FIRST": table.first, "COUNT": table.count, "MARGIN": MARGIN},
            ),
            (
                f"dequantize {fmt}", blockwise.dequantize_kernel,
                {"data_ptr": "*u8", "absmax_ptr": "*fp32", "entries_ptr": "*fp32", "out_ptr": pointer, "size": "i64",
                 "data_size": "i64"},
                {"BLOCK": 64, "TILE": 4096, "FORMAT": fmt, "PACKED": True},
            ),
        ]  # fmt: skip
    return found


def compiled(function: Any, arguments: dict[str, str], constants: dict[str, object], target: int) -> Any:
    kinds = {**arguments, **dict.fromkeys(constants, "constexpr")}
    names = function.arg_names
    source = ASTSource(
        fn=function,
        signature={name: kinds[name] for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in arguments},  # what a launch finds out
    )
    return triton.compile(source, target=GPUTarget("cuda", target, 32), options=OPTIONS)


def main() -> None:
    rows = []
    for name, function, arguments, constants in cases():
        for target in (80, 90):
            ptx = compiled(function, arguments, constants, target).asm["ptx"]
            operations = re.findall(r"^\s+(?:@!?%p\d+ )?([a-z][\w.:]*)", ptx, re.MULTILINE)
            counts = {operation: operations.count(operation) for operation in sorted(set(operations))}
            rows.append({"name": name, "target": target, "operations": counts})
    json.dump(rows, sys.stdout)


if __name__ == "__main__":
    main()
