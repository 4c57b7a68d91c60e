"""A linear layer with an adapter on a quantized weight."""

import torch
from torch import Tensor, nn

from qloracle.errors import reject_value, require_record
from qloracle_gpu.torch.dora import dora_norm
from qloracle_gpu.torch.dora_merging import dora_merge
from qloracle_gpu.torch.merge_operands import require_finite
from qloracle_gpu.torch.modules.adapted_layer import AdaptedLayer
from qloracle_gpu.torch.modules.adapter import Adapter, linear_matrices
from qloracle_gpu.torch.modules.merge_state import require_unmerged
from qloracle_gpu.torch.modules.options import LoraOptions
from qloracle_gpu.torch.modules.products import adapted, plain
from qloracle_gpu.torch.modules.quantization import QuantizationConfig
from qloracle_gpu.torch.modules.quantized_linear import QuantizedLinear, compute_formats, require_compute_dtype
from qloracle_gpu.torch.modules.quantized_tensor import QuantizedTensor
from qloracle_gpu.torch.qlora import QuantizedWeight, qlora_weight
from qloracle_gpu.torch.quantizing_like import quantize_like
from qloracle_gpu.torch.requantizing import merge_requantize


class QLoRALinear(AdaptedLayer):
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
        rows, weight = x.to(formats.compute), self.weight.flat()
        if not self.uses_adapter():
            return plain(rows, weight, trained.bias, how)
        return adapted(rows, weight, trained, self.adapter.dropout_mask(rows), how)

    @torch.no_grad()
    def merged_parameters(self, *, safe: bool = False) -> tuple[QuantizedWeight, Tensor | None, None]:
        """Return weight and bias as merging makes them; the module stays as it is."""
        require_unmerged(self)
        bias = self._merged_bias(safe=safe)
        record, a, b = self.weight.record(), self.adapter.lora_a, self.adapter.lora_b
        if self.adapter.magnitude is None:
            return merge_requantize(record, a, b, safe=safe, **self._scale()), bias, None
        dense = qlora_weight(record, weight_rounding=record.dtype)
        made = dora_merge(dense, a, b, self.adapter.magnitude, **self._scale())
        return quantize_like(require_finite(made.weight) if safe else made.weight, record), bias, None

    def _put_merged(self, weight: QuantizedWeight, norms: Tensor | None) -> None:  # noqa: ARG002 - DoRA's are not needed
        self.unmerged_weight, self.weight = self.weight, QuantizedTensor(weight, self.weight.storage)

    def _take_out(self) -> None:
        if self.unmerged_weight is not None:
            self.weight = self.unmerged_weight
        self.unmerged_weight = None

    @torch.no_grad()
    def _row_norms(self) -> Tensor:
        dense = qlora_weight(self.weight.record())
        return dora_norm(dense, self.adapter.lora_a, self.adapter.lora_b, **self._scale())

    def extra_repr(self) -> str:
        """Return sizes and state in short."""
        sizes = f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        return f"{sizes}, compute_dtype={self.config.compute_dtype}{', merged' if self.merged else ''}"
