"""Signatures of layers with low-rank adapters."""

from typing import Any, Protocol

Native = Any


class LoraForward(Protocol):
    """``lora_forward``: y = x Wᵀ + b + s (x_d Aᵀ) Bᵀ. Clause [lora.forward]."""

    def __call__(
        self, x: Native, weight: Native, lora_a: Native, lora_b: Native, bias: Native | None, mask: Native | None, *,
        alpha: float, dropout: float, rank_stabilized: bool, lora_bias: Native = None, fan_in_fan_out: bool = False,
    ) -> Native:  # fmt: skip
        """Return y in the format of x; arguments go by name, the last two only where their feature is claimed."""
        ...


class LoraBackward(Protocol):
    """``lora_backward``: the gradients of x, A, B and the bias. Clause [lora.backward]."""

    def __call__(
        self, dy: Native, x: Native, weight: Native, lora_a: Native, lora_b: Native, mask: Native | None, *,
        alpha: float, dropout: float, rank_stabilized: bool, fan_in_fan_out: bool = False,
    ) -> tuple[Native, ...]:  # fmt: skip
        """Return the four gradients in the format of x, and that of the adapter's bias where this is claimed."""
        ...


class QloraForward(Protocol):
    """``qlora_forward``: the same with W dequantized from NF4. Clause [qlora.forward]."""

    def __call__(
        self, x: Native, data: Native, absmax: Native, lora_a: Native, lora_b: Native, bias: Native | None,
        mask: Native | None, *, alpha: float, dropout: float, rank_stabilized: bool, codebook: str, block_size: int,
        shape: tuple[int, int], lora_bias: Native = None,
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


class QloraDoubleForward(Protocol):
    """``qlora_double_forward``: W dequantized from NF4 with quantized absmax. Clause [qlora.weight]."""

    def __call__(
        self, x: Native, data: Native, absmax_codes: Native, nested_absmax: Native, offset: Native, lora_a: Native,
        lora_b: Native, bias: Native | None, mask: Native | None, *, alpha: float, dropout: float,
        rank_stabilized: bool, codebook: str, block_size: int, shape: tuple[int, int], lora_bias: Native = None,
    ) -> Native:  # fmt: skip
        """Return y in the format of x; arguments are passed by name."""
        ...


class QloraDoubleBackward(Protocol):
    """``qlora_double_backward``: its gradients. Clause [qlora.backward]."""

    def __call__(
        self, dy: Native, x: Native, data: Native, absmax_codes: Native, nested_absmax: Native, offset: Native,
        lora_a: Native, lora_b: Native, mask: Native | None, *, alpha: float, dropout: float, rank_stabilized: bool,
        codebook: str, block_size: int, shape: tuple[int, int],
    ) -> tuple[Native, Native, Native, Native]:  # fmt: skip
        """Return the four gradients in the format of x; arguments are passed by name."""
        ...


class QloraInt8Forward(Protocol):
    """``qlora_int8_forward``: W dequantized from INT8. Clause [qlora.weight]."""

    def __call__(
        self, x: Native, codes: Native, absmax: Native, lora_a: Native, lora_b: Native, bias: Native | None,
        mask: Native | None, *, alpha: float, dropout: float, rank_stabilized: bool, granularity: str,
        block_size: int | None, lora_bias: Native = None,
    ) -> Native:  # fmt: skip
        """Return y in the format of x; arguments are passed by name."""
        ...


class QloraInt8Backward(Protocol):
    """``qlora_int8_backward``: its gradients. Clause [qlora.backward]."""

    def __call__(
        self, dy: Native, x: Native, codes: Native, absmax: Native, lora_a: Native, lora_b: Native,
        mask: Native | None, *, alpha: float, dropout: float, rank_stabilized: bool, granularity: str,
        block_size: int | None,
    ) -> tuple[Native, Native, Native, Native]:  # fmt: skip
        """Return the four gradients in the format of x; arguments are passed by name."""
        ...


class QloraAffineForward(Protocol):
    """``qlora_affine_forward``: W dequantized from affine codes. Clause [qlora.weight]."""

    def __call__(
        self, x: Native, codes: Native, scale: Native, zero_point: Native, lora_a: Native, lora_b: Native,
        bias: Native | None, mask: Native | None, *, alpha: float, dropout: float, rank_stabilized: bool,
        granularity: str, group_size: int | None, qmin: int, qmax: int, lora_bias: Native = None,
    ) -> Native:  # fmt: skip
        """Return y in the format of x; arguments are passed by name."""
        ...


class QloraAffineBackward(Protocol):
    """``qlora_affine_backward``: its gradients. Clause [qlora.backward]."""

    def __call__(
        self, dy: Native, x: Native, codes: Native, scale: Native, zero_point: Native, lora_a: Native,
        lora_b: Native, mask: Native | None, *, alpha: float, dropout: float, rank_stabilized: bool, granularity: str,
        group_size: int | None, qmin: int, qmax: int,
    ) -> tuple[Native, Native, Native, Native]:  # fmt: skip
        """Return the four gradients in the format of x; arguments are passed by name."""
        ...


PROTOCOLS: dict[str, type] = {
    "lora_forward": LoraForward,
    "lora_backward": LoraBackward,
    "qlora_forward": QloraForward,
    "qlora_backward": QloraBackward,
    "qlora_double_forward": QloraDoubleForward,
    "qlora_double_backward": QloraDoubleBackward,
    "qlora_int8_forward": QloraInt8Forward,
    "qlora_int8_backward": QloraInt8Backward,
    "qlora_affine_forward": QloraAffineForward,
    "qlora_affine_backward": QloraAffineBackward,
}
