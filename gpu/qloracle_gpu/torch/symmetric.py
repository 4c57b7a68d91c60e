"""Symmetric quantization within a clipping range: a scale, and zero point 0.

Clause: ``[symmetric.scale]``; codes and values are those of `affine`.
"""

import torch
from torch import Tensor

from qloracle.errors import reject_value, require_integer
from qloracle_gpu.torch.affine import QuantizedAffine, coded
from qloracle_gpu.torch.affine_scale import require_code_range
from qloracle_gpu.torch.casts import on_capable_device
from qloracle_gpu.torch.compiling import compiles_as_operator
from qloracle_gpu.torch.formats import require_device, require_dtype, require_tensor_format
from qloracle_gpu.torch.groups import group_shape


@compiles_as_operator
def symmetric_scale(clip: Tensor, *, qmax: int) -> Tensor:
    """Return the scale of symmetric codes for values from −clip to clip; their zero point is 0.

    scale = fl32(clip/qmax)

    Parameters
    ----------
    clip : tensor of float32
        The clipping range of each group, not negative; NaN or infinite for a poisoned group.
    qmax : int
        The largest code: 127 or 7, or another from 1 to 255.

    Returns
    -------
    tensor of float32
        1 where the quotient rounds to 0, NaN for a poisoned group.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `clip` is not float32 or somewhere negative, or qmax is no integer from 1 to 255. Signs are looked at on a
        CPU only: anywhere else that would wait for the device, and a negative range poisons its group instead.

    Notes
    -----
    Clause ``[symmetric.scale]``. Rounding points: one; the quotient is taken in float64, which decides it exactly.

    Examples
    --------
    >>> symmetric_scale(torch.tensor([254.0, 0.0]), qmax=127)
    tensor([2., 1.])
    """
    limits = require_dtype("clip", clip, torch.float32)
    if not 1 <= (largest := require_integer("qmax", qmax, "an integer")) <= 255:
        reject_value("qmax", "from 1 to 255", largest)
    if limits.device.type == "cpu" and len(negative := limits[limits < 0]):
        reject_value("clip", "not negative", negative[0].item())
    scale = (on_capable_device(limits).to(torch.float64) / largest).to(torch.float32).to(limits.device)
    usable = limits.isfinite() & (limits >= 0)
    return torch.where(usable, torch.where(scale == 0, 1.0, scale), torch.nan)


@compiles_as_operator
def quantize_symmetric(
    x: Tensor, *, clip: Tensor, qmin: int = -127, qmax: int = 127, granularity: str = "tensor",
    group_size: int | None = None,
) -> QuantizedAffine:  # fmt: skip
    """Quantize a tensor symmetrically within a clipping range: zero point 0.

    Parameters
    ----------
    x, granularity, group_size
        As for `quantize_affine`.
    clip : tensor of float32
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
    >>> q = quantize_symmetric(torch.tensor([-9.0, 1.0, 2.5, 7.0]), clip=torch.tensor(7.0), qmin=-8, qmax=7)
    >>> q.codes, q.scale
    (tensor([-8,  1,  2,  7], dtype=torch.int8), tensor(1.))
    """
    values, codes = require_tensor_format("x", x), require_code_range(qmin, qmax)
    if codes[0] > 0:
        reject_value("qmin", "not positive, or 0 had no code", codes[0])
    shape = group_shape(values.shape, granularity, group_size)
    require_device("clip", require_dtype("clip", clip, torch.float32), values.device)
    scale = symmetric_scale(clip, qmax=codes[1])
    if scale.shape != shape:
        reject_value("clip", f"of shape {shape}", tuple(scale.shape))
    zero_point = torch.zeros(shape, dtype=torch.int32, device=values.device)
    return coded(values, scale, zero_point, codes, granularity, group_size)
