"""Right rewrites of blockwise quantization, tables, storage and nested absmax, which must not be accused."""

from math import fsum
from typing import Any

import numpy as np

from qloracle.blocks import block_absmax, block_count, spread
from qloracle.dynamic_map import derive_dynamic_signed, derive_dynamic_unsigned
from qloracle.float8_map import derive_float8
from qloracle.formats import Array
from qloracle.fp4 import derive_fp4
from qloracle.linear_map import derive_linear
from qloracle.nested_absmax import quantize_absmax
from qloracle.nf4 import derive_nf4
from qloracle.rounding import encode
from qloracle.tables import codebook_named
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.kernels import packed
from qloracle_conformance.mutants.mutant import Rewrite

DERIVATIONS = {
    "nf4": derive_nf4,
    "fp4": derive_fp4,
    "dynamic_signed": derive_dynamic_signed,
    "dynamic_unsigned": derive_dynamic_unsigned,
    "linear_signed": lambda: derive_linear(signed=True, bits=8),
    "linear_unsigned": lambda: derive_linear(signed=False, bits=8),
    "linear_signed_4bit": lambda: derive_linear(signed=True, bits=4),
    "linear_unsigned_4bit": lambda: derive_linear(signed=False, bits=4),
    "float8": derive_float8,
}


def _without_division(x: HostArray, *, codebook: str, block_size: int) -> Any:
    """Compare x with midpoint · absmax in float64, where that product is exact: 29 and 24 bits."""
    flat, table = x.single().reshape(-1), codebook_named(codebook)
    absmax = block_absmax(flat, block_size)
    rank = np.zeros(flat.size, np.int64)
    with np.errstate(invalid="ignore"):
        scale = spread(absmax, flat.size, block_size).astype(np.float64) if flat.size else absmax
        for midpoint in table.midpoints:
            rank += flat > midpoint * scale
    usable = np.isfinite(scale) & (scale > 0)
    codes = np.where(usable, table.value_order[rank], table.zero_code).astype(np.uint8)
    return packed(codes, codebook), host(absmax)


def _second_zero_for_negatives(x: HostArray, *, codebook: str, block_size: int) -> Any:
    """Write the second code of the value zero for negative elements: the sign of zero is a variant."""
    data, absmax = OPS["quantize_blockwise"](x, codebook=codebook, block_size=block_size)
    second = {"fp4": 0x88, "float8": 0x80}.get(codebook)
    if second is None or x.items.size % 2:
        return data, absmax
    negative = np.signbit(x.single().reshape(-1))
    if codebook == "float8":
        return host(np.where(negative & (data.items == 0), np.uint8(0x80), data.items)), absmax
    high = np.where(negative[0::2] & (data.items >> 4 == 0), 0x80, 0)
    low = np.where(negative[1::2] & (data.items & 15 == 0), 0x08, 0)
    return host((data.items | high | low).astype(np.uint8)), absmax


def _through_float64(
    data: HostArray, absmax: HostArray, *, codebook: str, block_size: int, shape: tuple[int, ...], dtype: str
) -> HostArray:
    """Multiply in float64, round to float32, then to the output format; one element at a time finds its block."""
    ones = host(np.ones(absmax.items.size, np.float32))
    entries = OPS["dequantize_blockwise"](
        data, ones, codebook=codebook, block_size=block_size, shape=shape, dtype="float32"
    ).items.reshape(-1)
    scale = absmax.items[np.arange(entries.size) // block_size] if entries.size else absmax.items
    with np.errstate(all="ignore"):
        product = (entries.astype(np.float64) * scale).astype(np.float32)
    words = np.asarray(encode(np.where(scale == 0, np.float32(0), product), dtype))
    return host(words.reshape(shape), dtype)


def _segments(x: HostArray, *, block_size: int) -> HostArray:
    """Reduce by segments of magnitudes."""
    flat = x.single().reshape(-1)
    if not flat.size:
        return host(np.zeros(0, np.float32))
    starts = np.arange(block_count(flat.size, block_size)) * block_size
    largest: Array = np.maximum.reduceat(np.abs(flat), starts)
    return host(np.where(np.isinf(largest), np.float32(np.nan), largest))


def _packed_by_product(codes: HostArray, *, pad_code: int) -> HostArray:
    flat = codes.items.reshape(-1)
    even = np.concatenate([flat, np.full(flat.size % 2, pad_code, np.uint8)]).reshape(-1, 2)
    return host((even.astype(np.uint16) @ np.array([16, 1], np.uint16)).astype(np.uint8))


def _offset_by_fsum(absmax: HostArray, *, codebook: str) -> Any:
    """Divide the exactly rounded float64 sum: two roundings, never more than a neighbour away."""
    finite = absmax.items[np.isfinite(absmax.items)]
    mean = np.float32(fsum(finite.tolist()) / max(finite.size, 1))
    nested = quantize_absmax(absmax.items, codebook=codebook, offset=mean)
    return host(nested.codes), host(nested.absmax), host(np.asarray(nested.offset))


def _derived(*, codebook: str) -> HostArray:
    return host(DERIVATIONS[codebook]())


def _stored_from_a_copy(packed_bytes: HostArray, *, storage: str) -> HostArray:
    copied = host(np.frombuffer(packed_bytes.items.tobytes(), np.uint8))
    return OPS["storage_view"](copied, storage=storage)  # type: ignore[no-any-return]


def block_rewrites() -> list[Rewrite]:
    """Return the right rewrites."""
    return [
        Rewrite("codes-without-division", "x is compared with midpoint times absmax",
                {"quantize_blockwise": _without_division}, {}),
        Rewrite("second-zero-for-negatives", "negative elements near zero get the code of -0",
                {"quantize_blockwise": _second_zero_for_negatives}, {}),
        Rewrite("values-through-float64", "products in float64, rounded to float32 first",
                {"dequantize_blockwise": _through_float64}, {}),
        Rewrite("absmax-by-segments", "absmax by segments of magnitudes", {"block_absmax": _segments}, {}),
        Rewrite("packed-by-product", "nibbles packed by a product", {"pack_4bit": _packed_by_product}, {}),
        Rewrite("offset-by-fsum", "the mean of the absmax in two roundings, claimed at level tie",
                {"quantize_absmax": _offset_by_fsum}, {"offset": "tie"}),
        Rewrite("tables-derived", "tables derived at run time", {"codebook_entries": _derived}, {}),
        Rewrite("stored-from-a-copy", "storage views of a copy",
                {"storage_view": lambda packed, *, storage: _stored_from_a_copy(packed, storage=storage)}, {}),
    ]  # fmt: skip
