"""An embedding with an adapter."""

from typing import Any

import torch
from torch import Tensor, nn

from qloracle.errors import reject_type, reject_value
from qloracle_gpu.torch.formats import require_tensor_format
from qloracle_gpu.torch.merging import lora_merge, lora_unmerge
from qloracle_gpu.torch.modules.adapted_layer import AdaptedLayer, require_frozen
from qloracle_gpu.torch.modules.adapter import Adapter, embedding_matrices
from qloracle_gpu.torch.modules.merge_state import require_unmerged
from qloracle_gpu.torch.modules.options import LoraOptions
from qloracle_gpu.torch.modules.products import format_name, looked_up


class LoRAEmbedding(AdaptedLayer):
    """An embedding whose frozen table has a trained low-rank correction.

    y = W[i] + s Aᵀ[i] Bᵀ

    Parameters
    ----------
    base : nn.Embedding
        Its table becomes this module's, frozen.
    options : LoraOptions
        Without dropout, DoRA and a bias, which the rule of an embedding does not have.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If the base is no embedding, its table not of float32, float16 or bfloat16, the rank exceeds its smaller side,
        `max_norm`, `scale_grad_by_freq` or `sparse` is set, or an option is one that embeddings do not have.

    Notes
    -----
    Clauses ``[embedding.forward]``, ``[embedding.backward]``, ``[lora.init_embedding]``. Rounded once, from float32, to
    the dtype of the table; autocast changes nothing, as it changes no lookup. A `padding_idx` of the base is no index
    apart: its row of A trains like any other, as in the PEFT library.

    Examples
    --------
    >>> layer = LoRAEmbedding(nn.Embedding(10, 4), LoraOptions(rank=2))
    >>> bool((layer(torch.tensor([3])) == layer.weight[3]).all())
    True
    """

    def __init__(self, base: nn.Embedding, options: LoraOptions) -> None:
        super().__init__()
        if not isinstance(base, nn.Embedding):
            reject_type("base", "an nn.Embedding", type(base).__name__)
        _require_plain(base, options)
        require_tensor_format("weight", base.weight)
        self.num_embeddings, self.embedding_dim = base.weight.shape
        self.padding_idx = base.padding_idx
        self.weight = base.weight.requires_grad_(False)
        matrices = embedding_matrices(options, self.num_embeddings, self.embedding_dim, self.weight.device)
        self.adapter = Adapter(matrices, options)
        self.merged = False
        self.train(base.training)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of indices of any shape."""
        require_frozen(self.weight)
        if not self.uses_adapter():
            return nn.functional.embedding(ids, self.weight)
        name = format_name(self.weight.dtype)
        return looked_up(ids, self.weight, self.adapter.lora_a, self.adapter.lora_b, self.adapter.product(name, name))

    @torch.no_grad()
    def merged_parameters(self, *, safe: bool = False) -> tuple[Tensor, None, None]:
        """Return the table as merging makes it; the module stays as it is."""
        require_unmerged(self)
        return lora_merge(self.weight, self.adapter.lora_a, self.adapter.lora_b, safe=safe, **self._how()), None, None

    def _put_merged(self, weight: Tensor, norms: Tensor | None) -> None:  # noqa: ARG002 - there is no DoRA here
        self.weight.copy_(weight)

    def _take_out(self) -> None:
        self.weight.copy_(lora_unmerge(self.weight, self.adapter.lora_a, self.adapter.lora_b, **self._how()))

    def _how(self) -> dict[str, Any]:
        return {**self._scale(), "fan_in_fan_out": True}

    def extra_repr(self) -> str:
        """Return sizes and state in short."""
        return f"{self.num_embeddings}, {self.embedding_dim}{', merged' if self.merged else ''}"


def _require_plain(base: nn.Embedding, options: LoraOptions) -> None:
    """Raise where the base or the options ask for what the rule of an embedding does not have."""
    for argument, none in (("max_norm", None), ("scale_grad_by_freq", False), ("sparse", False)):
        if getattr(base, argument) != none:
            reject_value(argument, f"{none} in an embedding with an adapter", getattr(base, argument))
    if options.dropout:
        reject_value("dropout", "0 for an embedding", options.dropout)
    if options.use_dora or options.lora_bias:
        reject_value("use_dora" if options.use_dora else "lora_bias", "False for an embedding", True)
