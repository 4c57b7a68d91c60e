"""Which kernels of products are compiled without a GPU: every tile, and every way to store a weight."""

from qloracle_gpu.torch.kernels import adapter_gradients, decomposed_product, gemv, int8_product, products
from qloracle_gpu.torch.kernels.tiles import FLOAT32_TILES, MATRIX_TILES, Tile

from .kernel_cases import ABSMAX, NESTED, READ, WRITTEN, Case, renamed

SIZES = dict.fromkeys(("rows", "columns", "inner"), "i32")
DATA = {"pairs": "*u8", "straddling pairs": "*u8", "codes": "*u8", "int8": "*i8", "int8 columns": "*i8"}
TABLES = {"pairs": 16, "straddling pairs": 16, "codes": 256}
LARGEST = MATRIX_TILES[-1]


def product_cases() -> list[Case]:
    return [*few_rows(), *integers(), *decompositions(), *many_rows(), *adapters(), *gradients()]


def few_rows() -> list[Case]:
    kinds = [
        ("bfloat16", 1, "pairs", 256, "bfloat16"), ("bfloat16", 16, "pairs", 256, "bfloat16"),
        ("float32", 1, "pairs", 0, "float32"), ("float16", 4, "codes", 0, "float32"),
        ("bfloat16", 1, "int8", 0, "bfloat16"),
    ]  # fmt: skip
    return [
        Case(
            f"product of {rows} rows of {fmt} with {kind}{' nested' if nested else ''}", gemv.gemv_kernel,
            {"x_ptr": READ[fmt], **stored(kind, nested), "bias_ptr": READ[fmt], "y_ptr": WRITTEN[fmt],
             **dict.fromkeys(("rows", "count", "inner", "row_bytes"), "i32")},
            {"STEPS": 0, "PARTS": 1, "GROUP": 64, "KIND": kind, "NESTED": nested, "ROUNDED": rounded, "BY_BITS": False,
             "FORMAT": fmt, "BIAS": fmt, "OUT": fmt, **gemv.tile_of(rows, 8192, 64)},
            load="" if kind == "int8" else "v4.b32", store="", fused=max(4096, 1024 * rows) // 128,
        )
        for fmt, rows, kind, nested, rounded in kinds
    ]  # fmt: skip


def integers() -> list[Case]:
    operands, scales = {"a_ptr": "*i8", "b_ptr": "*i8"}, ("row_ptr", "column_ptr", "bias_ptr")
    cases = [(tile, "bfloat16", "*bf16") for tile in int8_product.TILES] + [(int8_product.TILES[-1], "int32", "*i32")]
    found = [
        Case(
            f"INT8 product of {tile.rows} rows to {out}", int8_product.product_kernel,
            {**operands, **dict.fromkeys(scales, "*fp32" if out != "int32" else None), "y_ptr": pointer, **SIZES},
            {"STEPS": 0, **tile.constants, "OUT": out}, load="", divides=True, warps=tile.warps,
            matrix_units=units(tile, "mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.s8", "s32.s8.s8", "i32"),
        )
        for tile, out, pointer in cases
    ]  # fmt: skip
    scale = Case(
        "scale of an INT8 product", int8_product.scale_kernel,
        {"acc_ptr": "*i32", **dict.fromkeys(scales, "*fp32"), "y_ptr": "*fp32", "rows": "i32", "columns": "i32"},
        {"ROWS": 8, "COLUMNS": 256, "OUT": "float32"}, divides=True,
    )  # fmt: skip
    return [*found, scale]


def decompositions() -> list[Case]:
    tensors = {"a_ptr": "*i8", "b_ptr": "*i8", "row_ptr": "*fp32", "column_ptr": "*fp32", "x_ptr": "*i16"}
    lists = {"chosen_ptr": "*i64", "number_ptr": "*i32", "bias_ptr": "*fp32", "y_ptr": "*bf16"}
    outliers = decomposed_product.OUTLIERS
    return [
        Case(
            f"LLM.int8() of {tile.rows} rows{'' if original else ', dequantized'}",
            decomposed_product.decomposed_kernel, {**tensors, "original_ptr": original, **lists, **SIZES},
            {"STEPS": 0, **tile.constants, "OUTLIERS": outliers, "ROUNDED": "bfloat16", "BY_BITS": False,
             "OUT": "bfloat16"},
            load="", divides=True, fused=_sums(tile) * outliers, warps=tile.warps,
            matrix_units=units(tile, "mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.s8", "s32.s8.s8", "i32"),
        )
        for tile, original in [*((tile, "*i16") for tile in decomposed_product.TILES),
                               (decomposed_product.TILES[-1], None)]
    ]  # fmt: skip


def many_rows() -> list[Case]:
    return [
        product("float16", MATRIX_TILES[0], "numbers", out="float32", adapter={"mask_ptr": "*u8"}),  # (x·mask) Aᵀ
        *(product("bfloat16", tile, "pairs", 256) for tile in MATRIX_TILES[1:]),
        product("float16", LARGEST, "pairs", transposed=True), product("float16", MATRIX_TILES[2], "straddling pairs"),
        product("bfloat16", LARGEST, "codes", 256), product("bfloat16", LARGEST, "int8"),
        product("float32", FLOAT32_TILES[0], "numbers"), product("float32", FLOAT32_TILES[1], "int8 columns"),
        product("float32", FLOAT32_TILES[2], "pairs", 256),
        product("float32", FLOAT32_TILES[2], "straddling pairs", transposed=True),
    ]  # fmt: skip


