"""DoRA on a quantized base: `dora` with the dequantized weight, in its norms too.

The gradient flows through the weight to x and never into it. Clauses: ``[qdora.forward]``, ``[qdora.backward]``.
"""

from qloracle_gpu.cupy.dora import DoraGradients, dora_backward, dora_forward
from qloracle_gpu.cupy.launcher import Array
from qloracle_gpu.cupy.qlora import QuantizedWeight, qlora_weight


def qdora_forward(
    x: Array, weight: QuantizedWeight, lora_a: Array, lora_b: Array, magnitude: Array, *, alpha: float,
    weight_rounding: str = "float32", bias: Array | None = None, mask: Array | None = None, dropout: float = 0.0,
    rank_stabilized: bool = False, out_dtype: str | None = None, fmt: str | None = None,
) -> Array:  # fmt: skip
    """Apply a DoRA layer whose weight is stored quantized.

    Parameters
    ----------
    x, lora_a, lora_b, magnitude, alpha, bias, mask, dropout, rank_stabilized, out_dtype, fmt
        As for `dora_forward`.
    weight : QuantizedBlocks, DoubleQuantized, QuantizedInt8 or QuantizedAffine, of shape (d_out, d_in)
    weight_rounding : {"float32", "float16", "bfloat16"}
        What the dequantized weight is rounded to before the product and before the norm.

    Returns
    -------
    array of `out_dtype`, shape (..., d_out)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        As `qlora_weight` and `dora_forward`.

    Notes
    -----
    Clause ``[qdora.forward]``. Declared roundings: weight as given; then those of `dora_forward`.
    """
    return dora_forward(
        x, qlora_weight(weight, weight_rounding=weight_rounding), lora_a, lora_b, magnitude, alpha=alpha, bias=bias,
        mask=mask, dropout=dropout, rank_stabilized=rank_stabilized, out_dtype=out_dtype, fmt=fmt,
    )  # fmt: skip


def qdora_backward(
    dy: Array, x: Array, weight: QuantizedWeight, lora_a: Array, lora_b: Array, magnitude: Array, *, alpha: float,
    weight_rounding: str = "float32", mask: Array | None = None, dropout: float = 0.0, rank_stabilized: bool = False,
    fmt: str | None = None,
) -> DoraGradients:  # fmt: skip
    """Differentiate `qdora_forward`; the quantized weight is a constant, and so are the norms.

    Parameters
    ----------
    dy, x, lora_a, lora_b, magnitude, alpha, mask, dropout, rank_stabilized, fmt
        As for `dora_backward`.
    weight, weight_rounding
        As given to `qdora_forward`.

    Returns
    -------
    DoraGradients

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        As `qlora_weight` and `dora_backward`.

    Notes
    -----
    Clause ``[qdora.backward]``. Declared roundings: weight as given; then those of `dora_backward`.
    """
    return dora_backward(
        dy, x, qlora_weight(weight, weight_rounding=weight_rounding), lora_a, lora_b, magnitude, alpha=alpha,
        mask=mask, dropout=dropout, rank_stabilized=rank_stabilized, fmt=fmt,
    )  # fmt: skip
