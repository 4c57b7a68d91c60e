"""Which kernels are compiled without a GPU, with the constants of a usual call, and what their code may hold."""

from dataclasses import dataclass, field
from typing import Any

import torch

from qloracle.formats import FORMATS
from qloracle.tables import CODEBOOKS
from qloracle_gpu.torch.kernels import blockwise, conversions, exact_mean, gemv, int8, int8_product, restoring
from qloracle_gpu.torch.kernels.cells import MARGIN, cell_table

READ = {"float32": "*fp32", "float16": "*fp16", "bfloat16": "*i16"}
WRITTEN = {**READ, "bfloat16": "*bf16"}
ABSMAX = {"absmax_ptr": "*fp32", "codes_ptr": None, "entries_ptr": None, "offset_ptr": None}
NESTED = {"absmax_ptr": "*fp32", "codes_ptr": "*u8", "entries_ptr": "*fp32", "offset_ptr": "*fp32"}


@dataclass(frozen=True)
class Case:
    """A kernel as a launch compiles it."""

    name: str
    function: Any
    arguments: dict[str, str | None]  # types of what is no constant; None where None is passed
    constants: dict[str, object]
    load: str = "v4.b32"  # the widest access that must occur; "" where there is none
    store: str = "v4.b32"
    divides: bool = False  # whether integers are divided, for which AMD's compiler guesses in float32
    fused: int = 0  # how many products a thread adds without a rounding in between, as a declared sum may
    matrix_units: dict[str, str] = field(default_factory=dict)  # by target, what must occur
    warps: int = 4


def all_cases() -> list[Case]:
    return [
        *quantizing(),
        *dequantizing(),
        *averaging(),
        *int8_cases(),
        *converting(),
        *multiplying(),
        *integer_products(),
    ]


def quantizing() -> list[Case]:
    table = cell_table(CODEBOOKS["nf4"], torch.device("cpu"))
    return [
        Case(
            f"quantize {fmt}", blockwise.quantize_kernel,
            {"x_ptr": pointer, "data_ptr": "*i32", "absmax_ptr": "*fp32", "offset_ptr": None,
             "cells_ptr": "*i64", "midpoints_ptr": "*fp64", "codes_ptr": "*u8", "size": "i64", "data_size": "i64"},
            {"BLOCK": 64, "WIDTH": 64, "ROWS": 32, "FORMAT": fmt, "CODES": 8, "ORDERED": True,
             "SHIFT": table.shift, "FIRST": table.first, "COUNT": table.count, "MARGIN": MARGIN},
            store="v2.b32",
        )
        for fmt, pointer in READ.items()
    ]  # fmt: skip


def averaging() -> list[Case]:
    digit = {"DIGIT": exact_mean.DIGIT, "COUNT": exact_mean.COUNT}
    last = {**digit, "DIGITS": exact_mean.DIGITS, "SIGN": exact_mean.SIGN}
    sums = {"sums_ptr": "*i64"}
    single: dict[str, Any] = {"load": "b64", "warps": 1}
    return [
        Case("sum", exact_mean.sum_kernel, {"x_ptr": "*fp32", **sums, "size": "i64"},
             {"TILE": 1024, "SUMS": exact_mean.SUMS, **digit}, store=""),
        Case("carry", exact_mean.carry_kernel, {**sums, "digits_ptr": "*i64"}, last, store="b64", **single),
        Case("mean", exact_mean.mean_kernel, {**sums, "digits_ptr": "*i64", "out_ptr": "*fp32"}, last, store="b32",
             divides=True, **single),
    ]  # fmt: skip


def dequantizing() -> list[Case]:
    stored = [(fmt, nested, True) for fmt in WRITTEN for nested in (0, 256)]
    cases = [
        Case(
            f"dequantize {fmt}{' nested' if nested else ''}{'' if packed else ' 8-bit'}", restoring.dequantize_kernel,
            {"data_ptr": "*u8", "entries_ptr": "*fp32", "out_ptr": WRITTEN[fmt], "size": "i64", "data_size": "i64",
             **_renamed(NESTED if nested else ABSMAX)},
            {"PARTS": 1, "ROWS": 64, "GROUP": 64, "FORMAT": fmt, "PACKED": packed, "NESTED": nested},
        )
        for fmt, nested, packed in [*stored, ("float32", 256, False)]
    ]  # fmt: skip
    restored = Case(
        "restore absmax", restoring.restore_absmax_kernel, {**NESTED, "out_ptr": "*fp32", "size": "i64"},
        {"NESTED": 256, "TILE": restoring.SHORT_TILE}, load="b32",
    )  # fmt: skip
    return [*cases, restored]


