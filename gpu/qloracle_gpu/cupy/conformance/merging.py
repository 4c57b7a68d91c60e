"""Starting, combining and merging adapters of the suite by means of the public functions."""

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import qloracle_gpu.cupy as q
from qloracle.errors import ArgumentValueError
from qloracle_gpu.cupy.conformance.layers import affine_record, blocks_record, double_record, int8_record
from qloracle_gpu.cupy.conformance.operations import Native, native
from qloracle_gpu.cupy.launcher import Array, operation
from qloracle_gpu.cupy.qlora import dequantized

MERGING = ("alpha", "rank_stabilized", "fan_in_fan_out")


def _single(operand: Native) -> Array:
    """Return an operand as float32: an adapter may have another format than the weight."""
    return q.encode(operand.array, "float32", source=operand.dtype).view("float32")


def _lora_merge(weight: Native, lora_a: Native, lora_b: Native, **options: Any) -> Native:
    merged = q.lora_merge(weight.array, _single(lora_a), _single(lora_b), **options, fmt=weight.dtype)
    return Native(merged, weight.dtype)


def _lora_unmerge(weight: Native, lora_a: Native, lora_b: Native, **options: Any) -> Native:
    found = q.lora_unmerge(weight.array, _single(lora_a), _single(lora_b), **options, fmt=weight.dtype)
    return Native(found, weight.dtype)


def _lora_merge_safe(weight: Native, **rest: Any) -> tuple[Native, Native]:
    try:
        merged, done = _lora_merge(weight, **rest, safe=True), True
    except ArgumentValueError:
        merged, done = weight, False
    with operation("lora_merge_safe") as run:
        flag = run.empty((), "bool")
        flag[...] = done
        return merged, native(flag)


def _lora_merge_cycles(weight: Native, *, cycles: int, **rest: Any) -> Native:
    for _ in range(cycles):
        weight = _lora_unmerge(_lora_merge(weight, **rest), **rest)
    return weight


def _merge_bias(base_bias: Native, lora_bias: Native, **options: Any) -> Native:
    return Native(q.merge_bias(base_bias.array, _single(lora_bias), **options, fmt=base_bias.dtype), base_bias.dtype)


def _dora_merge(
    weight: Native, magnitude: Native, lora_a: Native, lora_b: Native, **options: Any
) -> tuple[Native, Native]:
    arrays = (weight.array, _single(lora_a), _single(lora_b), _single(magnitude))
    merged = q.dora_merge(*arrays, **options, fmt=weight.dtype)
    return Native(merged.weight, weight.dtype), native(merged.norms)


def _dora_unmerge(
    weight: Native, norms: Native, magnitude: Native, lora_a: Native, lora_b: Native, **options: Any
) -> Native:
    state, arrays = q.MergedDora(weight.array, norms.array), (_single(lora_a), _single(lora_b), _single(magnitude))
    return Native(q.dora_unmerge(state, *arrays, **options, fmt=weight.dtype), weight.dtype)


def _arrays_of(weight: Any) -> tuple[Native, ...]:
    """Return the arrays of a record in the order in which the suite names them."""
    parts: tuple[Array, ...]
    match weight:
        case q.QuantizedBlocks():
            parts = (weight.data, weight.absmax)
        case q.DoubleQuantized():
            parts = (weight.data, weight.absmax.codes, weight.absmax.absmax, weight.absmax.offset)
        case q.QuantizedInt8():
            parts = (weight.codes, weight.absmax)
        case _:
            parts = (weight.codes, weight.scale, weight.zero_point)
    return tuple(native(part) for part in parts)


def _merge_of(record_of: Callable[..., Any]) -> Callable[..., tuple[Native, ...]]:
    def merge(*, lora_a: Native, lora_b: Native, scales: str, dtype: str, **rest: Any) -> tuple[Native, ...]:
        weight, options = record_of(rest, dtype), {name: rest[name] for name in MERGING}
        return _arrays_of(q.merge_requantize(weight, _single(lora_a), _single(lora_b), scales=scales, **options))

    return merge


def _merge_original(
    *, original: Native, lora_a: Native, lora_b: Native, scales: str, dtype: str, **rest: Any
) -> tuple[Native, ...]:
    like, options = blocks_record(rest, dtype), {name: rest[name] for name in MERGING}
    arrays = (original.array, like, _single(lora_a), _single(lora_b))
    return _arrays_of(q.merge_into_original(*arrays, fmt=original.dtype, scales=scales, **options))


def _merge_cycles(*, lora_a: Native, lora_b: Native, cycles: int, dtype: str, **rest: Any) -> Native:
    weight, options = blocks_record(rest, dtype), {name: rest[name] for name in MERGING}
    adapter = (_single(lora_a), _single(lora_b))
    for _ in range(cycles):
        merged = q.merge_requantize(weight, *adapter, **options)
        unmerged = q.lora_unmerge(dequantized(merged), *adapter, fmt=dtype, **options)
        weight = q.quantize_like(unmerged, merged, fmt=dtype)  # type: ignore[assignment]
    return Native(q.dequantize_blockwise(weight), dtype)


def _lora_init(draws: Native, *, d_out: int, dtype: str, **options: Any) -> tuple[Native, Native]:
    made = q.lora_init(draws.array, d_out, **options, fmt=dtype)
    return Native(made.lora_a, dtype), Native(made.lora_b, dtype)


def _embedding_init(draws: Native, *, num_embeddings: int, dtype: str) -> tuple[Native, Native]:
    made = q.embedding_init(draws.array, num_embeddings, fmt=dtype)
    return Native(made.lora_a, dtype), Native(made.lora_b, dtype)


def _adapters(lora_a: Native, lora_b: Native, options: dict[str, Any]) -> list[q.LoraAdapter]:
    ends = accumulate(options["ranks"])
    parts = zip(options["ranks"], ends, options["alphas"], options["stabilized"], strict=True)
    return [
        q.LoraAdapter(lora_a.array[end - r : end], lora_b.array[:, end - r : end], alpha, root, lora_a.dtype)
        for r, end, alpha, root in parts
    ]


def _combine_adapters(lora_a: Native, lora_b: Native, *, weights: tuple[float, ...], **options: Any) -> Native:
    return Native(q.combine_adapters(_adapters(lora_a, lora_b, options), weights), lora_a.dtype)


def _concatenate_adapters(
    lora_a: Native, lora_b: Native, *, weights: tuple[float, ...], **options: Any
) -> tuple[Native, Native]:
    made = q.concatenate_adapters(_adapters(lora_a, lora_b, options), weights, fmt=lora_a.dtype)
    return Native(made.lora_a, lora_a.dtype), Native(made.lora_b, lora_a.dtype)


ADAPTERS: dict[str, Callable[..., Any]] = {
    "lora_merge": _lora_merge,
    "lora_unmerge": _lora_unmerge,
    "lora_merge_safe": _lora_merge_safe,
    "lora_merge_cycles": _lora_merge_cycles,
    "merge_bias": _merge_bias,
    "dora_merge": _dora_merge,
    "dora_unmerge": _dora_unmerge,
    "merge_blocks": _merge_of(blocks_record),
    "merge_double": _merge_of(double_record),
    "merge_int8": _merge_of(int8_record),
    "merge_affine": _merge_of(affine_record),
    "merge_blocks_original": _merge_original,
    "merge_blocks_cycles": _merge_cycles,
    "lora_init": _lora_init,
    "embedding_init": _embedding_init,
    "combine_adapters": _combine_adapters,
    "concatenate_adapters": _concatenate_adapters,
}
