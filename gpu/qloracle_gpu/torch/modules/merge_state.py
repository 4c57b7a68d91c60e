"""Whether a layer's adapter is merged, and what that forbids."""

from typing import Any

from torch import nn

from qloracle_gpu.torch.modules.errors import MergeStateError


def require_unmerged(module: nn.Module) -> None:
    """Raise `MergeStateError` if the adapter of a layer is merged into its weight."""
    if getattr(module, "merged", False):
        raise MergeStateError(f"{type(module).__name__} is merged: call unmerge() before it trains or merges again")


def require_merged(module: nn.Module) -> None:
    """Raise `MergeStateError` unless the adapter of a layer is merged into its weight."""
    if not getattr(module, "merged", False):
        raise MergeStateError(f"{type(module).__name__} is not merged: there is nothing to take out of its weight")


def refuse_when_merged(module: Any, what: str) -> None:
    """Raise `MergeStateError` before the state of a merged layer, which does not say that it is, is saved or loaded."""
    if module.merged:
        raise MergeStateError(
            f"a merged {type(module).__name__} cannot be {what} by a state_dict, which would add its adapter twice: "
            "call unmerge_model(model) first, or merge_and_unload(model) for a model without adapters"
        )
