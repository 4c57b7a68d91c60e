"""Which kernels are compiled without a GPU, with the constants of a usual call, and what their code may hold."""

from dataclasses import dataclass, field
from typing import Any

import torch

from qloracle.formats import FORMATS
from qloracle.tables import CODEBOOKS
from qloracle_gpu.torch.kernels import adamw, blockwise, conversions, exact_mean, int8, restoring
from qloracle_gpu.torch.kernels.cells import MARGIN, cell_table
from qloracle_gpu.torch.optim.quantized_moments import CODEBOOKS_OF_MOMENTS

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
    from .product_cases import product_cases

    return [
        *quantizing(),
        *dequantizing(),
        *averaging(),
        *int8_cases(),
        *converting(),
        *optimizer_steps(),
        *product_cases(),
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
             **renamed(NESTED if nested else ABSMAX)},
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


def optimizer_steps() -> list[Case]:
    books, cpu = CODEBOOKS_OF_MOMENTS, torch.device("cpu")
    sizes = adamw.map_constants(books["m"], cpu, "M")[1] | adamw.map_constants(books["v"], cpu, "V")[1]
    numbers = dict.fromkeys(("beta1", "gain1", "beta2", "gain2", "root", "eps", "rate", "decay"), "fp32")
    tables = {"codes": "*u8", "absmax": "*fp32", "entries": "*fp32", "cells": "*i64", "midpoints": "*fp64"}
    tables = {f"{what}_{moment}_ptr": kind for moment in "mv" for what, kind in tables.items()}
    kinds = [(fmt, "propagate", "to nearest") for fmt in READ]
    kinds += [("bfloat16", "skip", "stochastically"), ("float16", "reset", "stochastically")]
    kinds += [("bfloat16", "propagate", "in a graph")]
    found = []
    for fmt, nonfinite, how in kinds:
        stochastic = how == "stochastically"
        given = {"p_ptr": READ[fmt], "g_ptr": READ[fmt], "out_ptr": "*i16" if stochastic else WRITTEN[fmt],
                 "random_ptr": "*i32" if stochastic else None,
                 "captured_ptr": "*fp32" if how == "in a graph" else None, "size": "i64", **numbers}  # fmt: skip
        constants = {"FORMAT": fmt, "NONFINITE": nonfinite, **adamw.target_constants(fmt, stochastic=stochastic)}
        name = f"step of {fmt}{' rounded stochastically' if stochastic else ' in a graph' * (how == 'in a graph')}"
        found += [
            Case(f"AdamW {name}", adamw.step_kernel, {**given, "m_ptr": "*fp32", "v_ptr": "*fp32"},
                 {"TILE": adamw.TILE, **constants}),
            Case(f"8-bit AdamW {name}", adamw.step_8bit_kernel, {**given, **tables},
                 {**adamw.tile_of(256), **sizes, "MARGIN": MARGIN, **constants}),
        ]  # fmt: skip
    return found


def renamed(absmax: dict[str, str | None]) -> dict[str, str | None]:
    names = ("absmax_ptr", "absmax_codes_ptr", "absmax_entries_ptr", "offset_ptr")
    return dict(zip(names, absmax.values(), strict=True))
