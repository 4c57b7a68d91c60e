"""The reference as a backend: the strict twin that proves that the suite can be passed."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import qloracle
from qloracle import lora, qlora
from qloracle.blocks import block_absmax
from qloracle.blockwise import QuantizedBlocks, dequantize_blockwise, quantize_blockwise
from qloracle.double_quant import (
    DoubleQuantized,
    QuantizedAbsmax,
    dequantize_absmax,
    dequantize_double,
    quantize_absmax,
    quantize_double,
)
from qloracle.formats import Array
from qloracle.int8 import QuantizedInt8, dequantize_int8, int8_matmul, quantize_int8, scale_int8_matmul
from qloracle.packing import pack_4bit, unpack_4bit
from qloracle.rounding import decode, encode
from qloracle_conformance.arrays import LAYOUTS, HostArray, Placement, host, view_of
from qloracle_conformance.backend import Backend, Claim
from qloracle_conformance.operations.layers import Arguments
from qloracle_conformance.registry import OPERATIONS

SUMS = ("int8.scale", "lora.forward", "lora.backward", "qlora.forward", "qlora.backward")


def backend(device: str = "cpu") -> Backend:
    """Return the reference as a backend; there is only one device.

    Raises
    ------
    ValueError
        For another device than "cpu".
    """
    if device != "cpu":
        raise ValueError(f"the reference runs on cpu only, got {device!r}")
    claims = tuple(
        Claim(
            operation=name,
            levels={"*": "bound" if name in SUMS else "exact"},
            out_dtypes=("float32",) if name.endswith("decode") else ("float32", "float16", "bfloat16"),
            layouts=LAYOUTS,
            features=("bias", "dropout", "rank_stabilized", "minus_128"),
            source="the reference defines the rules",
        )
        for name in OPERATIONS
    )
    return Backend("reference", qloracle.SPECIFICATION_VERSION, place, fetch, OPS, claims, {"numpy": np.__version__})


def place(buffer: Array, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> HostArray:
    """Return a view of the buffer with the type's name."""
    return HostArray(view_of(Placement(buffer, dtype, shape, strides, offset)), dtype)


def fetch(native: HostArray) -> tuple[Array, str]:
    """Return the items and the type's name."""
    return native.items, native.dtype


def _floats(values: Array, dtype: str) -> HostArray:
    return HostArray(np.asarray(values), dtype)


def _encode(values: HostArray, *, fmt: str) -> HostArray:
    return host(np.asarray(encode(values.items, fmt)), fmt)


def _decode(bits: HostArray, *, dtype: str) -> HostArray:
    return host(np.asarray(encode(decode(bits.items, bits.dtype), dtype)), dtype)


def _block_absmax(x: HostArray, *, block_size: int) -> HostArray:
    return host(block_absmax(x.items, block_size, fmt=x.dtype))


def _pack_4bit(codes: HostArray, *, pad_code: int) -> HostArray:
    return host(pack_4bit(codes.items, pad_code))


def _unpack_4bit(packed: HostArray, *, size: int) -> HostArray:
    return host(unpack_4bit(packed.items, size))


def _quantize_blockwise(x: HostArray, *, codebook: str, block_size: int) -> tuple[HostArray, HostArray]:
    quantized = quantize_blockwise(x.items, codebook=codebook, block_size=block_size, fmt=x.dtype)
    return host(quantized.data), host(quantized.absmax)


def _dequantize_blockwise(
    data: HostArray, absmax: HostArray, *, codebook: str, block_size: int, shape: tuple[int, ...], dtype: str
) -> HostArray:
    quantized = QuantizedBlocks(data.items, absmax.items, codebook, block_size, shape, dtype)
    return _floats(dequantize_blockwise(quantized), dtype)


def _quantize_absmax(absmax: HostArray) -> tuple[HostArray, ...]:
    return _nested(quantize_absmax(absmax.items))


def _nested(quantized: QuantizedAbsmax) -> tuple[HostArray, ...]:
    return host(quantized.codes), host(quantized.absmax), host(np.asarray(quantized.offset))


def _dequantize_absmax(absmax_codes: HostArray, nested_absmax: HostArray, offset: HostArray) -> HostArray:
    return host(dequantize_absmax(QuantizedAbsmax(absmax_codes.items, nested_absmax.items, np.float32(offset.items))))


def _quantize_double(x: HostArray, *, codebook: str, block_size: int) -> tuple[HostArray, ...]:
    quantized = quantize_double(x.items, codebook=codebook, block_size=block_size, fmt=x.dtype)
    return host(quantized.data), *_nested(quantized.absmax)


