"""Signatures of double quantization."""

from typing import Any, Protocol

Native = Any


class QuantizeAbsmax(Protocol):
    """``quantize_absmax``: operation absmax.quantize, double quantization of given absmax."""

    def __call__(self, absmax: Native) -> tuple[Native, Native, Native]:
        """Return codes (uint8), nested absmax (float32, one for 256 codes) and offset (float32, 0-d)."""
        ...


class DequantizeAbsmax(Protocol):
    """``dequantize_absmax``: operation absmax.dequantize."""

    def __call__(self, absmax_codes: Native, nested_absmax: Native, offset: Native) -> Native:
        """Return float32 absmax of the shape of the codes."""
        ...


class QuantizeDouble(Protocol):
    """``quantize_double``: operation nf4_double.quantize, both quantizations in one call."""

    def __call__(self, x: Native, *, codebook: str, block_size: int) -> tuple[Native, Native, Native, Native]:
        """Return data, codes of the absmax, nested absmax, offset."""
        ...


class DequantizeDouble(Protocol):
    """``dequantize_double``: operation nf4_double.dequantize."""

    def __call__(
        self, data: Native, absmax_codes: Native, nested_absmax: Native, offset: Native, *,
        codebook: str, block_size: int, shape: tuple[int, ...], dtype: str,
    ) -> Native:  # fmt: skip
        """Return values of type `dtype` and shape `shape`."""
        ...


PROTOCOLS: dict[str, type] = {
    "quantize_absmax": QuantizeAbsmax,
    "dequantize_absmax": DequantizeAbsmax,
    "quantize_double": QuantizeDouble,
    "dequantize_double": DequantizeDouble,
}
