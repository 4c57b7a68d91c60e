"""Examples of layers, merging and products with quantized weights: two rows of x, three outputs, rank 1."""

from collections.abc import Mapping

from qloracle.tables import CODEBOOKS
from qloracle_conformance.examples.example import Example

_X = "x=1,2;3,-1"
_DY = "dy=1,0,-1;2,1,0"
_ADAPTER = ("lora_a[1,2]=1,-1", "lora_b=1;0;2")
_BIAS = "bias=0.5,0,-0.5"
_MASK = "mask:bool=1,0;1,1"
_WEIGHT = "weight=1,0.5;-1,2;0,1"
_SCALE = {"alpha": 2.0, "rank_stabilized": False}
_LAYER = {**_SCALE, "dropout": 0.5}

_BLOCKS = ("data:uint8=0xf7,0x70,0xc7", "absmax=2,1,0.5")
_NESTED = ("data:uint8=0xf7,0x70,0xc7", "absmax_codes:uint8=0,127,255", "nested_absmax=1", "offset[]=2")
_INT8 = ("codes:int8=127,64;-127,1;0,100", "absmax=1,2,3")
_AFFINE = ("codes:uint8=255,0;128,7;3,200", "scale=0.5,0.25,0.125", "zero_point:int32=128,100,0")
_STORED = {"codebook": "nf4", "block_size": 2, "shape": (3, 2)}
_ROWS = {"granularity": "row", "block_size": None}
_AFFINE_ROWS = {"granularity": "row", "group_size": None, "qmin": 0, "qmax": 255}
_Weights = dict[str, tuple[tuple[str, ...], Mapping[str, object]]]  # by kind of layer: inputs and options of the weight
_WEIGHTS: _Weights = {
    "lora": ((_WEIGHT,), {"fan_in_fan_out": False}),
    "qlora": (_BLOCKS, _STORED),
    "qlora_double": (_NESTED, _STORED),
    "qlora_int8": (_INT8, _ROWS),
    "qlora_affine": (_AFFINE, _AFFINE_ROWS),
}

_MAGNITUDE = "magnitude=2,3,1"
_DORA_WEIGHTS: _Weights = {"dora": _WEIGHTS["lora"], "qdora": _WEIGHTS["qlora"]}
_DATA = {4: "data:uint8=0xf7,0x70,0xc7", 8: "data:uint8=255,127,0,1,200,128"}
_MERGED = {**_SCALE, "fan_in_fan_out": False, "dtype": "float32", "shape": (3, 2)}
_TABLE = ("lora_a[1,3]=1,-1,2", "lora_b=1;0.5")  # of an embedding of three rows

EXAMPLES = {
    "int8.matmul": Example(("a:int8=1,2,3;-4,5,-6", "b:int8=7,8,9;127,-127,1")),
    "int8.scale": Example(
        ("acc:int32=50,-124;-42,-1149", "row_absmax=4.3,5.4", "column_absmax=1.5,0.3", "bias=0.5,-1"),
        {"dtype": "float32"},
    ),
    **{
        f"{kind}.forward": Example((_X, *weight, *_ADAPTER, _BIAS, _MASK), {**_LAYER, **options}, "whole")
        for kind, (weight, options) in _WEIGHTS.items()
    },
    **{
        f"{kind}.backward": Example((_DY, _X, *weight, *_ADAPTER, _MASK), {**_LAYER, **options})
        for kind, (weight, options) in _WEIGHTS.items()
    },
    **{
        f"{kind}.forward": Example((_X, *weight, *_ADAPTER, _MAGNITUDE, _BIAS, _MASK), {**_LAYER, **options}, "whole")
        for kind, (weight, options) in _DORA_WEIGHTS.items()
    },
    **{
        f"{kind}.backward": Example((_DY, _X, *weight, *_ADAPTER, _MAGNITUDE, _MASK), {**_LAYER, **options})
        for kind, (weight, options) in _DORA_WEIGHTS.items()
    },
    **{
        f"{name}.matmul": Example((_X, _DATA[table.code_bits], "absmax=2,1,0.5", _BIAS), {**_STORED, "codebook": name})
        for name, table in CODEBOOKS.items()
    },
    "nf4_double.matmul": Example((_X, *_NESTED, _BIAS), _STORED),
    "embedding.forward": Example(("ids:int64=2,0,2", _WEIGHT, *_TABLE), _SCALE, "whole"),
    "embedding.backward": Example(("dy=1,0;2,1;0,-1", "ids:int64=2,0,2", _WEIGHT, *_TABLE), _SCALE),
    "int8_weight.forward": Example((_X, *_INT8, _BIAS), _ROWS),
    "int8_weight.backward": Example((_DY, *_INT8), _ROWS),
    "affine_weight.forward": Example((_X, *_AFFINE, _BIAS), _AFFINE_ROWS),
    "affine_weight.backward": Example((_DY, *_AFFINE), _AFFINE_ROWS),
    "int8_linear.forward": Example((_X, *_INT8, _BIAS)),
    "llm_int8.forward": Example(
        ("x=1,7;3,-1", *_INT8, _BIAS),
        {"threshold": 6.0, "exclusion": "columns", "outlier_weight": "dequantized"},
    ),
    "llm_int8.backward": Example((_DY, *_INT8)),
    **{
        f"lora.{name}": Example((_WEIGHT, *_ADAPTER), {**_SCALE, "fan_in_fan_out": False})
        for name in ("merge", "unmerge", "merge_safe")
    },
    "lora.merge_cycles": Example((_WEIGHT, *_ADAPTER), {**_SCALE, "fan_in_fan_out": False, "cycles": 2}),
    "blocks.merge": Example((*_BLOCKS, *_ADAPTER), {**_MERGED, **_STORED}),
    "blocks.merge_original": Example(
        (*_BLOCKS, "original=2,0.1;-0.1,1;0.3,0.5", *_ADAPTER), {**_MERGED, **_STORED}
    ),
    "blocks.merge_cycles": Example((*_BLOCKS, *_ADAPTER), {**_MERGED, **_STORED, "cycles": 2}),
    "double.merge": Example((*_NESTED, *_ADAPTER), {**_MERGED, **_STORED}),
    "int8.merge": Example((*_INT8, *_ADAPTER), {**_MERGED, **_ROWS}),
    "affine.merge": Example((*_AFFINE, *_ADAPTER), {**_MERGED, **_AFFINE_ROWS}),
    "bias.merge": Example(("base_bias=0.5,0,-0.5", "lora_bias=1,2,3"), {**_SCALE, "rank": 2, "unmerge": False}),
    "dora.merge": Example((_WEIGHT, _MAGNITUDE, *_ADAPTER), {**_SCALE, "fan_in_fan_out": False}),
    "dora.unmerge": Example(
        (_WEIGHT, "norms=4,3,0.5", _MAGNITUDE, *_ADAPTER), {**_SCALE, "fan_in_fan_out": False}
    ),
}  # fmt: skip
