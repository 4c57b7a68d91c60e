"""The hyperparameters of AdamW: real numbers, checked once."""

from dataclasses import dataclass
from math import isfinite

from qloracle.errors import reject_value, require_number, require_one_of
from qloracle.formats import FLOAT32

NONFINITE = ("propagate", "skip", "reset")
_LARGEST_BETA = 1 - FLOAT32.unit_roundoff  # the largest float32 number below 1
_SMALLEST = 2.0**FLOAT32.minimum_exponent


@dataclass(frozen=True)
class AdamwOptions:
    """The hyperparameters of one AdamW step; each is the real number that its float64 value stands for.

    nonfinite says what an element does whose gradient is NaN or ±inf: "propagate" lets it through the formulas, "skip"
    leaves its parameter and moments as they are, "reset" leaves its parameter and sets its moments to 0.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a number is none, or outside the range that its comment states.

    Notes
    -----
    Clause ``[adamw.nonfinite]``. Rounding points: none.
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
