"""Fake quantization: quantize, then dequantize at once; and its straight-through gradient.

Clauses: ``[fake_quant.forward]``, ``[fake_quant.backward]``.
"""

import numpy as np

from qloracle.affine import (
    GRANULARITIES,
    dequantize_affine_codes,
    quantize_affine_codes,
    require_parameters,
)
from qloracle.affine_scale import require_code_range
from qloracle.errors import reject_type, reject_value, require_one_of
from qloracle.formats import Array, format_of, from_bits, to_bits
from qloracle.groups import group_shape, spread_parameters
from qloracle.rounding import widen

INTERVALS = ("values", "codes")


def fake_quantize(
    x: Array, scale: Array, zero_point: Array, *, qmin: int = -128, qmax: int = 127, granularity: str = "tensor",
    group_size: int | None = None, fmt: str | None = None,
) -> Array:  # fmt: skip
    """Quantize and dequantize a tensor with a given scale and zero point.

    value = RN_x(fl32((clip(RN_int(x/scale) + zero_point, qmin, qmax) − zero_point)·scale))

    Parameters
    ----------
    x : array of float32, float16 or bfloat16
    scale : array of float32, one a group
    zero_point : array of int32, one a group
        From qmin to qmax; 0 for symmetric codes.
    qmin, qmax : int
        Smallest and largest code.
    granularity : {"tensor", "row", "column", "group"}
    group_size : int, optional
        For "group" only.
    fmt : str, optional
        Format of `x` where it is given as bit patterns.

    Returns
    -------
    array, format and shape of `x`; bfloat16 as uint16 words

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `quantize_affine`, and if scale and zero point do not go with the shape of `x`.

    Notes
    -----
    Clause ``[fake_quant.forward]``. Rounding points: those of ``[affine.quantize]`` and ``[affine.dequantize]``, the
    last to the format of `x`. NaN where the scale is NaN; +0 where x is NaN and the scale is not.

    References
    ----------
    Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
    section 3, equation 12.

    Examples
    --------
    >>> fake_quantize(np.float32([0.3, 1.6, 99]), np.float32(0.5), np.int32(0), qmin=-8, qmax=7)
    array([0.5, 1.5, 3.5], dtype=float32)
    """
    name, wide = format_of(x, fmt, "x").name, widen(x, fmt, "x")
    low, high = require_code_range(qmin, qmax)
    spread = _spread(scale, zero_point, wide.shape, (low, high, granularity, group_size))
    return dequantize_affine_codes(quantize_affine_codes(wide, *spread, low, high), *spread, name)


def fake_quantize_backward(
    dy: Array, x: Array, scale: Array, zero_point: Array, *, qmin: int = -128, qmax: int = 127,
    granularity: str = "tensor", group_size: int | None = None, interval: str = "values", fmt: str | None = None,
) -> Array:  # fmt: skip
    """Differentiate `fake_quantize` straight through: rounding counts as the identity, clipping as what it is.

    dx = dy where x lies between value(qmin) and value(qmax), ends included, else +0, where
    value(q) = RN_x(fl32((q − zero_point)·scale)).

    Parameters
    ----------
    dy : array, format and shape of `x`
        Gradient of the output.
    x, scale, zero_point, qmin, qmax, granularity, group_size, fmt
        As for `fake_quantize`.
    interval : {"values", "codes"}
        "codes" is the variant in which x is inside where its code was not clipped, qmin ≤ RN_int(x/scale) + zero_point
        ≤ qmax: about half a step wider at either end. PyTorch has it.

    Returns
    -------
    array, format and shape of `x`; bfloat16 as uint16 words
        dy itself, bit for bit, or +0. NaN where the scale is NaN; +0 where x is NaN and the scale is not.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `fake_quantize`; also if `dy` is of another shape or format than `x`, or the interval is unknown.

    Notes
    -----
    Clause ``[fake_quant.backward]``. Rounding points: none but those of the two ends, which are `fake_quantize`'s own
    smallest and largest output, in the format of `x`. Rounding is monotone, so every output of it is inside.

    References
    ----------
    Bengio et al. 2013, "Estimating or Propagating Gradients Through Stochastic Neurons", section 4.

    Examples
    --------
    >>> x, dy = np.float32([-4, 3.5, 3.6]), np.float32([1, 2, 3])
    >>> fake_quantize_backward(dy, x, np.float32(0.5), np.int32(0), qmin=-8, qmax=7)
    array([1., 2., 0.], dtype=float32)
    """
    source, wide = format_of(x, fmt, "x"), widen(x, fmt, "x")
    low, high = require_code_range(qmin, qmax)
    scale, zero_point = _spread(scale, zero_point, wide.shape, (low, high, granularity, group_size))
    if format_of(dy, fmt, "dy") is not source:
        reject_type("dy", f"of the format of x {source.name}", dy.dtype)
    if dy.shape != x.shape:
        reject_value("dy", f"of the shape of x {x.shape}", dy.shape)
    require_one_of("interval", interval, INTERVALS)
    if interval == "codes":
        inside = _unclipped(wide, scale, zero_point, low, high)
    else:
        inside = _between_ends(wide, scale, zero_point, (low, high), source.name)
    words = np.where(inside, to_bits(dy, fmt, "dy"), source.word.type(0))
    return from_bits(np.where(np.isnan(scale), source.word.type(source.quiet_nan_bits), words), source.name)


def _unclipped(x: Array, scale: Array, zero_point: Array, qmin: int, qmax: int) -> Array:
    """Return where the code of x was not clipped."""
    usable = np.isfinite(scale) & (scale != 0)
    with np.errstate(invalid="ignore"):
        steps = np.rint(x.astype(np.float64) / np.where(usable, scale, np.float32(np.inf)).astype(np.float64))
    codes: Array = steps + zero_point
    return (codes >= qmin) & (codes <= qmax)


def _between_ends(x: Array, scale: Array, zero_point: Array, codes: tuple[int, int], fmt: str) -> Array:
    """Return where x is between the values of the outermost codes in the format `fmt`, ends included."""
    ends = [widen(dequantize_affine_codes(np.asarray(q), scale, zero_point, fmt), fmt) for q in codes]
    with np.errstate(invalid="ignore"):
        within: Array = (np.minimum(*ends) <= x) & (x <= np.maximum(*ends))
    return within


def _spread(
    scale: Array, zero_point: Array, shape: tuple[int, ...], how: tuple[int, int, str, int | None]
) -> tuple[Array, Array]:
    """Return scale and zero point as they broadcast to the elements, after checking them."""
    qmin, qmax, granularity, group_size = how
    expected = group_shape(shape, granularity, group_size, GRANULARITIES)
    parameters = require_parameters(scale, zero_point, expected, qmin, qmax)
    return spread_parameters(*parameters, shape, granularity, group_size)
