"""Signatures of what counts bytes. All counts are int64; a row of `shapes` is a shape, −1 where there is no axis."""

from typing import Any, Protocol

Native = Any


class TensorBytes(Protocol):
    """``tensor_bytes``: footprint.tensor. Clauses [footprint.codes], [footprint.scales], [footprint.offsets]."""

    def __call__(self, shapes: Native, *, scheme: str, block_size: int) -> tuple[Native, Native, Native]:
        """Return the bytes of codes, of scales and of offsets, one number a row; block_size where there are blocks."""
        ...


class BitsPerWeight(Protocol):
    """``bits_per_weight``: operation footprint.bits. Clause [footprint.bits]."""

    def __call__(self, *, scheme: str, block_size: int) -> Native:
        """Return numerator and denominator, in lowest terms."""
        ...


class TableBytes(Protocol):
    """``table_bytes``: operation footprint.tables. Clause [footprint.tables]."""

    def __call__(self, quantized: Native, *, scheme: str, tables: str) -> Native:
        """Return the bytes of all tables of a model, 0-d; `quantized` (bool) says which tensors are stored as codes."""
        ...


class TensorKinds(Protocol):
    """``tensor_kinds``: operation footprint.tensors. Clause [footprint.tensors]."""

    def __call__(self, shapes: Native, *, names: tuple[str, ...]) -> Native:
        """Return uint8, one a tensor: 0 linear, 1 embedding, 2 other, 3 buffer."""
        ...


class QuantizedTensors(Protocol):
    """``quantized_tensors``: operation footprint.selection. Clause [footprint.selection]."""

    def __call__(self, linear: Native, *, names: tuple[str, ...], skip: tuple[str, ...]) -> Native:
        """Return bool, one a tensor; `linear` (bool) says which are weights of linear layers."""
        ...


class ModelFootprint(Protocol):
    """``model_footprint``: operation footprint.model. Clauses [footprint.model], [footprint.printed]."""

    def __call__(
        self, shapes: Native, quantized: Native, item_bytes: Native, *, scheme: str, block_size: int, other: str,
        tables: str,
    ) -> tuple[Native, Native]:  # fmt: skip
        """Return all bytes and the printed number, 0-d; item_bytes: 0 parameter, > 0 buffer, −1 buffer as the model."""
        ...


class ConfigTensors(Protocol):
    """``config_tensors``: operation footprint.config. Clause [footprint.config]."""

    def __call__(self, *, config: tuple[tuple[str, Any], ...]) -> Native:
        """Return the elements of linear weights, embeddings, other parameters, and buffers."""
        ...


class AdapterShapes(Protocol):
    """``adapter_shapes``: operation footprint.adapters. Clause [footprint.adapters]."""

    def __call__(self, shapes: Native, targeted: Native, *, rank: int) -> Native:
        """Return (2·targets, 2): the shapes of A and B of each weight (d_out, d_in) that `targeted` (bool) marks."""
        ...


class StateBytes(Protocol):
    """``state_bytes``: operation footprint.states. Clause [footprint.states]."""

    def __call__(self, sizes: Native, *, optimizer: str) -> Native:
        """Return the bytes of the states, 0-d, for trained tensors of `sizes` elements."""
        ...


class TrainingMemory(Protocol):
    """``training_memory``: operation footprint.training. Clause [footprint.training]."""

    def __call__(
        self, shapes: Native, *, method: str, scheme: str, rank: int | None, adapter_format: str, optimizer: str,
        master_weights: bool, device_budget: int,
    ) -> Native:  # fmt: skip
        """Return weights, adapters, master weights, gradients, states, states on the host, and the total."""
        ...


PROTOCOLS: dict[str, type] = {
    "tensor_bytes": TensorBytes,
    "bits_per_weight": BitsPerWeight,
    "table_bytes": TableBytes,
    "tensor_kinds": TensorKinds,
    "quantized_tensors": QuantizedTensors,
    "model_footprint": ModelFootprint,
    "config_tensors": ConfigTensors,
    "adapter_shapes": AdapterShapes,
    "state_bytes": StateBytes,
    "training_memory": TrainingMemory,
}
