"""One step of AdamW in one pass, in place: moments in float32, or in 8 bits that are restored and quantized on the way.

The operations, their order and their roundings are those of `qloracle_gpu.torch.optim.update`. Of 8-bit states every
program owns whole blocks: it has read all of a block's codes and both absmax before the reduction that finds the new
absmax ends, so that writing over them is safe.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from qloracle.codebooks import Codebook
from qloracle.errors import reject_value
from qloracle.formats import FORMATS
from qloracle_gpu.torch.codebooks import device_codebook
from qloracle_gpu.torch.kernels.availability import OPTIONS, on_device_of, tile_size
from qloracle_gpu.torch.kernels.blockwise import nearest_positions, store_codes
from qloracle_gpu.torch.kernels.cells import MARGIN, cell_table
from qloracle_gpu.torch.kernels.conversions import encode_constants, encoded
from qloracle_gpu.torch.kernels.scalars import magnitude_bits, narrowed, readable, widened, writable
from qloracle_gpu.torch.optim.capturing import given_constants
from qloracle_gpu.torch.optim.options import StepConstants

TILE = tile_size(1024)  # elements of a program
_ENCODED = ("MANTISSA", "GAP", "FINITE", "INFINITY", "QUIET")  # of a stochastic rounding's target


@triton.jit
def stepped(p, g, m, v, beta1, gain1, beta2, gain2, root, eps, rate, decay, NONFINITE: tl.constexpr):
    """Return p', m' and v' in float32."""
    new_m = g * gain1 + m * beta1
    new_v = g * gain2 * g + v * beta2
    update = tl.div_rn(new_m, tl.sqrt_rn(new_v) * root + eps)
    new_p = p * decay - update * rate
    if NONFINITE == "propagate":
        return new_p, new_m, new_v
    else:
        finite = magnitude_bits(g) < 0x7F800000
        if NONFINITE == "skip":
            return tl.where(finite, new_p, p), tl.where(finite, new_m, m), tl.where(finite, new_v, v)
        else:
            return tl.where(finite, new_p, p), tl.where(finite, new_m, 0.0), tl.where(finite, new_v, 0.0)


@triton.jit
def constants_of(captured_ptr, root, rate, decay):
    """Return the constants that depend on the step or the learning rate: from the device where there is a pointer."""
    if captured_ptr is None:
        return root, rate, decay
    else:
        return tl.load(captured_ptr), tl.load(captured_ptr + 1), tl.load(captured_ptr + 2)


@triton.jit
def store_parameter(out_ptr, random_ptr, places, inside, p, FORMAT: tl.constexpr, MANTISSA: tl.constexpr,
                    GAP: tl.constexpr, FINITE: tl.constexpr, INFINITY: tl.constexpr, QUIET: tl.constexpr):  # fmt: skip
    """Store p' rounded to its format: to nearest, or with random bits stochastically, to 16-bit words."""
    if random_ptr is None:
        tl.store(out_ptr + places, narrowed(p, FORMAT, out_ptr), mask=inside)
    else:
        random = tl.load(random_ptr + places, mask=inside, other=0)
        word = encoded(p.to(tl.int32, bitcast=True), random, MANTISSA, GAP, FINITE, INFINITY, QUIET, False, 15, 1,
                       "stochastic", False)  # fmt: skip
        tl.store(out_ptr + places, word.to(tl.int16), mask=inside)


@triton.jit
def step_kernel(p_ptr, g_ptr, out_ptr, random_ptr, captured_ptr, m_ptr, v_ptr, size, beta1, gain1, beta2, gain2, root,
                eps, rate, decay, TILE: tl.constexpr, FORMAT: tl.constexpr, NONFINITE: tl.constexpr,
                MANTISSA: tl.constexpr, GAP: tl.constexpr, FINITE: tl.constexpr, INFINITY: tl.constexpr,
                QUIET: tl.constexpr):  # fmt: skip
    """Make a step with TILE elements; p is read as bits and written through `out_ptr`."""
    start = tl.program_id(0).to(tl.int64) * TILE
    lanes = tl.arange(0, TILE)
    inside = lanes < tl.minimum(size - start, TILE).to(tl.int32)
    places = start + lanes
    p = widened(tl.load(p_ptr + places, mask=inside, other=0), FORMAT)
    g = widened(tl.load(g_ptr + places, mask=inside, other=0), FORMAT)
    m = tl.load(m_ptr + places, mask=inside, other=0.0)
    v = tl.load(v_ptr + places, mask=inside, other=0.0)
    root, rate, decay = constants_of(captured_ptr, root, rate, decay)
    p, m, v = stepped(p, g, m, v, beta1, gain1, beta2, gain2, root, eps, rate, decay, NONFINITE)
    tl.store(m_ptr + places, m, mask=inside)
    tl.store(v_ptr + places, v, mask=inside)
    store_parameter(out_ptr, random_ptr, places, inside, p, FORMAT, MANTISSA, GAP, FINITE, INFINITY, QUIET)


