"""Signatures of absmax INT8."""

from typing import Any, Protocol

Native = Any


class QuantizeInt8(Protocol):
    """``quantize_int8``: operations int8_tensor, int8_row, int8_column and int8_block .quantize."""

    def __call__(self, x: Native, *, granularity: str, block_size: int | None) -> tuple[Native, Native]:
        """Return codes (int8, the shape of x) and absmax (float32: (), one a row, a column, or a block)."""
        ...


class DequantizeInt8(Protocol):
    """``dequantize_int8``: operations int8_tensor, int8_row, int8_column and int8_block .dequantize."""

    def __call__(
        self, codes: Native, absmax: Native, *, granularity: str, block_size: int | None, dtype: str
    ) -> Native:
        """Return values of type `dtype`, of the shape of the codes."""
        ...


class Int8Matmul(Protocol):
    """``int8_matmul``: a bᵀ with int32 accumulation. Clause [int8.matmul]."""

    def __call__(self, a: Native, b: Native) -> Native:
        """Return int32 of shape (..., N) from int8 (..., K) and (N, K)."""
        ...


class ScaleInt8Matmul(Protocol):
    """``scale_int8_matmul``: operation int8.scale. Clause [int8.scale]."""

    def __call__(
        self, acc: Native, row_absmax: Native, column_absmax: Native, bias: Native | None, *, dtype: str
    ) -> Native:
        """Return acc · row · column / 127² + bias as `dtype`, shape (M, N)."""
        ...


PROTOCOLS: dict[str, type] = {
    "quantize_int8": QuantizeInt8,
    "dequantize_int8": DequantizeInt8,
    "int8_matmul": Int8Matmul,
    "scale_int8_matmul": ScaleInt8Matmul,
}
