"""Symmetric quantization within a clipping range: a scale, and zero point 0.

Clause: ``[symmetric.scale]``; codes and values are those of `affine`.
"""

import numpy as np

from qloracle.affine import GRANULARITIES, QuantizedAffine, coded
from qloracle.affine_scale import require_code_range
from qloracle.errors import reject_value, require_dtype, require_integer
from qloracle.formats import Array, tensor_format
from qloracle.groups import group_shape
from qloracle.rounding import widen


def symmetric_scale(clip: Array, *, qmax: int) -> Array:
    """Return the scale of symmetric codes for values from −clip to clip; their zero point is 0.

    scale = fl32(clip/qmax)

    Parameters
    ----------
    clip : array of float32
        The clipping range of each group, not negative; NaN or infinite for a poisoned group.
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
    Clause ``[symmetric.scale]``. Rounding points: one. float64 holds clip, and a quotient by at most 8 bits cannot be
    so near a midpoint of float32 that its rounding to float64 reaches it (second lemma of `int8`).

    Examples
    --------
    >>> symmetric_scale(np.float32([254, 0]), qmax=127)
    array([2., 1.], dtype=float32)
    """
    require_dtype("clip", clip, "float32")
    clip = np.asarray(clip)
    if not 1 <= (largest := require_integer("qmax", qmax, "an integer")) <= 255:
        reject_value("qmax", "from 1 to 255", largest)
    if np.any(clip < 0):
        reject_value("clip", "not negative", float(clip[clip < 0][0]))
    with np.errstate(invalid="ignore"):  # a signalling NaN
        scale = (clip.astype(np.float64) / largest).astype(np.float32)
    return np.where(np.isfinite(clip), np.where(scale == 0, np.float32(1), scale), np.float32(np.nan))


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

    Examples
    --------
    >>> q = quantize_symmetric(np.array([-9, 1, 2.5, 7], np.float32), clip=np.float32(7), qmin=-8, qmax=7)
    >>> q.codes, q.scale
    (array([-8,  1,  2,  7], dtype=int8), array(1., dtype=float32))
    """
    name, wide = tensor_format(x, fmt, "x").name, widen(x, fmt, "x")
    if (low := require_code_range(qmin, qmax)[0]) > 0:
        reject_value("qmin", "not positive, or 0 had no code", low)
    shape = group_shape(wide.shape, granularity, group_size, GRANULARITIES)
    scale = symmetric_scale(clip, qmax=qmax)
    if scale.shape != shape:
        reject_value("clip", f"of shape {shape}", scale.shape)
    return coded(wide, scale, np.zeros(shape, np.int32), (qmin, qmax, granularity, group_size, name))
