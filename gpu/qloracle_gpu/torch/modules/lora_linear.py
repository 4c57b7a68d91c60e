"""A linear layer with an adapter on a floating-point weight."""

from typing import Any

import torch
from torch import Tensor, nn

from qloracle.errors import reject_type, reject_value
from qloracle_gpu.torch.autocast import autocast_dtype
from qloracle_gpu.torch.dora import dora_norm
from qloracle_gpu.torch.dora_merging import MergedDora, dora_merge, dora_unmerge
from qloracle_gpu.torch.formats import require_tensor_format
from qloracle_gpu.torch.merge_operands import require_finite
from qloracle_gpu.torch.merging import lora_merge, lora_unmerge, merge_bias
from qloracle_gpu.torch.modules.adapter import Adapter, linear_matrices
from qloracle_gpu.torch.modules.merge_state import refuse_when_merged, require_merged, require_unmerged
from qloracle_gpu.torch.modules.options import LoraOptions
from qloracle_gpu.torch.modules.products import adapted, format_name, plain


class LoRALinear(nn.Module):
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
        if self.merged or not self.adapter.enabled:
            if self.merged:
                refuse_training(self)
            return plain(rows, weight, trained.bias, how)
        return adapted(rows, weight, trained, self.adapter.dropout_mask(rows), how)

    @torch.no_grad()
    def merge(self, *, safe: bool = False) -> None:
        """Add the adapter to the weight, in place.

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
        Clauses ``[lora.merge]``, ``[lora.merge_bias]``, ``[dora.merge]``. Rounds to the format of the weight.
        """
        weight, bias, norms = self.merged_parameters(safe=safe)
        self.weight.copy_(weight)
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)
        self._norms, self.merged = norms, True

    @torch.no_grad()
    def merged_parameters(self, *, safe: bool = False) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return weight and bias as merging makes them, and DoRA's norms; the module stays as it is."""
        require_unmerged(self)
        bias = merged_bias(self.adapter, self.bias, safe=safe)
        a, b, how = self.adapter.lora_a, self.adapter.lora_b, self._how()
        if self.adapter.magnitude is None:
            return lora_merge(self.weight, a, b, safe=safe, **how), bias, None
        made = dora_merge(self.weight, a, b, self.adapter.magnitude, safe=safe, **how)
        return made.weight, bias, made.norms

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take the adapter out of the weight again, in place.

        Raises
        ------
        MergeStateError
            If it is not merged.

        Notes
        -----
        Clauses ``[lora.unmerge]``, ``[dora.unmerge]``. What the rounding of the merge cut off is lost.
        """
        require_merged(self)
        a, b, how = self.adapter.lora_a, self.adapter.lora_b, self._how()
        if self._norms is None or self.adapter.magnitude is None:
            weight = lora_unmerge(self.weight, a, b, **how)
        else:
            norms = self._norms.to(self.weight.device)
            weight = dora_unmerge(MergedDora(self.weight, norms), a, b, self.adapter.magnitude, **how)
        bias = merged_bias(self.adapter, self.bias, unmerge=True)
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)
        self.weight.copy_(weight)
        self._norms, self.merged = None, False

    def _how(self) -> dict[str, Any]:
        options = self.adapter.options
        return {
            "alpha": options.alpha,
            "rank_stabilized": options.use_rslora,
            "fan_in_fan_out": self.fan_in_fan_out,
        }

    @torch.no_grad()
    def _row_norms(self) -> Tensor:
        if self.weight.device.type == "meta":
            return torch.empty(self.out_features, device="meta")
        return dora_norm(self.weight, self.adapter.lora_a, self.adapter.lora_b, **self._how())

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        refuse_when_merged(self, "saved")
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        refuse_when_merged(self, "loaded into")
        super()._load_from_state_dict(*args, **kwargs)

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


def merged_bias(adapter: Adapter, bias: Tensor | None, *, unmerge: bool = False, safe: bool = False) -> Tensor | None:
    """Return the bias of a layer with that of its adapter added or taken out; None where the adapter has none."""
    if adapter.lora_bias is None:
        return None
    if bias is None:
        reject_value("bias", "there for the bias of the adapter to be merged into", None)
    o = adapter.options
    made = merge_bias(
        bias, adapter.lora_bias, alpha=o.alpha, rank=o.rank, rank_stabilized=o.use_rslora, unmerge=unmerge
    )
    return require_finite(made) if safe else made


def require_frozen(weight: Tensor) -> None:
    """Raise if somebody made the weight of a layer trainable: no rule gives it a gradient."""
    if weight.requires_grad:
        reject_value("weight", "frozen (requires_grad False) in a layer with an adapter", "requires_grad True")


def refuse_training(module: nn.Module) -> None:
    """Raise `MergeStateError` if a merged layer is asked to train: its adapter would get no gradient."""
    if module.training and torch.is_grad_enabled():
        require_unmerged(module)
