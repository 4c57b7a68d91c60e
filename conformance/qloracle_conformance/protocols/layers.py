"""Signatures of layers with low-rank adapters."""

from typing import Any, Protocol

Native = Any


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
    "lora_forward": LoraForward,
    "lora_backward": LoraBackward,
    "qlora_forward": QloraForward,
    "qlora_backward": QloraBackward,
}
