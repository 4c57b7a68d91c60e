"""LLM.int8(): INT8 matrix products with the outlier columns of the input in floating point.

    y = (q_x q_Wᵀ)·row·column/127² + Σ_{k outlier} x_k W_k + b

Clauses: ``[llm_int8.forward]``, ``[llm_int8.backward]``; those of the input stand in `decomposition`.
"""

import torch
from torch import Tensor

from qloracle.errors import reject_value, require_one_of
from qloracle_gpu.torch.autocast import ignores_autocast
from qloracle_gpu.torch.compiling import compiles_as_operator
from qloracle_gpu.torch.decomposition import Decomposed, decompose, unwidened_rows
from qloracle_gpu.torch.formats import dtype_named, require_tensor_format
from qloracle_gpu.torch.int8 import QuantizedInt8
from qloracle_gpu.torch.int8_linear import LinearGradients, require_row_weight, weight_only_backward, weight_values
from qloracle_gpu.torch.int8_scale import scaled_int8_matmul
from qloracle_gpu.torch.lora import output_vector
from qloracle_gpu.torch.matmul import require_float32_matmul
from qloracle_gpu.torch.outlier_products import decomposed_product

OUTLIER_WEIGHTS = ("original", "dequantized")


@compiles_as_operator
@ignores_autocast
def llm_int8_forward(
    x: Tensor, weight: QuantizedInt8, original: Tensor | None = None, *, threshold: float = 6.0,
    exclusion: str = "columns", outlier_weight: str = "original", weight_rounding: str = "float32",
    bias: Tensor | None = None, parts: Decomposed | None = None, out_dtype: str | None = None,
) -> Tensor:  # fmt: skip
    """Apply a linear layer whose weight is INT8 with one absmax a row, and whose input is decomposed.

    y = (q_x q_Wᵀ)·row·column/127² + Σ_{k outlier} x_k W_k + b

    Parameters
    ----------
    x : tensor of float32, float16 or bfloat16, shape (..., K)
    weight : QuantizedInt8, granularity "row", shape (N, K)
    original : tensor, likewise, shape (N, K), optional
        The weight before it was quantized; needed for outlier_weight "original".
    threshold, exclusion
        See `decompose`. Threshold 0 switches the decomposition off.
    outlier_weight : {"original", "dequantized"}
        What outlier columns are multiplied by; "dequantized" is the variant that keeps no original.
    weight_rounding : {"float32", "float16", "bfloat16"}
        What a dequantized weight is rounded to.
    bias : tensor, likewise, shape (N,), optional
    parts : Decomposed, optional
        Somebody else's decomposition of x, to be used instead.
    out_dtype : {"float32", "float16", "bfloat16"}, optional
        Format of y; by default that of x.

    Returns
    -------
    tensor of `out_dtype`, shape (..., N)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If dtypes or shapes do not belong together, the weight is not quantized by row, an option is unknown, the
        original is missing, or K is so large that int32 could overflow.
    MatmulPrecisionError
        If torch is set to multiply float32 with fewer bits.

    Notes
    -----
    Clause ``[llm_int8.forward]``. Rounding points: the codes; the integer part to float32 once; products of outliers in
    float32; then one to `out_dtype`. On a CPU, and where kernels run, only outlier columns are multiplied; elsewhere
    the other columns are multiplied as zeros, because selecting columns would wait for the device.

    Examples
    --------
    >>> from qloracle_gpu.torch.int8 import quantize_int8
    >>> w = torch.tensor([[127.0, 1.0], [2.0, 254.0]])
    >>> llm_int8_forward(torch.tensor([[127.0, 8.0]]), quantize_int8(w, granularity="row"), w, threshold=128)
    tensor([[16137.,  2286.]])
    """
    target = None if out_dtype is None else dtype_named(out_dtype, "out_dtype")
    parts = decompose(x, threshold, exclusion=exclusion) if parts is None else parts
    table, given = require_row_weight(weight), unwidened_rows(x)
    kept = _kept_weight(table, original, outlier_weight, weight_rounding)
    shift = None if bias is None else output_vector(bias, len(table.codes), "bias")
    fused = decomposed_product(given, table, kept, parts, target or x.dtype, weight_rounding, shift)
    if fused is not None:
        return fused.view(*x.shape[:-1], len(table.codes))
    rows = given.to(torch.float32)
    values = weight_values(table, weight_rounding=weight_rounding) if kept is None else kept.to(torch.float32)
    require_float32_matmul()
    y = scaled_int8_matmul(parts.codes.reshape(rows.shape), table.codes, parts.absmax.reshape(-1), table.absmax).add_(
        _outlier_part(rows, values, parts.outliers)
    )
    y = y if shift is None else y.add_(shift)
    return y.to(target or x.dtype).view(*x.shape[:-1], len(table.codes))


def _kept_weight(
    table: QuantizedInt8, original: Tensor | None, outlier_weight: str, weight_rounding: str
) -> Tensor | None:
    """Return the original that outliers are multiplied by, None where the weight is dequantized for them."""
    require_one_of("outlier_weight", outlier_weight, OUTLIER_WEIGHTS)
    if outlier_weight == "dequantized":
        dtype_named(weight_rounding, "weight_rounding")
        return None
    if original is None:
        reject_value("original", "given for outlier_weight 'original'", None)
    values = require_tensor_format("original", original)
    if values.shape != table.codes.shape:
        rule = f"of the shape of the weight {tuple(table.codes.shape)}"
        reject_value("original", rule, tuple(values.shape))
    return values


def _outlier_part(rows: Tensor, values: Tensor, outliers: Tensor) -> Tensor:
    if rows.device.type == "cpu":
        return rows[:, outliers] @ values[:, outliers].T
    return torch.where(outliers, rows, 0.0) @ torch.where(outliers, values, 0.0).T


@compiles_as_operator
def llm_int8_backward(dy: Tensor, weight: QuantizedInt8, *, weight_rounding: str = "float32") -> LinearGradients:
    """Differentiate `llm_int8_forward` straight through the quantization of its input.

    dx = dy Ŵ with the dequantized weight Ŵ, in outlier columns as in all others; db = Σ dy over all rows

    Parameters
    ----------
    dy : tensor of float32, float16 or bfloat16, shape (..., N)
    weight : QuantizedInt8, granularity "row", shape (N, K)
    weight_rounding : {"float32", "float16", "bfloat16"}
        What the dequantized weight is rounded to before the product.

    Returns
    -------
    LinearGradients

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        As `llm_int8_forward`.

    Notes
    -----
    Clause ``[llm_int8.backward]``. Neither threshold nor outliers enter.

    Examples
    --------
    >>> from qloracle_gpu.torch.int8 import quantize_int8
    >>> w = quantize_int8(torch.tensor([[127.0, 1.0], [2.0, 254.0]]), granularity="row")
    >>> llm_int8_backward(torch.tensor([[1.0, 2.0]]), w).x
    tensor([[131., 509.]])
    """
    return weight_only_backward(dy, require_row_weight(weight), weight_rounding=weight_rounding)
