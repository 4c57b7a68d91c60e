"""Rounding float32 to an 8-bit format by one look into a table.

The numbers of a format with at most 6 mantissa bits, and the midpoints between them, have at most 7, and none lies
below float32's normal range. So the high half of a float32 (sign, exponent, 7 mantissa bits), and whether the low half
is zero, tell on which side of each of them it lies, and whether it is a NaN: 2^17 cases. A NaN keeps bits of its high
half alone.
"""

from functools import cache

import torch
from torch import Tensor

from qloracle.formats import FORMATS
from qloracle_gpu.torch.kernels.compiled_loops import loops_take, run_loop
from qloracle_gpu.torch.pieces import piece_size, spans, work_through
from qloracle_gpu.torch.rounding_rules import rounded_words

LARGEST_MANTISSA = 6  # bits


def write_float8(values: Tensor, fmt: str, rounding: str, overflow: str, nan: str, out: Tensor) -> None:
    """Write the words of a 1-d tensor of float32, float16 or bfloat16 to `out`, 1-d, uint8; no stochastic rounding."""
    table = _table(fmt, rounding, overflow, nan, values.device)

    def write_piece(span: slice) -> None:
        part = values[span].to(torch.float32)
        if loops_take(part):
            run_loop("encode_8bit", part.contiguous(), table, part.numel(), out[span])
            return
        words = part.view(torch.int32)
        index = (words >> 15) & 0x1FFFE
        index += (words & 0xFFFF) != 0
        torch.index_select(table, 0, index, out=out[span])

    work_through(spans(values.numel(), piece_size(values.device)), write_piece, values)


@cache
def _table(fmt: str, rounding: str, overflow: str, nan: str, device: torch.device) -> Tensor:
    """Return the word of every high half, for a low half of zero and for another."""
    with torch.device("cpu"):
        high, rest = torch.arange(1 << 16, dtype=torch.int64)[:, None] << 16, torch.arange(2)
        numbers = (high | rest).to(torch.int32).view(torch.float32).reshape(-1)
        return (
            rounded_words(numbers.to(torch.float64), FORMATS[fmt], rounding, overflow, nan, None)
            .to(torch.uint8)
            .to(device)
        )
