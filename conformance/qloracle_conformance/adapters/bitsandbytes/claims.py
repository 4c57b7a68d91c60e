"""What bitsandbytes claims: what its documentation promises, and what its formulas suggest."""

from collections.abc import Callable, Iterator
from typing import Any

from qloracle.bounds import Roundings
from qloracle_conformance.adapters.torch_arrays import LAYOUTS
from qloracle_conformance.backend import Claim, Level

DOCUMENTATION = "https://huggingface.co/docs/bitsandbytes/reference/functional"
BLOCK_SIZES_4BIT = (32, 64, 128, 256, 512, 1024, 2048, 4096)
BLOCK_SIZES_8BIT = (64, 128, 256, 512, 1024, 2048, 4096)
EIGHT_BIT_MAPS = ("dynamic_signed", "dynamic_unsigned", "linear_signed", "linear_unsigned")

RECIPROCAL = "codes come from x * (1/absmax) and float32 midpoints: three float32 roundings"
PRODUCT = "values are code[q] * absmax in float32, then a cast"
TABLE = "the table is a literal or a formula of the library"
UPDATE = "float32 arithmetic throughout, lr, betas, eps and decay as Python floats"
# A weight is dequantized to the format of x, which is a rounding that a claim declares: so one format, the usual one.
WEIGHT: dict[str, Any] = {"roundings": Roundings(weight="bfloat16"), "dtypes": ("bfloat16",)}
DEQUANTIZED = "the weight is dequantized to the format of x and multiplied by torch"

Kernels = Callable[[str], bool]


def claims_with(has_kernel: Kernels, device_type: str) -> tuple[Claim, ...]:
    """Return the claims of a device: of an operation only where `has_kernel` says that all it needs is there."""
    offered = (
        *_blocks(), *_double(), *_int8(), *_products(), *_llm_int8(), *_optimizers(device_type),
        *(_int8_weight() if device_type in ("cpu", "xpu") else ()),  # elsewhere a layer in training quantizes x too
    )  # fmt: skip
    return tuple(claim for needed, claim in offered if all(map(has_kernel, needed)))


Offered = Iterator[tuple[tuple[str, ...], Claim]]  # the kernels that a claim needs, and the claim


def _blocks() -> Offered:
    four: dict[str, Any] = {"block_sizes": BLOCK_SIZES_4BIT, "layouts": LAYOUTS, "ndims": (1, 2, 3, 4)}
    eight: dict[str, Any] = {"block_sizes": BLOCK_SIZES_8BIT, "layouts": LAYOUTS, "ndims": (0, 1, 2, 3, 4)}
    for name in ("nf4", "fp4"):
        yield (), Claim(f"{name}.entries", {"*": "exact"}, source=TABLE)
        levels: dict[str, Level] = {"absmax": "exact", "packing": "exact", "codes": "tie"}
        yield ("quantize_4bit",), Claim(f"{name}.quantize", levels, source=RECIPROCAL, **four)
        # quantize_4bit takes empty tensors, dequantize_4bit raises for most.
        yield ("dequantize_4bit",), Claim(f"{name}.dequantize", {"*": "exact"}, source=PRODUCT,
                                          **{**four, "empty": False})  # fmt: skip
    for name in EIGHT_BIT_MAPS:
        yield (), Claim(f"{name}.entries", {"*": "exact"}, source=TABLE)
        yield (
            ("quantize_blockwise",),
            Claim(f"{name}.quantize", {"absmax": "exact", "codes": "tie"}, source=RECIPROCAL, **eight),
        )
        yield ("dequantize_blockwise",), Claim(f"{name}.dequantize", {"*": "exact"}, source=PRODUCT, **eight)


def _double() -> Offered:
    blocks: dict[str, Any] = {"block_sizes": BLOCK_SIZES_4BIT, "layouts": LAYOUTS, "ndims": (1, 2, 3, 4)}
    levels: dict[str, Level] = {"packing": "exact", "codes": "tie", "offset": "bound", "nested_absmax": "exact",
                                "nested_codes": "tie"}  # fmt: skip
    for name in ("nf4", "fp4"):
        yield (
            ("quantize_4bit", "quantize_blockwise"),
            Claim(f"{name}_double.quantize", levels, source=f"{RECIPROCAL}; the offset is a float32 mean", **blocks),
        )
        yield ("dequantize_4bit", "dequantize_blockwise"), Claim(
            f"{name}_double.dequantize", {"*": "exact"}, source=f"{PRODUCT}; absmax is code[q] * nested + offset",
            **{**blocks, "empty": False},
        )  # fmt: skip


