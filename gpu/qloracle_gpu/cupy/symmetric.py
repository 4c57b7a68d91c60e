"""Symmetric quantization within a clipping range: a scale, and zero point 0.

Clause: ``[symmetric.scale]``; codes and values are those of `affine`.
"""

import numpy as np

from qloracle.errors import reject_value, require_integer
from qloracle_gpu.cupy.affine import Coding, QuantizedAffine, codes_given
from qloracle_gpu.cupy.affine_scale import require_code_range
from qloracle_gpu.cupy.arrays import flat_items, flat_words, require_dtype, require_tensor
from qloracle_gpu.cupy.groups import group_shape
from qloracle_gpu.cupy.launcher import Array, Operation, operation
from qloracle_gpu.cupy.observers import GRANULARITIES

_MINUS_ZERO, _NAN = np.uint32(0x80000000), np.uint32(0x7FFFFFFF)


def symmetric_scale(clip: Array, *, qmax: int) -> Array:
    """Return the scale of symmetric codes for values from −clip to clip; their zero point is 0.

    scale = fl32(clip/qmax)

    Parameters
    ----------
    clip : array of float32
        The clipping range of each group, not negative; NaN or infinite for a poisoned group. Looking at its signs
        waits for the device.
    qmax : int
        The largest code: 127 or 7, or another from 1 to 255.

    Returns
    -------
    array of float32
        1 where the quotient rounds to 0, NaN for a poisoned group.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `clip` is not float32 or somewhere negative, or qmax is no integer from 1 to 255.

    Notes
    -----
    Clause ``[symmetric.scale]``. Rounding points: one.
    """
    array, largest = require_dtype("clip", clip, "float32"), _require_largest(qmax)
    with operation("symmetric_scale", clip=array) as run:
        return _scale(run, array, largest)


def quantize_symmetric(
    x: Array, *, clip: Array, qmin: int = -127, qmax: int = 127, granularity: str = "tensor",
    group_size: int | None = None, fmt: str | None = None,
) -> QuantizedAffine:  # fmt: skip
    """Quantize a tensor symmetrically within a clipping range: zero point 0.

    Parameters
    ----------
    x, granularity, group_size, fmt
        As for `quantize_affine`.
    clip : array of float32
        The clipping range c of each group; values beyond ±c saturate. NaN or infinite poisons the group.
    qmin, qmax : int
        Smallest and largest code; the scale is fl32(c/qmax), so that −c is −qmax whether or not qmin is smaller.

    Returns
    -------
    QuantizedAffine

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `quantize_affine` and `symmetric_scale`; also if qmin is positive.

    Notes
    -----
    Clauses ``[symmetric.scale]``, ``[affine.quantize]``, in this order.
    """
    array, named = require_tensor("x", x, fmt)
    low, high = require_code_range(qmin, qmax)
    if low > 0:
        reject_value("qmin", "not positive, or 0 had no code", low)
    shape = group_shape(array.shape, granularity, group_size, GRANULARITIES)
    ends, _ = require_dtype("clip", clip, "float32"), _require_largest(high)
    with operation("quantize_symmetric", x=array, clip=ends) as run:
        scale = _scale(run, ends, high)
        if scale.shape != shape:
            reject_value("clip", f"of shape {shape}", scale.shape)
        zero_point = run.empty(shape, "int32")
        zero_point[...] = 0
        coding = Coding(low, high, granularity, group_size)
        codes = codes_given(run, flat_words(run, array), named, array.shape, scale, zero_point, coding)
    return QuantizedAffine(codes, scale, zero_point, low, high, granularity, group_size, named.name)


def _require_largest(qmax: object) -> int:
    largest = require_integer("qmax", qmax, "an integer")
    if not 1 <= largest <= 255:
        reject_value("qmax", "from 1 to 255", largest)
    return largest


def _scale(run: Operation, clip: Array, qmax: int) -> Array:
    flat = flat_items(run, clip)
    words = flat.view("uint32")
    below = (words > _MINUS_ZERO) & ((words & _NAN) <= np.uint32(0x7F800000))
    if flat.size and bool(below.any()):
        reject_value("clip", "not negative", float(flat[int(below.argmax())]))
    scale = run.empty(clip.size, "float32")
    run.launch("affine", "symmetric_scale", clip.size, (flat, np.int64(clip.size), np.int32(qmax), scale))
    return scale.reshape(clip.shape)
