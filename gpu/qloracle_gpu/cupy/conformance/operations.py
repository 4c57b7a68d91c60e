"""The operations of the suite by means of the public functions of the backend."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import qloracle_gpu.cupy as q
from qloracle.formats import FORMATS
from qloracle.tables import codebook_named
from qloracle_gpu.cupy.codebooks import entries_of
from qloracle_gpu.cupy.launcher import Array, operation
from qloracle_gpu.cupy.packing import STORAGE_ITEMS


@dataclass(frozen=True)
class Native:
    """An array and what its items mean: the library's arguments are bit patterns with a format's name."""

    array: Array
    dtype: str


def native(array: Array, dtype: str | None = None) -> Native:
    """Wrap a result; without a name, its dtype's own."""
    return Native(array, array.dtype.name if dtype is None else dtype)


def _encode(
    values: Native, random_bits: Native | None = None, *, fmt: str, rounding: str = "ties_to_even",
    overflow: str | None = None, nan: str | None = None,
) -> Native:  # fmt: skip
    source = values.dtype if values.dtype in FORMATS else None
    random = None if random_bits is None else random_bits.array
    words = q.encode(
        values.array, fmt, rounding=rounding, overflow=overflow, nan=nan, random_bits=random, source=source
    )
    return _typed(words, fmt)


def _decode(bits: Native, *, dtype: str) -> Native:
    return _typed(q.encode(q.decode(bits.array, bits.dtype), dtype), dtype)


def _typed(words: Array, fmt: str) -> Native:
    """Wrap words of a format, as its own dtype where there is one."""
    own = FORMATS[fmt].numpy
    return Native(words if own is None else words.view(own), fmt)


def _codebook_entries(*, codebook: str) -> Native:
    with operation("codebook_entries") as run:
        return native(entries_of(run, codebook_named(codebook)))


def _pack_4bit(codes: Native, *, pad_code: int) -> Native:
    return native(q.pack_4bit(codes.array, pad_code))


def _unpack_4bit(packed: Native, *, size: int) -> Native:
    return native(q.unpack_4bit(packed.array, size))


def _storage_view(packed: Native, *, storage: str) -> Native:
    return Native(q.storage_view(packed.array, storage), storage)


def _storage_bytes(stored: Native, *, storage: str) -> Native:
    return native(q.storage_bytes(stored.array.view(STORAGE_ITEMS[storage])))


def _block_absmax(x: Native, *, block_size: int) -> Native:
    return native(q.block_absmax(x.array, block_size, fmt=x.dtype))


def _quantize_blockwise(x: Native, *, codebook: str, block_size: int) -> tuple[Native, Native]:
    quantized = q.quantize_blockwise(x.array, codebook=codebook, block_size=block_size, fmt=x.dtype)
    return native(quantized.data), native(quantized.absmax)


def _dequantize_blockwise(
    data: Native, absmax: Native, *, codebook: str, block_size: int, shape: tuple[int, ...], dtype: str
) -> Native:
    quantized = q.QuantizedBlocks(data.array, absmax.array, codebook, block_size, shape, dtype)
    return Native(q.dequantize_blockwise(quantized), dtype)


def _nested(quantized: q.QuantizedAbsmax) -> tuple[Native, Native, Native]:
    return native(quantized.codes), native(quantized.absmax), native(quantized.offset)


def _quantize_absmax(absmax: Native, *, codebook: str) -> tuple[Native, Native, Native]:
    return _nested(q.quantize_absmax(absmax.array, codebook=codebook))


def _dequantize_absmax(absmax_codes: Native, nested_absmax: Native, offset: Native, *, codebook: str) -> Native:
    quantized = q.QuantizedAbsmax(absmax_codes.array, nested_absmax.array, offset.array)
    return native(q.dequantize_absmax(quantized, codebook=codebook))


def _quantize_double(x: Native, *, codebook: str, block_size: int, **options: Any) -> tuple[Native, ...]:
    quantized = q.quantize_double(x.array, codebook=codebook, block_size=block_size, fmt=x.dtype, **options)
    return native(quantized.data), *_nested(quantized.absmax)


def _dequantize_double(
    data: Native, absmax_codes: Native, nested_absmax: Native, offset: Native, *, codebook: str, block_size: int,
    shape: tuple[int, ...], dtype: str, nested_codebook: str = "dynamic_signed",
) -> Native:  # fmt: skip
    absmax = q.QuantizedAbsmax(absmax_codes.array, nested_absmax.array, offset.array)
    quantized = q.DoubleQuantized(data.array, absmax, codebook, block_size, shape, dtype, nested_codebook)
    return Native(q.dequantize_double(quantized), dtype)


def _quantize_int8(x: Native, *, granularity: str, block_size: int | None) -> tuple[Native, Native]:
    quantized = q.quantize_int8(x.array, granularity=granularity, block_size=block_size, fmt=x.dtype)
    return native(quantized.codes), native(quantized.absmax)


def _dequantize_int8(codes: Native, absmax: Native, *, granularity: str, block_size: int | None, dtype: str) -> Native:
    quantized = q.QuantizedInt8(codes.array, absmax.array, granularity, block_size, dtype)
    return Native(q.dequantize_int8(quantized), dtype)


def _int8_matmul(a: Native, b: Native) -> Native:
    return native(q.int8_matmul(a.array, b.array))


def _scale_int8_matmul(
    acc: Native, row_absmax: Native, column_absmax: Native, bias: Native | None, *, dtype: str
) -> Native:
    shift = None if bias is None else q.encode(bias.array, "float32", source=bias.dtype).view("float32")
    return Native(q.scale_int8_matmul(acc.array, row_absmax.array, column_absmax.array, shift, out_dtype=dtype), dtype)


CONVERSIONS_AND_QUANTIZERS: dict[str, Callable[..., Any]] = {
    "encode": _encode,
    "decode": _decode,
    "codebook_entries": _codebook_entries,
    "pack_4bit": _pack_4bit,
    "unpack_4bit": _unpack_4bit,
    "storage_view": _storage_view,
    "storage_bytes": _storage_bytes,
    "block_absmax": _block_absmax,
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
}
