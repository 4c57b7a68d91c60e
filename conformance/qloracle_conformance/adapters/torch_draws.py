"""Random numbers as arguments: what torch draws for a library is replaced, what is computed from it is not."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Tensor = torch.Tensor


class Drawn(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's has no annotations
    """While this is active, one random operation of torch fills its tensor with given numbers."""

    def __init__(self, operation: Any, fill: Callable[..., Tensor]) -> None:
        """Keep the operation that is replaced, and what fills its tensor instead."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.operation, self.fill = operation, fill
        self.used = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, or fill its tensor."""
        if func is self.operation:
            self.used += 1
            return self.fill(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def kept(mask: Tensor) -> Drawn:
    """Let ``nn.Dropout`` keep what the mask keeps: its factor and its product stay torch's own."""
    return Drawn(torch.ops.aten.bernoulli_.float, lambda target, *_, **__: target.copy_(mask))


def uniform(draws: Tensor) -> Drawn:
    """Let ``uniform_`` take its numbers in [0, 1) from `draws`: u·(to − from) + from, torch's formula."""

    def fill(target: Tensor, start: float = 0.0, end: float = 1.0, **_: Any) -> Tensor:
        return target.copy_(draws * (end - start) + start) if target.shape == draws.shape else target.zero_()

    return Drawn(torch.ops.aten.uniform_.default, fill)


def normal(draws: Tensor) -> Drawn:
    """Let ``normal_`` take its standard normal numbers from `draws`, times the standard deviation."""

    def fill(target: Tensor, mean: float = 0.0, std: float = 1.0, **_: Any) -> Tensor:
        if mean or target.shape != draws.shape:
            return target.zero_()
        return target.copy_(draws * std)

    return Drawn(torch.ops.aten.normal_.default, fill)