def _dequantize_double(
    data: HostArray, absmax_codes: HostArray, nested_absmax: HostArray, offset: HostArray, *,
    codebook: str, block_size: int, shape: tuple[int, ...], dtype: str,
) -> HostArray:  # fmt: skip
    absmax = QuantizedAbsmax(absmax_codes.items, nested_absmax.items, np.float32(offset.items))
    return _floats(dequantize_double(DoubleQuantized(data.items, absmax, codebook, block_size, shape, dtype)), dtype)


def _quantize_int8(x: HostArray, *, granularity: str, block_size: int | None) -> tuple[HostArray, HostArray]:
    quantized = quantize_int8(x.items, granularity=granularity, block_size=block_size, fmt=x.dtype)
    return host(quantized.codes), host(quantized.absmax)


def _dequantize_int8(
    codes: HostArray, absmax: HostArray, *, granularity: str, block_size: int | None, dtype: str
) -> HostArray:
    return _floats(dequantize_int8(QuantizedInt8(codes.items, absmax.items, granularity, block_size, dtype)), dtype)


def _int8_matmul(a: HostArray, b: HostArray) -> HostArray:
    return host(int8_matmul(a.items, b.items))


def _scale_int8_matmul(
    acc: HostArray, row_absmax: HostArray, column_absmax: HostArray, bias: HostArray | None, *, dtype: str
) -> HostArray:
    shift = None if bias is None else bias.single()
    return host(
        np.asarray(encode(scale_int8_matmul(acc.items, row_absmax.items, column_absmax.items, shift), dtype)), dtype
    )


def plain_arguments(arrays: Mapping[str, HostArray | None], options: Mapping[str, Any]) -> Arguments:
    """Return the arguments of a layer as the reference takes them: floats widened, the mask as bool."""
    named = {n: (a.items if a.dtype == "bool" else a.single()) for n, a in arrays.items() if a is not None}
    return {**named, **options}


def _lora_forward(x: HostArray, **rest: Any) -> HostArray:
    arrays = {"x": x, **{n: v for n, v in rest.items() if isinstance(v, HostArray)}}
    options = {n: v for n, v in rest.items() if not isinstance(v, HostArray) and v is not None}
    return host(np.asarray(encode(lora.lora_forward(**plain_arguments(arrays, options)), x.dtype)), x.dtype)


def _lora_backward(dy: HostArray, **rest: Any) -> tuple[HostArray, ...]:
    arrays = {"dy": dy, **{n: v for n, v in rest.items() if isinstance(v, HostArray)}}
    options = {n: v for n, v in rest.items() if not isinstance(v, HostArray) and v is not None}
    gradients = lora.lora_backward(**plain_arguments(arrays, options))
    return tuple(host(np.asarray(encode(g, dy.dtype)), dy.dtype) for g in vars(gradients).values())


def _dequantized(
    data: HostArray, absmax: HostArray, codebook: str, block_size: int, shape: tuple[int, ...]
) -> HostArray:
    quantized = QuantizedBlocks(data.items, absmax.items, codebook, block_size, shape, "float32")
    return host(qlora.qlora_weight(quantized))


def _qlora_forward(
    x: HostArray,
    data: HostArray,
    absmax: HostArray,
    *,
    codebook: str,
    block_size: int,
    shape: tuple[int, ...],
    **rest: Any,
) -> HostArray:
    return _lora_forward(x, weight=_dequantized(data, absmax, codebook, block_size, shape), **rest)


def _qlora_backward(
    dy: HostArray,
    data: HostArray,
    absmax: HostArray,
    *,
    codebook: str,
    block_size: int,
    shape: tuple[int, ...],
    **rest: Any,
) -> tuple[HostArray, ...]:
    return _lora_backward(dy, weight=_dequantized(data, absmax, codebook, block_size, shape), **rest)


OPS: dict[str, Callable[..., Any]] = {
    "encode": _encode,
    "decode": _decode,
    "block_absmax": _block_absmax,
    "pack_4bit": _pack_4bit,
    "unpack_4bit": _unpack_4bit,
    "quantize_blockwise": _quantize_blockwise,
    "dequantize_blockwise": _dequantize_blockwise,
    "quantize_absmax": _quantize_absmax,
    "dequantize_absmax": _dequantize_absmax,
    "quantize_double": _quantize_double,
    "dequantize_double": _dequantize_double,
    "quantize_int8": _quantize_int8,
    "dequantize_int8": _dequantize_int8,
    "int8_matmul": _int8_matmul,
    "scale_int8_matmul": _scale_int8_matmul,
    "lora_forward": _lora_forward,
    "lora_backward": _lora_backward,
    "qlora_forward": _qlora_forward,
    "qlora_backward": _qlora_backward,
}
