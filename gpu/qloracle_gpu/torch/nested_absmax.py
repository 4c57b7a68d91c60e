"""The absmax of blocks, quantized themselves.

Clauses: ``[double_quant.offset]``, ``[double_quant.quantize]``, ``[double_quant.dequantize]``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from qloracle.codebooks import Codebook
from qloracle.errors import reject_type, reject_value
from qloracle_gpu.torch.blocks import block_absmax, require_block_values
from qloracle_gpu.torch.blockwise import StoredCodes, nearest_block_codes, write_values
from qloracle_gpu.torch.codebooks import codebook_named, device_codebook
from qloracle_gpu.torch.compiling import compiles_as_operator
from qloracle_gpu.torch.exact_mean import mean_offset
from qloracle_gpu.torch.formats import require_device, require_dtype
from qloracle_gpu.torch.kernels.availability import kernels_run_on
from qloracle_gpu.torch.kernels.stored_absmax import NestedAbsmax

NESTED_BLOCK_SIZE = 256
NESTED_CODEBOOK = "dynamic_signed"


@dataclass(frozen=True)
class QuantizedAbsmax:
    """The absmax of a tensor's blocks as 8-bit codes."""

    codes: Tensor  # uint8, one a block
    absmax: Tensor  # float32, one for each nested group of 256 blocks
    offset: Tensor  # float32, 0-d: mean of the absmax, subtracted before and added after


@compiles_as_operator
def quantize_absmax(
    absmax: Tensor, *, codebook: str | Codebook = NESTED_CODEBOOK, offset: Tensor | None = None
) -> QuantizedAbsmax:
    """Quantize the absmax of blocks: subtract their mean, then quantize blockwise, 256 to a nested group.

    residual_i = fl32(absmax_i − offset); codes and nested absmax as for any tensor.

    Parameters
    ----------
    absmax : tensor of float32, 1-d
        Poisoned blocks hold NaN; they are left out of the mean and poison their nested group, no more.
    codebook : str or Codebook
    offset : tensor of float32, 0-d, optional
        Use this offset instead of the mean.

    Returns
    -------
    QuantizedAbsmax

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `absmax` is not a 1-d float32 tensor, `offset` not a 0-d one, or the codebook is unknown.

    Notes
    -----
    Clauses ``[double_quant.offset]``, ``[double_quant.quantize]``. Rounding points, in order: the mean; each residual.

    Examples
    --------
    >>> q = quantize_absmax(torch.tensor([1.0, 2.0, 3.0]))
    >>> q.offset, q.absmax, q.codes
    (tensor(2.), tensor([1.]), tensor([  0, 127, 255], dtype=torch.uint8))
    """
    values = require_dtype("absmax", absmax, torch.float32)
    if values.ndim != 1:
        reject_type("absmax", "a 1-d float32 tensor", f"{values.ndim}-d")
    table = codebook_named(codebook)
    offset = mean_offset(values) if offset is None else _require_offset(offset)
    require_device("offset", offset, values.device)
    if kernels_run_on(values.device.type):
        from qloracle_gpu.torch.kernels.blockwise import quantize_flat

        flat = values.contiguous()
        parts = quantize_flat(flat, table, NESTED_BLOCK_SIZE, "float32", packed=False, offset=offset)
        return QuantizedAbsmax(*parts, offset)
    residual = values - offset
    nested = block_absmax(residual, NESTED_BLOCK_SIZE)
    return QuantizedAbsmax(nearest_block_codes(residual, nested, table, NESTED_BLOCK_SIZE), nested, offset)


@compiles_as_operator
def dequantize_absmax(quantized: QuantizedAbsmax, *, codebook: str | Codebook = NESTED_CODEBOOK) -> Tensor:
    """Restore the absmax of blocks.

    absmax_i = fl32(fl32(entries[code_i] · nested_absmax) + offset); never clamped, even below zero.

    Parameters
    ----------
    quantized : QuantizedAbsmax
    codebook : str or Codebook

    Returns
    -------
    tensor of float32, 1-d

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If codes and nested absmax do not belong together; on a CPU also if a code exceeds the codebook.

    Notes
    -----
    Clause ``[double_quant.dequantize]``. Rounding points, in order: the product; the sum. On other devices a code that
    exceeds a codebook of 16 entries reads as NaN: a look at the codes would wait for the device.

    Examples
    --------
    >>> dequantize_absmax(quantize_absmax(torch.tensor([1.0, 2.0, 3.0])))
    tensor([1.0070, 2.0000, 3.0000])
    """
    stored = stored_absmax(quantized, codebook_named(codebook))
    if kernels_run_on(stored.absmax.device.type):
        from qloracle_gpu.torch.kernels.restoring import restore_absmax

        return restore_absmax(stored)
    product = torch.empty(stored.codes.shape, dtype=torch.float32, device=stored.codes.device)
    write_values(StoredCodes(stored.codes, stored.entries, pairs=None), stored.absmax, NESTED_BLOCK_SIZE, product)
    return product.add_(stored.offset)


def stored_absmax(quantized: QuantizedAbsmax, table: Codebook) -> NestedAbsmax:
    """Return the parts of quantized absmax as a kernel takes them, after checking that they belong together."""
    codes = require_dtype("codes", quantized.codes, torch.uint8)
    if codes.ndim != 1:
        reject_value("codes", "1-d", f"{codes.ndim}-d")
    nested = require_block_values("absmax", quantized.absmax, codes.numel(), NESTED_BLOCK_SIZE)
    offset = _require_offset(quantized.offset)
    for argument, part in (("absmax", nested), ("offset", offset)):
        require_device(argument, part, codes.device)
    entries = device_codebook(table, codes.device).entries
    if table.code_bits == 4:
        entries = _entries_of_bytes(entries, codes)
    return NestedAbsmax(nested.contiguous(), codes.contiguous(), entries, offset, NESTED_BLOCK_SIZE)


def _entries_of_bytes(entries: Tensor, codes: Tensor) -> Tensor:
    """Return 16 entries for codes that fill a byte: on a CPU checked, elsewhere with NaN for those above 15.

    A look at the codes would wait for the device.
    """
    if codes.device.type != "cpu":
        return pad(entries, (0, 256 - entries.numel()), value=torch.nan)
    if codes.numel() and int(codes.max()) > 15:
        reject_value("codes", "codes from 0 to 15", int(codes.max()))
    return entries


def _require_offset(offset: Tensor) -> Tensor:
    values = require_dtype("offset", offset, torch.float32)
    if values.ndim != 0:
        reject_type("offset", "a 0-d float32 tensor", f"{values.ndim}-d")
    return values
