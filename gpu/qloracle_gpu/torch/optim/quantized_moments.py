"""The moments of AdamW in 8 bits: what is kept of a parameter, and the way there and back.

The mean is quantized with the signed dynamic map, the mean square with the unsigned one, in flat blocks of 256 with one
absmax each. Clauses: ``[adamw8bit.dequantize]``, ``[adamw8bit.quantize]``.
Source: Dettmers, Lewis, Shleifer, Zettlemoyer 2022, "8-bit Optimizers via Block-wise Quantization", section 2.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from qloracle.dynamic_map import DYNAMIC_SIGNED, DYNAMIC_UNSIGNED
from qloracle.errors import (
    reject_value,
    require_array_shape,
    require_positive_integer,
    require_record,
    require_shape,
)
from qloracle_gpu.torch.blocks import block_count, require_block_values
from qloracle_gpu.torch.blockwise import QuantizedBlocks, dequantize_blockwise, quantize_blockwise
from qloracle_gpu.torch.formats import require_device, require_dtype
from qloracle_gpu.torch.optim.adamw import AdamwState

STATE_BLOCK_SIZE = 256
CODEBOOKS_OF_MOMENTS = {"m": DYNAMIC_SIGNED, "v": DYNAMIC_UNSIGNED}


@dataclass(frozen=True)
class Adamw8bitState:
    """What AdamW remembers of one parameter tensor, in 8 bits an element and moment."""

    codes_m: Tensor  # uint8, 1-d, one an element: codes of the signed dynamic map
    absmax_m: Tensor  # float32, one a block
    codes_v: Tensor  # uint8, 1-d: codes of the unsigned dynamic map
    absmax_v: Tensor  # float32, one a block
    step: int  # steps done so far
    block_size: int = STATE_BLOCK_SIZE

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The arrays, in the order of the fields."""
        return self.codes_m, self.absmax_m, self.codes_v, self.absmax_v


def adamw8bit_init(shape: tuple[int, ...], *, block_size: int = STATE_BLOCK_SIZE) -> Adamw8bitState:
    """Return the state of a parameter of `shape` before the first step: both moments 0; on torch's default device.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `shape` is no sequence of integers that are 0 or more, or `block_size` no positive integer.

    Examples
    --------
    >>> adamw8bit_init((300,)).absmax_v
    tensor([0., 0.])
    """
    size = prod(require_array_shape(shape))
    blocks, made = block_count(size, require_positive_integer("block_size", block_size)), []
    for table in CODEBOOKS_OF_MOMENTS.values():
        made += [torch.full((size,), table.zero_code, dtype=torch.uint8), torch.zeros(blocks, dtype=torch.float32)]
    return state_of_tensors(made, 0, block_size)


def quantize_moments(state: AdamwState, *, block_size: int = STATE_BLOCK_SIZE) -> Adamw8bitState:
    """Quantize both moments in flat blocks.

    absmax_b = max |m_i| of the block; code_i = the entry nearest to m_i/absmax_b; likewise v with its own absmax and
    codebook.

    Parameters
    ----------
    state : AdamwState
    block_size : int

    Returns
    -------
    Adamw8bitState

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a moment is not float32, or `block_size` no positive integer.

    Notes
    -----
    Clause ``[adamw8bit.quantize]``. Rounding points: one, to the code. A block that holds NaN or ±inf is poisoned: its
    absmax is NaN. A mean square of less than about 10^−7 of the largest in its block gets the code of zero: eps alone
    is then left in the denominator.

    Examples
    --------
    >>> state = quantize_moments(AdamwState(torch.tensor([1.0, -1.0]), torch.tensor([4.0, 1.0]), 3))
    >>> state.codes_m.tolist(), state.absmax_m, state.codes_v.tolist(), state.absmax_v
    ([255, 0], tensor([1.]), [255, 148], tensor([4.]))
    """
    require_record("state", state, AdamwState)
    block_size, found = require_positive_integer("block_size", block_size), []
    for name, moment in (("m", state.m), ("v", state.v)):
        table = CODEBOOKS_OF_MOMENTS[name]
        quantized = quantize_blockwise(
            require_dtype(name, moment, torch.float32), codebook=table, block_size=block_size
        )
        found += [quantized.data, quantized.absmax]
    return state_of_tensors(found, state.step, block_size)


def dequantize_moments(state: Adamw8bitState, shape: tuple[int, ...]) -> AdamwState:
    """Restore both moments as float32.

    m_i = fl32(entries[code_i] · absmax_b), +0 where absmax is 0; likewise v.

    Parameters
    ----------
    state : Adamw8bitState
    shape : tuple of int
        The shape of the parameter.

    Returns
    -------
    AdamwState

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If codes or absmax are not uint8 and float32 of lengths that belong to the shape and the block size, or not on
        one device.

    Notes
    -----
    Clause ``[adamw8bit.dequantize]``. Rounding points: one, the product. A block without gradients so far has absmax 0
    and restores to zeros, not to a residue: nothing moves.

    Examples
    --------
    >>> dequantize_moments(adamw8bit_init((2,)), (2,)).m
    tensor([0., 0.])
    """
    require_record("state", state, Adamw8bitState)
    shape = require_shape(shape)
    require_state(state, prod(shape), state.codes_m)
    restored = []
    for name, codes, absmax in (("m", state.codes_m, state.absmax_m), ("v", state.codes_v, state.absmax_v)):
        table = CODEBOOKS_OF_MOMENTS[name]
        restored.append(dequantize_blockwise(QuantizedBlocks(codes, absmax, table, state.block_size, shape, "float32")))
    return AdamwState(restored[0], restored[1], state.step)


def require_state(state: Adamw8bitState, size: int, companion: Tensor) -> None:
    """Raise unless a state is that of `size` elements on the device of a companion."""
    for name, codes, absmax in (("m", state.codes_m, state.absmax_m), ("v", state.codes_v, state.absmax_v)):
        tensor = require_dtype(f"codes_{name}", codes, torch.uint8)
        if tensor.shape != (size,):
            reject_value(f"codes_{name}", f"of shape ({size},)", tuple(tensor.shape))
        require_device(f"codes_{name}", tensor, companion.device)
        require_device(
            f"absmax_{name}", require_block_values(f"absmax_{name}", absmax, size, state.block_size), companion.device
        )


def state_of_tensors(tensors: list[Tensor], step: int, block_size: int) -> Adamw8bitState:
    """Return the state of codes and absmax of m, and of v."""
    codes_m, absmax_m, codes_v, absmax_v = tensors
    return Adamw8bitState(codes_m, absmax_m, codes_v, absmax_v, step, block_size)
