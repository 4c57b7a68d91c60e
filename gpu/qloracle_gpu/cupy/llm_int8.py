"""LLM.int8(): INT8 matrix products with the outlier columns of the input in floating point.

    y = (q_x q_Wᵀ)·row·column/127² + Σ_{k outlier} x_k W_k + b

Clauses: ``[llm_int8.outliers]``, ``[llm_int8.absmax]``, ``[llm_int8.codes]``, ``[llm_int8.forward]``,
``[llm_int8.backward]``.
"""

from math import prod

import numpy as np

from qloracle.errors import reject_value, require_one_of
from qloracle.formats import FLOAT32
from qloracle_gpu.cupy.decomposition import Decomposed, decompose
from qloracle_gpu.cupy.int8 import QuantizedInt8
from qloracle_gpu.cupy.int8_linear import LinearGradients, require_row_weight, straight_gradients
from qloracle_gpu.cupy.launcher import Array, operation
from qloracle_gpu.cupy.lora import combined, product
from qloracle_gpu.cupy.matmul import int8_matmul, scale_int8_matmul
from qloracle_gpu.cupy.operands import matrix, optional_vector, output_format, require_operand, require_rows
from qloracle_gpu.cupy.qlora import qlora_weight

OUTLIER_WEIGHTS = ("original", "dequantized")


def llm_int8_forward(
    x: Array, weight: QuantizedInt8, original: Array | None = None, *, threshold: float = 6.0,
    exclusion: str = "columns", outlier_weight: str = "original", weight_rounding: str = "float32",
    bias: Array | None = None, parts: Decomposed | None = None, out_dtype: str | None = None, fmt: str | None = None,
) -> Array:  # fmt: skip
    """Apply a linear layer whose weight is INT8 with one absmax a row, and whose input is decomposed.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, shape (..., K)
    weight : QuantizedInt8, granularity "row", shape (N, K)
    original : array, shape (N, K), optional
        The weight before it was quantized; needed for outlier_weight "original".
    threshold, exclusion
        See `decompose`.
    outlier_weight : {"original", "dequantized"}
        What outlier columns are multiplied by.
    weight_rounding : {"float32", "float16", "bfloat16"}
        What a dequantized weight is rounded to.
    bias : array, shape (N,), optional
    parts : Decomposed, optional
        Somebody else's decomposition of x, to be used instead.
    out_dtype : {"float32", "float16", "bfloat16"}, optional
        Format of y; by default that of x.
    fmt : str, optional
        Format of operands given as bit patterns.

    Returns
    -------
    array of `out_dtype`, shape (..., N)
        Finding the outlier columns waits for the device.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        If dtypes or shapes do not belong together, the weight is not quantized by row, an option is unknown, the
        original is missing, or K is so large that int32 could overflow.

    Notes
    -----
    Clause ``[llm_int8.forward]``. Rounding points: the codes; the INT8 part, the product of the outlier columns and
    both sums to float32; y to `out_dtype`.
    """
    array, named = require_rows("x", x, fmt)
    table = require_row_weight(weight)
    target = output_format(out_dtype, named)
    require_one_of("outlier_weight", outlier_weight, OUTLIER_WEIGHTS)
    if outlier_weight == "original" and original is None:
        reject_value("original", "given for outlier_weight 'original'", None)
    dense = (
        require_operand("original", original, fmt)
        if outlier_weight == "original"
        else (qlora_weight(table, weight_rounding=weight_rounding), FLOAT32)
    )
    (d_out, d_in), count = table.codes.shape, prod(array.shape[:-1])
    if dense[0].shape != (d_out, d_in):
        reject_value("original", f"of the shape of the weight {table.codes.shape}", dense[0].shape)
    offset = optional_vector("bias", bias, d_out, fmt)
    split = decompose(x, threshold, exclusion=exclusion, fmt=fmt) if parts is None else parts
    acc = int8_matmul(split.codes.reshape(count, array.shape[-1]), table.codes)
    integer = scale_int8_matmul(acc, split.absmax.reshape(-1), table.absmax)
    with operation("llm_int8_forward", x=array, weight=table.codes) as run:
        columns = split.outliers.nonzero()[0]
        rows = run.contiguous(matrix(run, (array, named), count, d_in)[:, columns])
        values = run.contiguous(matrix(run, dense, d_out, d_in)[:, columns])
        low = product(run, rows, values.T) if columns.size else None
        y = combined(run, integer, target, low=low, scale=np.float32(1), bias=offset)
        return y.reshape(*array.shape[:-1], d_out)


def llm_int8_backward(
    dy: Array, weight: QuantizedInt8, *, weight_rounding: str = "float32", fmt: str | None = None
) -> LinearGradients:
    """Differentiate `llm_int8_forward` straight through the quantization of its input.

    dx = dy Ŵ with the dequantized weight Ŵ, in outlier columns as in all others; db = Σ dy over all rows

    Parameters
    ----------
    dy : array of float32, float16 or bfloat16, shape (..., N)
    weight : QuantizedInt8, granularity "row", shape (N, K)
    weight_rounding : {"float32", "float16", "bfloat16"}
        What the dequantized weight is rounded to before the product.
    fmt : str, optional
        Format of `dy` where it is given as bit patterns.

    Returns
    -------
    LinearGradients
        In the format of `dy`.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        As `llm_int8_forward`.

    Notes
    -----
    Clause ``[llm_int8.backward]``. Neither threshold nor outliers enter.
    """
    return straight_gradients("llm_int8_backward", dy, require_row_weight(weight), weight_rounding, fmt)
