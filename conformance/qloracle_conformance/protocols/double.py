"""Signatures of double quantization."""

from typing import Any, Protocol

Native = Any


class QuantizeAbsmax(Protocol):
    """``quantize_absmax``: operation absmax.quantize, double quantization of given absmax.

    `codebook` is "dynamic_signed" unless the claim says otherwise; so are that of `dequantize_absmax`, and
    `nested_codebook` of the two functions below.
    """

    def __call__(self, absmax: Native, *, codebook: str) -> tuple[Native, Native, Native]:
        """Return codes (uint8), nested absmax (float32, one for 256 codes) and offset (float32, 0-d)."""
        ...


class DequantizeAbsmax(Protocol):
    """``dequantize_absmax``: operation absmax.dequantize."""

    def __call__(self, absmax_codes: Native, nested_absmax: Native, offset: Native, *, codebook: str) -> Native:
        """Return float32 absmax of the shape of the codes."""
        ...


class QuantizeDouble(Protocol):
    """``quantize_double``: operations nf4_double.quantize and fp4_double.quantize, both quantizations in one call."""

    def __call__(
        self, x: Native, *, codebook: str, block_size: int, nested_codebook: str
    ) -> tuple[Native, Native, Native, Native]:
        """Return data, codes of the absmax, nested absmax, offset."""
        ...


class DequantizeDouble(Protocol):
    """``dequantize_double``: operations nf4_double.dequantize and fp4_double.dequantize."""

    def __call__(
        self, data: Native, absmax_codes: Native, nested_absmax: Native, offset: Native, *,
        codebook: str, block_size: int, shape: tuple[int, ...], dtype: str, nested_codebook: str,
    ) -> Native:  # fmt: skip
        """Return values of type `dtype` and shape `shape`."""
        ...


PROTOCOLS: dict[str, type] = {
    "quantize_absmax": QuantizeAbsmax,
    "dequantize_absmax": DequantizeAbsmax,
    "quantize_double": QuantizeDouble,
    "dequantize_double": DequantizeDouble,
}