@triton.jit
def restored(codes_ptr, absmax_ptr, entries_ptr, places, inside, blocks, exists):
    """Return the values of codes in blocks."""
    absmax = tl.load(absmax_ptr + blocks, mask=exists, other=0.0)[:, None]
    entry = tl.load(entries_ptr + tl.load(codes_ptr + places, mask=inside, other=0).to(tl.int32))
    return tl.where(absmax == 0, 0.0, entry * absmax)


@triton.jit
def store_quantized(x, codes_ptr, absmax_ptr, cells_ptr, midpoints_ptr, rows, first, left, inside,
                    BLOCK: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, SHIFT: tl.constexpr,
                    FIRST: tl.constexpr, COUNT: tl.constexpr, MARGIN: tl.constexpr):  # fmt: skip
    """Store codes, which are positions, and absmax of ROWS blocks from block `first` on."""
    x = tl.where(inside, x, 0.0)
    largest = tl.max(magnitude_bits(x), axis=1)
    poisoned = largest >= 0x7F800000
    absmax = tl.where(poisoned, 0x7FC00000, largest).to(tl.float32, bitcast=True)
    x = tl.where(poisoned[:, None], 0.0, x)
    codes = nearest_positions(x, absmax[:, None], cells_ptr, midpoints_ptr, SHIFT, FIRST, COUNT, MARGIN)
    tl.store(absmax_ptr + first + rows, absmax, mask=rows * BLOCK < left)
    store_codes(codes_ptr + first * BLOCK, rows, codes, left, BLOCK, WIDTH, ROWS, 1)


@triton.jit
def step_8bit_kernel(p_ptr, g_ptr, out_ptr, random_ptr, captured_ptr, codes_m_ptr, absmax_m_ptr, codes_v_ptr,
                     absmax_v_ptr, entries_m_ptr, cells_m_ptr, midpoints_m_ptr, entries_v_ptr, cells_v_ptr,
                     midpoints_v_ptr, size, beta1, gain1, beta2, gain2, root, eps, rate, decay, BLOCK: tl.constexpr,
                     WIDTH: tl.constexpr, ROWS: tl.constexpr, FORMAT: tl.constexpr, NONFINITE: tl.constexpr,
                     SHIFT_M: tl.constexpr, FIRST_M: tl.constexpr, COUNT_M: tl.constexpr, SHIFT_V: tl.constexpr,
                     FIRST_V: tl.constexpr, COUNT_V: tl.constexpr, MARGIN: tl.constexpr, MANTISSA: tl.constexpr,
                     GAP: tl.constexpr, FINITE: tl.constexpr, INFINITY: tl.constexpr,
                     QUIET: tl.constexpr):  # fmt: skip
    """Make a step with ROWS flat blocks of BLOCK elements, each in WIDTH lanes."""
    first = tl.program_id(0).to(tl.int64) * ROWS
    left = tl.minimum(size - first * BLOCK, ROWS * BLOCK).to(tl.int32)
    rows, lanes = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    within = rows[:, None] * BLOCK + lanes[None, :]
    inside = (lanes[None, :] < BLOCK) & (within < left)
    places, blocks, exists = first * BLOCK + within, first + rows, rows * BLOCK < left
    p = widened(tl.load(p_ptr + places, mask=inside, other=0), FORMAT)
    g = widened(tl.load(g_ptr + places, mask=inside, other=0), FORMAT)
    m = restored(codes_m_ptr, absmax_m_ptr, entries_m_ptr, places, inside, blocks, exists)
    v = restored(codes_v_ptr, absmax_v_ptr, entries_v_ptr, places, inside, blocks, exists)
    root, rate, decay = constants_of(captured_ptr, root, rate, decay)
    p, m, v = stepped(p, g, m, v, beta1, gain1, beta2, gain2, root, eps, rate, decay, NONFINITE)
    store_parameter(out_ptr, random_ptr, places, inside, p, FORMAT, MANTISSA, GAP, FINITE, INFINITY, QUIET)
    store_quantized(m, codes_m_ptr, absmax_m_ptr, cells_m_ptr, midpoints_m_ptr, rows, first, left, inside, BLOCK,
                    WIDTH, ROWS, SHIFT_M, FIRST_M, COUNT_M, MARGIN)  # fmt: skip
    store_quantized(v, codes_v_ptr, absmax_v_ptr, cells_v_ptr, midpoints_v_ptr, rows, first, left, inside, BLOCK,
                    WIDTH, ROWS, SHIFT_V, FIRST_V, COUNT_V, MARGIN)  # fmt: skip


