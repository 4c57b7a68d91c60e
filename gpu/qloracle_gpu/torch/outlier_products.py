"""LLM.int8() by a kernel where kernels run: codes and outlier columns in one pass, and one rounding."""

import torch
from torch import Tensor

from qloracle_gpu.torch.decomposition import Decomposed
from qloracle_gpu.torch.formats import NAMES, require_device
from qloracle_gpu.torch.int8 import QuantizedInt8
from qloracle_gpu.torch.int8_scale import require_scales
from qloracle_gpu.torch.kernels.availability import kernels_run_on
from qloracle_gpu.torch.matmul import LARGEST_INNER_WITH_MINUS_128, require_int8_operands


def decomposed_product(
    x: Tensor, weight: QuantizedInt8, original: Tensor | None, parts: Decomposed, target: torch.dtype,
    weight_rounding: str, bias: Tensor | None,
) -> Tensor | None:  # fmt: skip
    """Return y of LLM.int8(), or None where no kernel takes it.

    Parameters
    ----------
    x : tensor of float32, float16 or bfloat16, shape (rows, K)
    weight : QuantizedInt8, granularity "row", shape (N, K)
    original : tensor, likewise, shape (N, K), or None
        What outliers are multiplied by; None: the dequantized weight.
    parts : Decomposed
    target : torch.dtype
        Of y.
    weight_rounding : str
        What a dequantized weight is rounded to.
    bias : tensor of float32, shape (N,), or None

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If the operands do not belong together, or lie on different devices.
    """
    if not kernels_run_on(x.device.type) or x.shape[1] > LARGEST_INNER_WITH_MINUS_128:
        return None
    codes = parts.codes.reshape(x.shape)
    require_int8_operands(codes, weight.codes)
    y = torch.empty(len(x), len(weight.codes), dtype=target, device=x.device)
    row, column, shift = require_scales(y, parts.absmax.reshape(-1), weight.absmax, bias)
    for argument, part in (("codes", codes), ("outliers", parts.outliers), ("original", original)):
        if part is not None:
            require_device(argument, part, x.device)
    if y.numel() == 0 or x.shape[1] == 0:
        return None
    from qloracle_gpu.torch.kernels import decomposed_product as kernel

    kernel.decomposed_product(
        (codes.contiguous(), weight.codes.contiguous()), (row, column), x.contiguous(), parts.outliers.contiguous(), y,
        NAMES[target], original=None if original is None else original.contiguous(), rounding=weight_rounding,
        bias=shift,
    )  # fmt: skip
    return y
