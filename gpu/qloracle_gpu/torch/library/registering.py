"""How the operators are registered with torch."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qloracle_gpu.torch.compiling import is_traced

Body = Callable[..., Any]
Fake = TypeVar("Fake", bound=Body)


class Operator(Protocol):
    """What `torch.library.custom_op` returns."""

    def __call__(self, *args: Any) -> Any:
        """Call the operator."""

    def register_fake(self, fake: Fake, /) -> Fake:
        """Register what makes empty tensors like the results."""


def operator(body: Body) -> Operator:
    """Register a function as ``qloracle::NAME``, with a rule for vmap; the schema is that of its annotations."""
    made: Any = torch.library.custom_op(f"qloracle::{body.__name__}", body, mutates_args=())
    made.register_vmap(_one_by_one(made))
    registered: Operator = made
    return registered


def differentiable(body: Body, fake: Body, remember: Body, gradients: Body) -> Callable[..., Tensor]:
    """Register a function that returns one tensor as an operator with a gradient, and return what to call.

    Parameters
    ----------
    body : function
        What the operator computes; it takes all of its arguments by position.
    fake : function
        Returns an empty tensor like the result.
    remember : function
        `setup_context` of an `autograd.Function`.
    gradients : function
        `backward` of one; it calls operators alone, so that a compiler can follow it.

    Returns
    -------
    function
        To a compiler the operator; otherwise an `autograd.Function` of the same parts, which costs less for each call
        and knows `torch.func`, as torch's registration of gradients does not.
    """
    made: Any = operator(body)
    made.register_fake(fake)
    made.register_autograd(gradients, setup_context=remember)

    parts = {"forward": body, "setup_context": remember, "backward": once_differentiable(gradients)}
    function: Any = type(body.__name__, (torch.autograd.Function,), {n: staticmethod(p) for n, p in parts.items()})
    function.vmap = staticmethod(_one_by_one(function.apply))

    def call(*args: Any) -> Tensor:
        y: Tensor = (made if is_traced() else function.apply)(*args)
        return y

    return call


def _one_by_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the rule for vmap that calls a function for every element of the batch."""

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        def element(place: int) -> list[Any]:
            pairs = zip(args, in_dims, strict=True)
            return [a.select(d, place) if isinstance(a, Tensor) and d is not None else a for a, d in pairs]

        found = [function(*element(place)) for place in range(info.batch_size)]
        if isinstance(found[0], Tensor):
            return torch.stack(found), 0
        return tuple(torch.stack(parts) for parts in zip(*found, strict=True)), (0,) * len(found[0])

    return rule
