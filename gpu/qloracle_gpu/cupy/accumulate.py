"""Gradient accumulation: the gradients of several micro-batches make that of the one big batch.

Clauses: ``[accumulate.mean]``, ``[accumulate.step]``.
"""

import numpy as np

from qloracle.errors import reject_type, reject_value, require_one_of
from qloracle_gpu.cupy.adamw import AdamwState, adamw_step
from qloracle_gpu.cupy.adamw_options import AdamwOptions
from qloracle_gpu.cupy.arrays import carrier, flat_words, require_tensor
from qloracle_gpu.cupy.launcher import Array, operation, require_array

REDUCTIONS = ("mean", "sum")


def accumulate_gradients(gradients: Array, counts: Array, *, reduction: str = "mean", fmt: str | None = None) -> Array:
    """Return the gradient of the mean loss over all tokens from the gradients of N micro-batches.

    g = Σ n_i·g_i / Σ n_i for "mean", where g_i is the gradient of the mean over the n_i tokens of micro-batch i;
    g = Σ g_i / Σ n_i for "sum", where g_i is the gradient of the sum over them.

    Parameters
    ----------
    gradients : array of float32, float16 or bfloat16, shape (N, ...)
    counts : array of an integer dtype, shape (N,)
        Tokens of each micro-batch, 0 or more, not all 0. Reading them waits for the device.
    reduction : {"mean", "sum"}
        What a micro-batch's gradient is the gradient of.
    fmt : str, optional
        Format of `gradients` where they are given as bit patterns.

    Returns
    -------
    array, format of `gradients`, shape gradients.shape[1:]; bfloat16 as uint16 words

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a dtype or shape does not fit, a count is negative, all are 0, or the reduction is unknown.

    Notes
    -----
    Clause ``[accumulate.mean]``. A micro-batch without tokens is left out, whatever its gradient holds. Summed and
    divided in float64; then rounded to float32 and to the format of the gradients.
    """
    array, named = require_tensor("gradients", gradients, fmt)
    require_one_of("reduction", reduction, REDUCTIONS)
    numbers = require_array("counts", counts)
    if numbers.dtype.kind not in "iu":
        reject_type("counts", "an array of integers", numbers.dtype)
    if array.ndim == 0 or numbers.shape != array.shape[:1]:
        reject_value("counts", f"of shape {array.shape[:1]}, one number a micro-batch", numbers.shape)
    with operation("accumulate_gradients", gradients=array, counts=numbers) as run:
        tokens = [int(number) for number in numbers.tolist()]
        if not any(tokens) or min(tokens) < 0:
            reject_value("counts", "numbers of tokens, 0 or more and not all 0", tokens)
        size = array.size // len(tokens)
        out = run.empty(size, carrier(named))
        words, weights = flat_words(run, array), run.contiguous(numbers.astype("int64"))
        shape, mean = (np.int64(size), np.int64(len(tokens))), np.int32(reduction == "mean")
        arguments = (words, *shape, weights, mean, np.float64(sum(tokens)), out)
        run.launch("gradients", f"accumulate_{named.name}", size, arguments)
        return out.reshape(array.shape[1:])


def accumulated_step(
    p: Array, gradients: Array, counts: Array, state: AdamwState, options: AdamwOptions, *, reduction: str = "mean",
    fmt: str | None = None,
) -> tuple[Array, Array, AdamwState]:  # fmt: skip
    """Accumulate the gradients of N micro-batches and make one step of AdamW with them.

    Parameters
    ----------
    p, state, options, fmt
        As for `adamw_step`; `fmt` is also that of `gradients`.
    gradients, counts, reduction
        As for `accumulate_gradients`.

    Returns
    -------
    tuple of array, array and AdamwState
        The gradient in the format of `p`; the parameter and its state after *one* step.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `accumulate_gradients` and `adamw_step`.

    Notes
    -----
    Clause ``[accumulate.step]``. N micro-batches are one step. Rounding points, in order: the gradient to its format;
    then those of the step.
    """
    gradient = accumulate_gradients(gradients, counts, reduction=reduction, fmt=fmt)
    new, after = adamw_step(p, gradient, state, options, fmt=fmt)
    return gradient, new, after
