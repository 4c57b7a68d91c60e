"""Products with a quantized weight.

Clause: ``[quantized.matmul]``.
Source: Dettmers et al. 2023, "QLoRA", section 3, equation 5: the storage type is dequantized to the compute type.
"""

import numpy as np

from qloracle.errors import reject_value
from qloracle.formats import Array
from qloracle.operands import real_operand, real_rows, real_vector
from qloracle.qlora import QuantizedWeight, qlora_weight


def quantized_matmul(
    x: Array, weight: QuantizedWeight, *, bias: Array | None = None, weight_rounding: str = "float32"
) -> Array:
    """Multiply activations with a weight that is stored quantized.

    y = x Wᵀ + b, W = RN_weight_rounding(dequantized weight)

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, shape (..., d_in)
    weight : any quantized tensor of shape (d_out, d_in)
        Its shape is the one of the stored tensor; a weight of shape (d_in, d_out) is refused, never turned.
    bias : array, shape (d_out,), optional
    weight_rounding : {"float32", "float16", "bfloat16"}
        What the dequantized weight is rounded to before the product.

    Returns
    -------
    array of float64, shape (..., d_out)
        The real value up to float64 rounding; `bounds.quantized_matmul_bound` says which outputs are allowed.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `qlora_weight`, and if the shapes of x, weight and bias do not belong together.

    Notes
    -----
    Clause ``[quantized.matmul]``. One vector, or many, and any number of leading axes: the same rule. Rounding points
    of an implementation are declared by it, see `bounds.Roundings`.

    Examples
    --------
    >>> from qloracle import quantize_blockwise
    >>> w = quantize_blockwise(np.array([[-1, 1], [0.5, 0]], np.float32))
    >>> quantized_matmul(np.eye(2, dtype=np.float32), w)
    array([[-1.        ,  0.44070983],
           [ 1.        ,  0.        ]])
    """
    x64 = real_rows(x)
    w64 = real_operand(qlora_weight(weight, weight_rounding=weight_rounding), "weight")
    if w64.shape[1] != x64.shape[-1]:
        reject_value("weight", f"of shape (d_out, {x64.shape[-1]}) for x of shape {x64.shape}", w64.shape)
    offset = 0.0 if bias is None else real_vector(bias, len(w64), "bias")
    with np.errstate(invalid="ignore", over="ignore"):
        y: Array = x64 @ w64.T + offset
    return y
