"""AdamW with moments of 8 bits: dequantize, step in float32, quantize again.

    m, v = dequantized states;   m', v', p' as in `optim.adamw`;   states' = quantized m', v'

The mean is quantized with the signed dynamic map, the mean square with the unsigned one, in flat blocks of 256 with one
absmax each. Clauses: ``[adamw8bit.dequantize]``, ``[adamw8bit.quantize]``.
Source: Dettmers, Lewis, Shleifer, Zettlemoyer 2022, "8-bit Optimizers via Block-wise Quantization", section 2.
"""

from dataclasses import dataclass
from math import prod

import numpy as np

from qloracle.blocks import block_absmax
from qloracle.blockwise import dequantize_codes, require_block_values
from qloracle.dynamic_map import DYNAMIC_SIGNED, DYNAMIC_UNSIGNED
from qloracle.errors import (
    reject_value,
    require_array_shape,
    require_dtype,
    require_positive_integer,
    require_record,
    require_shape,
)
from qloracle.formats import Array, tensor_format
from qloracle.nearest import quantize_codes
from qloracle.optim.adamw import AdamwState, adamw_step
from qloracle.optim.options import AdamwOptions
from qloracle.records import require_fields

STATE_BLOCK_SIZE = 256
CODEBOOKS_OF_MOMENTS = {"m": DYNAMIC_SIGNED, "v": DYNAMIC_UNSIGNED}


@dataclass(frozen=True)
class Adamw8bitState:
    """What AdamW remembers of one parameter tensor, in 8 bits an element and moment."""

    codes_m: Array  # uint8, 1-d, one an element: codes of the signed dynamic map
    absmax_m: Array  # float32, one a block
    codes_v: Array  # uint8, 1-d: codes of the unsigned dynamic map
    absmax_v: Array  # float32, one a block
    step: int  # steps done so far
    block_size: int = STATE_BLOCK_SIZE

    def __post_init__(self) -> None:
        """Refuse fields of other types."""
        require_fields(self)


def adamw8bit_init(shape: tuple[int, ...], *, block_size: int = STATE_BLOCK_SIZE) -> Adamw8bitState:
    """Return the state of a parameter of `shape` before the first step: both moments 0; blocks run over flat elements.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `shape` is no sequence of integers that are 0 or more, or `block_size` no positive integer.

    Examples
    --------
    >>> adamw8bit_init((300,)).absmax_v
    array([0., 0.], dtype=float32)
    """
    zero = np.zeros(require_array_shape(shape), np.float32)
    return quantize_moments(AdamwState(zero, zero, 0), block_size=block_size)


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
    >>> state = quantize_moments(AdamwState(np.array([1, -1], np.float32), np.array([4, 1], np.float32), 3))
    >>> state.codes_m.tolist(), state.absmax_m, state.codes_v.tolist(), state.absmax_v
    ([255, 0], array([1.], dtype=float32), [255, 148], array([4.], dtype=float32))
    """
    require_record("state", state, AdamwState)
    block_size = require_positive_integer("block_size", block_size)
    found = {}
    for name, moment in (("m", state.m), ("v", state.v)):
        require_dtype(name, moment, "float32")
        absmax = block_absmax(moment, block_size)
        found[name] = quantize_codes(moment, absmax, CODEBOOKS_OF_MOMENTS[name], block_size), absmax
    return Adamw8bitState(*found["m"], *found["v"], step=state.step, block_size=block_size)


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
        If codes or absmax are not uint8 and float32 of lengths that belong to the shape and the block size.

    Notes
    -----
    Clause ``[adamw8bit.dequantize]``. Rounding points: one, the product. A block without gradients so far has absmax 0
    and restores to zeros, not to a residue: nothing moves.

    Examples
    --------
    >>> dequantize_moments(adamw8bit_init((2,)), (2,)).m
    array([0., 0.], dtype=float32)
    """
    require_record("state", state, Adamw8bitState)
    shape = require_shape(shape)
    size, restored = prod(shape), []
    for name, codes, absmax in (("m", state.codes_m, state.absmax_m), ("v", state.codes_v, state.absmax_v)):
        require_dtype(f"codes_{name}", codes, "uint8")
        if codes.shape != (size,):
            reject_value(f"codes_{name}", f"of shape ({size},)", codes.shape)
        require_block_values(f"absmax_{name}", absmax, size, state.block_size)
        table = CODEBOOKS_OF_MOMENTS[name]
        restored.append(dequantize_codes(codes, absmax, table, state.block_size, "float32").reshape(shape))
    return AdamwState(restored[0], restored[1], state.step)


def adamw8bit_step(
    p: Array,
    gradient: Array,
    state: Adamw8bitState,
    options: AdamwOptions,
    *,
    fmt: str | None = None,
    random_bits: Array | None = None,
) -> tuple[Array, Adamw8bitState]:
    """Return the parameter and its 8-bit state after one step of AdamW.

    Parameters
    ----------
    p, gradient, options, fmt, random_bits
        As for `optim.adamw_step`.
    state : Adamw8bitState

    Returns
    -------
    tuple of array and Adamw8bitState
        p', which is computed from the float32 moments before they are quantized, and the new state.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `optim.adamw_step` and `dequantize_moments`.

    Notes
    -----
    Clauses ``[adamw8bit.dequantize]``, ``[adamw.moments]``, ``[adamw.parameter]``, ``[adamw8bit.quantize]``, in this
    order; each rounds as it says.

    Examples
    --------
    >>> p, state = adamw8bit_step(np.ones(2, np.float32), np.array([1, 0], np.float32), adamw8bit_init((2,)),
    ...                           AdamwOptions(lr=0.125))
    >>> p, state.codes_m.tolist(), state.step
    (array([0.875, 1.   ], dtype=float32), [255, 127], 1)
    """
    tensor_format(p, fmt, "p")
    # The restored moments have no name: they are gone before the new ones are quantized.
    new, moments = adamw_step(
        p, gradient, dequantize_moments(state, p.shape), options, fmt=fmt, random_bits=random_bits
    )
    return new, quantize_moments(moments, block_size=state.block_size)
