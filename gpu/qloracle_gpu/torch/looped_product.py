"""Products of a few rows with a 4-bit weight on a CPU, by a C loop that reads the codes once and writes no weight."""

from math import prod

import torch
from torch import Tensor

from qloracle_gpu.torch.blocks import require_block_values
from qloracle_gpu.torch.blockwise import QuantizedBlocks, require_data
from qloracle_gpu.torch.codebooks import codebook_named, device_codebook
from qloracle_gpu.torch.double_quant import DoubleQuantized
from qloracle_gpu.torch.formats import require_device
from qloracle_gpu.torch.kernels.compiled_loops import has_loop, loops_take, run_loop
from qloracle_gpu.torch.nested_absmax import dequantize_absmax
from qloracle_gpu.torch.pieces import LOOP_PIECE, spans, work_through

MOST_ROWS = 16  # of more, a product with a dequantized weight is as fast
AT_ONCE = 32  # codes


def looped_product(x: Tensor, weight: QuantizedBlocks | DoubleQuantized, weight_rounding: str) -> Tensor | None:
    """Return x Wᵀ for a few rows, or None where the loop does not take them.

    Parameters
    ----------
    x : tensor of float32, float16 or bfloat16, shape (rows, d_in)
    weight : QuantizedBlocks or DoubleQuantized, shape (d_out, d_in)
        Of packed codes, in blocks that end where rows end.
    weight_rounding : str
        No loop rounds to float16.

    Returns
    -------
    tensor of float32, shape (rows, d_out), or None

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If the parts of the weight do not belong together, or lie on another device than x.
    """
    name, (d_out, d_in), block_size = f"product_4bit_{weight_rounding}", weight.shape, weight.block_size
    table = codebook_named(weight.codebook)
    whole = table.code_bits == 4 and block_size % AT_ONCE == 0 and d_in % block_size == 0
    if not (whole and 0 < len(x) <= MOST_ROWS and d_in * d_out and has_loop(name)):
        return None
    data = require_data(weight.data, table, weight.shape)
    if isinstance(weight, DoubleQuantized):
        stored = dequantize_absmax(weight.absmax, codebook=weight.nested_codebook)
    else:
        stored = weight.absmax
    absmax = require_block_values("absmax", stored, prod(weight.shape), block_size)
    for argument, part in (("data", data), ("absmax", absmax)):
        require_device(argument, part, x.device)
    if not loops_take(x, data, absmax):
        return None
    data, absmax, entries = data.contiguous(), absmax.contiguous(), device_codebook(table, x.device).entries
    # The even places first, as the loop has them after a look into one byte for each pair.
    rows = x.float().reshape(len(x), d_in // AT_ONCE, AT_ONCE // 2, 2).transpose(2, 3).contiguous()
    y = torch.empty(len(x), d_out, dtype=torch.float32)

    def multiply(outputs: slice) -> None:
        first, count = outputs.start * d_in, outputs.stop - outputs.start
        bytes_, scales = data[first // 2 :], absmax[first // block_size :]
        run_loop(name, bytes_, entries, scales, block_size, rows, len(x), d_in, count, y[:, outputs], d_out)

    work_through(spans(d_out, max(1, LOOP_PIECE // d_in)), multiply, data)
    return y
