"""AdamW with moments of 8 bits: dequantize, step in float32, quantize again.

The mean is quantized with the signed dynamic map, the mean square with the unsigned one, in flat blocks of 256 with one
absmax each. Clauses: ``[adamw8bit.dequantize]``, ``[adamw8bit.quantize]``.
"""

from dataclasses import dataclass
from math import prod

import numpy as np

from qloracle.dynamic_map import DYNAMIC_SIGNED, DYNAMIC_UNSIGNED
from qloracle.errors import reject_value, require_positive_integer, require_record, require_shape
from qloracle.formats import FLOAT32
from qloracle_gpu.cupy.adamw import AdamwState, adamw_init, adamw_step, require_step, stepped
from qloracle_gpu.cupy.adamw_options import AdamwOptions
from qloracle_gpu.cupy.arrays import flat_items, require_dtype
from qloracle_gpu.cupy.blocks import absmax_of_blocks, require_block_values
from qloracle_gpu.cupy.blockwise import codes_given_absmax, values_of_codes
from qloracle_gpu.cupy.codebooks import entries_of
from qloracle_gpu.cupy.launcher import Array, operation

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


def adamw8bit_init(shape: tuple[int, ...], *, block_size: int = STATE_BLOCK_SIZE) -> Adamw8bitState:
    """Return the state of a parameter of `shape` before the first step: both moments 0; blocks run over flat elements.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `shape` is no sequence of integers that are 0 or more, or `block_size` no positive integer.
    """
    return quantize_moments(adamw_init(shape), block_size=block_size)


def quantize_moments(state: AdamwState, *, block_size: int = STATE_BLOCK_SIZE) -> Adamw8bitState:
    """Quantize both moments in flat blocks, the mean by the signed dynamic map, the mean square by the unsigned one.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a moment is not float32, or `block_size` no positive integer.

    Notes
    -----
    Clause ``[adamw8bit.quantize]``. Rounding points: one, to the code.
    """
    require_record("state", state, AdamwState)
    block_size = require_positive_integer("block_size", block_size)
    codes_m, absmax_m = _quantized("m", state.m, block_size)
    codes_v, absmax_v = _quantized("v", state.v, block_size)
    return Adamw8bitState(codes_m, absmax_m, codes_v, absmax_v, state.step, block_size)


def _quantized(name: str, moment: Array, block_size: int) -> tuple[Array, Array]:
    array = require_dtype(name, moment, "float32")
    with operation("quantize_moments", **{name: array}) as run:
        flat = flat_items(run, array)
        absmax = absmax_of_blocks(run, flat, FLOAT32, block_size)
        return codes_given_absmax(run, flat, FLOAT32, absmax, CODEBOOKS_OF_MOMENTS[name], block_size), absmax


def dequantize_moments(state: Adamw8bitState, shape: tuple[int, ...]) -> AdamwState:
    """Restore both moments as float32.

    m_i = fl32(entries[code_i] · absmax_b), +0 where absmax is 0; likewise v.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If codes or absmax are not uint8 and float32 of lengths that belong to the shape and the block size.

    Notes
    -----
    Clause ``[adamw8bit.dequantize]``. Rounding points: one, the product.
    """
    require_record("state", state, Adamw8bitState)
    shape, restored = require_shape(shape), []
    for name, (codes, absmax) in _stored_moments(state, prod(shape)).items():
        with operation("dequantize_moments", codes=codes, absmax=absmax) as run:
            table = CODEBOOKS_OF_MOMENTS[name]
            values = values_of_codes(
                run, flat_items(run, codes), absmax, table, state.block_size, codes.size, "float32"
            )
            restored.append(values.reshape(shape))
    return AdamwState(restored[0], restored[1], state.step)


def adamw8bit_step(
    p: Array, gradient: Array, state: Adamw8bitState, options: AdamwOptions, *, fmt: str | None = None,
    random_bits: Array | None = None,
) -> tuple[Array, Adamw8bitState]:  # fmt: skip
    """Return the parameter and its 8-bit state after one step of AdamW.

    Parameters
    ----------
    p, gradient, options, fmt, random_bits
        As for `adamw_step`.
    state : Adamw8bitState

    Returns
    -------
    tuple of array and Adamw8bitState
        p', which is computed from the float32 moments before they are quantized, and the new state.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `adamw_step` and `dequantize_moments`.

    Notes
    -----
    Clauses ``[adamw8bit.dequantize]``, ``[adamw.moments]``, ``[adamw.parameter]``, ``[adamw8bit.quantize]``, in this
    order; each rounds as it says.
    """
    require_record("state", state, Adamw8bitState)
    given = require_step(p, gradient, state.step, options, fmt, random_bits)
    size = given.p.size
    parts = _stored_moments(state, size)
    if options.max_update_norm is not None:  # the norm is that of all elements: the moments are needed first
        plain = dequantize_moments(state, given.p.shape)
        new, full = adamw_step(p, gradient, plain, options, fmt=fmt, random_bits=random_bits)
        return new, quantize_moments(full, block_size=state.block_size)
    with operation("adamw8bit_step", p=given.p, gradient=given.gradient, random_bits=given.random_bits) as run:
        stored = [flat_items(run, part) for name in ("m", "v") for part in parts[name]]
        tables = [entries_of(run, CODEBOOKS_OF_MOMENTS[name]) for name in ("m", "v")]
        length = np.int64(max(min(state.block_size, size), 1))
        new, m, v = stepped(run, "adamw8bit", given, (*stored, np.int64(size), length, *tables), options)
    return new, quantize_moments(AdamwState(m, v, given.number), block_size=state.block_size)


def _stored_moments(state: Adamw8bitState, size: int) -> dict[str, tuple[Array, Array]]:
    """Return codes and absmax of both moments if they are those of `size` elements, else raise."""
    found = {}
    for name, codes, absmax in (("m", state.codes_m, state.absmax_m), ("v", state.codes_v, state.absmax_v)):
        array = require_dtype(f"codes_{name}", codes, "uint8")
        if array.shape != (size,):
            reject_value(f"codes_{name}", f"of shape ({size},)", array.shape)
        found[name] = array, require_block_values(f"absmax_{name}", absmax, size, state.block_size)
    return found
