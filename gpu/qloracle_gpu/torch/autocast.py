"""Rules that hold whatever autocast is set to: it would round the float32 operands of their products."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

KINDS = ("cpu", "cuda", "xpu", "mps")


def ignores_autocast(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Return a function that computes as if autocast were off, in a backward pass as well.

    Examples
    --------
    >>> @ignores_autocast
    ... def square(a: torch.Tensor) -> torch.Tensor:
    ...     return a @ a
    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     square(torch.ones(1, 1)).dtype
    torch.float32
    """

    @wraps(function)
    def exact(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        active = [kind for kind in KINDS if autocast_dtype(kind) is not None]
        if not active:
            return function(*args, **kwargs)
        with ExitStack() as stack:
            for kind in active:
                stack.enter_context(torch.autocast(kind, enabled=False))
            return function(*args, **kwargs)

    return exact


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """Return the dtype that autocast gives to products on a device, or None while it is off.

    Examples
    --------
    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     autocast_dtype("cpu"), autocast_dtype("meta")
    (torch.bfloat16, None)
    """
    if not torch.amp.is_autocast_available(device_type) or not torch.is_autocast_enabled(device_type):
        return None
    return torch.get_autocast_dtype(device_type)
