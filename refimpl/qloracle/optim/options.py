"""The hyperparameters of AdamW: real numbers, checked once.

Clauses: ``[adamw.nonfinite]``, ``[adamw.parameter]``.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import expm1, isfinite, log, log1p

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
    Clause ``[adamw.nonfinite]``. Rounding points: none.

    Examples
    --------
    >>> import numpy as np
    >>> from qloracle.optim.adamw import adamw_init, adamw_step
    >>> p, g = np.ones(2, np.float32), np.array([1, np.nan], np.float32)
    >>> for nonfinite in ("propagate", "skip"):
    ...     new, state = adamw_step(p, g, adamw_init((2,)), AdamwOptions(lr=0.125, beta1=0.5, nonfinite=nonfinite))
    ...     print(nonfinite, new, state.m)
    propagate [0.875   nan] [0.5 nan]
    skip [0.875 1.   ] [0.5 0. ]
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
        require_one_of("nonfinite", self.nonfinite, NONFINITE)


def bias_correction(beta: float, step: int) -> float:
    """Return 1 − β^t, the weight that t gradients have in a running mean that began at 0.

    The float64 number nearest to it up to step 64, from integers; later −expm1(t·log β), with log1p(−(1 − β)) for
    β ≥ 1/2: no digits cancel.

    Notes
    -----
    Clause ``[adamw.parameter]``. Rounding points: none in the rule; the reference computes in float64 as above.

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
