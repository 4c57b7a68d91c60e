"""The hyperparameters of AdamW, and what a step reads of them: float32 numbers that are rounded once.

Clauses: ``[adamw.nonfinite]``, ``[adamw.parameter]``.
"""

from ctypes import c_float
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import expm1, isfinite, log, log1p, sqrt

from torch import Tensor

from qloracle.errors import reject_value, require_number, require_one_of
from qloracle.formats import FLOAT32

NONFINITE = ("propagate", "skip", "reset")
_LARGEST_BETA = 1 - FLOAT32.unit_roundoff  # the largest float32 number below 1
_EXACT_STEPS = 64  # so many powers of a float64 number are quick as integers
_SMALLEST = 2.0**FLOAT32.minimum_exponent


@dataclass(frozen=True)
class AdamwOptions:
    """The hyperparameters of one AdamW step; each is the real number that its float64 value stands for.

    nonfinite says what an element does whose gradient is NaN or ±inf: "propagate" lets it through the formulas, so that
    its moments are NaN or infinite from then on and its parameter is NaN; "skip" leaves its parameter and moments as
    they are; "reset" leaves its parameter as it is and sets its moments to 0, as bitsandbytes does. No other element is
    touched; but in blocks of 8-bit states a moment that is not finite poisons its block.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a number is none, or outside the range that its comment states: such that float32 neither loses it nor turns
        beta into 1.

    Notes
    -----
    Clause ``[adamw.nonfinite]``. Rounding points: none. The record holds Python's numbers, whatever it was given.

    Examples
    --------
    >>> import torch
    >>> AdamwOptions(lr=torch.tensor(0.5)).lr, AdamwOptions().weight_decay
    (0.5, 0.0)
    """

    lr: float = 1e-3  # learning rate: 0, or from 2^−126
    beta1: float = 0.9  # decay of the mean: 0, or from 2^−126 to 1 − 2^−24
    beta2: float = 0.999  # decay of the mean square: likewise
    eps: float = 1e-8  # from 2^−126
    weight_decay: float = 0.0  # 0, or from 2^−126
    nonfinite: str = "propagate"  # one of NONFINITE
    max_update_norm: float | None = None  # largest ‖update‖/‖p‖, positive; None: no limit

    def __post_init__(self) -> None:
        """Check types and ranges."""
        largest = {"beta1": _LARGEST_BETA, "beta2": _LARGEST_BETA}
        for name in ("lr", "beta1", "beta2", "eps", "weight_decay", "max_update_norm"):
            if name == "max_update_norm" and self.max_update_norm is None:
                continue
            value = require_number(name, getattr(self, name))
            most = largest.get(name, FLOAT32.largest_finite)
            zero = name not in ("eps", "max_update_norm")
            if not isfinite(value) or not (_SMALLEST <= value <= most or (zero and value == 0)):
                reject_value(name, f"{'0 or ' if zero else ''}from 2^-126 to {most!r}", value)
            object.__setattr__(self, name, value)
        require_one_of("nonfinite", self.nonfinite, NONFINITE)


@dataclass(frozen=True)
class StepConstants:
    """What one step multiplies with and adds: float32 numbers but for one, each rounded once from its real value.

    Those that depend on the number of the step or on the learning rate may lie on the device, see `capturing`.
    """

    beta1: float
    gain1: float  # 1 − β₁
    beta2: float
    gain2: float  # 1 − β₂
    root: float | Tensor  # 1/√(1 − β₂^t)
    eps: float
    rate: float | Tensor  # lr/(1 − β₁^t)
    decay: float | Tensor  # 1 − lr·wd
    correction: float | Tensor  # 1/(1 − β₁^t), as float64, for norms
    nonfinite: str
    max_update_norm: float | None

    @property
    def numbers(self) -> tuple[float | Tensor, ...]:
        """What kernels are given, in this order."""
        return self.beta1, self.gain1, self.beta2, self.gain2, self.root, self.eps, self.rate, self.decay


@lru_cache(maxsize=256)
def step_constants(options: AdamwOptions, step: int) -> StepConstants:
    """Return the constants of step `step`, from 1; computed in float64, so that 1 − β loses no digits.

    Examples
    --------
    >>> constants = step_constants(AdamwOptions(lr=0.5, beta1=0.5, beta2=0.75, weight_decay=0.5), 1)
    >>> constants.rate, constants.root, constants.decay
    (1.0, 2.0, 0.75)
    """
    first, second = bias_correction(options.beta1, step), bias_correction(options.beta2, step)
    return StepConstants(
        beta1=_single(options.beta1),
        gain1=_single(1 - options.beta1),
        beta2=_single(options.beta2),
        gain2=_single(1 - options.beta2),
        root=_single(1 / sqrt(second)),
        eps=_single(options.eps),
        rate=_single(options.lr / first),
        decay=_single(1 - options.lr * options.weight_decay),
        correction=1 / first,
        nonfinite=options.nonfinite,
        max_update_norm=options.max_update_norm,
    )


def bias_correction(beta: float, step: int) -> float:
    """Return 1 − β^t, the weight that t gradients have in a running mean that began at 0.

    The float64 number nearest to it up to step 64, from integers; later −expm1(t·log β), with log1p(−(1 − β)) for
    β ≥ 1/2: no digits cancel.

    Notes
    -----
    Clause ``[adamw.parameter]``.

    Examples
    --------
    >>> bias_correction(0.5, 1), bias_correction(0.5, 2), bias_correction(0.0, 7)
    (0.5, 0.75, 1.0)
    """
    if beta == 0:
        return 1.0
    if step <= _EXACT_STEPS:
        return float(1 - Fraction(beta) ** step)
    return -expm1(step * (log(beta) if beta < 0.5 else log1p(-(1 - beta))))


def _single(real: float) -> float:
    """Return RN_float32."""
    return c_float(real).value
