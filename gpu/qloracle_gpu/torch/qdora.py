"""DoRA on a quantized base: `dora` with the dequantized weight, in its norms too.

The gradient flows through the weight to x and never into it. Clauses: ``[qdora.forward]``, ``[qdora.backward]``.
"""

from torch import Tensor

from qloracle_gpu.torch.compiling import compiles_as_operator
from qloracle_gpu.torch.dora import DoraGradients, dora_backward, dora_forward
from qloracle_gpu.torch.qlora import QuantizedWeight, qlora_weight


@compiles_as_operator
def qdora_forward(
    x: Tensor,
    weight: QuantizedWeight,
    lora_a: Tensor,
    lora_b: Tensor,
    magnitude: Tensor,
    *,
    alpha: float,
    weight_rounding: str = "float32",
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    rank_stabilized: bool = False,
    out_dtype: str | None = None,
) -> Tensor:
    """Apply a DoRA layer whose weight is stored quantized.

    Parameters
    ----------
    x, lora_a, lora_b, magnitude, alpha, bias, mask, dropout, rank_stabilized, out_dtype
        As for `dora_forward`.
    weight : QuantizedBlocks, DoubleQuantized, QuantizedInt8 or QuantizedAffine, shape (d_out, d_in)
    weight_rounding : {"float32", "float16", "bfloat16"}
        What the dequantized weight is rounded to before the product and before the norm.

    Returns
    -------
    tensor of `out_dtype`, shape (..., d_out)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        As `qlora_weight` and `dora_forward`.

    Notes
    -----
    Clause ``[qdora.forward]``. Declared roundings: weight as given; then those of `dora_forward`.

    Examples
    --------
    >>> import torch
    >>> from qloracle_gpu.torch import quantize_blockwise
    >>> one = torch.ones(1, 1)
    >>> qdora_forward(one, quantize_blockwise(3 * one), one, 2 * one, 7 * one[0], alpha=1)
    tensor([[7.]])
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
        out_dtype=out_dtype,
    )


@compiles_as_operator
def qdora_backward(
    dy: Tensor,
    x: Tensor,
    weight: QuantizedWeight,
    lora_a: Tensor,
    lora_b: Tensor,
    magnitude: Tensor,
    *,
    alpha: float,
    weight_rounding: str = "float32",
    mask: Tensor | None = None,
    dropout: float = 0.0,
    rank_stabilized: bool = False,
) -> DoraGradients:
    """Differentiate `qdora_forward`; the quantized weight is a constant, and so are the norms.

    Parameters
    ----------
    dy, x, lora_a, lora_b, magnitude, alpha, mask, dropout, rank_stabilized
        As for `dora_backward`.
    weight : QuantizedBlocks, DoubleQuantized, QuantizedInt8 or QuantizedAffine, shape (d_out, d_in)
    weight_rounding : {"float32", "float16", "bfloat16"}
        As in the forward pass.

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

    Examples
    --------
    >>> import torch
    >>> from qloracle_gpu.torch import quantize_blockwise
    >>> one = torch.ones(1, 1)
    >>> qdora_backward(one, one, quantize_blockwise(3 * one), one, 2 * one, 7 * one[0], alpha=1).magnitude
    tensor([1.])
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