def _int8() -> Offered:
    matrices: dict[str, Any] = {"layouts": LAYOUTS, "ndims": (2,), "empty": False}
    codes: dict[str, Level] = {"absmax": "exact", "codes": "tie"}
    quotient = "codes are round(x * (127/absmax)): two float32 roundings"
    yield ("int8_vectorwise_quant",), Claim("int8_row.quantize", codes, dtypes=("float16",), source=quotient,
                                            **matrices)  # fmt: skip
    yield ("int8_double_quant",), Claim("int8_column.quantize", codes, dtypes=("float16",), source=quotient,
                                        **matrices)  # fmt: skip
    yield ("int8_vectorwise_dequant",), Claim(
        "int8_row.dequantize", {"values": "bound"}, out_dtypes=("float32",),
        source="values are q * absmax * (1/127): three float32 roundings", **matrices,
    )  # fmt: skip
    yield ("int8_linear_matmul",), Claim(
        "int8.matmul", {"acc": "exact"}, basis="promised", features=("minus_128",), layouts=LAYOUTS, ndims=(1, 2, 3),
        source=f"{DOCUMENTATION}: an 8-bit integer matrix multiplication",
    )  # fmt: skip
    yield ("int8_mm_dequant",), Claim(
        "int8.scale", {"y": "bound"}, dtypes=("float16",), out_dtypes=("float16",), features=("bias",),
        source="values are acc * (row * column) * constant + bias in float32, then float16", layouts=LAYOUTS,
    )  # fmt: skip


def _products() -> Offered:
    how: dict[str, Any] = {"block_sizes": BLOCK_SIZES_4BIT, "layouts": LAYOUTS, "ndims": (1, 2, 3, 4),
                           "features": ("bias",), **WEIGHT, "source": DEQUANTIZED}  # fmt: skip
    for name in ("nf4", "fp4"):
        yield ("gemm_4bit",), Claim(f"{name}.matmul", {"*": "bound"}, **how)
    yield ("gemm_4bit", "dequantize_blockwise"), Claim("nf4_double.matmul", {"*": "bound"}, **how)


def _int8_weight() -> Offered:
    how: dict[str, Any] = {"layouts": LAYOUTS, "ndims": (2, 3), "empty": False, "features": ("bias",),
                           **WEIGHT, "source": DEQUANTIZED}  # fmt: skip
    yield (), Claim("int8_weight.forward", {"*": "bound"}, **how)
    yield (), Claim("int8_weight.backward", {"*": "bound"}, **{**how, "ndims": (2,)})


def _llm_int8() -> Offered:
    # Other formats than float16 are cast to it first, as the library warns.
    how: dict[str, Any] = {"layouts": LAYOUTS, "ndims": (2, 3), "empty": False, "dtypes": ("float16",),
                           "features": ("bias",), "roundings": Roundings(weight="float16")}  # fmt: skip
    levels: dict[str, Level] = {"outliers": "exact", "absmax": "exact", "codes": "tie", "y": "bound"}
    rows: dict[str, Level] = {"absmax": "exact", "codes": "tie", "y": "bound"}
    kernels = ("int8_vectorwise_quant", "int8_scaled_mm")
    source = "int8_vectorwise_quant, then int8_scaled_mm, and outlier columns by torch in float16"
    yield kernels, Claim("int8_linear.forward", rows, source=source, **how)
    # The INT8 part is rounded to float16 before the outlier columns are added to it, in float16 too.
    yield (*kernels, "int8_mixed_scaled_mm"), Claim(
        "llm_int8.forward", levels, source=source,
        options={"exclusion": ("elements",), "outlier_weight": ("dequantized",)},
        **{**how, "roundings": Roundings(weight="float16", accumulate="float16")},
    )  # fmt: skip
    yield kernels, Claim("llm_int8.backward", {"*": "bound"}, source=DEQUANTIZED, **{**how, "ndims": (2,)})


def _optimizers(device_type: str) -> Offered:
    how: dict[str, Any] = {"layouts": LAYOUTS, "source": UPDATE, "empty": False, "ndims": (1, 2, 3, 4)}
    for name in ("adamw.step", "adamw.nonfinite", "adamw.limited"):
        yield ("optimizer_update_32bit",), Claim(name, {"*": "bound"}, **how)
    yield ("optimizer_update_8bit_blockwise",), Claim("adamw8bit.step", {"*": "bound"}, block_sizes=(256,), **how)
    both = ("optimizer_update_32bit", "optimizer_update_8bit_blockwise")
    yield both, Claim("adamw.resume", {"*": "exact"}, options={"state_bits": (32, 8)}, source="state_dict holds it all",
                      layouts=LAYOUTS)  # fmt: skip
