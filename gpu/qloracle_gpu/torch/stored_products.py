"""Products with a weight as it is stored: by kernels where they run, by a C loop for a few rows on the CPU."""

from math import prod

import torch
from torch import Tensor

from qloracle_gpu.torch.affine import QuantizedAffine
from qloracle_gpu.torch.blocks import require_block_values
from qloracle_gpu.torch.blockwise import QuantizedBlocks, require_data
from qloracle_gpu.torch.codebooks import codebook_named, device_codebook
from qloracle_gpu.torch.double_quant import DoubleQuantized, nested_absmax_of
from qloracle_gpu.torch.formats import NAMES, require_device
from qloracle_gpu.torch.int8 import QuantizedInt8, require_int8_parts
from qloracle_gpu.torch.kernels.availability import kernels_run_on
from qloracle_gpu.torch.kernels.stored_absmax import PlainAbsmax, StoredAbsmax
from qloracle_gpu.torch.kernels.stored_weight import StoredWeight
from qloracle_gpu.torch.looped_product import looped_product

Stored = QuantizedBlocks | DoubleQuantized | QuantizedInt8


def stored_product(
    x: Tensor, weight: Stored | QuantizedAffine, target: torch.dtype, *, weight_rounding: str,
    bias: Tensor | None = None, transposed: bool = False,
) -> Tensor | None:  # fmt: skip
    """Return x Wᵀ + b, or x W, with a weight that is restored while it is multiplied.

    Parameters
    ----------
    x : tensor of float32, float16 or bfloat16, shape (rows, inner)
    weight : QuantizedBlocks, DoubleQuantized, QuantizedInt8 or QuantizedAffine, shape (columns, inner), or (inner,
        columns)
        No kernel takes affine codes.
    target : torch.dtype
        Of the result.
    weight_rounding : str
    bias : tensor of float32, float16 or bfloat16, shape (columns,), optional
    transposed : bool
        Multiply with W instead of its transpose.

    Returns
    -------
    tensor of `target`, shape (rows, columns), or None where no kernel and no loop takes the product

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If the parts of the weight do not belong together, or lie on another device than x.
    """
    if isinstance(weight, QuantizedAffine):
        require_device("codes", weight.codes, x.device)
        return None
    if not kernels_run_on(x.device.type):
        y = None if transposed or isinstance(weight, QuantizedInt8) else looped_product(x, weight, weight_rounding)
        return None if y is None else (y if bias is None else y.add_(bias)).to(target)
    from qloracle_gpu.torch.kernels.gemv import few_rows_product, takes
    from qloracle_gpu.torch.kernels.products import product

    stored = stored_weight(weight, weight_rounding, x.device)
    columns = stored.shape[1 if transposed else 0]
    if x.numel() == 0 or columns == 0:
        return None
    y = torch.empty(len(x), columns, dtype=target, device=x.device)
    rows, shift = x.contiguous(), None if bias is None else bias.contiguous()
    if transposed or not takes(*x.shape):
        product(rows, stored, y, NAMES[target], transposed=transposed, bias=shift)
    else:
        formats = NAMES[x.dtype], NAMES[x.dtype if bias is None else bias.dtype], NAMES[target]
        few_rows_product(rows, stored, shift, y, formats=formats)
    return y


def stored_weight(weight: Stored, rounding: str, device: torch.device) -> StoredWeight:
    """Return a quantized matrix as kernels take it, after checking that its parts belong together on a device."""
    if isinstance(weight, QuantizedInt8):
        return _stored_int8(weight, rounding, device)
    table, (lines, length) = codebook_named(weight.codebook), weight.shape
    data, absmax = require_data(weight.data, table, weight.shape), _absmax(weight)
    for argument, part in (("data", data), ("absmax", absmax.absmax)):
        require_device(argument, part, device)
    return StoredWeight(
        data.contiguous(),
        (lines, length),
        device_codebook(table, device).entries,
        absmax,
        weight.block_size,
        packed=table.code_bits == 4,
        rounding=rounding,
    )


def _stored_int8(weight: QuantizedInt8, rounding: str, device: torch.device) -> StoredWeight:
    codes, absmax = require_int8_parts(weight)
    require_device("codes", codes, device)
    lines, length = codes.shape
    sizes = {"row": length, "tensor": codes.numel(), "column": None, "block": weight.block_size}
    scales, size = PlainAbsmax(absmax.reshape(-1).contiguous()), sizes[weight.granularity]
    return StoredWeight(codes.contiguous(), (lines, length), None, scales, size, rounding=rounding)


def _absmax(weight: QuantizedBlocks | DoubleQuantized) -> StoredAbsmax:
    if isinstance(weight, DoubleQuantized):
        return nested_absmax_of(weight)
    return PlainAbsmax(
        require_block_values("absmax", weight.absmax, prod(weight.shape), weight.block_size).contiguous()
    )
