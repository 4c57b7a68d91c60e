"""What the layers with an adapter have in common: it is merged or not, and switched on or off."""

from typing import Any

import torch
from torch import Tensor, nn

from qloracle.errors import reject_value
from qloracle_gpu.torch.merge_operands import require_finite
from qloracle_gpu.torch.merging import merge_bias
from qloracle_gpu.torch.modules.adapter import Adapter
from qloracle_gpu.torch.modules.merge_state import refuse_when_merged, require_merged, require_unmerged


class AdaptedLayer(nn.Module):
    """A layer with an adapter that can be merged into its weight.

    Whoever derives from it says in `merged_parameters` what merging makes, and in `_put_merged` and `_take_out` how the
    weight comes and goes. A `bias`, where there is one, is a parameter.
    """

    adapter: Adapter
    merged: bool

    def merged_parameters(self, *, safe: bool = False) -> tuple[Any, Tensor | None, Tensor | None]:
        """Return weight and bias as merging makes them, and DoRA's norms; the module stays as it is."""
        raise NotImplementedError

    def _put_merged(self, weight: Any, norms: Tensor | None) -> None:
        """Take over a merged weight."""
        raise NotImplementedError

    def _take_out(self) -> None:
        """Bring the weight back."""
        raise NotImplementedError

    def uses_adapter(self) -> bool:
        """Return whether the adapter takes part in a call.

        Raises
        ------
        MergeStateError
            If it is merged and the call is one of training: it would get no gradient.
        """
        if self.merged and self.training and torch.is_grad_enabled():
            require_unmerged(self)
        return not self.merged and self.adapter.enabled

    @torch.no_grad()
    def merge(self, *, safe: bool = False) -> None:
        """Add the adapter to the weight.

        Parameters
        ----------
        safe : bool
            Raise where the result is not finite, and leave everything as it was. Waits for the device.

        Raises
        ------
        MergeStateError
            If it is merged already.
        ArgumentValueError
            If the adapter has a bias and the layer has none; with `safe`, if an element would be NaN or infinite.

        Notes
        -----
        Clauses ``[lora.merge]``, ``[lora.merge_safe]``, ``[lora.merge_bias]``, ``[dora.merge]``. A floating-point
        weight is changed in place, rounded to its format. A quantized one follows ``[merge.requantize]``, with fresh
        scales; as it was it is kept aside.
        """
        weight, bias, norms = self.merged_parameters(safe=safe)
        self._put_merged(weight, norms)
        self._put_bias(bias)
        self.merged = True

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take the adapter out of the weight again.

        Raises
        ------
        MergeStateError
            If it is not merged.

        Notes
        -----
        Clauses ``[lora.unmerge]``, ``[dora.unmerge]``. Of a floating-point weight what the rounding of the merge cut
        off is lost; a quantized one is as it was, bit for bit.
        """
        require_merged(self)
        bias = self._merged_bias(unmerge=True)
        self._take_out()
        self._put_bias(bias)
        self.merged = False

    def _merged_bias(self, *, unmerge: bool = False, safe: bool = False) -> Tensor | None:
        """Return the bias with that of the adapter added or taken out; None where the adapter has none."""
        own, options = getattr(self, "bias", None), self.adapter.options
        if self.adapter.lora_bias is None:
            return None
        if own is None:
            reject_value("bias", "there for the bias of the adapter to be merged into", None)
        made = merge_bias(own, self.adapter.lora_bias, rank=options.rank, unmerge=unmerge, **self._scale())
        return require_finite(made) if safe else made

    def _put_bias(self, bias: Tensor | None) -> None:
        own = getattr(self, "bias", None)
        if own is not None and bias is not None:
            own.copy_(bias)

    def _scale(self) -> dict[str, Any]:
        """Return what the adapter is scaled by, as merges take it."""
        return {"alpha": self.adapter.options.alpha, "rank_stabilized": self.adapter.options.use_rslora}

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        refuse_when_merged(self, "saved")
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        refuse_when_merged(self, "loaded into")
        super()._load_from_state_dict(*args, **kwargs)


def require_frozen(weight: Tensor) -> None:
    """Raise if somebody made the weight of a layer trainable: no rule gives it a gradient."""
    if weight.requires_grad:
        reject_value("weight", "frozen (requires_grad False) in a layer with an adapter", "requires_grad True")
