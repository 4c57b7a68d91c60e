"""Signatures of DoRA layers, of embeddings with LoRA, and of products with a quantized weight."""

from typing import Any, Protocol

Native = Any


class DoraForward(Protocol):
    """``dora_forward``: y = x Wᵀ + b + (g − 1)∘(x_d Wᵀ) + g∘s (x_d Aᵀ) Bᵀ, g = m/n. Clause [dora.forward]."""

    def __call__(
        self, x: Native, weight: Native, lora_a: Native, lora_b: Native, magnitude: Native, bias: Native | None,
        mask: Native | None, *, alpha: float, dropout: float, rank_stabilized: bool, fan_in_fan_out: bool = False,
    ) -> Native:  # fmt: skip
        """Return y in the format of x; arguments are passed by name."""
        ...


class DoraBackward(Protocol):
    """``dora_backward``: its gradients, the norm detached. Clause [dora.backward]."""

    def __call__(
        self, dy: Native, x: Native, weight: Native, lora_a: Native, lora_b: Native, magnitude: Native,
        mask: Native | None, *, alpha: float, dropout: float, rank_stabilized: bool, fan_in_fan_out: bool = False,
    ) -> tuple[Native, Native, Native, Native, Native]:  # fmt: skip
        """Return the gradients of x, A, B, the magnitude and the bias, in the format of x."""
        ...


class QdoraForward(Protocol):
    """``qdora_forward``: the same with W dequantized from NF4. Clause [qdora.forward]."""

    def __call__(
        self, x: Native, data: Native, absmax: Native, lora_a: Native, lora_b: Native, magnitude: Native,
        bias: Native | None, mask: Native | None, *, alpha: float, dropout: float, rank_stabilized: bool,
        codebook: str, block_size: int, shape: tuple[int, int],
    ) -> Native:  # fmt: skip
        """Return y in the format of x; arguments are passed by name."""
        ...


class QdoraBackward(Protocol):
    """``qdora_backward``: its gradients; none goes into the quantized weight. Clause [qdora.backward]."""

    def __call__(
        self, dy: Native, x: Native, data: Native, absmax: Native, lora_a: Native, lora_b: Native, magnitude: Native,
        mask: Native | None, *, alpha: float, dropout: float, rank_stabilized: bool, codebook: str, block_size: int,
        shape: tuple[int, int],
    ) -> tuple[Native, Native, Native, Native, Native]:  # fmt: skip
        """Return the gradients of x, A, B, the magnitude and the bias, in the format of x."""
        ...


class EmbeddingLoraForward(Protocol):
    """``embedding_lora_forward``: y = W[i] + s Aᵀ[i] Bᵀ. Clause [embedding.forward]."""

    def __call__(
        self, ids: Native, weight: Native, lora_a: Native, lora_b: Native, *, alpha: float, rank_stabilized: bool
    ) -> Native:
        """Return y of shape (*ids.shape, d_dim) in the format of the table; `ids` are int64."""
        ...


class EmbeddingLoraBackward(Protocol):
    """``embedding_lora_backward``: the gradients of A and B. Clause [embedding.backward]."""

    def __call__(
        self, dy: Native, ids: Native, weight: Native, lora_a: Native, lora_b: Native, *, alpha: float,
        rank_stabilized: bool,
    ) -> tuple[Native, Native]:  # fmt: skip
        """Return both in the format of the table."""
        ...


class QuantizedMatmul(Protocol):
    """``quantized_matmul``: operations nf4.matmul and those of the other codebooks. Clause [quantized.matmul]."""

    def __call__(
        self, x: Native, data: Native, absmax: Native, bias: Native | None, *, codebook: str, block_size: int,
        shape: tuple[int, int],
    ) -> Native:  # fmt: skip
        """Return x Wᵀ + b in the format of x, W being the stored (d_out, d_in) tensor."""
        ...


class DoubleQuantizedMatmul(Protocol):
    """``double_quantized_matmul``: operation nf4_double.matmul. Clause [quantized.matmul]."""

    def __call__(
        self, x: Native, data: Native, absmax_codes: Native, nested_absmax: Native, offset: Native,
        bias: Native | None, *, codebook: str, block_size: int, shape: tuple[int, int],
    ) -> Native:  # fmt: skip
        """Return x Wᵀ + b in the format of x, W being the stored (d_out, d_in) tensor."""
        ...


PROTOCOLS: dict[str, type] = {
    "dora_forward": DoraForward,
    "dora_backward": DoraBackward,
    "qdora_forward": QdoraForward,
    "qdora_backward": QdoraBackward,
    "embedding_lora_forward": EmbeddingLoraForward,
    "embedding_lora_backward": EmbeddingLoraBackward,
    "quantized_matmul": QuantizedMatmul,
    "double_quantized_matmul": DoubleQuantizedMatmul,
}
