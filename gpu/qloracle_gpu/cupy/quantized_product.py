"""Products with a weight that is stored quantized. Clause: ``[quantized.matmul]``."""

from math import prod

from qloracle.errors import reject_value, require_one_of
from qloracle.formats import TENSOR_FORMATS
from qloracle_gpu.cupy.few_rows import stored_product
from qloracle_gpu.cupy.launcher import Array, operation
from qloracle_gpu.cupy.lora import combined
from qloracle_gpu.cupy.operands import matrix, optional_vector, output_format, require_rows
from qloracle_gpu.cupy.qlora import QuantizedWeight, weight_shape


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
    Clause ``[quantized.matmul]``. Up to four rows of x go through a kernel that reads the codes of a codebook, up to 16
    through one that reads INT8 or affine codes; for more the weight is dequantized first. Declared roundings: weight
    as given, accumulate float32.
    """
    rows = require_rows("x", x, fmt)
    d_out, d_in = weight_shape(weight)
    require_one_of("weight_rounding", weight_rounding, TENSOR_FORMATS)
    if d_in != rows[0].shape[-1]:
        reject_value("weight", f"of shape (d_out, {rows[0].shape[-1]}) for x of shape {rows[0].shape}", (d_out, d_in))
    target, offset = output_format(out_dtype, rows[1]), optional_vector("bias", bias, d_out, fmt)
    count = prod(rows[0].shape[:-1])
    multiplied = stored_product(weight, weight_rounding, count)
    with operation("quantized_matmul", x=rows[0], **multiplied.arrays) as run:
        y = multiplied.of(run, matrix(run, rows, count, d_in))
        return combined(run, y, target, bias=offset).reshape(*rows[0].shape[:-1], d_out)
