"""Scale and zero point: what an affine quantizer makes of a range.

Clauses: ``[affine.scale]``, ``[affine.zero_point]``. Both are decided in float64, one number a group; why that is exact
say the lemmas of `qloracle.affine_scale`.
"""

import torch
from torch import Tensor

from qloracle.errors import reject_value, require_integer
from qloracle_gpu.torch.casts import on_capable_device
from qloracle_gpu.torch.compiling import compiles_as_operator
from qloracle_gpu.torch.formats import require_device, require_dtype
from qloracle_gpu.torch.odd_sums import sum_to_odd


def require_code_range(qmin: int, qmax: int) -> tuple[int, int]:
    """Return qmin and qmax if codes from one to the other fit int8 or uint8 and are at least three, else raise."""
    low, high = require_integer("qmin", qmin, "an integer"), require_integer("qmax", qmax, "an integer")
    if high - low < 2:
        reject_value("qmax", f"at least qmin + 2, here {low + 2}", high)
    if low < -128 or high > (127 if low < 0 else 255):
        reject_value("qmin and qmax", "within -128 to 127, or 0 to 255", f"{low} and {high}")
    return low, high


@compiles_as_operator
def affine_parameters(lo: Tensor, hi: Tensor, *, qmin: int, qmax: int) -> tuple[Tensor, Tensor]:
    """Return scale and zero point of the codes qmin to qmax for values from lo to hi.

    scale = fl32((max(hi, 0) − min(lo, 0))/(qmax − qmin));
    zero_point = clip(RN_int(qmin − min(lo, 0)/scale), qmin, qmax), ties to even.

    Parameters
    ----------
    lo, hi : tensor of float32, of one shape
        The range of each group, lo ≤ hi; it is widened to contain 0, so that 0 has a code of its own. NaN in either
        end, or an infinite one, marks a poisoned group.
    qmin, qmax : int
        The smallest and the largest code: −128 and 127, 0 and 255, −8 and 7, 0 and 15, or others of at most 8 bits.

    Returns
    -------
    scale : tensor of float32
        Real quotients rounded once. 1 where that is 0: the range has no width, or one of at most
        2^−150·(qmax − qmin). NaN for a poisoned group.
    zero_point : tensor of int32
        The code of 0; clip(0, qmin, qmax) where the scale is such a 1 or NaN.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a range is not float32, its ends differ in shape or device or are the wrong way round, or the codes do not
        fit 8 bits. Which way round is looked at on a CPU only: anywhere else that would wait for the device, and such a
        group is poisoned instead.

    Notes
    -----
    Clauses ``[affine.scale]``, ``[affine.zero_point]``. Rounding points, in order: the scale to float32; the zero point
    to an integer, its quotient real given the stored scale.

    Examples
    --------
    >>> affine_parameters(torch.tensor([-1.0]), torch.tensor([3.0]), qmin=0, qmax=255)
    (tensor([0.0157]), tensor([64], dtype=torch.int32))
    """
    codes = require_code_range(qmin, qmax)
    return parameters_of(*require_range(lo, hi), codes)


def parameters_of(lo: Tensor, hi: Tensor, codes: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return scale and zero point of ranges; `codes` are qmin and qmax."""
    qmin, qmax = codes
    low, high = (on_capable_device(end).to(torch.float64) for end in (lo, hi))
    finite = low.isfinite() & high.isfinite() & (low <= high)
    below = torch.where(finite, low, 0.0).clamp(max=0.0).neg()
    above = torch.where(finite, high, 0.0).clamp(min=0.0)
    quotient = (sum_to_odd(above, below) / (qmax - qmin)).to(torch.float32)
    positive = quotient > 0
    scale = torch.where(finite, torch.where(positive, quotient, 1.0), torch.nan)
    steps = torch.where(positive, below / scale, 0.0)
    zero_point = torch.where(positive, _rounded_sum(steps, qmin), 0.0).clamp(qmin, qmax)
    return scale.to(lo.device), zero_point.to(torch.int32).to(lo.device)


def _rounded_sum(steps: Tensor, qmin: int) -> Tensor:
    """Return RN_int(qmin + steps), ties to even, for quotients that may be so small that the sum would swallow them."""
    whole = steps.floor()
    fraction, sum_below = steps - whole, whole + qmin
    up = (fraction > 0.5) | ((fraction == 0.5) & (sum_below.remainder(2) == 1))
    return sum_below + up


def require_range(lo: Tensor, hi: Tensor) -> tuple[Tensor, Tensor]:
    """Return both ends of a range if they are float32 and belong together, on a CPU the right way round, else raise."""
    low, high = require_dtype("lo", lo, torch.float32), require_dtype("hi", hi, torch.float32)
    if low.shape != high.shape:
        reject_value("hi", f"of the shape of lo {tuple(low.shape)}", tuple(high.shape))
    require_device("hi", high, low.device)
    if low.device.type == "cpu" and len(wrong := (low > high).nonzero()):
        first = tuple(wrong[0].tolist())
        reject_value("hi", f"not below lo, here {low[first].item()}", high[first].item())
    return low, high