def adapters() -> list[Case]:
    passing = {"down_ptr": "*bf16", "up_ptr": "*i16", "shift_ptr": "*fp32", "bias_ptr": "*fp32"}
    stored_before = {"low_ptr": "*fp32", "up_ptr": "*fp32", "mask_ptr": "*u8"}
    return [
        product("bfloat16", LARGEST, "pairs", 256, adapter=passing),
        product("bfloat16", LARGEST, "numbers", adapter=passing),
        product("bfloat16", LARGEST, "numbers", adapter=stored_before, transposed=True, backward=True),
        product("bfloat16", LARGEST, "pairs", 256, adapter=stored_before, transposed=True, backward=True),
        product("float32", FLOAT32_TILES[2], "pairs", 256, adapter=stored_before, transposed=True, backward=True),
    ]


def gradients() -> list[Case]:
    tile = adapter_gradients.TILE
    return [
        Case(
            "sums over rows", adapter_gradients.row_sum_kernel,
            {"low_ptr": "*fp32", "x_ptr": "*i16", "mask_ptr": "*u8", "out_ptr": "*fp32", "rows": "i32", "rank": "i32",
             "columns": "i32"},
            {"STEPS": adapter_gradients.SPAN // tile["ROWS"], **tile}, load="", divides=True,
            fused=tile["ROWS"] * tile["RANKS"] * tile["COLUMNS"] // (32 * adapter_gradients.WARPS),
            warps=adapter_gradients.WARPS,
        )
    ]  # fmt: skip


def product(
    fmt: str, tile: Tile, kind: str, nested: int = 0, *, out: str | None = None, transposed: bool = False,
    backward: bool = False, adapter: dict[str, str] | None = None,
) -> Case:  # fmt: skip
    """A product of many rows; operands are float32 for the tiles of float32."""
    others = dict.fromkeys(("mask_ptr", "down_ptr", "low_ptr", "up_ptr", "shift_ptr", "bias_ptr"))
    matrix = fmt if tile in MATRIX_TILES else "float32"
    name = f"product by {tile.rows}x{tile.columns} tiles of {fmt} with {kind}{' nested' if nested else ''}"
    what = [
        word for word, said in (("transposed", transposed), ("with an adapter", "up_ptr" in (adapter or {}))) if said
    ]
    short = {"bfloat16": "bf16", "float16": "f16"}.get(fmt, "f32")
    fused = _sums(tile) * (tile.inner if matrix == "float32" else 0)
    return Case(
        " ".join([name, *what]), products.product_kernel,
        {"x_ptr": WRITTEN[fmt], **stored(kind, nested, WRITTEN[fmt]), **others, **(adapter or {}),
         "y_ptr": WRITTEN[out or fmt], **SIZES, "row_bytes": "i32", "scale": "fp32", "share": "fp32"},
        {"STEPS": 0, **tile.constants, "TRANSPOSED": transposed, "KIND": kind, "PARTS": 1,
         "GROUP": 1 if kind == "straddling pairs" else min(64, tile.columns if transposed else tile.inner),
         "NESTED": nested, "TABLE": TABLES.get(kind, 0), "ROUNDED": fmt, "OPERAND": matrix, "BY_BITS": False,
         "RANK": 16, "RANKS": 16, "BACKWARD": backward, "OUT": out or fmt},
        load="", divides=True, fused=fused + (_sums(tile) if "up_ptr" in (adapter or {}) else 0), warps=tile.warps,
        matrix_units={} if matrix == "float32" else units(
            tile, f"mma.sync.aligned.m16n8k16.row.col.f32.{short}.{short}.f32", f"f32.{short}.{short}", "f32"),
    )  # fmt: skip


def stored(kind: str, nested: int, numbers: str = "*fp32") -> dict[str, str | None]:
    """Types of the pointers to a weight."""
    if kind == "numbers":
        return {"data_ptr": numbers, "entries_ptr": None, **dict.fromkeys(renamed(ABSMAX))}
    entries = "*fp32" if kind in TABLES else None
    return {"data_ptr": DATA[kind], "entries_ptr": entries, **renamed(NESTED if nested else ABSMAX)}


def units(tile: Tile, ampere: str, hopper: str, amd: str) -> dict[str, str]:
    """What must occur by target: Hopper's own instruction takes 64 rows and more."""
    wide = f"wgmma.mma_async.sync.aligned.m64n{tile.columns}k{32 if 's8' in hopper else 16}.{hopper}"
    return {"sm_80": ampere, "sm_90": wide if tile.rows >= 64 else ampere, "gfx942": f"v_mfma_{amd}"}


def _sums(tile: Tile) -> int:
    """How many sums of a tile a thread has."""
    return tile.rows * tile.columns // (32 * tile.warps)
