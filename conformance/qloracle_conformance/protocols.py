"""The signature of every function that a backend may offer: what its author implements.

Arrays are native to the backend (`Backend.place` makes them); options are plain Python values. A function returns one
native array, or a tuple of them in the order given. Every rule stands in the reference under the clause named here;
``qloracle explain OPERATION`` prints it.
"""

from typing import Any, Protocol

Native = Any


class Encode(Protocol):
    """``encode``: float32 to "bfloat16" or "float16", ties to even, all specials. Clause [format.encode]."""

    def __call__(self, values: Native, *, fmt: str) -> Native:
        """Return an array of type `fmt`, of the shape of `values`."""
        ...


class Decode(Protocol):
    """``decode``: bfloat16 or float16 to "float32", exact. Clause [format.decode]."""

    def __call__(self, bits: Native, *, dtype: str) -> Native:
        """Return an array of type `dtype`, of the shape of `bits`."""
        ...


class BlockAbsmax(Protocol):
    """``block_absmax``: absmax of flat blocks. Clause [blocks.absmax]."""

    def __call__(self, x: Native, *, block_size: int) -> Native:
        """Return float32 of shape (⌈x.size / block_size⌉,)."""
        ...


class Pack4bit(Protocol):
    """``pack_4bit``: two codes in a byte, the first in the high nibble. Clause [packing.nibbles]."""

    def __call__(self, codes: Native, *, pad_code: int) -> Native:
        """Return uint8 of shape (⌈codes.size / 2⌉,) from uint8 codes of any shape."""
        ...


class Unpack4bit(Protocol):
    """``unpack_4bit``: the inverse. Clause [packing.nibbles]."""

    def __call__(self, packed: Native, *, size: int) -> Native:
        """Return uint8 codes of shape (size,)."""
        ...


class QuantizeBlockwise(Protocol):
    """``quantize_blockwise``: operations nf4.quantize and dynamic_signed.quantize."""

    def __call__(self, x: Native, *, codebook: str, block_size: int) -> tuple[Native, Native]:
        """Return data (uint8, 1-d: packed codes of "nf4", codes of "dynamic_signed") and absmax (float32, 1-d)."""
        ...


class DequantizeBlockwise(Protocol):
    """``dequantize_blockwise``: operations nf4.dequantize and dynamic_signed.dequantize."""

    def __call__(
        self, data: Native, absmax: Native, *, codebook: str, block_size: int, shape: tuple[int, ...], dtype: str
    ) -> Native:
        """Return values of type `dtype` and shape `shape`."""
        ...


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


class LoraForward(Protocol):
    """``lora_forward``: y = x Wᵀ + b + s (x_d Aᵀ) Bᵀ. Clause [lora.forward]."""

    def __call__(
        self, x: Native, weight: Native, lora_a: Native, lora_b: Native, bias: Native | None, mask: Native | None, *,
        alpha: float, dropout: float, rank_stabilized: bool,
    ) -> Native:  # fmt: skip
        """Return y in the format of x; arguments are passed by name."""
        ...


class LoraBackward(Protocol):
    """``lora_backward``: the gradients of x, A, B and the bias. Clause [lora.backward]."""

    def __call__(
        self, dy: Native, x: Native, weight: Native, lora_a: Native, lora_b: Native, mask: Native | None, *,
        alpha: float, dropout: float, rank_stabilized: bool,
    ) -> tuple[Native, Native, Native, Native]:  # fmt: skip
        """Return the four gradients in the format of x; arguments are passed by name."""
        ...


class QloraForward(Protocol):
    """``qlora_forward``: the same with W dequantized from NF4. Clause [qlora.forward]."""

    def __call__(
        self, x: Native, data: Native, absmax: Native, lora_a: Native, lora_b: Native, bias: Native | None,
        mask: Native | None, *, alpha: float, dropout: float, rank_stabilized: bool, codebook: str, block_size: int,
        shape: tuple[int, int],
    ) -> Native:  # fmt: skip
        """Return y in the format of x; arguments are passed by name."""
        ...


class QloraBackward(Protocol):
    """``qlora_backward``: its gradients; none goes into the quantized weight. Clause [qlora.backward]."""

    def __call__(
        self, dy: Native, x: Native, data: Native, absmax: Native, lora_a: Native, lora_b: Native,
        mask: Native | None, *, alpha: float, dropout: float, rank_stabilized: bool, codebook: str, block_size: int,
        shape: tuple[int, int],
    ) -> tuple[Native, Native, Native, Native]:  # fmt: skip
        """Return the four gradients in the format of x; arguments are passed by name."""
        ...


PROTOCOLS: dict[str, type] = {
    "encode": Encode,
    "decode": Decode,
    "block_absmax": BlockAbsmax,
    "pack_4bit": Pack4bit,
    "unpack_4bit": Unpack4bit,
    "quantize_blockwise": QuantizeBlockwise,
    "dequantize_blockwise": DequantizeBlockwise,
    "quantize_absmax": QuantizeAbsmax,
    "dequantize_absmax": DequantizeAbsmax,
    "quantize_double": QuantizeDouble,
    "dequantize_double": DequantizeDouble,
    "quantize_int8": QuantizeInt8,
    "dequantize_int8": DequantizeInt8,
    "int8_matmul": Int8Matmul,
    "scale_int8_matmul": ScaleInt8Matmul,
    "lora_forward": LoraForward,
    "lora_backward": LoraBackward,
    "qlora_forward": QloraForward,
    "qlora_backward": QloraBackward,
}
