"""Steps that a CUDA graph may hold: their number lies on the device, and so does what depends on it.

A graph repeats launches and no Python, so that a step number of the host would stay what it was at the capture. Here
the number is a tensor by which a step looks its two bias corrections up in tables that the host made, and adds 1 to:
the bits are those of `options.step_constants`, which computes them for a number of the host.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import ceil, exp, log, sqrt
from typing import Any

import torch
from torch import Tensor

from qloracle.errors import reject_type, reject_value, require_flag
from qloracle_gpu.torch.optim.options import AdamwOptions, StepConstants, bias_correction, step_constants

MOST_STEPS = 2**22  # that a table may have
_NEGLIGIBLE = -56 * log(2)  # from t·log β downwards, 1 − β^t is 1 as a float64 number, however it is rounded
LARGEST_BETA = exp(_NEGLIGIBLE / MOST_STEPS)


def is_capturable(group: Mapping[str, Any]) -> bool:
    """Return whether the steps of a group may be captured."""
    return group.get("capturable", False) is True


def lr_on_device(group: Mapping[str, Any]) -> bool:
    """Return whether a learning rate is a tensor that no step may look at."""
    return is_capturable(group) and isinstance(group["lr"], Tensor)


def is_capturing() -> bool:
    """Return whether what is launched now goes into a CUDA graph."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def require_capturable(group: Mapping[str, Any], options: AdamwOptions) -> None:
    """Raise if the steps of a group are to be captured and one of its options cannot be."""
    if not require_flag("capturable", group.get("capturable", False)):
        return
    if group["stochastic_rounding"]:
        reject_value("stochastic_rounding", "False where capturable is True: the host seeds its random bits", True)
    for name, beta in (("beta1", options.beta1), ("beta2", options.beta2)):
        if beta > LARGEST_BETA:
            rule = f"at most {LARGEST_BETA!r} where capturable is True: a table of {MOST_STEPS} steps holds no more"
            reject_value(name, rule, beta)


def require_capture_wanted(groups: Iterable[Mapping[str, Any]]) -> None:
    """Raise if a step goes into a CUDA graph although a group's steps may not be captured."""
    if is_capturing() and not all(is_capturable(group) for group in groups):
        reject_value("capturable", "True for every group of a step that is captured", False)


def require_not_capturing(what: str) -> None:
    """Raise if something is missing that every replay of a graph would make anew."""
    if is_capturing():
        reject_value("step", f"made at least once before a capture: {what} are made then", "none")


def number_on_device(argument: str, value: object, device: torch.device) -> Tensor:
    """Return a learning rate that lies on the device as float64, or raise unless it is one number of float.

    Its range is looked at nowhere: that would wait for the device.
    """
    if not isinstance(value, Tensor) or not value.dtype.is_floating_point:
        got = getattr(value, "dtype", type(value).__name__)
        reject_type(argument, "a number, or a tensor of float32 or float64", got)
    if value.numel() != 1 or value.device != device:
        reject_value(argument, f"one number on {device}", f"{value.numel()} on {value.device}")
    return value.detach().to(torch.float64).view(())


@dataclass(frozen=True)
class CorrectionTables:
    """What a step reads that depends on its number t = 1, 2, …; the last entry stands for all that follow."""

    first: Tensor  # float64: 1 − β₁^t
    root: Tensor  # float32: RN(1/√(1 − β₂^t))

    def constants(self, options: AdamwOptions, done: Tensor, lr: Tensor | None) -> StepConstants:
        """Return the constants of the step after `done` others, tensors where they depend on their number or on `lr`.

        Operations are those of `step_constants`, in float64, each rounded once, and then to float32.
        """
        index = done.clamp(max=self.first.numel() - 1).view(1)
        first, root = (table.index_select(0, index).view(()) for table in (self.first, self.root))
        rate = torch.full_like(first, options.lr) if lr is None else lr
        constants = step_constants(options, 1)
        decay: float | Tensor = constants.decay
        if lr is not None:
            decay = torch.ones_like(lr).sub_(lr * options.weight_decay).to(torch.float32)
        # torch.div, for a number divided by a tensor would be multiplied with its reciprocal: two roundings.
        return replace(
            constants, root=root, rate=torch.div(rate, first).to(torch.float32), decay=decay,
            correction=torch.div(torch.ones_like(first), first),
        )  # fmt: skip


class ConstantsOnDevice:
    """The tables of an optimizer, kept as long as itself, for graphs read them."""

    def __init__(self) -> None:
        """Begin with no table."""
        self._tables: dict[tuple[float, float, torch.device], CorrectionTables] = {}

    def of(self, options: AdamwOptions, group: Mapping[str, Any], done: Tensor) -> StepConstants:
        """Return the constants of the step of a group after `done` others."""
        key = (options.beta1, options.beta2, done.device)
        if key not in self._tables:
            require_not_capturing("tables of bias corrections")
            self._tables[key] = correction_tables(options, done.device)
        lr = number_on_device("lr", group["lr"], done.device) if lr_on_device(group) else None
        return self._tables[key].constants(options, done, lr)


def correction_tables(options: AdamwOptions, device: torch.device) -> CorrectionTables:
    """Return the tables of two betas on a device: as long as any later correction differs from the last one.

    Examples
    --------
    >>> tables = correction_tables(AdamwOptions(beta1=0.5, beta2=0.75), torch.device("cpu"))
    >>> tables.first[:3], tables.root[0], tables.root[-1]
    (tensor([0.5000, 0.7500, 0.8750], dtype=torch.float64), tensor(2.), tensor(1.))
    """
    length = max(_steps_of(beta) for beta in (options.beta1, options.beta2))
    first, second = (
        [bias_correction(beta, step) for step in range(1, length + 1)] for beta in (options.beta1, options.beta2)
    )
    roots = torch.tensor([1 / sqrt(value) for value in second], dtype=torch.float64, device="cpu")
    return CorrectionTables(
        torch.tensor(first, dtype=torch.float64, device="cpu").to(device), roots.to(torch.float32).to(device)
    )


def _steps_of(beta: float) -> int:
    """Return the step from which on 1 − β^t is 1."""
    return 1 if beta == 0 else ceil(_NEGLIGIBLE / log(beta)) + 1


def given_constants(constants: StepConstants) -> tuple[Tensor | None, tuple[float | Tensor, ...]]:
    """Return what a kernel reads from the device, if anything lies there, and the numbers that it is launched with."""
    root, rate, decay = constants.root, constants.rate, constants.decay
    if not isinstance(root, Tensor) or not isinstance(rate, Tensor):
        return None, constants.numbers
    captured = torch.stack([root, rate, decay if isinstance(decay, Tensor) else torch.full_like(root, decay)])
    return captured, replace(constants, root=0.0, rate=0.0, decay=0.0).numbers