def target_constants(fmt: str, *, stochastic: bool) -> dict[str, object]:
    """Return what kernels are compiled for so that they round p' to a 16-bit format stochastically, or zeros."""
    if not stochastic:
        return dict.fromkeys(_ENCODED, 0)
    constants = encode_constants(FORMATS[fmt], "float32", "stochastic", "ieee", "sign")
    return {name: constants[name] for name in _ENCODED}


def map_constants(codebook: Codebook, device: torch.device, moment: str) -> tuple[list[Tensor], dict[str, object]]:
    """Return the tables of a moment's codebook, and what the kernel is compiled for."""
    table = cell_table(codebook, device)
    if not table.ordered:
        reject_value("codebook", "one whose codes ascend with their values", codebook.name)
    sizes: dict[str, object] = {
        f"SHIFT_{moment}": table.shift, f"FIRST_{moment}": table.first, f"COUNT_{moment}": table.count
    }  # fmt: skip
    return [device_codebook(codebook, device).entries, table.cells, table.midpoints], sizes


def tile_of(block_size: int) -> dict[str, int]:
    """Return how many blocks a program has, and in how many lanes."""
    width = max(2, triton.next_power_of_2(block_size))
    return {"BLOCK": block_size, "WIDTH": width, "ROWS": max(1, TILE // width)}


def _words(p: Tensor, random_bits: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return the parameter as it is written, and random bits as they are read."""
    if random_bits is None:
        return writable(p), None
    return p.view(torch.int16), random_bits.view(torch.int32)


def step_flat(
    p: Tensor, gradient: Tensor, random_bits: Tensor | None, m: Tensor, v: Tensor, constants: StepConstants, fmt: str
) -> None:
    """Make a step with moments in float32, over p, m and v; all tensors are contiguous and 1-d."""
    if p.numel():
        (out, random), (captured, numbers) = _words(p, random_bits), given_constants(constants)
        with on_device_of(p):
            step_kernel[(triton.cdiv(p.numel(), TILE),)](
                readable(p), readable(gradient), out, random, captured, m, v, p.numel(), *numbers, TILE=TILE,
                FORMAT=fmt, NONFINITE=constants.nonfinite,
                **target_constants(fmt, stochastic=random is not None), **OPTIONS,
            )  # fmt: skip


def step_flat_8bit(
    p: Tensor,
    gradient: Tensor,
    random_bits: Tensor | None,
    state: tuple[Tensor, Tensor, Tensor, Tensor],
    codebooks: tuple[Codebook, ...],
    block_size: int,
    constants: StepConstants,
    fmt: str,
) -> None:
    """Make a step with moments in 8 bits, over the parameter and its state.

    Parameters
    ----------
    p, gradient : tensor of float32, float16 or bfloat16, 1-d, contiguous
    random_bits : tensor of uint32, or None
    state : tuple of four tensors
        Codes and absmax of m, and of v; 1-d, contiguous.
    codebooks : tuple of two Codebook
        Of m and of v.
    block_size : int
    constants : StepConstants
        Without a limit on the norm.
    fmt : str
        The format of `p`.
    """
    if p.numel():
        (tables_m, sizes_m), (tables_v, sizes_v) = (
            map_constants(table, p.device, moment) for table, moment in zip(codebooks, "MV", strict=True)
        )
        (out, random), tile = _words(p, random_bits), tile_of(block_size)
        captured, numbers = given_constants(constants)
        with on_device_of(p):
            step_8bit_kernel[(triton.cdiv(p.numel(), tile["ROWS"] * block_size),)](
                readable(p), readable(gradient), out, random, captured, *state, *tables_m, *tables_v, p.numel(),
                *numbers, FORMAT=fmt, NONFINITE=constants.nonfinite, MARGIN=MARGIN, **tile, **sizes_m,
                **sizes_v, **target_constants(fmt, stochastic=random is not None), **OPTIONS,
            )  # fmt: skip