def int8_cases() -> list[Case]:
    sizes = {"size": "i64", "width": "i64"}
    given = {"absmax_ptr": "*fp32", "codes_ptr": "*i8"}
    rows, columns = {"ROWS": 1, "COLUMNS": 2048, "BY_ROW": True}, {"ROWS": 16, "COLUMNS": 128, "BY_ROW": False}
    found = []
    for name, tile in (("rows", rows), ("columns", columns)):
        found += [
            Case(f"INT8 absmax of {name}", int8.largest_kernel, {"x_ptr": "*i16", "largest_ptr": "*i32", **sizes},
                 {**tile, "FORMAT": "bfloat16"}, store="", divides=True),
            Case(f"INT8 codes of {name}", int8.codes_kernel, {"x_ptr": "*i16", **given, **sizes},
                 {**tile, "FORMAT": "bfloat16"}, divides=True),
            Case(f"INT8 values of {name}", int8.dequantize_kernel, {**given, "out_ptr": "*bf16", **sizes},
                 {**tile, "FORMAT": "bfloat16"}, divides=True),
        ]  # fmt: skip
    return [
        *found,
        Case("INT8 codes and absmax of rows", int8.quantize_rows_kernel, {"x_ptr": "*fp32", **given, **sizes},
             {"ROWS": 1, "COLUMNS": 4096, "FORMAT": "float32"}, divides=True),
    ]  # fmt: skip


def converting() -> list[Case]:
    words = {"float32": "*i32", "bfloat16": "*i16", "float16": "*i16", "float8_e4m3fn": "*u8", "float8_e5m2": "*u8"}
    rules = [
        ("float32", "bfloat16", "stochastic", "ieee"), ("float32", "float16", "toward_negative", "saturate"),
        ("float32", "float8_e4m3fn", "ties_to_even", "saturate"), ("float16", "float8_e5m2", "ties_to_away", "ieee"),
    ]  # fmt: skip
    encoding = [
        Case(f"encode {source} to {target} {rounding}", conversions.encode_kernel,
             {"x_ptr": words[source], "random_ptr": "*i32", "out_ptr": words[target], "size": "i64"},
             {"TILE": conversions.TILE,
              **conversions.encode_constants(FORMATS[target], source, rounding, overflow, "payload")})
        for source, target, rounding, overflow in rules
    ]  # fmt: skip
    decoding = [
        Case(f"decode {fmt}", conversions.decode_kernel, {"x_ptr": "*u8", "out_ptr": "*fp32", "size": "i64"},
             {"TILE": conversions.TILE, **conversions.decode_constants(FORMATS[fmt])})
        for fmt in ("float8_e4m3fn", "float8_e5m2")
    ]  # fmt: skip
    return [*encoding, *decoding]


def multiplying() -> list[Case]:
    sizes = dict.fromkeys(("rows", "count", "inner", "row_bytes"), "i32")
    kinds = [
        ("bfloat16", 1, True, 256, "bfloat16"), ("bfloat16", 16, True, 256, "bfloat16"),
        ("float32", 1, True, 0, "float32"), ("float16", 4, False, 0, "float32"),
    ]  # fmt: skip
    return [
        Case(
            f"product of {rows} rows of {fmt} with {4 if packed else 8}-bit{' nested' if nested else ''} weights",
            gemv.gemv_kernel,
            {"x_ptr": READ[fmt], "data_ptr": "*u8", "entries_ptr": "*fp32", **_renamed(NESTED if nested else ABSMAX),
             "bias_ptr": READ[fmt], "y_ptr": WRITTEN[fmt], **sizes},
            {"PARTS": 1, "PACKED": packed, "NESTED": nested, "ROUNDED": rounded, "BY_BITS": False, "FORMAT": fmt,
             "BIAS": fmt, "OUT": fmt, **gemv.tile_of(rows, 8192, 64)},
            store="", fused=max(4096, 1024 * rows) // 128,
        )
        for fmt, rows, packed, nested, rounded in kinds
    ]  # fmt: skip


def integer_products() -> list[Case]:
    operands = {"a_ptr": "*i8", "b_ptr": "*i8"}
    scales = {"row_ptr": "*fp32", "column_ptr": "*fp32", "bias_ptr": "*fp32"}
    sizes = dict.fromkeys(("rows", "columns", "inner"), "i32")
    found = []
    for rows, out, pointer in ((1, "bfloat16", "*bf16"), (4096, "bfloat16", "*bf16"), (4096, "int32", "*i32")):
        tile = int8_product.tile_of(rows)
        warps = tile.pop("num_warps")
        parts = scales if out != "int32" else dict.fromkeys(scales)
        found.append(Case(
            f"INT8 product of {rows} rows to {out}", int8_product.product_kernel,
            {**operands, **parts, "y_ptr": pointer, **sizes}, {**tile, "OUT": out}, load="", divides=True, warps=warps,
            matrix_units={"sm_80": "mma.sync", "sm_90": "mma.sync" if rows == 1 else "wgmma", "gfx942": "v_mfma_i32"},
        ))  # fmt: skip
    scale = Case(
        "scale of an INT8 product", int8_product.scale_kernel,
        {"acc_ptr": "*i32", **scales, "y_ptr": "*fp32", "rows": "i32", "columns": "i32"},
        {"ROWS": 8, "COLUMNS": 256, "OUT": "float32"}, divides=True,
    )  # fmt: skip
    return [*found, scale]


def _renamed(absmax: dict[str, str | None]) -> dict[str, str | None]:
    names = ("absmax_ptr", "absmax_codes_ptr", "absmax_entries_ptr", "offset_ptr")
    return dict(zip(names, absmax.values(), strict=True))
