"""Scale and zero point: what an affine quantizer makes of a range.

Clauses: ``[affine.scale]``, ``[affine.zero_point]``.
"""

import numpy as np

from qloracle.errors import reject_value, require_integer
from qloracle_gpu.cupy.arrays import flat_items, require_dtype
from qloracle_gpu.cupy.launcher import Array, Operation, operation


def require_code_range(qmin: int, qmax: int) -> tuple[int, int]:
    """Return qmin and qmax if codes from one to the other fit int8 or uint8 and are at least three, else raise."""
    low, high = require_integer("qmin", qmin, "an integer"), require_integer("qmax", qmax, "an integer")
    if high - low < 2:
        reject_value("qmax", f"at least qmin + 2, here {low + 2}", high)
    if low < -128 or high > (127 if low < 0 else 255):
        reject_value("qmin and qmax", "within -128 to 127, or 0 to 255", f"{low} and {high}")
    return low, high


def affine_parameters(lo: Array, hi: Array, *, qmin: int, qmax: int) -> tuple[Array, Array]:
    """Return scale and zero point of the codes qmin to qmax for values from lo to hi.

    scale = fl32((max(hi, 0) − min(lo, 0))/(qmax − qmin));
    zero_point = clip(RN_int(qmin − min(lo, 0)/scale), qmin, qmax), ties to even.

    Parameters
    ----------
    lo, hi : array of float32, of one shape
        The range of each group, lo ≤ hi; it is widened to contain 0, so that 0 has a code of its own. NaN in either
        end, or an infinite one, marks a poisoned group. That no end is the wrong way round waits for the device.
    qmin, qmax : int
        The smallest and the largest code: −128 and 127, 0 and 255, −8 and 7, 0 and 15, or others of at most 8 bits.

    Returns
    -------
    scale : array of float32
        Real quotients rounded once. 1 where that is 0; NaN for a poisoned group.
    zero_point : array of int32
        The code of 0; clip(0, qmin, qmax) where the scale is such a 1 or NaN.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a range is not float32, its ends differ in shape or are the wrong way round, or the codes do not fit 8 bits.

    Notes
    -----
    Clauses ``[affine.scale]``, ``[affine.zero_point]``. Rounding points, in order: the scale to float32; the zero point
    to an integer, its quotient real given the stored scale.
    """
    low, high = require_code_range(qmin, qmax)
    lo, hi = require_range(lo, hi)
    with operation("affine_parameters", lo=lo, hi=hi) as run:
        return parameters_of_ranges(run, lo, hi, low, high)


def parameters_of_ranges(run: Operation, lo: Array, hi: Array, qmin: int, qmax: int) -> tuple[Array, Array]:
    """Return scale and zero point of ranges that are the right way round."""
    scale, zero_point = run.empty(lo.size, "float32"), run.empty(lo.size, "int32")
    ends = (flat_items(run, lo), flat_items(run, hi))
    run.launch(
        "affine", "affine_parameters", lo.size,
        (*ends, np.int64(lo.size), np.int32(qmin), np.int32(qmax), scale, zero_point),
    )  # fmt: skip
    return scale.reshape(lo.shape), zero_point.reshape(lo.shape)


def require_range(lo: object, hi: object) -> tuple[Array, Array]:
    """Return both ends of a range if they are float32, of one shape and the right way round, else raise."""
    low, high = require_dtype("lo", lo, "float32"), require_dtype("hi", hi, "float32")
    if low.shape != high.shape:
        reject_value("hi", f"of the shape of lo {low.shape}", high.shape)
    with operation("require_range", lo=low, hi=high) as run:
        wrong = run.empty(low.size, "bool")
        run.launch(
            "affine", "descends", low.size, (flat_items(run, low), flat_items(run, high), np.int64(low.size), wrong)
        )
        if low.size and bool(wrong.any()):
            first = int(wrong.argmax())
            reject_value("hi", f"not below lo, here {low.reshape(-1)[first]}", high.reshape(-1)[first])
    return low, high
