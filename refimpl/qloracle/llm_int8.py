"""LLM.int8(): INT8 matrix products with the outlier columns of the input in floating point.

    y = (q_x q_Wᵀ)·row·column/127² + Σ_{k outlier} x_k W_k + b

Clauses: ``[llm_int8.forward]``, ``[llm_int8.backward]``; those of the input stand in `decomposition`.
Source: Dettmers et al. 2022, "LLM.int8()", sections 3.1 and 3.2.
"""

import numpy as np

from qloracle.decomposition import Decomposed, decompose
from qloracle.errors import reject_value, require_one_of
from qloracle.formats import Array
from qloracle.int8 import QuantizedInt8
from qloracle.int8_linear import LinearGradients, require_row_weight, weight_only_backward, weight_values
from qloracle.int8_product import int8_matmul, scale_int8_matmul
from qloracle.operands import as_rows, real_operand, real_rows, real_vector

OUTLIER_WEIGHTS = ("original", "dequantized")


def llm_int8_forward(
    x: Array, weight: QuantizedInt8, original: Array | None = None, *, threshold: float = 6.0,
    exclusion: str = "columns", outlier_weight: str = "original", weight_rounding: str = "float32",
    bias: Array | None = None, parts: Decomposed | None = None,
) -> Array:  # fmt: skip
    """Apply a linear layer whose weight is INT8 with one absmax a row, and whose input is decomposed.

    y = (q_x q_Wᵀ)·row·column/127² + Σ_{k outlier} x_k W_k + b

    Parameters
    ----------
    x : array of float32, float16 or bfloat16 (ml_dtypes), shape (..., K)
    weight : QuantizedInt8, granularity "row", shape (N, K)
    original : array, shape (N, K), optional
        The weight before it was quantized; needed for outlier_weight "original".
    threshold, exclusion
        See `decompose`. Threshold 0 switches the decomposition off.
    outlier_weight : {"original", "dequantized"}
        What outlier columns are multiplied by; "dequantized" is the variant that keeps no original.
    weight_rounding : {"float32", "float16", "bfloat16"}
        What a dequantized weight is rounded to.
    bias : array, shape (N,), optional
    parts : Decomposed, optional
        Somebody else's decomposition of x, to be used instead (to judge what follows given it).

    Returns
    -------
    array of float64, shape (..., N)
        The real value up to float64 rounding; `bounds.llm_int8` says which outputs are allowed.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If dtypes or shapes do not belong together, the weight is not quantized by row, an option is unknown, the
        original is missing, or K is so large that int32 could overflow.

    Notes
    -----
    Clause ``[llm_int8.forward]``. Rounding points: the codes; the others are an implementation's, see the bound.

    Examples
    --------
    >>> from qloracle.int8 import quantize_int8
    >>> w = np.array([[127, 1], [2, 254]], np.float32)
    >>> llm_int8_forward(np.array([[127, 8]], np.float32), quantize_int8(w, granularity="row"), w, threshold=128)
    array([[16137.,  2286.]])
    """
    parts = decompose(x, threshold, exclusion=exclusion) if parts is None else parts
    integer, floating, dense = linear_parts(x, weight, original, parts, outlier_weight, weight_rounding)
    with np.errstate(invalid="ignore", over="ignore"):
        y: Array = integer + floating @ dense.T
        y = y if bias is None else y + real_vector(bias, len(weight.codes), "bias")
    return y.reshape(*x.shape[:-1], len(weight.codes))


def linear_parts(
    x: Array, weight: QuantizedInt8, original: Array | None, parts: Decomposed, outlier_weight: str,
    weight_rounding: str,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Return the INT8 part of y as a matrix, and the two matrices whose product is the other part.

    Of the input and of the weight only outlier columns are left.
    """
    table, rows = require_row_weight(weight), as_rows(real_rows(x))
    require_one_of("outlier_weight", outlier_weight, OUTLIER_WEIGHTS)
    if outlier_weight == "dequantized":
        values = weight_values(table, weight_rounding=weight_rounding).astype(np.float64)
    elif original is None:
        reject_value("original", "given for outlier_weight 'original'", None)
    else:
        values = real_operand(original, "original")
    if values.shape != table.codes.shape:
        reject_value("original", f"of the shape of the weight {table.codes.shape}", values.shape)
    acc = int8_matmul(as_rows(parts.codes), table.codes)
    integer = scale_int8_matmul(acc, parts.absmax.reshape(-1), table.absmax)
    return integer, rows[:, parts.outliers], values[:, parts.outliers]


def llm_int8_backward(dy: Array, weight: QuantizedInt8, *, weight_rounding: str = "float32") -> LinearGradients:
    """Differentiate `llm_int8_forward` straight through the quantization of its input.

    dx = dy Ŵ with the dequantized weight Ŵ, in outlier columns as in all others; db = Σ dy over all rows

    Parameters
    ----------
    dy : array of float32, float16 or bfloat16 (ml_dtypes), shape (..., N)
    weight : QuantizedInt8, granularity "row", shape (N, K)
    weight_rounding : {"float32", "float16", "bfloat16"}
        What the dequantized weight is rounded to before the product.

    Returns
    -------
    LinearGradients
        Arrays of float64; `bounds_int8_linear.weight_only_backward_bound` says which outputs are allowed.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `llm_int8_forward`.

    Notes
    -----
    Clause ``[llm_int8.backward]``. Neither threshold nor outliers enter: that is the rule of the field, and the paper's
    implementation. Rounding points of an implementation: see `bounds_int8_linear.weight_only_backward_bound`.

    Examples
    --------
    >>> from qloracle.int8 import quantize_int8
    >>> w = quantize_int8(np.array([[127, 1], [2, 254]], np.float32), granularity="row")
    >>> llm_int8_backward(np.array([[1, 2]], np.float32), w).x
    array([[131., 509.]])
    """
    return weight_only_backward(dy, require_row_weight(weight), weight_rounding=weight_rounding)
