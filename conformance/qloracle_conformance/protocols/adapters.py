"""Signatures of starting, combining, placing and counting adapters. Arguments are passed by name."""

from collections.abc import Mapping
from typing import Any, Protocol

Native = Any
Names = tuple[str, ...]


class LoraInit(Protocol):
    """``lora_init``: A from random numbers, B zero. Clause [lora.init]."""

    def __call__(
        self, draws: Native, *, d_out: int, initialization: str, std: float | None, dtype: str
    ) -> tuple[Native, Native]:
        """Return A and B in `dtype`; draws are uniform in [0, 1) for "kaiming", standard normal for "gaussian"."""
        ...


class EmbeddingInit(Protocol):
    """``embedding_init``: A zero, B normal. Clause [lora.init_embedding]."""

    def __call__(self, draws: Native, *, num_embeddings: int, dtype: str) -> tuple[Native, Native]:
        """Return A of shape (r, num_embeddings) and B of shape (dim, r) for draws of shape (dim, r)."""
        ...


class CombineAdapters(Protocol):
    """``combine_adapters``: the sum of w s B A over several adapters. Clause [adapters.combine]."""

    def __call__(
        self, lora_a: Native, lora_b: Native, *, ranks: tuple[int, ...], alphas: tuple[float, ...],
        weights: tuple[float, ...], stabilized: tuple[bool, ...],
    ) -> Native:  # fmt: skip
        """Return the sum in the format of A; the adapters' A lie one below the other, their B side by side."""
        ...


class ConcatenateAdapters(Protocol):
    """``concatenate_adapters``: one adapter that makes the same sum, with s = 1. Clause [adapters.concatenate]."""

    def __call__(
        self, lora_a: Native, lora_b: Native, *, ranks: tuple[int, ...], alphas: tuple[float, ...],
        weights: tuple[float, ...], stabilized: tuple[bool, ...],
    ) -> tuple[Native, Native]:  # fmt: skip
        """Return A, every row times w s of its adapter, and B, in the format of A."""
        ...


class SelectTargets(Protocol):
    """``select_targets``: which layers get an adapter. Clause [adapters.targets]."""

    def __call__(
        self, linear: Native | None, *, names: Names, targets: str | Names, exclude: str | Names,
        layers: tuple[int, ...] | None, layers_pattern: str | None,
    ) -> Native:  # fmt: skip
        """Return a bool for each name; `linear` marks linear layers where `targets` is "all-linear"."""
        ...


class AdapterSettings(Protocol):
    """``adapter_settings``: rank, alpha and scale of each layer. Clause [adapters.patterns]."""

    def __call__(
        self, selected: Native, *, names: Names, rank: int, alpha: float, rank_pattern: Mapping[str, int],
        alpha_pattern: Mapping[str, float], rank_stabilized: bool,
    ) -> tuple[Native, Native, Native]:  # fmt: skip
        """Return ranks as int64, alphas and scales as float64; 0 for layers that `selected` leaves out."""
        ...


class CountParameters(Protocol):
    """``count_parameters``: parameters of layers and of their adapters. Clause [adapters.count]."""

    def __call__(
        self, shapes: Native, ranks: Native, biases: Native, *, bias: str, dora: bool, lora_bias: bool
    ) -> tuple[Native, Native, Native]:
        """Return int64 counts of each layer: of the base, of the adapter, of its own bias where that trains."""
        ...


class TrainableBiases(Protocol):
    """``trainable_biases``: which layers' own biases train. Clause [adapters.biases]."""

    def __call__(self, biases: Native, adapted: Native, *, bias: str) -> Native:
        """Return a bool for each layer; `bias` is "none", "all" or "lora_only"."""
        ...


PROTOCOLS: dict[str, type] = {
    "lora_init": LoraInit,
    "embedding_init": EmbeddingInit,
    "combine_adapters": CombineAdapters,
    "concatenate_adapters": ConcatenateAdapters,
    "select_targets": SelectTargets,
    "adapter_settings": AdapterSettings,
    "count_parameters": CountParameters,
    "trainable_biases": TrainableBiases,
}
