"""A linear layer with an adapter on a quantized weight."""

from typing import Any

import torch
from torch import Tensor, nn

from qloracle.errors import reject_value, require_record
from qloracle_gpu.torch.dora import dora_norm
from qloracle_gpu.torch.dora_merging import dora_merge
from qloracle_gpu.torch.merge_operands import require_finite
from qloracle_gpu.torch.modules.adapter import Adapter, linear_matrices
from qloracle_gpu.torch.modules.lora_linear import merged_bias, refuse_training
from qloracle_gpu.torch.modules.merge_state import refuse_when_merged, require_merged, require_unmerged
from qloracle_gpu.torch.modules.options import LoraOptions
from qloracle_gpu.torch.modules.products import adapted, plain
from qloracle_gpu.torch.modules.quantization import QuantizationConfig
from qloracle_gpu.torch.modules.quantized_linear import QuantizedLinear, compute_formats, require_compute_dtype
from qloracle_gpu.torch.modules.quantized_tensor import QuantizedTensor
from qloracle_gpu.torch.qlora import QuantizedWeight, qlora_weight
from qloracle_gpu.torch.quantizing_like import quantize_like
from qloracle_gpu.torch.requantizing import merge_requantize


class QLoRALinear(nn.Module):
    """A linear layer whose weight is stored quantized and has a trained low-rank correction.

    y = x Ŵᵀ + b + s (x_d Aᵀ) Bᵀ + s b_B, Ŵ the dequantized weight; DoRA's y with `use_dora`

    Parameters
    ----------
    base : QuantizedLinear
        Of 4 bits with any codebook of 16 entries, or INT8. Its weight, bias and config become this module's.
    options : LoraOptions

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If the base is another module, the rank exceeds the smaller side of the weight, or DoRA is asked for on
        LLM.int8(), for which there is no rule.

    Notes
    -----
    Clauses ``[qlora.forward]``, ``[qlora.backward]``, ``[qdora.forward]``, ``[qdora.backward]``. Formats are those of
    `QuantizedLinear`; what trains is float32 and not rounded, but under autocast, to its dtype. A training step without
    a compute dtype is refused. On LLM.int8() the adapter is added to its y in float32, and the gradient of x is that of
    the dequantized weight.

    Examples
    --------
    >>> config = QuantizationConfig(codebook="nf4", compute_dtype="bfloat16")
    >>> layer = QLoRALinear(QuantizedLinear(nn.Linear(8, 4), config), LoraOptions(rank=2))
    >>> layer(torch.ones(3, 8)).dtype
    torch.float32
    """

    def __init__(self, base: QuantizedLinear, options: LoraOptions) -> None:
        super().__init__()
        require_record("base", base, QuantizedLinear)
        self.config: QuantizationConfig = base.config
        if options.use_dora and self.config.threshold is not None:
            reject_value("use_dora", "False with a threshold of LLM.int8()", True)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        if self.bias is not None:
            self.bias.requires_grad_(options.bias != "none")
        matrices = linear_matrices(options, self.out_features, self.in_features, self.weight.device)
        self.adapter = Adapter(matrices, options)
        if options.use_dora:
            self.adapter.magnitude = nn.Parameter(self._row_norms())
        self.merged = False
        self.unmerged_weight: QuantizedTensor | None = None  # what was there before merging
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return y for x of shape (..., d_in)."""
        formats = compute_formats(x, self.config)
        trained = self.adapter.trained(self.bias)
        if torch.is_grad_enabled() and (self.training or x.requires_grad):
            require_compute_dtype(x, self.config)
        how = self.adapter.product(formats.weight_rounding, formats.out_dtype, threshold=self.config.threshold)
        rows, weight = x.to(formats.compute), self.weight.record()
        if self.merged or not self.adapter.enabled:
            if self.merged:
                refuse_training(self)
            return plain(rows, weight, trained.bias, how)
        return adapted(rows, weight, trained, self.adapter.dropout_mask(rows), how)

    @torch.no_grad()
    def merge(self, *, safe: bool = False) -> None:
        """Add the adapter to the dequantized weight and quantize that again; the weight as it was is kept aside.

        Parameters
        ----------
        safe : bool
            Raise where the result is not finite, and leave everything as it was.

        Raises
        ------
        MergeStateError
            If it is merged already.
        ArgumentValueError
            If the adapter has a bias and the layer has none; with `safe`, if an element would be NaN or infinite.

        Notes
        -----
        Clause ``[merge.requantize]``, with fresh scales; for DoRA g∘(Ŵ + s B A) takes the place of the sum.
        """
        record, bias, _ = self.merged_parameters(safe=safe)
        self.unmerged_weight, self.weight = self.weight, QuantizedTensor(record, self.weight.storage)
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)
        self.merged = True

    @torch.no_grad()
    def merged_parameters(self, *, safe: bool = False) -> tuple[QuantizedWeight, Tensor | None, None]:
        """Return weight and bias as merging makes them; the module stays as it is."""
        require_unmerged(self)
        bias = merged_bias(self.adapter, self.bias, safe=safe)
        record, a, b, options = self.weight.record(), self.adapter.lora_a, self.adapter.lora_b, self.adapter.options
        alpha, stabilized = options.alpha, options.use_rslora
        if self.adapter.magnitude is None:
            return merge_requantize(record, a, b, alpha=alpha, rank_stabilized=stabilized, safe=safe), bias, None
        dense = qlora_weight(record, weight_rounding=record.dtype)
        made = dora_merge(dense, a, b, self.adapter.magnitude, alpha=alpha, rank_stabilized=stabilized)
        return quantize_like(require_finite(made.weight) if safe else made.weight, record), bias, None

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put the weight back, bit for bit, as it was before merging.

        Raises
        ------
        MergeStateError
            If it is not merged.
        """
        require_merged(self)
        if self.unmerged_weight is not None:
            self.weight = self.unmerged_weight
        bias = merged_bias(self.adapter, self.bias, unmerge=True)
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)
        self.unmerged_weight, self.merged = None, False

    @torch.no_grad()
    def _row_norms(self) -> Tensor:
        options = self.adapter.options
        dense = qlora_weight(self.weight.record())
        a, b = self.adapter.lora_a, self.adapter.lora_b
        return dora_norm(dense, a, b, alpha=options.alpha, rank_stabilized=options.use_rslora)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        refuse_when_merged(self, "saved")
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        refuse_when_merged(self, "loaded into")
        super()._load_from_state_dict(*args, **kwargs)

    def extra_repr(self) -> str:
        """Return sizes and state in short."""
        sizes = f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        return f"{sizes}, compute_dtype={self.config.compute_dtype}{', merged' if self.merged else ''}"
