"""Products with a weight that is stored quantized. Clause: ``[quantized.matmul]``."""

from math import prod

import numpy as np

from qloracle.errors import reject_value, require_one_of
from qloracle.formats import TENSOR_FORMATS
from qloracle_gpu.cupy.arrays import flat_items
from qloracle_gpu.cupy.blockwise import QuantizedBlocks, require_blocks
from qloracle_gpu.cupy.codebooks import entries_of
from qloracle_gpu.cupy.double_quant import DoubleQuantized, restore_absmax
from qloracle_gpu.cupy.launcher import Array, Operation, operation
from qloracle_gpu.cupy.lora import combined, product
from qloracle_gpu.cupy.operands import matrix, optional_vector, output_format, require_rows
from qloracle_gpu.cupy.qlora import QuantizedWeight, qlora_weight, weight_shape

MOST_GEMV_ROWS = 4  # rows of x up to which codes are read in the product itself


def quantized_matmul(
    x: Array, weight: QuantizedWeight, *, bias: Array | None = None, weight_rounding: str = "float32",
    out_dtype: str | None = None, fmt: str | None = None,
) -> Array:  # fmt: skip
    """Multiply activations with a weight that is stored quantized.

    y = x Wᵀ + b, W = RN_weight_rounding(dequantized weight)

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, shape (..., d_in)
    weight : QuantizedBlocks, DoubleQuantized, QuantizedInt8 or QuantizedAffine, of shape (d_out, d_in)
        A weight of shape (d_in, d_out) is refused, never turned.
    bias : array, shape (d_out,), optional
    weight_rounding : {"float32", "float16", "bfloat16"}
        What the dequantized weight is rounded to before the product.
    out_dtype : {"float32", "float16", "bfloat16"}, optional
        Format of y; by default that of x.
    fmt : str, optional
        Format of operands given as bit patterns.

    Returns
    -------
    array of `out_dtype`, shape (..., d_out)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        As `qlora_weight`, and if the shapes of x, weight and bias do not belong together.

    Notes
    -----
    Clause ``[quantized.matmul]``. Up to four rows of x go through a kernel that reads the codes of a codebook; for
    more, and for INT8 and affine codes, the weight is dequantized first. Declared roundings: weight as given,
    accumulate float32.
    """
    rows = require_rows("x", x, fmt)
    d_out, d_in = weight_shape(weight)
    require_one_of("weight_rounding", weight_rounding, TENSOR_FORMATS)
    if d_in != rows[0].shape[-1]:
        reject_value("weight", f"of shape (d_out, {rows[0].shape[-1]}) for x of shape {rows[0].shape}", (d_out, d_in))
    target, offset = output_format(out_dtype, rows[1]), optional_vector("bias", bias, d_out, fmt)
    count = prod(rows[0].shape[:-1])
    few = count <= MOST_GEMV_ROWS and isinstance(weight, QuantizedBlocks | DoubleQuantized)
    blocks = restore_absmax(weight) if few and isinstance(weight, DoubleQuantized) else weight
    w = None if few else qlora_weight(weight, weight_rounding=weight_rounding)
    with operation("quantized_matmul", x=rows[0]) as run:
        x32 = matrix(run, rows, count, d_in)
        if isinstance(blocks, QuantizedBlocks) and w is None:
            y = _gemv(run, x32, blocks, weight_rounding)
        else:
            y = product(run, x32, w.T)  # type: ignore[union-attr]
        return combined(run, y, target, bias=offset).reshape(*rows[0].shape[:-1], d_out)


def _gemv(run: Operation, x: Array, weight: QuantizedBlocks, weight_rounding: str) -> Array:
    (rows, inner), columns = x.shape, weight.shape[0]
    table, data, absmax, size = require_blocks(weight)
    out = run.empty((rows, columns), "float32")
    if size == 0:
        out[...] = 0
        return out
    arguments = (
        x, *map(np.int64, (rows, columns, inner)), flat_items(run, data), flat_items(run, absmax),
        np.int64(min(weight.block_size, size)), entries_of(run, table), np.int32(table.entries.size),
        np.int32(TENSOR_FORMATS.index(weight_rounding)), out,
    )  # fmt: skip
    run.launch("gemv", f"gemv_{table.code_bits}bit", 32 * columns, arguments)
    return out
