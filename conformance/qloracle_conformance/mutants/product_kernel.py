"""A product with a weight quantized in blocks, as a kernel computes it, with the places open for faults to enter."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.nested_absmax import QuantizedAbsmax, dequantize_absmax
from qloracle.operands import as_rows
from qloracle.packing import unpack_4bit
from qloracle.rounding import decode, encode
from qloracle.tables import codebook_named
from qloracle_conformance.arrays import HostArray, host


@dataclass(frozen=True)
class Product:
    """What a kernel multiplies, in float64."""

    x: Array  # (M, K)
    entries: Array  # (N, K)
    scale: Array  # (N, K), the absmax of each element's block
    bias: Array
    block_size: int
    dtype: str

    @property
    def weight(self) -> Array:
        """The dequantized weight."""
        with np.errstate(all="ignore"):
            single = (self.entries.astype(np.float32) * self.scale.astype(np.float32)).astype(np.float64)
        return np.where(self.scale == 0, 0.0, single)

    def narrow(self, values: Array, dtype: str = "") -> Array:
        """Return values rounded to a format, by default that of x."""
        return decode(encode(values, dtype or self.dtype), dtype or self.dtype)


def product_by(formula: Callable[[Product], Array]) -> dict[str, Callable[..., HostArray]]:
    """Return both functions, computing y by a formula."""

    def matmul(
        x: HostArray, bias: HostArray | None, *, codebook: str, block_size: int, shape: Any, **rest: Any
    ) -> HostArray:
        table, size = codebook_named(codebook), shape[0] * shape[1]
        data = rest["data"].items
        codes = unpack_4bit(data, size) if table.code_bits == 4 else data.reshape(-1)
        absmax = _absmax(rest)
        with np.errstate(all="ignore"):
            product = Product(
                as_rows(x.real()), table.entries[codes].reshape(shape).astype(np.float64),
                absmax[np.arange(size) // block_size].reshape(shape).astype(np.float64),
                np.zeros(shape[0]) if bias is None else bias.real(), block_size, x.dtype,
            )  # fmt: skip
            y = formula(product)
        return host(np.asarray(encode(y.reshape(*x.shape[:-1], shape[0]), x.dtype)), x.dtype)

    return {"quantized_matmul": matmul, "double_quantized_matmul": matmul}


def _absmax(rest: dict[str, Any]) -> Array:
    if "absmax" in rest:
        items: Array = rest["absmax"].items
        return items
    offset = np.float32(rest["offset"].items)
    return dequantize_absmax(QuantizedAbsmax(rest["absmax_codes"].items, rest["nested_absmax"].items, offset))


def right_product(p: Product) -> Array:
    """Return y as the rule has it."""
    y: Array = p.x @ p.weight.T + p.bias
    return y
