"""Signatures of merges into quantized weights. Arguments are passed by name."""

from typing import Any, Protocol

Native = Any


class MergeBlocks(Protocol):
    """``merge_blocks``: dequantize, merge, quantize blockwise again. Clause [merge.requantize]."""

    def __call__(
        self, data: Native, absmax: Native, lora_a: Native, lora_b: Native, *, alpha: float, rank_stabilized: bool,
        fan_in_fan_out: bool, codebook: str, block_size: int, shape: tuple[int, int], dtype: str, scales: str,
    ) -> tuple[Native, Native]:  # fmt: skip
        """Return data and absmax; `dtype` is the format of the merged weight, `scales` is "fresh" or "kept"."""
        ...


class MergeDouble(Protocol):
    """``merge_double``: the same with absmax that are quantized themselves. Clause [merge.requantize]."""

    def __call__(
        self, data: Native, absmax_codes: Native, nested_absmax: Native, offset: Native, lora_a: Native,
        lora_b: Native, *, alpha: float, rank_stabilized: bool, fan_in_fan_out: bool, codebook: str, block_size: int,
        shape: tuple[int, int], dtype: str, scales: str,
    ) -> tuple[Native, Native, Native, Native]:  # fmt: skip
        """Return data, codes of the absmax, nested absmax and offset."""
        ...


class MergeInt8(Protocol):
    """``merge_int8``: the same for absmax INT8. Clause [merge.requantize]."""

    def __call__(
        self, codes: Native, absmax: Native, lora_a: Native, lora_b: Native, *, alpha: float, rank_stabilized: bool,
        fan_in_fan_out: bool, granularity: str, block_size: int | None, shape: tuple[int, int], dtype: str,
        scales: str,
    ) -> tuple[Native, Native]:  # fmt: skip
        """Return codes and absmax."""
        ...


class MergeAffine(Protocol):
    """``merge_affine``: the same for codes with scale and zero point. Clause [merge.requantize]."""

    def __call__(
        self, codes: Native, scale: Native, zero_point: Native, lora_a: Native, lora_b: Native, *, alpha: float,
        rank_stabilized: bool, fan_in_fan_out: bool, granularity: str, group_size: int | None, qmin: int, qmax: int,
        shape: tuple[int, int], dtype: str, scales: str,
    ) -> tuple[Native, Native, Native]:  # fmt: skip
        """Return codes, scale and zero point."""
        ...


class MergeBlocksOriginal(Protocol):
    """``merge_blocks_original``: merge into the weight as it was before quantizing. Clause [merge.original]."""

    def __call__(
        self, data: Native, absmax: Native, original: Native, lora_a: Native, lora_b: Native, *, alpha: float,
        rank_stabilized: bool, fan_in_fan_out: bool, codebook: str, block_size: int, shape: tuple[int, int],
        dtype: str, scales: str,
    ) -> tuple[Native, Native]:  # fmt: skip
        """Return data and absmax of the merged original; `data` and `absmax` are the weight that it replaces."""
        ...


class MergeBlocksCycles(Protocol):
    """``merge_blocks_cycles``: merge and unmerge in turn, with fresh scales. Clause [bounds.requantize_cycles]."""

    def __call__(
        self, data: Native, absmax: Native, lora_a: Native, lora_b: Native, *, alpha: float, rank_stabilized: bool,
        fan_in_fan_out: bool, codebook: str, block_size: int, shape: tuple[int, int], dtype: str, cycles: int,
    ) -> Native:  # fmt: skip
        """Return the dequantized values after the last unmerge, in `dtype`."""
        ...


PROTOCOLS: dict[str, type] = {
    "merge_blocks": MergeBlocks,
    "merge_double": MergeDouble,
    "merge_int8": MergeInt8,
    "merge_affine": MergeAffine,
    "merge_blocks_original": MergeBlocksOriginal,
    "merge_blocks_cycles": MergeBlocksCycles,
}
