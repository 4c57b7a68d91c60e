"""What torchao claims: what its documentation promises, and what its formulas suggest."""

from typing import Any

from qloracle.bounds import Roundings
from qloracle_conformance.adapters.torch_arrays import LAYOUTS
from qloracle_conformance.backend import Claim, Level

FLOAT8 = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
SIGNED, UNSIGNED = ("-128..127", "-127..127", "-8..7", "-7..7"), ("0..255", "0..15")
BLOCK_SIZES_NF4 = (2, 32, 64, 128, 256, 512, 1024)  # of a pair of elements each: it packs within a block

PARAMETERS = "the docstring's formula, scale = (max - min) / (qmax - qmin), in float32"
CODES = "the docstring's formula, float_val / scale + zero_point, the quotient rounded once"
VALUES = "(code - zero_point) * scale in float32, then a cast"
NEAREST = "the entry of smallest distance to x / absmax in float32"
ONE_ROUNDING = "a clamp, then one cast"
# The dequantized weight has the format of x, which is a rounding that a claim declares: so one format, the usual one.
DEQUANTIZED = "the weight is dequantized to the format of x"
UPDATE = "single_param_adam: float32 arithmetic, step number and rate as float32 tensors"


def _claims() -> list[Claim]:
    filled: dict[str, Any] = {"layouts": LAYOUTS, "ndims": (1, 2, 3, 4), "empty": False}
    return [*_affine(filled), *_tables_and_blocks(filled), *_float8(), *_layers(), *_optimizers(filled)]


def _affine(filled: dict[str, Any]) -> list[Claim]:
    ranges = {"code_range": (*SIGNED, *UNSIGNED)}
    whole = {**ranges, "granularity": ("tensor", "row", "column", "group")}
    made = [
        Claim("affine.parameters", {"*": "exact"}, options=ranges, source=PARAMETERS, **filled),
        Claim("symmetric.quantize", {"*": "exact"}, options={**whole, "code_range": ("-127..127", "-7..7")},
              source="symmetric codes of a range that is symmetric", **filled),
        Claim("fake_quantize.forward", {"*": "exact"}, options=whole,
              source="its docstring: equivalent to quantize_affine and dequantize_affine", **filled),
        Claim("fake_quantize.backward", {"*": "exact"}, options={**whole, "interval": ("codes",)},
              source="a straight-through round between clamps of the codes", **filled),
        Claim("minmax.observe", {"*": "exact"}, options={"granularity": ("tensor", "row", "column")},
              source="torch.amin and torch.amax", **{**filled, "ndims": (2,)}),
    ]  # fmt: skip
    for granularity in ("tensor", "row", "column", "group"):
        made += [
            Claim(f"affine_{granularity}.quantize", {"*": "exact"}, options=ranges, source=f"{PARAMETERS}; {CODES}",
                  **filled),
            Claim(f"affine_{granularity}.dequantize", {"*": "exact"}, options=ranges, source=VALUES, **filled),
        ]  # fmt: skip
    return made


def _tables_and_blocks(filled: dict[str, Any]) -> list[Claim]:
    levels: dict[str, Level] = {"absmax": "exact", "packing": "exact", "codes": "tie"}
    state: dict[str, Level] = {"absmax": "exact", "codes": "tie"}
    made = [
        Claim("nf4.entries", {"*": "exact"}, source="the table of NF4Tensor"),
        Claim("nf4.quantize", levels, block_sizes=BLOCK_SIZES_NF4, source=NEAREST, **filled),
        Claim("nf4.dequantize", {"*": "exact"}, block_sizes=BLOCK_SIZES_NF4,
              source="entry times scaler in the type of the weight", **filled),
        Claim("nf4.matmul", {"*": "bound"}, block_sizes=BLOCK_SIZES_NF4, features=("bias",),
              roundings=Roundings(weight="bfloat16"), dtypes=("bfloat16",), source=DEQUANTIZED,
              **{**filled, "ndims": (2, 3)}),
    ]  # fmt: skip
    made.append(Claim("float8.quantize", state, source="x * fl32(448 / absmax) in float32, then a cast", **filled))
    for name in ("dynamic_signed", "dynamic_unsigned"):
        made += [
            Claim(f"{name}.entries", {"*": "exact"}, source="the map of OptimState8bit"),
            Claim(f"{name}.quantize", state, dtypes=("float32",), source=NEAREST, **filled),
            Claim(f"{name}.dequantize", {"*": "exact"}, source="map[code] * scale in float32, then a cast", **filled),
        ]
    return made


def _float8() -> list[Claim]:
    sources = ("float32", "float64", "float16", "bfloat16")
    return [
        Claim(f"{fmt}.encode", {"*": "exact"}, layouts=LAYOUTS, source=ONE_ROUNDING,
              options={"overflow": ("saturate",), "source": sources}) for fmt in FLOAT8
    ]  # fmt: skip


def _layers() -> list[Claim]:
    return [
        Claim("int8.matmul", {"acc": "exact"}, features=("minus_128",), layouts=LAYOUTS, ndims=(2,), empty=False,
              source="int_matmul: an integer product, with int32 accumulation"),
        Claim("affine_weight.forward", {"y": "bound"}, layouts=LAYOUTS, ndims=(2, 3), empty=False, features=("bias",),
              options={"granularity": ("row", "tensor", "column"), "code_range": ("-128..127", "-8..7")},
              roundings=Roundings(weight="bfloat16"), dtypes=("bfloat16",), source=DEQUANTIZED),
    ]  # fmt: skip


def _optimizers(filled: dict[str, Any]) -> list[Claim]:
    single = Roundings(hyperparameters="float32")
    return [
        *(Claim(name, {"*": "bound"}, roundings=single, source=UPDATE, **filled)
          for name in ("adamw.step", "adamw.nonfinite")),
        Claim("adamw8bit.step", {"*": "bound"}, block_sizes=(256, 128, 512, 2048), roundings=single, source=UPDATE,
              **filled),
    ]  # fmt: skip


CLAIMS = tuple(_claims())
