"""AdamW with moments of 8 bits: dequantize, step in float32, quantize again.

    m, v = dequantized states;   m', v', p' as in `adamw`;   states' = quantized m', v'

A kernel does all of it in one pass, where one runs; else pieces of whole blocks go through the same steps.
Clauses: ``[adamw8bit.dequantize]``, ``[adamw8bit.quantize]``, which `quantized_moments` obeys.
Source: Dettmers, Lewis, Shleifer, Zettlemoyer 2022, "8-bit Optimizers via Block-wise Quantization", section 2.
"""

from torch import Tensor

from qloracle.errors import require_record
from qloracle_gpu.torch.blocks import block_count
from qloracle_gpu.torch.formats import NAMES
from qloracle_gpu.torch.kernels.availability import kernels_run_on
from qloracle_gpu.torch.optim.operands import (
    flat,
    flat_copy,
    require_no_negative,
    require_random_bits,
    require_same_format,
    require_steps,
)
from qloracle_gpu.torch.optim.options import AdamwOptions, StepConstants, step_constants
from qloracle_gpu.torch.optim.quantized_moments import (
    CODEBOOKS_OF_MOMENTS,
    Adamw8bitState,
    dequantize_moments,
    quantize_moments,
    require_state,
    state_of_tensors,
)
from qloracle_gpu.torch.optim.update import FlatStep, step_in_place, step_piece
from qloracle_gpu.torch.pieces import piece_size, spans, work_through

LARGEST_BLOCK = 4096  # that the kernel takes whole


def adamw8bit_step(
    p: Tensor, gradient: Tensor, state: Adamw8bitState, options: AdamwOptions, *, random_bits: Tensor | None = None
) -> tuple[Tensor, Adamw8bitState]:
    """Return the parameter and its 8-bit state after one step of AdamW.

    Parameters
    ----------
    p, gradient, options, random_bits
        As for `adamw_step`.
    state : Adamw8bitState

    Returns
    -------
    tuple of tensor and Adamw8bitState
        p', which is computed from the float32 moments before they are quantized, and the new state.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `adamw_step` and `dequantize_moments`.

    Notes
    -----
    Clauses ``[adamw8bit.dequantize]``, ``[adamw.moments]``, ``[adamw.parameter]``, ``[adamw8bit.quantize]``, in this
    order; each rounds as it says.

    Examples
    --------
    >>> import torch
    >>> from qloracle_gpu.torch.optim.quantized_moments import adamw8bit_init
    >>> p, state = adamw8bit_step(torch.ones(2), torch.tensor([1.0, 0.0]), adamw8bit_init((2,)), AdamwOptions(lr=0.125))
    >>> p, state.codes_m.tolist(), state.step
    (tensor([0.8750, 1.0000]), [255, 127], 1)
    """
    require_record("state", state, Adamw8bitState)
    require_record("options", options, AdamwOptions)
    values, other = require_same_format(p, gradient)
    done = require_steps(state.step)
    require_state(state, values.numel(), values)
    require_no_negative("absmax_v", state.absmax_v, "nowhere below 0, as a mean of squares is")
    bits = require_random_bits(random_bits, values)
    given = FlatStep(flat_copy(values), flat(other), None if bits is None else flat(bits))
    new = state_of_tensors([flat_copy(tensor) for tensor in state.tensors], done + 1, state.block_size)
    step_8bit_in_place(given, new, step_constants(options, done + 1))
    return given.p.view(values.shape), new


def step_8bit_in_place(given: FlatStep, state: Adamw8bitState, constants: StepConstants) -> None:
    """Make a step: write p' and the new state over the old ones, which are contiguous."""
    size, block_size = given.p.numel(), state.block_size
    if constants.max_update_norm is not None:  # the norm is that of all elements, so all moments are there at once
        moments = dequantize_moments(state, (size,))
        step_in_place(given, moments.m, moments.v, constants)
        _store(quantize_moments(moments, block_size=block_size), state)
    elif kernels_run_on(given.p.device.type) and block_size <= LARGEST_BLOCK:
        from qloracle_gpu.torch.kernels.adamw import step_flat_8bit

        step_flat_8bit(
            given.p, given.gradient, given.random_bits, state.tensors, tuple(CODEBOOKS_OF_MOMENTS.values()), block_size,
            constants, NAMES[given.p.dtype],
        )  # fmt: skip
    else:
        # Pieces of whole blocks, for each has a state of its own.
        step = block_size * max(1, piece_size(given.p.device) // block_size)
        work_through(spans(size, step), lambda span: _step_blocks(given.part(span), state, span, constants), given.p)


def _step_blocks(given: FlatStep, state: Adamw8bitState, span: slice, constants: StepConstants) -> None:
    """Make a step with the elements of some blocks."""
    first = span.start // state.block_size
    blocks = slice(first, first + block_count(given.p.numel(), state.block_size))
    codes_m, absmax_m, codes_v, absmax_v = state.tensors
    part = Adamw8bitState(codes_m[span], absmax_m[blocks], codes_v[span], absmax_v[blocks], 0, state.block_size)
    moments = dequantize_moments(part, (given.p.numel(),))
    step_piece(given, moments.m, moments.v, constants)
    _store(quantize_moments(moments, block_size=state.block_size), part)


def _store(new: Adamw8bitState, state: Adamw8bitState) -> None:
    for old, tensor in zip(state.tensors, new.tensors, strict=True):
        old.copy_(tensor)
