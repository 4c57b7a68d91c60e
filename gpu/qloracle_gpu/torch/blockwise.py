"""Blockwise quantization with a codebook, and its inverse.

Clauses: ``[blockwise.quantize]``, ``[blockwise.dequantize]``.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from qloracle.codebooks import Codebook
from qloracle.errors import reject_value, require_positive_integer
from qloracle_gpu.torch.blocks import (
    block_absmax,
    block_columns,
    block_count,
    block_matrices,
    require_block_values,
)
from qloracle_gpu.torch.codebooks import codebook_named, device_codebook
from qloracle_gpu.torch.compiling import compiles_as_operator
from qloracle_gpu.torch.formats import NAMES, dtype_named, require_device, require_dtype, require_tensor_format
from qloracle_gpu.torch.kernels.availability import kernels_run_on
from qloracle_gpu.torch.kernels.compiled_loops import loops_take, run_loop
from qloracle_gpu.torch.kernels.stored_absmax import PlainAbsmax, StoredAbsmax
from qloracle_gpu.torch.nearest import write_nearest_codes
from qloracle_gpu.torch.packing import pack_valid_codes, require_packed
from qloracle_gpu.torch.pieces import LOOP_PIECE, piece_size, spans, work_through

LARGEST_BLOCK = 4096  # that a kernel takes whole


@dataclass(frozen=True)
class QuantizedBlocks:
    """A tensor quantized in flat blocks; everything that restoring it needs."""

    data: Tensor  # uint8: packed bytes of a 4-bit codebook, codes of an 8-bit one; 1-d
    absmax: Tensor  # float32, one a block
    codebook: str | Codebook  # name in `qloracle.tables.CODEBOOKS`, or a table of one's own
    block_size: int  # elements in a block
    shape: tuple[int, ...]  # of the original
    dtype: str  # format name of the original


@compiles_as_operator
def quantize_blockwise(x: Tensor, *, codebook: str | Codebook = "nf4", block_size: int = 64) -> QuantizedBlocks:
    """Quantize a tensor in flat blocks: absmax, codes, and for a 4-bit codebook packing.

    code = the entry nearest to the real number x/absmax; at an exact midpoint the lower entry.

    Parameters
    ----------
    x : tensor of float32, float16 or bfloat16, any shape and strides
    codebook : str or Codebook
        A name in `qloracle.tables.CODEBOOKS`, or a table of one's own whose codes float64 quotients decide.
    block_size : int
        Elements in a block; any positive integer.

    Returns
    -------
    QuantizedBlocks
        On the device of `x`.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        For another dtype, an unknown codebook, or a block size below 1.

    Notes
    -----
    Clauses ``[blocks.absmax]``, ``[blockwise.quantize]``, ``[packing.nibbles]``, in this order. Rounding points: none.
    A block with any NaN or ±inf is poisoned: its absmax is NaN and its codes are those of zeros.

    Examples
    --------
    >>> q = quantize_blockwise(torch.tensor([-1.0, 1.0, 0.5, 0.0]))
    >>> [hex(byte) for byte in q.data], q.absmax
    (['0xf', '0xc7'], tensor([1.]))
    """
    table, block_size = codebook_named(codebook), require_positive_integer("block_size", block_size)
    values = require_tensor_format("x", x)
    data, absmax = _quantized(values.reshape(-1), table, block_size)
    return QuantizedBlocks(data, absmax, codebook, block_size, tuple(values.shape), NAMES[values.dtype])


def _quantized(flat: Tensor, table: Codebook, block_size: int) -> tuple[Tensor, Tensor]:
    """Return stored codes and absmax of a 1-d tensor."""
    packed = table.code_bits == 4
    if kernels_run_on(flat.device.type) and block_size <= LARGEST_BLOCK and not (packed and block_size % 2):
        from qloracle_gpu.torch.kernels.blockwise import quantize_flat

        return quantize_flat(flat.contiguous(), table, block_size, NAMES[flat.dtype], packed=packed)
    absmax = block_absmax(flat, block_size)
    codes = nearest_block_codes(flat, absmax, table, block_size)
    return (pack_valid_codes(codes, table.zero_code) if packed else codes), absmax


def nearest_block_codes(flat: Tensor, absmax: Tensor, codebook: Codebook, block_size: int) -> Tensor:
    """Return the code of every element of a 1-d tensor, given the absmax of its block, as uint8."""
    codes = torch.empty(flat.shape, dtype=torch.uint8, device=flat.device)
    rule = device_codebook(codebook, flat.device).rule
    columns = block_columns(absmax, flat.numel(), block_size)
    for x, scale, out in zip(block_matrices(flat, block_size), columns, block_matrices(codes, block_size), strict=True):
        write_nearest_codes(x, scale, rule, out)
    return codes


@compiles_as_operator
def dequantize_blockwise(quantized: QuantizedBlocks, *, dtype: str | None = None) -> Tensor:
    """Restore a tensor from its codes and absmax.

    value = RN_dtype(fl32(entries[code] · absmax)); +0 where absmax is 0, NaN where it is NaN.

    Parameters
    ----------
    quantized : QuantizedBlocks
    dtype : {"float32", "float16", "bfloat16"}, optional
        Output format; by default that of the original.

    Returns
    -------
    tensor of `dtype`, the shape of the original

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If data, absmax and shape do not belong together, or the format is unknown.

    Notes
    -----
    Clauses ``[packing.nibbles]``, ``[blockwise.dequantize]``. Rounding points, in order: the product to float32; the
    product to `dtype`.

    Examples
    --------
    >>> dequantize_blockwise(quantize_blockwise(torch.tensor([-1.0, 1.0, 0.5, 0.0])))
    tensor([-1.0000,  1.0000,  0.4407,  0.0000])
    """
    table = codebook_named(quantized.codebook)
    target = dtype_named(quantized.dtype if dtype is None else dtype, "dtype")
    size, block_size = prod(quantized.shape), quantized.block_size
    absmax = require_block_values("absmax", quantized.absmax, size, block_size)
    data = require_data(quantized.data, table, quantized.shape)
    require_device("absmax", absmax, data.device)
    if kernels_run_on(data.device.type):
        scales = PlainAbsmax(absmax.contiguous())
        return dequantized_at_once(data, table, scales, block_size, quantized.shape, target)
    tables = device_codebook(table, data.device)
    values = torch.empty(size, dtype=target, device=data.device)
    write_values(StoredCodes(data, tables.entries, tables.pairs), absmax, block_size, values)
    return values.view(quantized.shape)


def require_data(data: Tensor, table: Codebook, shape: tuple[int, ...]) -> Tensor:
    """Return stored codes as a 1-d tensor if they are as many as the shape has elements, else raise."""
    flat, size = require_dtype("data", data, torch.uint8).reshape(-1), prod(shape)
    if table.code_bits == 4:
        require_packed(flat, size)
    elif flat.numel() != size:
        reject_value("data", f"{size} codes for shape {shape}", flat.numel())
    return flat


def dequantized_at_once(
    data: Tensor, table: Codebook, absmax: StoredAbsmax, block_size: int, shape: tuple[int, ...], target: torch.dtype
) -> Tensor:
    """Return the values of codes by one kernel, which restores the absmax too where they are quantized."""
    from qloracle_gpu.torch.kernels.restoring import dequantize_flat

    entries, packed = device_codebook(table, data.device).entries, table.code_bits == 4
    values = torch.empty(prod(shape), dtype=target, device=data.device)
    dequantize_flat(data.contiguous(), entries, absmax, block_size, values, NAMES[target], packed=packed)
    return values.view(shape)


@dataclass(frozen=True)
class StoredCodes:
    """Codes as they are stored, and the table that turns them into entries."""

    data: Tensor  # uint8, 1-d
    entries: Tensor  # float32, in code order
    pairs: Tensor | None  # the two entries of each byte where two codes share one, see `DeviceCodebook`


def write_values(codes: StoredCodes, absmax: Tensor, block_size: int, out: Tensor) -> None:
    """Write the value of every code to the 1-d tensor `out`: entry times absmax, rounded to its dtype."""
    block_size = min(block_size, max(out.numel(), 1))
    looped = loops_take(codes.data, absmax)
    # Pieces of whole blocks that begin at a whole byte.
    step = 2 * block_size * max(1, (LOOP_PIECE if looped else piece_size(out.device)) // (2 * block_size))

    def write_piece(span: slice) -> None:
        part = out[span]
        first = span.start // block_size
        scales = absmax[first : first + block_count(part.numel(), block_size)]
        if looped:
            _write_by_loop(codes, span.start, scales, block_size, part)
            return
        entries = _entries(codes, span.start, part.numel())
        for entry, scale, values in zip(
            block_matrices(entries, block_size),
            block_columns(scales, part.numel(), block_size),
            block_matrices(part, block_size),
            strict=True,
        ):
            torch.mul(entry, scale, out=values)
            zero = scale == 0
            # On a CPU a look at the absmax is cheaper than a pass over the values; elsewhere it would wait for it.
            if values.device.type != "cpu" or zero.any():
                values.masked_fill_(zero, 0.0)

    work_through(spans(out.numel(), step), write_piece, out)


def _write_by_loop(codes: StoredCodes, start: int, scales: Tensor, block_size: int, out: Tensor) -> None:
    """Write the values of the codes from the even position `start` on."""
    packed = codes.pairs is not None
    stop = start + out.numel()
    stored = codes.data[start // 2 : (stop + 1) // 2] if packed else codes.data[start:stop]
    run_loop(
        f"dequantize_{4 if packed else 8}bit_{NAMES[out.dtype]}", stored.contiguous(), codes.entries,
        scales.contiguous(), block_size, out.numel(), out,
    )  # fmt: skip


def _entries(codes: StoredCodes, start: int, count: int) -> Tensor:
    """Return the entries of `count` codes from the even position `start` on, as float32."""
    if codes.pairs is None:
        return torch.index_select(codes.entries, 0, codes.data[start : start + count].to(torch.int32))
    index = codes.data[start // 2 : (start + count + 1) // 2].to(torch.int32)
    return torch.index_select(codes.pairs, 0, index).view(torch.float32)[:count]
