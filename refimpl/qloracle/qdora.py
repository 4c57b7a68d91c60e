"""DoRA on a quantized base: `dora` with the dequantized weight, in its norms too.

The gradient flows through the weight to x and never into it. Clauses: ``[qdora.forward]``, ``[qdora.backward]``.
Sources: Liu et al. 2024, "DoRA", section 5.6 (QDoRA); Dettmers et al. 2023, "QLoRA", section 3.
"""

from qloracle.dora import DoraGradients, dora_backward, dora_forward
from qloracle.formats import Array
from qloracle.qlora import QuantizedWeight, qlora_weight


def qdora_forward(
    x: Array,
    weight: QuantizedWeight,
    lora_a: Array,
    lora_b: Array,
    magnitude: Array,
    *,
    alpha: float,
    weight_rounding: str = "float32",
    bias: Array | None = None,
    mask: Array | None = None,
    dropout: float = 0.0,
    rank_stabilized: bool = False,
) -> Array:
    """Apply a DoRA layer whose weight is stored quantized.

    Parameters
    ----------
    x, lora_a, lora_b, magnitude, alpha, bias, mask, dropout, rank_stabilized
        As for `dora_forward`.
    weight : any quantized tensor of shape (d_out, d_in)
    weight_rounding : {"float32", "float16", "bfloat16"}
        What the dequantized weight is rounded to before the product and before the norm.

    Returns
    -------
    array of float64, shape (..., d_out)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `qlora_weight` and `dora_forward`.

    Notes
    -----
    Clause ``[qdora.forward]``. Rounding points of an implementation: those of `qlora.qlora_weight`, then those that it
    declares for DoRA.

    Examples
    --------
    >>> import numpy as np
    >>> from qloracle import quantize_blockwise
    >>> one = np.ones((1, 1), np.float32)
    >>> qdora_forward(one, quantize_blockwise(3 * one), one, 2 * one, 7 * one[0], alpha=1)
    array([[7.]])
    """
    return dora_forward(
        x,
        qlora_weight(weight, weight_rounding=weight_rounding),
        lora_a,
        lora_b,
        magnitude,
        alpha=alpha,
        bias=bias,
        mask=mask,
        dropout=dropout,
        rank_stabilized=rank_stabilized,
    )


def qdora_backward(
    dy: Array,
    x: Array,
    weight: QuantizedWeight,
    lora_a: Array,
    lora_b: Array,
    magnitude: Array,
    *,
    alpha: float,
    weight_rounding: str = "float32",
    mask: Array | None = None,
    dropout: float = 0.0,
    rank_stabilized: bool = False,
) -> DoraGradients:
    """Differentiate `qdora_forward`; the quantized weight is a constant, and so are the norms.

    Parameters
    ----------
    dy, x, lora_a, lora_b, magnitude, alpha, mask, dropout, rank_stabilized
        As for `dora_backward`.
    weight : any quantized tensor of shape (d_out, d_in)
    weight_rounding : {"float32", "float16", "bfloat16"}
        As in the forward pass.

    Returns
    -------
    DoraGradients
        Arrays of float64.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `qlora_weight` and `dora_backward`.

    Notes
    -----
    Clause ``[qdora.backward]``. Rounding points of an implementation: those of `qlora.qlora_weight`, then those that it
    declares for DoRA.

    Examples
    --------
    >>> import numpy as np
    >>> from qloracle import quantize_blockwise
    >>> one = np.ones((1, 1), np.float32)
    >>> qdora_backward(one, one, quantize_blockwise(3 * one), one, 2 * one, 7 * one[0], alpha=1).magnitude
    array([1.])
    """
    return dora_backward(
        dy,
        x,
        qlora_weight(weight, weight_rounding=weight_rounding),
        lora_a,
        lora_b,
        magnitude,
        alpha=alpha,
        mask=mask,
        dropout=dropout,
        rank_stabilized=rank_stabilized,
    )
