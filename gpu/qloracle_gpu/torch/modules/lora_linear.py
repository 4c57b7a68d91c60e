"""A linear layer with an adapter on a floating-point weight."""

from typing import Any

import torch
from torch import Tensor, nn

from qloracle.errors import reject_type, reject_value
from qloracle_gpu.torch.autocast import autocast_dtype
from qloracle_gpu.torch.dora import dora_norm
from qloracle_gpu.torch.dora_merging import MergedDora, dora_merge, dora_unmerge
from qloracle_gpu.torch.formats import require_tensor_format
from qloracle_gpu.torch.merging import lora_merge, lora_unmerge
from qloracle_gpu.torch.modules.adapted_layer import AdaptedLayer, require_frozen
from qloracle_gpu.torch.modules.adapter import Adapter, linear_matrices
from qloracle_gpu.torch.modules.merge_state import require_unmerged
from qloracle_gpu.torch.modules.options import LoraOptions
from qloracle_gpu.torch.modules.products import adapted, format_name, plain


class LoRALinear(AdaptedLayer):
    """A linear layer whose frozen weight has a trained low-rank correction.

    y = x Wᵀ + b + s (x_d Aᵀ) Bᵀ + s b_B, or DoRA's y with `use_dora`

    Parameters
    ----------
    base : nn.Linear, or a module with `weight` and `bias` that computes x Wᵀ + b
        Its parameters become this module's, under the same names; the weight is frozen, and the bias too unless the
        options say that it trains.
    options : LoraOptions
    fan_in_fan_out : bool
        The weight is stored as (d_in, d_out), as GPT-2's layers do.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If the weight is no matrix of float32, float16 or bfloat16, or the rank exceeds its smaller side.

    Notes
    -----
    Clauses ``[lora.forward]``, ``[lora.backward]``, ``[lora.dropout]``, ``[dora.forward]``, ``[dora.backward]``. What
    the result is rounded to: the dtype of x, once, from float32. Under autocast x, the weight and all that trains are
    first rounded to its dtype, which is also that of the result; products and sums stay float32, in the backward pass
    too. No call waits for the device, but for merging with `safe`.

    Examples
    --------
    >>> layer = LoRALinear(nn.Linear(8, 4), LoraOptions(rank=2, alpha=4))
    >>> x = torch.ones(3, 8)
    >>> bool((layer(x) == x @ layer.weight.T + layer.bias).all())
    True
    """

    def __init__(self, base: nn.Module, options: LoraOptions, *, fan_in_fan_out: bool = False) -> None:
        super().__init__()
        weight, bias = linear_parameters(base)
        d_out, d_in = weight.shape[::-1] if fan_in_fan_out else weight.shape
        self.in_features, self.out_features, self.fan_in_fan_out = d_in, d_out, fan_in_fan_out
        self.weight, self.bias = weight.requires_grad_(False), bias
        if self.bias is not None:
            self.bias.requires_grad_(options.bias != "none")
        matrices = linear_matrices(options, d_out, d_in, weight.device)
        self.adapter = Adapter(matrices, options)
        if options.use_dora:
            self.adapter.magnitude = nn.Parameter(self._row_norms())
        self.merged = False
        self._norms: Tensor | None = None  # DoRA's, of the unmerged weight, while it is merged
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return y for x of shape (..., d_in)."""
        target = autocast_dtype(x.device.type)
        rows, weight = (x, self.weight) if target is None else (x.to(target), self.weight.to(target))
        require_frozen(self.weight)
        name = format_name(rows.dtype)
        how = self.adapter.product(name, name, fan_in_fan_out=self.fan_in_fan_out)
        trained = self.adapter.trained(self.bias)
        if not self.uses_adapter():
            return plain(rows, weight, trained.bias, how)
        return adapted(rows, weight, trained, self.adapter.dropout_mask(rows), how)

    @torch.no_grad()
    def merged_parameters(self, *, safe: bool = False) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return weight and bias as merging makes them, and DoRA's norms; the module stays as it is."""
        require_unmerged(self)
        bias = self._merged_bias(safe=safe)
        a, b, how = self.adapter.lora_a, self.adapter.lora_b, self._how()
        if self.adapter.magnitude is None:
            return lora_merge(self.weight, a, b, safe=safe, **how), bias, None
        made = dora_merge(self.weight, a, b, self.adapter.magnitude, safe=safe, **how)
        return made.weight, bias, made.norms

    def _put_merged(self, weight: Tensor, norms: Tensor | None) -> None:
        self.weight.copy_(weight)
        self._norms = norms

    def _take_out(self) -> None:
        a, b, how = self.adapter.lora_a, self.adapter.lora_b, self._how()
        if self._norms is None or self.adapter.magnitude is None:
            self.weight.copy_(lora_unmerge(self.weight, a, b, **how))
        else:
            merged = MergedDora(self.weight, self._norms.to(self.weight.device))
            self.weight.copy_(dora_unmerge(merged, a, b, self.adapter.magnitude, **how))
        self._norms = None

    def _how(self) -> dict[str, Any]:
        return {**self._scale(), "fan_in_fan_out": self.fan_in_fan_out}

    @torch.no_grad()
    def _row_norms(self) -> Tensor:
        if self.weight.device.type == "meta":
            return torch.empty(self.out_features, device="meta")
        return dora_norm(self.weight, self.adapter.lora_a, self.adapter.lora_b, **self._how())

    def extra_repr(self) -> str:
        """Return sizes and state in short."""
        stored = ", fan_in_fan_out=True" if self.fan_in_fan_out else ""
        state = ", merged" if self.merged else ""
        sizes = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{sizes}, bias={self.bias is not None}{stored}{state}"


def linear_parameters(base: nn.Module) -> tuple[nn.Parameter, nn.Parameter | None]:
    """Return weight and bias of a linear layer, or raise unless it has a matrix of a known format."""
    weight, bias = getattr(base, "weight", None), getattr(base, "bias", None)
    if not isinstance(weight, nn.Parameter):
        reject_type("base", "a module with a weight that is a parameter", type(base).__name__)
    require_tensor_format("weight", weight)
    if weight.ndim != 2:
        reject_value("weight", "2-d", f"{weight.ndim}-d")
    if bias is not None and not isinstance(bias, nn.Parameter):
        reject_type("bias", "a parameter or None", type(bias).__name__)
    return weight, bias
