"""Fake quantization: quantize, then dequantize at once; and its straight-through gradient.

Clauses: ``[fake_quant.forward]``, ``[fake_quant.backward]``.
"""

from functools import partial

import torch
from torch import Tensor

from qloracle.errors import reject_type, reject_value, require_one_of
from qloracle.formats import format_named
from qloracle_gpu.torch.affine import affine_codes, affine_steps, affine_values, require_parameters
from qloracle_gpu.torch.affine_scale import require_code_range
from qloracle_gpu.torch.compiling import compiles_as_operator
from qloracle_gpu.torch.formats import NAMES, require_device, require_tensor_format
from qloracle_gpu.torch.groups import group_shape, write_by_groups

INTERVALS = ("values", "codes")
WORDS = {2: torch.int16, 4: torch.int32}


@compiles_as_operator
def fake_quantize(
    x: Tensor, scale: Tensor, zero_point: Tensor, *, qmin: int = -128, qmax: int = 127, granularity: str = "tensor",
    group_size: int | None = None,
) -> Tensor:  # fmt: skip
    """Quantize and dequantize a tensor with a given scale and zero point, in one pass.

    value = RN_x(fl32((clip(RN_int(x/scale) + zero_point, qmin, qmax) − zero_point)·scale))

    Parameters
    ----------
    x : tensor of float32, float16 or bfloat16, any strides
    scale : tensor of float32, one a group
    zero_point : tensor of int32, one a group
        From qmin to qmax, see `dequantize_affine`; 0 for symmetric codes.
    qmin, qmax : int
        Smallest and largest code.
    granularity : {"tensor", "row", "column", "group"}
    group_size : int, optional
        For "group" only.

    Returns
    -------
    tensor, dtype and shape of `x`
        Without gradient history; `modules.FakeQuantize` and ``torch.ops.qloracle.fake_quantize`` have the gradient.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `quantize_affine`, and if scale and zero point do not go with the shape of `x`.

    Notes
    -----
    Clause ``[fake_quant.forward]``. Rounding points: those of ``[affine.quantize]`` and ``[affine.dequantize]``, the
    last to the format of `x`. NaN where the scale is NaN; +0 where x is NaN and the scale is not.

    Examples
    --------
    >>> fake_quantize(torch.tensor([0.3, 1.6, 99]), torch.tensor(0.5), torch.tensor(0, dtype=torch.int32), qmax=7)
    tensor([0.5000, 1.5000, 3.5000])
    """
    values, limits = require_tensor_format("x", x), require_code_range(qmin, qmax)
    shape = group_shape(values.shape, granularity, group_size)
    parameters = require_parameters(scale, zero_point, shape, limits, values.device)
    out = torch.empty(values.shape, dtype=values.dtype, device=values.device)
    write_by_groups(partial(_values, limits=limits), [values], parameters, out, granularity, group_size)
    return out


@compiles_as_operator
def fake_quantize_backward(
    dy: Tensor, x: Tensor, scale: Tensor, zero_point: Tensor, *, qmin: int = -128, qmax: int = 127,
    granularity: str = "tensor", group_size: int | None = None, interval: str = "values",
) -> Tensor:  # fmt: skip
    """Differentiate `fake_quantize` straight through: rounding counts as the identity, clipping as what it is.

    dx = dy where x lies between value(qmin) and value(qmax), ends included, else +0, where
    value(q) = RN_x(fl32((q − zero_point)·scale)).

    Parameters
    ----------
    dy : tensor, dtype and shape of `x`
        Gradient of the output.
    x, scale, zero_point, qmin, qmax, granularity, group_size
        As for `fake_quantize`.
    interval : {"values", "codes"}
        "codes" is the variant in which x is inside where its code was not clipped, qmin ≤ RN_int(x/scale) + zero_point
        ≤ qmax: about half a step wider at either end. PyTorch's own `fake_quantize_per_tensor_affine` has it.

    Returns
    -------
    tensor, dtype and shape of `x`
        dy itself, bit for bit, or +0. NaN where the scale is NaN; +0 where x is NaN and the scale is not.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `fake_quantize`; also if `dy` is of another shape, dtype or device than `x`, or the interval is unknown.

    Notes
    -----
    Clause ``[fake_quant.backward]``. Rounding points: none but those of the two ends, which are `fake_quantize`'s own
    smallest and largest output, in the format of `x`. Rounding is monotone, so every output of it is inside.

    Examples
    --------
    >>> x, dy = torch.tensor([-64, 3.5, 3.6]), torch.tensor([1.0, 2.0, 3.0])
    >>> fake_quantize_backward(dy, x, torch.tensor(0.5), torch.tensor(0, dtype=torch.int32), qmax=7)
    tensor([1., 2., 0.])
    """
    values, limits = require_tensor_format("x", x), require_code_range(qmin, qmax)
    shape = group_shape(values.shape, granularity, group_size)
    parameters = require_parameters(scale, zero_point, shape, limits, values.device)
    gradient = _require_like(dy, values)
    require_interval(interval)
    out = torch.empty(values.shape, dtype=values.dtype, device=values.device)
    word = WORDS[out.itemsize]  # as integers numbers are copied bit for bit
    rule = partial(_kept_words, limits=limits, interval=interval, dtype=values.dtype)
    write_by_groups(rule, [gradient.view(word), values], parameters, out.view(word), granularity, group_size)
    return out


def require_interval(interval: str) -> None:
    """Raise unless an interval is one of the two."""
    require_one_of("interval", interval, INTERVALS)


def _require_like(dy: Tensor, x: Tensor) -> Tensor:
    gradient = require_tensor_format("dy", dy)
    if gradient.dtype != x.dtype:
        reject_type("dy", f"of the format of x {NAMES[x.dtype]}", gradient.dtype)
    if gradient.shape != x.shape:
        reject_value("dy", f"of the shape of x {tuple(x.shape)}", tuple(gradient.shape))
    return require_device("dy", gradient, x.device)


def _values(x: Tensor, scale: Tensor, zero_point: Tensor, *, limits: tuple[int, int]) -> Tensor:
    return affine_values(affine_codes(x, scale, zero_point, limits=limits), scale, zero_point)


def _kept_words(
    words: Tensor, x: Tensor, scale: Tensor, zero_point: Tensor, *, limits: tuple[int, int], interval: str,
    dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    """Return the words of a gradient where x is inside, those of +0 elsewhere, those of NaN where the scale is NaN."""
    if interval == "codes":
        codes = affine_steps(x, scale).add_(zero_point)
        inside = (codes >= limits[0]) & (codes <= limits[1])
    else:
        ends = [affine_values(torch.full_like(scale, end), scale, zero_point).to(dtype) for end in limits]
        inside = (torch.minimum(*ends) <= x) & (x <= torch.maximum(*ends))
    nan = format_named(NAMES[dtype]).quiet_nan_bits
    return torch.where(scale.isnan(), nan, torch.where(inside, words, 0))
