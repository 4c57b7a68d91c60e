"""Parts of a weight as the operand of a product: restored from codes where they are multiplied, and never stored."""

import triton
import triton.language as tl

from qloracle_gpu.torch.kernels.int8_scalars import scaled_int8
from qloracle_gpu.torch.kernels.restoring import absmax_of
from qloracle_gpu.torch.kernels.scalars import as_float32, bfloat16_bits


@triton.jit
def stored_tile(lines, start, count, length, data_ptr, PLACES: tl.constexpr):
    """Return what is stored at PLACES places of each line, 0 beyond the end."""
    places = start + tl.arange(0, PLACES)[None, :]
    inside = (lines[:, None] < count) & (places < length)
    return tl.load(data_ptr + lines[:, None] * length + places, mask=inside, other=0)


@triton.jit
def looked_up(codes, entries_ptr, TABLE: tl.constexpr):
    """Return the entries of a tile of codes: from memory, or from TABLE of them that a program reads before.

    In a pipelined loop the compiler would fetch every single entry from memory as if it were a tile of its own.
    """
    if TABLE:
        table = tl.load(entries_ptr + tl.arange(0, TABLE))
        flat = tl.reshape(codes, (codes.shape[0] * codes.shape[1],))
        return tl.reshape(tl.gather(table, flat, 0), codes.shape)
    else:
        return tl.load(entries_ptr + codes)


@triton.jit
def entry_tile(lines, start, count, length, row_bytes, data_ptr, entries_ptr, PLACES: tl.constexpr,
               KIND: tl.constexpr, TABLE: tl.constexpr):  # fmt: skip
    """Return the entries of PLACES codes of each line, which begins with a byte unless pairs straddle lines."""
    if KIND == "pairs":
        byte = stored_tile(lines, start // 2, count, row_bytes, data_ptr, PLACES // 2).to(tl.int32)
        both = tl.join(looked_up(byte >> 4, entries_ptr, TABLE), looked_up(byte & 15, entries_ptr, TABLE))
        return tl.reshape(both, (lines.shape[0], PLACES))
    elif KIND == "straddling pairs":
        places = start + tl.arange(0, PLACES)[None, :]
        flat = lines[:, None] * length + places
        inside = (lines[:, None] < count) & (places < length)
        byte = tl.load(data_ptr + (flat >> 1), mask=inside, other=0).to(tl.int32)
        return looked_up(tl.where((flat & 1) == 0, byte >> 4, byte & 15), entries_ptr, TABLE)
    else:
        codes = stored_tile(lines, start, count, length, data_ptr, PLACES).to(tl.int32)
        return looked_up(codes, entries_ptr, TABLE)


@triton.jit
def restored_tile(lines, start, count, length, row_bytes, data_ptr, entries_ptr, absmax_ptr, absmax_codes_ptr,
                  absmax_entries_ptr, offset_ptr, LINES: tl.constexpr, PLACES: tl.constexpr, KIND: tl.constexpr,
                  PARTS: tl.constexpr, GROUP: tl.constexpr, NESTED: tl.constexpr, TABLE: tl.constexpr):  # fmt: skip
    """Return float32 values of LINES lines, PLACES of each from `start` on, a multiple of GROUP; 0 beyond the end."""
    groups = start // GROUP + tl.arange(0, PLACES // GROUP)[None, :]
    blocks = (lines[:, None] * (length // GROUP) + groups) // PARTS
    inside = (lines[:, None] < count) & (groups * GROUP < length)
    if KIND == "int8 columns":
        places = start + tl.arange(0, PLACES)[None, :]
        absmax = tl.load(absmax_ptr + places, mask=places < length, other=0.0)
        return scaled_int8(stored_tile(lines, start, count, length, data_ptr, PLACES), absmax)
    elif KIND == "int8":
        absmax = tl.where(inside, tl.load(absmax_ptr + blocks, mask=inside, other=0.0), 0.0)
        codes = stored_tile(lines, start, count, length, data_ptr, PLACES)
        codes = tl.reshape(codes, (LINES * (PLACES // GROUP), GROUP))
        return tl.reshape(scaled_int8(codes, tl.reshape(absmax, (LINES * (PLACES // GROUP), 1))), (LINES, PLACES))
    else:
        absmax = absmax_of(blocks, inside, absmax_ptr, absmax_codes_ptr, absmax_entries_ptr, offset_ptr, NESTED)
        absmax = tl.where(inside, absmax, 0.0)[:, :, None]
        entry = entry_tile(lines, start, count, length, row_bytes, data_ptr, entries_ptr, PLACES, KIND, TABLE)
        entry = tl.reshape(entry, (LINES, PLACES // GROUP, GROUP))
        return tl.reshape(tl.where(absmax == 0, 0.0, entry * absmax), (LINES, PLACES))


@triton.jit
def rounded(values, ROUNDED: tl.constexpr, OPERAND: tl.constexpr, BY_BITS: tl.constexpr):
    """Return RN_ROUNDED of float32 as an operand of a product: ROUNDED itself, or float32."""
    if ROUNDED == "float32":
        return values
    elif ROUNDED == "float16":
        return values.to(tl.float16) if OPERAND == "float16" else values.to(tl.float16).to(tl.float32)
    elif BY_BITS:
        return as_float32(bfloat16_bits(values).to(tl.int16, bitcast=True))
    else:
        return values.to(tl.bfloat16) if OPERAND == "bfloat16" else values.to(tl.bfloat16).to(tl.float32)


@triton.jit
def weight_operand(lines, start, count, length, row_bytes, data_ptr, entries_ptr, absmax_ptr, absmax_codes_ptr,
                   absmax_entries_ptr, offset_ptr, LINES: tl.constexpr, PLACES: tl.constexpr, KIND: tl.constexpr,
                   PARTS: tl.constexpr, GROUP: tl.constexpr, NESTED: tl.constexpr, TABLE: tl.constexpr,
                   ROUNDED: tl.constexpr, OPERAND: tl.constexpr, BY_BITS: tl.constexpr):  # fmt: skip
    """Return numbers of LINES lines of a weight as an operand, PLACES of each from `start` on, 0 beyond the end.

    BY_BITS is for Triton's interpreter, which truncates to bfloat16 where a GPU rounds.
    """
    if KIND == "numbers":
        return as_operand(stored_tile(lines, start, count, length, data_ptr, PLACES), OPERAND)
    else:
        values = restored_tile(lines, start, count, length, row_bytes, data_ptr, entries_ptr, absmax_ptr,
                               absmax_codes_ptr, absmax_entries_ptr, offset_ptr, LINES, PLACES, KIND, PARTS, GROUP,
                               NESTED, TABLE)  # fmt: skip
        return rounded(values, ROUNDED, OPERAND, BY_BITS)


@triton.jit
def as_operand(raw, OPERAND: tl.constexpr):
    """Return what was loaded as an operand: itself, or float32."""
    if OPERAND == "float32":
        return as_float32(raw)
    else:
        return raw
