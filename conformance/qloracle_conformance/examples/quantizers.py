"""Examples of quantizers: with codebooks, nested, absmax INT8 and affine."""

from qloracle.tables import CODEBOOKS
from qloracle_conformance.examples.conversions import NUMBERS
from qloracle_conformance.examples.example import Example

_TABLE = "x=1.2,-0.5,-4.3,1.2;-3.1,0.8,2.4,5.4"
_CODES = "codes:int8=28,-12,-101,28,-73,19,56,127"
_PAIR = "codes:int8=1,-2;3,127"
_BYTE = {"qmin": 0, "qmax": 255}
_NIBBLE = {"qmin": -8, "qmax": 7}
_DATA = {4: "data:uint8=0xb6,0x0b,0x28,0xcf", 8: "data:uint8=0,1,127,128,129,200,254,255"}


def _groups(granularity: str, size: int | None = None) -> dict[str, object]:
    return {"granularity": granularity, "group_size": size}


def _int8(granularity: str, block_size: int | None = None) -> dict[str, object]:
    return {"granularity": granularity, "block_size": block_size}


_RESTORED = {"block_size": 4, "shape": (8,), "dtype": "bfloat16"}
_NESTED = ("absmax_codes:uint8=0,127,255", "nested_absmax=1", "offset[]=2")

EXAMPLES = {
    **{
        f"{name}.quantize": Example((NUMBERS,), {"codebook": name, "block_size": 4}) for name in CODEBOOKS
    },
    **{
        f"{name}.dequantize": Example((_DATA[table.code_bits], "absmax=4.3,5.4"), {**_RESTORED, "codebook": name})
        for name, table in CODEBOOKS.items()
    },
    **{f"{name}.entries": Example((), {"codebook": name}) for name in CODEBOOKS},
    **{f"{name}.midpoints": Example((), {"codebook": name}) for name in CODEBOOKS},
    "absmax.quantize": Example(("absmax=1,2,3,0.5",)),
    "absmax.dequantize": Example(_NESTED),
    **{
        f"{name}_double.quantize": Example((NUMBERS,), {"codebook": name, "block_size": 2}) for name in ("nf4", "fp4")
    },
    **{
        f"{name}_double.dequantize": Example(
            ("data:uint8=0xf7,0x70,0xc7", *_NESTED),
            {"codebook": name, "block_size": 2, "shape": (3, 2), "dtype": "float16"},
        )
        for name in ("nf4", "fp4")
    },
    "int8_tensor.quantize": Example((NUMBERS,), _int8("tensor")),
    "int8_row.quantize": Example((_TABLE,), _int8("row")),
    "int8_column.quantize": Example((_TABLE,), _int8("column")),
    "int8_block.quantize": Example((NUMBERS,), _int8("block", 4)),
    "int8_tensor.dequantize": Example((_CODES, "absmax[]=5.4"), {**_int8("tensor"), "dtype": "bfloat16"}),
    "int8_row.dequantize": Example((_PAIR, "absmax=4.3,5.4"), {**_int8("row"), "dtype": "float32"}),
    "int8_column.dequantize": Example((_PAIR, "absmax=4.3,5.4"), {**_int8("column"), "dtype": "float32"}),
    "int8_block.dequantize": Example((_CODES, "absmax=4.3,5.4"), {**_int8("block", 4), "dtype": "float16"}),
    "affine.parameters": Example(("lo=-4.3,0.5,-1", "hi=5.4,2,-0.25"), _BYTE),
    "affine_tensor.quantize": Example((NUMBERS,), {**_BYTE, **_groups("tensor")}),
    "affine_row.quantize": Example((_TABLE,), {**_NIBBLE, **_groups("row")}),
    "affine_column.quantize": Example((_TABLE,), {**_NIBBLE, **_groups("column")}),
    "affine_group.quantize": Example((NUMBERS,), {**_BYTE, **_groups("group", 4)}),
    "affine_tensor.dequantize": Example(
        ("codes:uint8=0,113,145,255", "scale[]=0.0380392", "zero_point:int32[]=113"),
        {**_BYTE, **_groups("tensor"), "dtype": "bfloat16"},
    ),
    "affine_row.dequantize": Example(
        ("codes:int8=-8,0;3,7", "scale=0.25,0.5", "zero_point:int32=-1,2"),
        {**_NIBBLE, **_groups("row"), "dtype": "float32"},
    ),
    "affine_column.dequantize": Example(
        ("codes:int8=-8,0;3,7", "scale=0.25,0.5", "zero_point:int32=-1,2"),
        {**_NIBBLE, **_groups("column"), "dtype": "float32"},
    ),
    "affine_group.dequantize": Example(
        ("codes:int8=-8,0,3,7", "scale=0.25,0.5", "zero_point:int32=-1,2"),
        {**_NIBBLE, **_groups("group", 2), "dtype": "float16"},
    ),
    "symmetric.quantize": Example((NUMBERS, "clip[]=4"), {"qmin": -127, "qmax": 127, **_groups("tensor")}),
    "minmax.observe": Example((_TABLE,), _groups("row")),
    "percentile.observe": Example((NUMBERS,), {"lower": 10.0, "upper": 90.0, **_groups("tensor")}),
    "moving.observe": Example(
        ("previous_lo=-1", "previous_hi=1", "current_lo=-3", "current_hi=0.5"), {"weight": 0.25}
    ),
    "fake_quantize.forward": Example(
        (NUMBERS, "scale[]=0.0380392", "zero_point:int32[]=113"), {**_BYTE, **_groups("tensor")}
    ),
    "fake_quantize.backward": Example(
        ("dy=1,2,3,4", "x=-5,-4.3,5.4,7", "scale[]=0.0380392", "zero_point:int32[]=113"),
        {**_BYTE, **_groups("tensor"), "interval": "values"},
    ),
}  # fmt: skip
