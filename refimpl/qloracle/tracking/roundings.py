"""The rounding points of a sum that an implementation declares.

A claim lists its roundings once; every bound counts exactly those. What is not declared is the strictest.
"""

from dataclasses import dataclass

from qloracle.errors import reject_value
from qloracle.formats import FLOAT32, Format, format_named


@dataclass(frozen=True)
class Roundings:
    """The rounding points that an implementation of a sum declares; the default is the strictest.

    A library that works in bfloat16 throughout, operation by operation, declares "bfloat16" for all but `accumulate`.
    """

    accumulate: str = "float32"  # format of every product and partial sum; no finer than float32
    intermediate: str = "float32"  # what x_d Aᵀ and dy B are rounded to
    weight: str = "float32"  # what a dequantized weight is rounded to before the product
    dropped: str = "float32"  # what x_d is rounded to
    base: str = "float32"  # what x Wᵀ + b, and dy W, are rounded to before anything is added to them
    adapter: str = "float32"  # what (x_d Aᵀ) Bᵀ and then its multiples are rounded to, and those of dy and (dy B) A
    norm: str = "float32"  # DoRA: what W + sBA, its row norms, g and g − 1 are rounded to
    hyperparameters: str = "float64"  # optimizers: what lr, the betas, eps and wd are rounded to before 1 − β, 1 − β^t


def accumulation_format(roundings: Roundings) -> Format:
    """Return the format of products and partial sums, which must not be finer than float32."""
    fmt = format_named(roundings.accumulate, "accumulate")
    if fmt.unit_roundoff < FLOAT32.unit_roundoff:
        reject_value("accumulate", "no finer than float32, or float64 itself would need a bound", fmt.name)
    return fmt
