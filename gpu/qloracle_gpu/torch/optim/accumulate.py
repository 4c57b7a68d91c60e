"""Gradient accumulation: the gradients of several micro-batches make that of the one big batch.

A loss that is a mean over tokens has to be divided by the number of tokens of *all* micro-batches: a mean of means
weighs the tokens of a short micro-batch more. Clauses: ``[accumulate.mean]``, ``[accumulate.step]``.
"""

import torch
from torch import Tensor

from qloracle.errors import reject_type, reject_value, require_one_of, require_record
from qloracle_gpu.torch.casts import nearest_cast, on_capable_device
from qloracle_gpu.torch.formats import require_tensor, require_tensor_format
from qloracle_gpu.torch.optim.adamw import AdamwState, adamw_step
from qloracle_gpu.torch.optim.options import AdamwOptions
from qloracle_gpu.torch.pieces import piece_size, spans, work_through

REDUCTIONS = ("mean", "sum")
_INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64)


def accumulate_gradients(gradients: Tensor, counts: Tensor, *, reduction: str = "mean") -> Tensor:
    """Return the gradient of the mean loss over all tokens from the gradients of N micro-batches.

    g = RN(Σ n_i·g_i / Σ n_i) for "mean", where g_i is the gradient of the mean over the n_i tokens of micro-batch i;
    g = RN(Σ g_i / Σ n_i) for "sum", where g_i is the gradient of the sum over them.

    Parameters
    ----------
    gradients : tensor of float32, float16 or bfloat16, shape (N, ...)
    counts : tensor of an integer dtype, shape (N,), best on the CPU
        Tokens of each micro-batch, 0 or more, not all 0. They are read on the host, which waits for another device.
    reduction : {"mean", "sum"}
        What a micro-batch's gradient is the gradient of.

    Returns
    -------
    tensor of the format of `gradients`, shape gradients.shape[1:]

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a dtype or shape does not fit, a count is negative, all are 0, or the reduction is unknown.

    Notes
    -----
    Clause ``[accumulate.mean]``. A micro-batch without tokens is left out, whatever its gradient holds: a mean over no
    token is NaN. Sum and quotient are float64. Rounding points, beside those: one, to the format.

    Examples
    --------
    >>> accumulate_gradients(torch.tensor([[1.0], [5.0]]), torch.tensor([3, 1]))
    tensor([2.])
    >>> accumulate_gradients(torch.tensor([[3.0], [5.0]]), torch.tensor([3, 1]), reduction="sum")
    tensor([2.])
    """
    given = require_tensor_format("gradients", gradients)
    require_one_of("reduction", reduction, REDUCTIONS)
    numbers = _numbers_of(given, counts)
    result = torch.empty(given.shape[1:], dtype=given.dtype, device=given.device)
    used = [(batch.reshape(-1), number) for batch, number in zip(given, numbers, strict=True) if number]
    flat, total = result.view(-1), float(sum(numbers))

    def write_piece(span: slice) -> None:
        addends = (
            on_capable_device(batch[span]).to(torch.float64) * (number if reduction == "mean" else 1)
            for batch, number in used
        )
        real = next(addends)
        for addend in addends:
            real += addend
        flat[span] = nearest_cast(real / total, given.dtype).to(flat.device)

    work_through(spans(flat.numel(), piece_size(flat.device)), write_piece, flat)
    return result


def accumulated_step(
    p: Tensor,
    gradients: Tensor,
    counts: Tensor,
    state: AdamwState,
    options: AdamwOptions,
    *,
    reduction: str = "mean",
) -> tuple[Tensor, Tensor, AdamwState]:
    """Accumulate the gradients of N micro-batches and make one step of AdamW with them.

    Parameters
    ----------
    p, state, options
        As for `adamw_step`.
    gradients, counts, reduction
        As for `accumulate_gradients`.

    Returns
    -------
    tuple of tensor, tensor and AdamwState
        The gradient in the format of `p`; the parameter and its state after *one* step.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `accumulate_gradients` and `adamw_step`.

    Notes
    -----
    Clause ``[accumulate.step]``. N micro-batches are one step: the parameter, its moments and the step number change
    once, after the last of them. Rounding points, in order: the gradient to its format; then those of the step.

    Examples
    --------
    >>> p, zero = torch.ones(1), AdamwState(torch.zeros(1), torch.zeros(1), 0)
    >>> gradients, counts = torch.tensor([[1.0], [5.0]]), torch.tensor([3, 1])
    >>> g, p, state = accumulated_step(p, gradients, counts, zero, AdamwOptions(lr=0.25))
    >>> g, p, state.step
    (tensor([2.]), tensor([0.7500]), 1)
    """
    require_record("state", state, AdamwState)
    require_record("options", options, AdamwOptions)
    gradient = accumulate_gradients(gradients, counts, reduction=reduction)
    new, after = adamw_step(p, gradient, state, options)
    return gradient, new, after


def _numbers_of(gradients: Tensor, counts: Tensor) -> list[int]:
    """Return the tokens of every micro-batch as Python's integers, which no sum overflows."""
    tokens = require_tensor("counts", counts)
    if tokens.dtype not in _INTEGERS:
        reject_type("counts", "a tensor of integers", tokens.dtype)
    if gradients.ndim == 0 or tokens.shape != gradients.shape[:1]:
        expected = f"of shape {tuple(gradients.shape[:1])}, one number a micro-batch"
        reject_value("counts", expected, tuple(tokens.shape))
    numbers: list[int] = tokens.tolist()
    if any(number < 0 for number in numbers) or not any(numbers):
        reject_value("counts", "numbers of tokens, 0 or more and not all 0", numbers)
    return numbers
