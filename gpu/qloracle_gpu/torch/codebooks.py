"""The codebooks of the specification as tensors on a device; their tables stand in `qloracle.tables`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from qloracle import tables
from qloracle.codebooks import Codebook
from qloracle.errors import reject_value
from qloracle_gpu.torch.formats import float64_device
from qloracle_gpu.torch.nearest import NearestRule, cell_table


@dataclass(frozen=True)
class DeviceCodebook:
    """What quantizing and dequantizing with a codebook reads."""

    rule: NearestRule
    entries: Tensor  # float32, in code order
    pairs: Tensor | None  # for a 4-bit codebook: the two float32 entries of each byte, as one int64


def codebook_named(codebook: str | Codebook) -> Codebook:
    """Return the codebook of a name, or the given one itself.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `qloracle.tables.codebook_named`; if float64 quotients do not decide the codes of a given table.
    """
    table = tables.codebook_named(codebook)
    if not table.quotient_decides:
        reject_value("codebook", "a table whose midpoints have at most 29 significant bits", table.name)
    return table


@cache
def device_codebook(codebook: Codebook, device: torch.device) -> DeviceCodebook:
    """Return the tables of a codebook on a device, made once."""
    with torch.device("cpu"):
        entries = torch.tensor(codebook.entries)
        cells = cell_table(torch.tensor(codebook.midpoints), torch.tensor(codebook.value_order).to(torch.int16))
        pairs = _entry_pairs(entries).to(device) if codebook.code_bits == 4 else None
        rule = NearestRule(cells.to(device), _exact_rule(codebook, float64_device(device)))
        return DeviceCodebook(rule, entries.to(device), pairs)


def _entry_pairs(entries: Tensor) -> Tensor:
    """Return the two entries of every packed byte, the high nibble's first in memory."""
    byte = torch.arange(256)
    return torch.stack([entries[byte >> 4], entries[byte & 15]], dim=1).view(torch.int64).squeeze(1)


def _exact_rule(codebook: Codebook, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    midpoints = torch.tensor(codebook.midpoints).to(device)
    codes = torch.tensor(codebook.value_order).to(device, torch.int16)

    def exact(x: Tensor, absmax: Tensor) -> Tensor:
        # A quotient in float64 lies on the same side of every midpoint as the real one: lemma in `qloracle.nearest`.
        return codes[torch.bucketize((x / absmax).nan_to_num(0.0), midpoints)]

    return exact
