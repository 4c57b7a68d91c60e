"""A quantized tensor as the arguments of an operator: four tensors and five settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from re import fullmatch
from typing import Any

from torch import Tensor

from qloracle.errors import reject_value
from qloracle_gpu.torch.affine import QuantizedAffine
from qloracle_gpu.torch.blockwise import QuantizedBlocks
from qloracle_gpu.torch.double_quant import DoubleQuantized
from qloracle_gpu.torch.int8 import QuantizedInt8
from qloracle_gpu.torch.library.codebook_text import codebook_of, codebook_text
from qloracle_gpu.torch.nested_absmax import NESTED_CODEBOOK, QuantizedAbsmax
from qloracle_gpu.torch.qlora import QuantizedWeight, shape_of


@dataclass(frozen=True)
class FlatWeight:
    """What operators take instead of a record, in the order of their arguments."""

    codes: Tensor  # uint8 as stored, or int8 for INT8, or either for affine codes
    absmax: Tensor  # float32; of nested groups where the absmax of blocks are quantized; the scale of affine codes
    absmax_codes: Tensor | None  # uint8, one a block, of quantized absmax; int32, the zero points of affine codes
    offset: Tensor | None  # float32, 0-d, of quantized absmax
    codebook: str  # see `codebook_text`; "" for INT8; "QMIN..QMAX" for affine codes
    nested_codebook: str  # likewise, of quantized absmax
    granularity: str  # of INT8 and affine codes; "" for codes of a codebook
    block_size: int | None  # of flat blocks or groups
    shape: Sequence[int]

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The fields, one after the other."""
        return (self.codes, self.absmax, self.absmax_codes, self.offset, *self.settings)

    @property
    def settings(self) -> tuple[str, str, str, int | None, Sequence[int]]:
        """The fields that are no tensors."""
        return self.codebook, self.nested_codebook, self.granularity, self.block_size, self.shape


def flat_weight(record: QuantizedWeight) -> FlatWeight:
    """Return a record as operators take it.

    Raises
    ------
    ArgumentTypeError
        If it is no record of a quantized tensor.

    Examples
    --------
    >>> import torch
    >>> from qloracle_gpu.torch import quantize_blockwise
    >>> flat = flat_weight(quantize_blockwise(torch.ones(2, 4)))
    >>> torch.ops.qloracle.quantized_matmul(torch.eye(4), *flat.arguments).shape
    torch.Size([4, 2])
    """
    shape = shape_of(record)
    if isinstance(record, QuantizedInt8):
        settings = ("", "", record.granularity, record.block_size, shape)
        return FlatWeight(record.codes, record.absmax, None, None, *settings)
    if isinstance(record, QuantizedAffine):
        settings = (f"{record.qmin}..{record.qmax}", "", record.granularity, record.group_size, shape)
        return FlatWeight(record.codes, record.scale, record.zero_point, None, *settings)
    codebook = codebook_text(record.codebook)
    if isinstance(record, QuantizedBlocks):
        return FlatWeight(record.data, record.absmax, None, None, codebook, "", "", record.block_size, shape)
    nested, text = record.absmax, codebook_text(record.nested_codebook)
    parts = (record.data, nested.absmax, nested.codes, nested.offset)
    return FlatWeight(*parts, codebook, text, "", record.block_size, shape)


def record_of(flat: FlatWeight, dtype: str = "float32") -> QuantizedWeight:
    """Return the record of what operators took; `dtype` names the format of the original."""
    if flat.granularity and flat.codebook:
        return _affine_record(flat, dtype)
    if flat.granularity:
        return QuantizedInt8(flat.codes, flat.absmax, flat.granularity, flat.block_size, dtype)
    # Codes of a codebook always have a block size; its checks refuse what is none.
    size: Any = flat.block_size
    codebook, shape = codebook_of(flat.codebook), tuple(flat.shape)
    if flat.absmax_codes is None or flat.offset is None:
        return QuantizedBlocks(flat.codes, flat.absmax, codebook, size, shape, dtype)
    nested = QuantizedAbsmax(flat.absmax_codes, flat.absmax, flat.offset)
    return DoubleQuantized(
        flat.codes, nested, codebook, size, shape, dtype, codebook_of(flat.nested_codebook or NESTED_CODEBOOK)
    )


def _affine_record(flat: FlatWeight, dtype: str) -> QuantizedAffine:
    limits = fullmatch(r"(-?\d+)\.\.(-?\d+)", flat.codebook)
    if limits is None or flat.absmax_codes is None:
        rule = '"" for INT8, or QMIN..QMAX for affine codes, which have zero points'
        reject_value("codebook", rule, repr(flat.codebook))
    ends = int(limits[1]), int(limits[2])
    return QuantizedAffine(flat.codes, flat.absmax, flat.absmax_codes, *ends, flat.granularity, flat.block_size, dtype)
