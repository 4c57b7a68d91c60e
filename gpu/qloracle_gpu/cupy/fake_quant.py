"""Fake quantization: quantize, then dequantize at once; and its straight-through gradient.

Clauses: ``[fake_quant.forward]``, ``[fake_quant.backward]``.
"""

import numpy as np

from qloracle.errors import reject_type, reject_value, require_one_of
from qloracle_gpu.cupy.affine import Coding, require_parameters
from qloracle_gpu.cupy.affine_scale import require_code_range
from qloracle_gpu.cupy.arrays import carrier, flat_words, format_of, require_tensor
from qloracle_gpu.cupy.groups import group_shape
from qloracle_gpu.cupy.launcher import Array, operation, require_array
from qloracle_gpu.cupy.observers import GRANULARITIES
from qloracle_gpu.cupy.vectors import ITEMS

INTERVALS = ("values", "codes")


def fake_quantize(
    x: Array, scale: Array, zero_point: Array, *, qmin: int = -128, qmax: int = 127, granularity: str = "tensor",
    group_size: int | None = None, fmt: str | None = None,
) -> Array:  # fmt: skip
    """Quantize and dequantize a tensor with a given scale and zero point, in one pass.

    value = RN_x(fl32((clip(RN_int(x/scale) + zero_point, qmin, qmax) − zero_point)·scale))

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, any strides
    scale : array of float32, one a group
    zero_point : array of int32, one a group
        From qmin to qmax, which waits for the device; 0 for symmetric codes.
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
    """
    array, named = require_tensor("x", x, fmt)
    coding = Coding(*require_code_range(qmin, qmax), granularity, group_size)
    given = _parameters(scale, zero_point, array.shape, coding)
    with operation("fake_quantize", x=array, scale=given[0], zero_point=given[1]) as run:
        out = run.empty(array.size, carrier(named))
        arguments = (flat_words(run, array), *coding.arguments(run, array.shape, *given), out)
        run.launch("affine", f"fake_quantize_{named.name}", -(-array.size // ITEMS), arguments)
        return out.reshape(array.shape)


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
        ≤ qmax: about half a step wider at either end.

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
    Clause ``[fake_quant.backward]``. Rounding points: none but those of the two ends.
    """
    array, named = require_tensor("x", x, fmt)
    coding = Coding(*require_code_range(qmin, qmax), granularity, group_size)
    given = _parameters(scale, zero_point, array.shape, coding)
    gradient = require_array("dy", dy)
    if format_of(gradient, fmt, "dy") is not named:
        reject_type("dy", f"of the format of x {named.name}", gradient.dtype)
    if gradient.shape != array.shape:
        reject_value("dy", f"of the shape of x {array.shape}", gradient.shape)
    require_one_of("interval", interval, INTERVALS)
    with operation("fake_quantize_backward", dy=gradient, x=array, scale=given[0], zero_point=given[1]) as run:
        out = run.empty(array.size, carrier(named))
        words = (flat_words(run, gradient), flat_words(run, array), np.int32(interval == "codes"))
        arguments = (*words, *coding.arguments(run, array.shape, *given), out)
        run.launch("affine", f"fake_quantize_backward_{named.name}", -(-array.size // ITEMS), arguments)
        return out.reshape(array.shape)


def _parameters(scale: object, zero_point: object, shape: tuple[int, ...], coding: Coding) -> tuple[Array, Array]:
    expected = group_shape(shape, coding.granularity, coding.group_size, GRANULARITIES)
    return require_parameters(scale, zero_point, expected, coding.qmin, coding.qmax)
