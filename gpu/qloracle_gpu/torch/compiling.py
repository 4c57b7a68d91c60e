"""Functions under `torch.compile` and its like: there the operators of `library` stand for them."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def compiles_as_operator(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Return a function that whoever traces it sees as an operator, and that is called as it is otherwise.

    A compiler could not follow the eager code: its threads, its tables that are made once, and its looks at values, by
    which it is fast on a CPU. The function of the same name in `library.calls` calls the operator, whose kernel is the
    function itself: so compiled results are the eager ones, to the last bit.

    Examples
    --------
    >>> from qloracle_gpu.torch import block_absmax
    >>> x = torch.tensor([1.0, -3.0, 2.0])
    >>> block_absmax(x, 2), torch.ops.qloracle.block_absmax(x, 2)  # the latter in a compiled graph
    (tensor([3., 2.]), tensor([3., 2.]))
    """

    @wraps(function)
    def chosen(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if is_traced():
            from qloracle_gpu.torch.library import calls

            instead: Callable[Arguments, Result] = getattr(calls, function.__name__)
            return instead(*args, **kwargs)
        return function(*args, **kwargs)

    return chosen


def is_traced() -> bool:
    """Return whether tensors hold no values: under `torch.compile`, `torch.export` or FakeTensorMode.

    In the last of them, tables that are made once for all would stay without values for ever.
    """
    if torch.compiler.is_compiling():
        return True
    # Torch has no public name for it.
    fake = torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE)  # noqa: SLF001
    return fake is not None


def eager(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Return what a function is when nothing compiles: the kernel of its operator, which must not call that again."""
    plain: Callable[Arguments, Result] = function.__wrapped__  # type: ignore[attr-defined]
    return plain
