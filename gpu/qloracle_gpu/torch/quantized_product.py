"""Products with a weight that is stored quantized. Clause: ``[quantized.matmul]``."""

from math import prod

import torch
from torch import Tensor

from qloracle.errors import reject_value
from qloracle_gpu.torch.autocast import ignores_autocast
from qloracle_gpu.torch.compiling import compiles_as_operator
from qloracle_gpu.torch.formats import dtype_named, require_device, require_tensor_format
from qloracle_gpu.torch.matmul import require_float32_matmul
from qloracle_gpu.torch.qlora import QuantizedWeight, qlora_weight, shape_of
from qloracle_gpu.torch.stored_products import stored_product


@compiles_as_operator
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
    weight : QuantizedBlocks, DoubleQuantized, QuantizedInt8 or QuantizedAffine, shape (d_out, d_in)
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
    Where kernels run, x is multiplied with codes, and the weight never stands in memory; x of a 16-bit format to which
    the weight is rounded too goes to the matrix units. A few rows go with 4-bit codes on a CPU too, by a C loop.

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
    y = stored_product(rows, weight, target, weight_rounding=weight_rounding, bias=offset)
    if y is None:
        require_float32_matmul()
        y = rows.to(torch.float32) @ qlora_weight(weight, weight_rounding=weight_rounding).to(torch.float32).T
        y = (y if offset is None else y.add_(offset)).to(target)
    return y.reshape(*values.shape[:-1], shape[0])
