"""Signatures of blockwise quantization."""

from typing import Any, Protocol

Native = Any


class BlockAbsmax(Protocol):
    """``block_absmax``: absmax of flat blocks. Clause [blocks.absmax]."""

    def __call__(self, x: Native, *, block_size: int) -> Native:
        """Return float32 of shape (⌈x.size / block_size⌉,)."""
        ...


class QuantizeBlockwise(Protocol):
    """``quantize_blockwise``: operations CODEBOOK.quantize, nf4.quantize for example."""

    def __call__(self, x: Native, *, codebook: str, block_size: int) -> tuple[Native, Native]:
        """Return data (uint8, 1-d: packed 4-bit codes, or 8-bit codes) and absmax (float32, 1-d)."""
        ...


class DequantizeBlockwise(Protocol):
    """``dequantize_blockwise``: operations CODEBOOK.dequantize, nf4.dequantize for example."""

    def __call__(
        self, data: Native, absmax: Native, *, codebook: str, block_size: int, shape: tuple[int, ...], dtype: str
    ) -> Native:
        """Return values of type `dtype` and shape `shape`."""
        ...


PROTOCOLS: dict[str, type] = {
    "block_absmax": BlockAbsmax,
    "quantize_blockwise": QuantizeBlockwise,
    "dequantize_blockwise": DequantizeBlockwise,
}
