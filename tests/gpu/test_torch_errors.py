"""Every bad argument gives the error of the reference: its type, and the argument it names."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import qloracle
import qloracle_gpu.torch as backend
from qloracle.errors import QloracleError


class Side:
    """One implementation and the arrays that it takes."""

    def __init__(self, module: Any, make: Callable[[np.ndarray], Any]) -> None:
        self.module, self.make = module, make

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)

    def ones(self, *shape: int, dtype: str = "float32") -> Any:
        return self.make(np.ones(shape, dtype))

    def layer(self, **changes: Any) -> dict[str, Any]:
        operands = {"x": self.ones(2, 3), "weight": self.ones(4, 3), "lora_a": self.ones(1, 3)}
        return operands | {"lora_b": self.ones(4, 1), "alpha": 1} | changes

    def blocks(self, codebook: str = "nf4", **changes: Any) -> Any:
        return replace(self.quantize_blockwise(self.ones(5), codebook=codebook, block_size=2), **changes)

    def nested(self, **changes: Any) -> Any:
        return replace(self.quantize_absmax(self.ones(3)), **changes)

    def int8(self, **changes: Any) -> Any:
        return replace(self.quantize_int8(self.ones(2, 3), granularity="row"), **changes)


REFERENCE = Side(qloracle, np.asarray)
TORCH = Side(backend, torch.from_numpy)

CALLS: dict[str, Callable[[Side], Any]] = {
    "absmax of float64": lambda s: s.block_absmax(s.ones(2, dtype="float64"), 2),
    "absmax of integers": lambda s: s.block_absmax(s.ones(2, dtype="int32"), 2),
    "absmax of a list": lambda s: s.block_absmax([1.0], 2),
    "absmax in blocks of zero": lambda s: s.block_absmax(s.ones(2), 0),
    "absmax in blocks of 2.0": lambda s: s.block_absmax(s.ones(2), 2.0),
    "absmax in blocks of True": lambda s: s.block_absmax(s.ones(2), True),
    "encode to an unknown format": lambda s: s.encode(s.ones(2), "float8"),
    "encode with an unknown rounding": lambda s: s.encode(s.ones(2), "float16", rounding="down"),
    "encode with an unknown overflow": lambda s: s.encode(s.ones(2), "float16", overflow="wrap"),
    "encode booleans": lambda s: s.encode(s.ones(2, dtype="bool"), "float16"),
    "encode complex numbers": lambda s: s.encode(s.ones(2, dtype="complex64"), "float16"),
    "encode a list": lambda s: s.encode([1.0], "float16"),
    "decode integers": lambda s: s.decode(s.ones(2, dtype="uint8")),
    "pack floats": lambda s: s.pack_4bit(s.ones(2)),
    "pack a large code": lambda s: s.pack_4bit(s.make(np.array([16], np.uint8))),
    "pack with a large padding code": lambda s: s.pack_4bit(s.ones(3, dtype="uint8"), 16),
    "unpack floats": lambda s: s.unpack_4bit(s.ones(2), 4),
    "unpack too few bytes": lambda s: s.unpack_4bit(s.ones(2, dtype="uint8"), 5),
    "unpack too many bytes": lambda s: s.unpack_4bit(s.ones(2, dtype="uint8"), 2),
    "unpack a negative number of codes": lambda s: s.unpack_4bit(s.ones(2, dtype="uint8"), -4),
    "quantize float64": lambda s: s.quantize_blockwise(s.ones(2, dtype="float64")),
    "quantize with an unknown codebook": lambda s: s.quantize_blockwise(s.ones(2), codebook="nf5"),
    "quantize in blocks of -4": lambda s: s.quantize_blockwise(s.ones(2), block_size=-4),
    "dequantize with an unknown codebook": lambda s: s.dequantize_blockwise(replace(s.blocks(), codebook="x")),
    "dequantize to float64": lambda s: s.dequantize_blockwise(s.blocks(), dtype="float64"),
    "dequantize float absmax of float64": lambda s: s.dequantize_blockwise(s.blocks(absmax=s.ones(3, dtype="float64"))),
    "dequantize too few absmax": lambda s: s.dequantize_blockwise(s.blocks(absmax=s.ones(2))),
    "dequantize float data": lambda s: s.dequantize_blockwise(s.blocks(data=s.ones(3))),
    "dequantize a list": lambda s: s.dequantize_blockwise(s.blocks(data=[1, 2, 3])),
    "dequantize too few bytes": lambda s: s.dequantize_blockwise(s.blocks(data=s.ones(2, dtype="uint8"))),
    "dequantize too few codes": lambda s: s.dequantize_blockwise(
        s.blocks("dynamic_signed", data=s.ones(4, dtype="uint8"))
    ),
    "absmax to quantize of two dimensions": lambda s: s.quantize_absmax(s.ones(2, 2)),
    "absmax to quantize of float64": lambda s: s.quantize_absmax(s.ones(2, dtype="float64")),
    "absmax with an unknown codebook": lambda s: s.quantize_absmax(s.ones(2), codebook="fp5"),
    "absmax with an offset of float64": lambda s: s.quantize_absmax(s.ones(2), offset=s.ones(dtype="float64")),
    "restore absmax from float codes": lambda s: s.dequantize_absmax(s.nested(codes=s.ones(3))),
    "restore absmax from codes of two dimensions": lambda s: s.dequantize_absmax(
        s.nested(codes=s.ones(3, 1, dtype="uint8"))
    ),
    "restore absmax from large codes": lambda s: s.dequantize_absmax(
        s.nested(codes=s.make(np.array([0, 16, 3], np.uint8))), codebook="nf4"
    ),
    "restore absmax from two groups": lambda s: s.dequantize_absmax(s.nested(absmax=s.ones(2))),
    "store floats": lambda s: s.storage_view(s.ones(2), "float16"),
    "store bytes as float64": lambda s: s.storage_view(s.ones(8, dtype="uint8"), "float64"),
    "store bytes that fill no item": lambda s: s.storage_view(s.ones(3, dtype="uint8"), "float16"),
    "INT8 of float64": lambda s: s.quantize_int8(s.ones(2, dtype="float64")),
    "INT8 by an unknown granularity": lambda s: s.quantize_int8(s.ones(2), granularity="layer"),
    "INT8 by block without a size": lambda s: s.quantize_int8(s.ones(2), granularity="block"),
    "INT8 by row with a block size": lambda s: s.quantize_int8(s.ones(2), granularity="row", block_size=2),
    "INT8 by row of a scalar": lambda s: s.quantize_int8(s.ones(), granularity="row"),
    "INT8 codes of uint8": lambda s: s.dequantize_int8(s.int8(codes=s.ones(2, 3, dtype="uint8"))),
    "INT8 absmax of float64": lambda s: s.dequantize_int8(s.int8(absmax=s.ones(2, dtype="float64"))),
    "INT8 absmax of another shape": lambda s: s.dequantize_int8(s.int8(absmax=s.ones(3))),
    "INT8 to float64": lambda s: s.dequantize_int8(s.int8(), dtype="float64"),
    "multiply floats": lambda s: s.int8_matmul(s.ones(2, 2), s.ones(2, 2, dtype="int8")),
    "multiply by floats": lambda s: s.int8_matmul(s.ones(2, 2, dtype="int8"), s.ones(2, 2)),
    "multiply different inner dimensions": lambda s: s.int8_matmul(*(s.ones(2, k, dtype="int8") for k in (2, 3))),
    "multiply a scalar": lambda s: s.int8_matmul(s.ones(dtype="int8"), s.ones(2, 2, dtype="int8")),
    "scale floats": lambda s: s.scale_int8_matmul(s.ones(2, 3), s.ones(2), s.ones(3)),
    "scale a vector": lambda s: s.scale_int8_matmul(s.ones(2, dtype="int32"), s.ones(2), s.ones(3)),
    "scale by too few rows": lambda s: s.scale_int8_matmul(s.ones(2, 3, dtype="int32"), s.ones(3), s.ones(3)),
    "scale by columns of float64": lambda s: s.scale_int8_matmul(
        s.ones(2, 3, dtype="int32"), s.ones(2), s.ones(3, dtype="float64")
    ),
    "scale with a long bias": lambda s: s.scale_int8_matmul(
        s.ones(2, 3, dtype="int32"), s.ones(2), s.ones(3), s.ones(4)
    ),
    "a layer on float64": lambda s: s.lora_forward(**s.layer(x=s.ones(2, 3, dtype="float64"))),
    "a layer on a scalar": lambda s: s.lora_forward(**s.layer(x=s.ones())),
    "a layer with a weight vector": lambda s: s.lora_forward(**s.layer(weight=s.ones(3))),
    "a layer with a wide weight": lambda s: s.lora_forward(**s.layer(weight=s.ones(4, 5))),
    "a layer with a wide A": lambda s: s.lora_forward(**s.layer(lora_a=s.ones(1, 5))),
    "a layer with a short B": lambda s: s.lora_forward(**s.layer(lora_b=s.ones(3, 1))),
    "a layer of rank zero": lambda s: s.lora_forward(**s.layer(lora_a=s.ones(0, 3), lora_b=s.ones(4, 0))),
    "a layer with infinite alpha": lambda s: s.lora_forward(**s.layer(alpha=float("inf"))),
    "a layer with dropout 2": lambda s: s.lora_forward(**s.layer(dropout=2.0)),
    "a layer with dropout but no mask": lambda s: s.lora_forward(**s.layer(dropout=0.5)),
    "a layer with a float mask": lambda s: s.lora_forward(**s.layer(dropout=0.5, mask=s.ones(2, 3))),
    "a layer with a narrow mask": lambda s: s.lora_forward(**s.layer(dropout=0.5, mask=s.ones(2, 2, dtype="bool"))),
    "a layer with a long bias": lambda s: s.lora_forward(**s.layer(bias=s.ones(5))),
    "a layer with a bias of integers": lambda s: s.lora_forward(**s.layer(bias=s.ones(4, dtype="int32"))),
    "gradients of a narrow dy": lambda s: s.lora_backward(s.ones(2, 3), **s.layer()),
    "gradients of float64": lambda s: s.lora_backward(s.ones(2, 4, dtype="float64"), **s.layer()),
    "a quantized layer with a plain weight": lambda s: s.qlora_forward(**s.layer()),
    "a quantized layer with a vector": lambda s: s.qlora_forward(**s.layer(weight=s.blocks())),
    "a quantized layer rounded to float64": lambda s: s.qlora_forward(
        **s.layer(weight=s.quantize_blockwise(s.ones(4, 3))), weight_rounding="float64"
    ),
    "gradients of a quantized layer with a plain weight": lambda s: s.qlora_backward(s.ones(2, 4), **s.layer()),
}


def error_of(call: Callable[[Side], Any], side: Side) -> SimpleNamespace:
    """The type of the error that a call raises, and the argument that it names."""
    with pytest.raises(QloracleError) as caught:
        call(side)
    return SimpleNamespace(type=caught.type, argument=str(caught.value).partition(" must be ")[0])


@pytest.mark.parametrize("name", CALLS)
def test_a_bad_argument_gives_the_error_of_the_reference(name: str) -> None:
    expected, got = error_of(CALLS[name], REFERENCE), error_of(CALLS[name], TORCH)
    assert got == expected, f"{name}: {got}, the reference gives {expected}"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: backend.decode(torch.ones(1, dtype=torch.float64)), "^bits must be float32, float16 or bfloat16"),
        (lambda: backend.block_absmax(np.ones(2, np.float32), 2), "^x must be a torch tensor, got ndarray"),
        (lambda: backend.lora_forward(**TORCH.layer(), out_dtype="float64"), "^out_dtype must be one of float32"),
        (
            lambda: backend.scale_int8_matmul(
                TORCH.ones(1, 1, dtype="int32"), TORCH.ones(1), TORCH.ones(1), out_dtype="x"
            ),
            "^out_dtype must be one of float32",
        ),
        (lambda: backend.quantize_absmax(torch.ones(2), offset=torch.ones(1)), "^offset must be a 0-d float32 tensor"),
        (lambda: backend.dequantize_absmax(TORCH.nested(offset=1.0)), "^offset must be a torch tensor, got float"),
    ],
)
def test_what_only_tensors_can_get_wrong_is_refused_too(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(QloracleError, match=message):
        call()
