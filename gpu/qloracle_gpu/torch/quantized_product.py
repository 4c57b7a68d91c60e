"""Products with a weight that is stored quantized. Clause: ``[quantized.matmul]``."""

from math import prod

import torch
from torch import Tensor

from qloracle.errors import reject_value
from qloracle_gpu.torch.autocast import ignores_autocast
from qloracle_gpu.torch.blocks import require_block_values
from qloracle_gpu.torch.blockwise import QuantizedBlocks, require_data
from qloracle_gpu.torch.codebooks import codebook_named, device_codebook
from qloracle_gpu.torch.double_quant import DoubleQuantized, nested_absmax_of
from qloracle_gpu.torch.formats import NAMES, dtype_named, require_device, require_tensor_format
from qloracle_gpu.torch.kernels.availability import kernels_run_on
from qloracle_gpu.torch.kernels.stored_absmax import PlainAbsmax, StoredAbsmax
from qloracle_gpu.torch.matmul import require_float32_matmul
from qloracle_gpu.torch.qlora import QuantizedWeight, qlora_weight, shape_of


@ignores_autocast
def quantized_matmul(
    x: Tensor, weight: QuantizedWeight, *, bias: Tensor | None = None, weight_rounding: str = "float32",
    out_dtype: str | None = None,
) -> Tensor:  # fmt: skip
    """Multiply activations with a weight that is stored quantized.

    y = x Wᵀ + b, W = RN_weight_rounding(dequantized weight)

    Parameters
    ----------
    x : tensor of float32, float16 or bfloat16, shape (..., d_in)
    weight : QuantizedBlocks, DoubleQuantized or QuantizedInt8, shape (d_out, d_in)
        A weight of shape (d_in, d_out) is refused, never turned.
    bias : tensor of float32, float16 or bfloat16, shape (d_out,), optional
    weight_rounding : {"float32", "float16", "bfloat16"}
        What the dequantized weight is rounded to before the product.
    out_dtype : {"float32", "float16", "bfloat16"}, optional
        Format of y; by default that of x.

    Returns
    -------
    tensor of `out_dtype`, shape (..., d_out)
        Without gradient history.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `qlora_weight`, and if the shapes or devices of x, weight and bias do not belong together.
    MatmulPrecisionError
        If torch is set to multiply float32 with fewer bits.

    Notes
    -----
    Clause ``[quantized.matmul]``. Declared roundings: weight as given, accumulate float32; then one to `out_dtype`.
    Where kernels run, up to 16 rows of x are multiplied with codes, and the weight never stands in memory.

    Examples
    --------
    >>> from qloracle_gpu.torch.blockwise import quantize_blockwise
    >>> w = quantize_blockwise(torch.tensor([[-1, 1], [0.5, 0]], dtype=torch.float32))
    >>> quantized_matmul(torch.eye(2), w)
    tensor([[-1.0000,  0.4407],
            [ 1.0000,  0.0000]])
    """
    values, shape = require_tensor_format("x", x), shape_of(weight)
    dtype_named(weight_rounding, "weight_rounding")
    target = values.dtype if out_dtype is None else dtype_named(out_dtype, "out_dtype")
    if values.ndim < 1:
        reject_value("x", "at least 1-d", "0-d")
    if len(shape) != 2 or shape[1] != values.shape[-1]:
        reject_value("weight", f"of shape (d_out, {values.shape[-1]}) for x of shape {tuple(values.shape)}", shape)
    offset = None if bias is None else require_tensor_format("bias", bias)
    if offset is not None and offset.shape != shape[:1]:
        reject_value("bias", f"of shape ({shape[0]},)", tuple(offset.shape))
    rows = values.reshape(prod(values.shape[:-1]), shape[1])
    if offset is not None:
        require_device("bias", offset, rows.device)
    y = _few_rows(rows, weight, offset, weight_rounding, target)
    if y is None:
        require_float32_matmul()
        y = rows.to(torch.float32) @ qlora_weight(weight, weight_rounding=weight_rounding).to(torch.float32).T
        y = (y if offset is None else y.add_(offset)).to(target)
    return y.reshape(*values.shape[:-1], shape[0])


def _few_rows(
    x: Tensor, weight: QuantizedWeight, bias: Tensor | None, weight_rounding: str, target: torch.dtype
) -> Tensor | None:
    """Return the product of few rows with codes, or None where no kernel takes it."""
    if not kernels_run_on(x.device.type) or not isinstance(weight, QuantizedBlocks | DoubleQuantized):
        return None
    from qloracle_gpu.torch.kernels.gemv import StoredWeight, few_rows_product, takes

    table, (columns, inner) = codebook_named(weight.codebook), shape_of(weight)
    packed = table.code_bits == 4
    if not takes(len(x), inner, packed) or columns == 0:
        return None
    data, absmax = require_data(weight.data, table, weight.shape), _stored(weight)
    for argument, part in (("data", data), ("absmax", absmax.absmax)):
        require_device(argument, part, x.device)
    entries = device_codebook(table, x.device).entries
    stored = StoredWeight(data.contiguous(), entries, absmax, weight.block_size, (columns, inner), packed)
    y = torch.empty(len(x), columns, dtype=target, device=x.device)
    formats = NAMES[x.dtype], NAMES[x.dtype if bias is None else bias.dtype], NAMES[target]
    shift = None if bias is None else bias.contiguous()
    few_rows_product(x.contiguous(), stored, shift, y, weight_rounding=weight_rounding, formats=formats)
    return y


def _stored(weight: QuantizedBlocks | DoubleQuantized) -> StoredAbsmax:
    """Return the absmax of a weight as kernels take them, after checking that they are as many as its blocks."""
    if isinstance(weight, DoubleQuantized):
        return nested_absmax_of(weight)
    return PlainAbsmax(
        require_block_values("absmax", weight.absmax, prod(weight.shape), weight.block_size).contiguous()
    )
