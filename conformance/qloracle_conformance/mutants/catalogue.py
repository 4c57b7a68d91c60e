"""The catalogue of mutants, by what they break."""

from typing import Any

import numpy as np

from qloracle.blocks import block_absmax, poison, spread
from qloracle.formats import Array, from_bits
from qloracle.nested_absmax import QuantizedAbsmax, dequantize_absmax, quantize_absmax
from qloracle.rounding import encode
from qloracle.tables import codebook_named
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.adamw8bit_faults import adamw8bit_faults
from qloracle_conformance.mutants.adamw_faults import adamw_faults
from qloracle_conformance.mutants.adamw_limit_faults import adamw_limit_faults
from qloracle_conformance.mutants.affine_faults import affine_faults
from qloracle_conformance.mutants.affine_value_faults import affine_value_faults
from qloracle_conformance.mutants.block_faults import block_faults
from qloracle_conformance.mutants.code_faults import code_faults
from qloracle_conformance.mutants.conversion_faults import conversion_faults
from qloracle_conformance.mutants.decode_faults import decode_faults
from qloracle_conformance.mutants.dora_faults import dora_faults
from qloracle_conformance.mutants.embedding_faults import embedding_faults
from qloracle_conformance.mutants.footprint_faults import footprint_faults
from qloracle_conformance.mutants.format_faults import format_faults
from qloracle_conformance.mutants.gradient_faults import gradient_faults
from qloracle_conformance.mutants.int8_faults import int8_faults
from qloracle_conformance.mutants.int8_kernel_faults import int8_kernel_faults
from qloracle_conformance.mutants.kernels import (
    absmax_of_blocks,
    codes_by_division,
    codes_by_reciprocal,
    layer_with,
    packed,
    to_bfloat16,
    to_tf32,
    without_last,
)
from qloracle_conformance.mutants.layer_faults import layer_faults
from qloracle_conformance.mutants.llm_int8_faults import llm_int8_faults
from qloracle_conformance.mutants.lora_faults import lora_faults
from qloracle_conformance.mutants.merge_faults import merge_faults
from qloracle_conformance.mutants.mutant import Mutant
from qloracle_conformance.mutants.nested_absmax_faults import nested_absmax_faults
from qloracle_conformance.mutants.nested_faults import nested_faults
from qloracle_conformance.mutants.observer_faults import observer_faults
from qloracle_conformance.mutants.out_faults import out_faults
from qloracle_conformance.mutants.paging_faults import paging_faults
from qloracle_conformance.mutants.path_faults import path_faults
from qloracle_conformance.mutants.placing_faults import placing_faults
from qloracle_conformance.mutants.product_faults import product_faults
from qloracle_conformance.mutants.quantized_linear_faults import quantized_linear_faults
from qloracle_conformance.mutants.quantizer_faults import quantizer_faults
from qloracle_conformance.mutants.range_faults import range_faults
from qloracle_conformance.mutants.rare_layer_faults import rare_layer_faults
from qloracle_conformance.mutants.rare_optimizer_faults import rare_optimizer_faults
from qloracle_conformance.mutants.requantize_faults import requantize_faults
from qloracle_conformance.mutants.restore_faults import restore_faults
from qloracle_conformance.mutants.sequence_faults import sequence_faults
from qloracle_conformance.mutants.start_faults import start_faults
from qloracle_conformance.mutants.stochastic_faults import stochastic_faults
from qloracle_conformance.mutants.storage_faults import storage_faults
from qloracle_conformance.mutants.table_faults import table_faults
from qloracle_conformance.mutants.trajectory_faults import trajectory_faults
from qloracle_conformance.mutants.turned_faults import turned_faults

LENGTHS = (64, 1024, 11008)
OPERANDS = ("dy", "x", "weight", "lora_a", "lora_b")
TERMS = ("base", "adapter", "scale", "whole")


def _quantized(x: HostArray, codebook: str, block_size: int, absmax: Array, side: str = "left") -> Any:
    codes = codes_by_division(x.single().reshape(-1), absmax, codebook, block_size, side)
    return packed(codes, codebook), host(absmax)


def _truncated(values: HostArray, *, fmt: str) -> HostArray:
    if fmt != "bfloat16":
        return OPS["encode"](values, fmt=fmt)  # type: ignore[no-any-return]
    words = values.words() >> 16
    nan = np.isnan(values.items)
    return host(np.where(nan, words | 0x40, words).astype(np.uint16), fmt)


def _flushed(values: HostArray, *, fmt: str) -> HostArray:
    smallest = 2.0**-14 if fmt == "float16" else 2.0**-126
    flushed = np.where(np.abs(values.items) < smallest, np.copysign(np.float32(0), values.items), values.items)
    return OPS["encode"](host(flushed), fmt=fmt)  # type: ignore[no-any-return]


def _swapped_nibbles(x: HostArray, *, codebook: str, block_size: int) -> Any:
    data, absmax = _quantized(x, codebook, block_size, block_absmax(x.single(), block_size))
    if codebook_named(codebook).code_bits == 4:
        data = host(((data.items << 4) | (data.items >> 4)).astype(np.uint8))
    return data, absmax


def _rows_as_blocks(x: HostArray, *, codebook: str, block_size: int) -> Any:
    """Start a new block at every row, as a kernel with one grid row for each matrix row does."""
    if x.items.ndim < 2 or x.items.size == 0:
        return OPS["quantize_blockwise"](x, codebook=codebook, block_size=block_size)
    rows = x.single().reshape(-1, x.shape[-1])
    absmax = [absmax_of_blocks(row, block_size) for row in rows]
    codes = [codes_by_division(row, a, codebook, block_size) for row, a in zip(rows, absmax, strict=True)]
    return packed(np.concatenate(codes), codebook), host(np.concatenate(absmax))


def _reciprocal(x: HostArray, *, codebook: str, block_size: int) -> Any:
    absmax = block_absmax(x.single(), block_size)
    codes = codes_by_reciprocal(x.single().reshape(-1), absmax, codebook, block_size)
    return packed(codes, codebook), host(absmax)


def _ties_up(x: HostArray, *, codebook: str, block_size: int) -> Any:
    return _quantized(x, codebook, block_size, block_absmax(x.single(), block_size), side="right")


def _nan_dropped(x: HostArray, *, codebook: str, block_size: int) -> Any:
    flat = x.single().reshape(-1)
    with np.errstate(invalid="ignore"):
        return _quantized(x, codebook, block_size, block_absmax(np.where(np.isnan(flat), 0, flat), block_size))


def _stale_tail(x: HostArray, *, codebook: str, block_size: int) -> Any:
    """Reduce the last short block over a full block of lanes, whose unused ones still hold the block before."""
    flat = x.single().reshape(-1)
    absmax = block_absmax(flat, block_size)
    if len(absmax) > 1 and flat.size % block_size:
        lanes = flat[-2 * block_size + block_size - flat.size % block_size :][:block_size]
        absmax[-1] = block_absmax(np.concatenate([lanes, flat[-(flat.size % block_size) :]]), 2 * block_size)[0]
    return _quantized(x, codebook, block_size, absmax)


def _zeroes_input(x: HostArray, *, codebook: str, block_size: int) -> Any:
    result = OPS["quantize_blockwise"](x, codebook=codebook, block_size=block_size)
    if x.items.size:
        x.items[...] = 0
    return result


def _table_cast_first(data: HostArray, absmax: HostArray, *, dtype: str, **options: Any) -> HostArray:
    """Round absmax to the output format before the product, as a kernel that works in the compute dtype does."""
    narrow = from_bits(encode(absmax.items, dtype), dtype)
    single = HostArray(narrow, dtype).single()
    return OPS["dequantize_blockwise"](data, host(single), dtype=dtype, **options)  # type: ignore[no-any-return]


def _half_away(x: HostArray, *, granularity: str, block_size: int | None) -> Any:
    _, absmax = OPS["quantize_int8"](x, granularity=granularity, block_size=block_size)
    per_element = _spread(absmax.items, x.shape, granularity, block_size).astype(np.float64)
    with np.errstate(all="ignore"):
        quotient = np.nan_to_num(127 * x.single().astype(np.float64) / per_element, nan=0.0, posinf=0.0, neginf=0.0)
    codes = np.sign(quotient) * np.floor(np.abs(quotient) + 0.5)
    return host(np.where(np.isfinite(per_element), codes, 0).astype(np.int8)), absmax


def _spread(absmax: Array, shape: tuple[int, ...], granularity: str, block_size: int | None) -> Array:
    if granularity == "block" and block_size is not None:
        return spread(absmax, int(np.prod(shape, dtype=np.int64)), block_size).reshape(shape)
    return absmax[..., np.newaxis] if granularity == "row" else absmax


def _float32_accumulator(a: HostArray, b: HostArray) -> HostArray:
    product = a.items.astype(np.float32)[..., np.newaxis, :] * b.items.astype(np.float32)
    acc = np.cumsum(product, axis=-1, dtype=np.float32)[..., -1:] if product.shape[-1] else product
    return host(acc.sum(axis=-1).astype(np.int64).astype(np.int32))


def _scales_swapped(
    acc: HostArray, row_absmax: HostArray, column_absmax: HostArray, bias: HostArray | None, *, dtype: str
) -> HostArray:
    rows, columns = acc.shape
    row, column = np.resize(column_absmax.items, rows), np.resize(row_absmax.items, columns)
    return OPS["scale_int8_matmul"](acc, host(row), host(column), bias, dtype=dtype)  # type: ignore[no-any-return]


def _bias_in_half(
    acc: HostArray, row_absmax: HostArray, column_absmax: HostArray, bias: HostArray | None, *, dtype: str
) -> HostArray:
    half = None if bias is None else host(bias.single().astype(np.float16))
    return OPS["scale_int8_matmul"](acc, row_absmax, column_absmax, half, dtype=dtype)  # type: ignore[no-any-return]


def _offset_rounded_twice(absmax: HostArray, *, codebook: str) -> Any:
    finite = absmax.items[np.isfinite(absmax.items)]
    mean = np.float32(np.mean(finite.astype(np.float64))) if finite.size else np.float32(0)
    nested = quantize_absmax(absmax.items, codebook=codebook, offset=mean)
    return host(nested.codes), host(nested.absmax), host(np.asarray(nested.offset))


def _nested_clamped(
    absmax_codes: HostArray, nested_absmax: HostArray, offset: HostArray, *, codebook: str
) -> HostArray:
    record = QuantizedAbsmax(absmax_codes.items, nested_absmax.items, np.float32(offset.items))
    return host(np.maximum(dequantize_absmax(record, codebook=codebook), np.float32(0)))


def _nested_all_poisoned(absmax: HostArray, *, codebook: str) -> Any:
    """Take the mean over all blocks, so that one poisoned block poisons every group."""
    offset = np.float32(np.nan) if np.any(np.isnan(poison(absmax.items))) else None
    nested = quantize_absmax(absmax.items, codebook=codebook, offset=offset)
    return host(nested.codes), host(nested.absmax), host(np.asarray(nested.offset))


def _alpha_unscaled(**arguments: Any) -> Any:
    return OPS["lora_forward"](**{**arguments, "alpha": arguments["alpha"] * arguments["lora_a"].shape[0]})


def _mask_forgotten_in_dx(**arguments: Any) -> Any:
    """Leave the mask out of the gradient of x, as a kernel that recomputes nothing does."""
    right = OPS["lora_backward"](**arguments)
    unmasked = OPS["lora_backward"](**{**arguments, "mask": None, "dropout": 0.0})
    return (unmasked[0], *right[1:])


def _accumulated_scale_on_a_only(**arguments: Any) -> Any:
    """Scale the gradient of A but not that of B."""
    gradients = OPS["lora_backward"](**arguments)
    plain = OPS["lora_backward"](**{**arguments, "alpha": float(arguments["lora_a"].shape[0])})
    return (*gradients[:2], plain[2], *gradients[3:])


def catalogue() -> list[Mutant]:
    """Return all mutants."""
    forward = ("lora_forward",)
    operands = [
        ("operands-bfloat16", "operands are rounded to bfloat16 before the product", to_bfloat16, OPERANDS),
        ("operands-tf32", "operands are rounded to TF32 before the product", to_tf32, OPERANDS),
        ("last-k-dropped", "the last element of the inner dimension is not multiplied", without_last, ("x",)),
    ]
    return [
        *(Mutant(name, fault, {f: layer_with(f, names, change) for f in forward}, TERMS, LENGTHS)
          for name, fault, change, names in operands),
        Mutant("nibbles-swapped", "the first code goes to the low nibble", {"quantize_blockwise": _swapped_nibbles},
               ("packing",), operations="nf4"),
        Mutant("rows-as-blocks", "every row starts a new block", {"quantize_blockwise": _rows_as_blocks}, ("absmax",)),
        Mutant("reciprocal-as-exact", "x * (1/absmax) in float32 is claimed as exact",
               {"quantize_blockwise": _reciprocal}, ("codes",), operations="nf4"),
        Mutant("midpoints-up", "an exact midpoint goes to the upper entry", {"quantize_blockwise": _ties_up},
               ("codes",)),
        Mutant("nan-dropped", "NaN does not reach the absmax of its block", {"quantize_blockwise": _nan_dropped},
               ("absmax",)),
        Mutant("stale-tail", "the absmax of the short last block covers elements of the block before",
               {"quantize_blockwise": _stale_tail}, ("absmax",)),
        Mutant("input-overwritten", "the input serves as scratch space", {"quantize_blockwise": _zeroes_input},
               ("inputs",)),
        Mutant("absmax-in-compute-dtype", "absmax is rounded to the output format before the product",
               {"dequantize_blockwise": _table_cast_first}, ("values",)),
        Mutant("bfloat16-truncated", "float32 to bfloat16 cuts the low half off", {"encode": _truncated}, ("bits",),
               operations="bfloat16"),
        Mutant("subnormals-flushed", "subnormals of the target become zero", {"encode": _flushed}, ("bits",)),
        Mutant("int8-half-away", "halves are rounded away from zero", {"quantize_int8": _half_away}, ("codes",)),
        Mutant("int8-float32-accumulator", "INT8 products are added up in float32",
               {"int8_matmul": _float32_accumulator}, ("acc",)),
        Mutant("int8-scales-swapped", "row and column scales are exchanged", {"scale_int8_matmul": _scales_swapped},
               ("y",)),
        Mutant("int8-bias-half", "the bias passes through float16", {"scale_int8_matmul": _bias_in_half}, ("y",)),
        Mutant("offset-rounded-twice", "the mean of the absmax is a float64 mean, rounded again",
               {"quantize_absmax": _offset_rounded_twice}, ("offset",)),
        Mutant("poison-spreads", "one poisoned block makes the offset NaN", {"quantize_absmax": _nested_all_poisoned},
               ("offset",)),
        Mutant("restored-absmax-clamped", "restored absmax below zero become zero",
               {"dequantize_absmax": _nested_clamped}, ("absmax",)),
        Mutant("alpha-unscaled", "alpha is used instead of alpha/r", {"lora_forward": _alpha_unscaled},
               ("scale", "whole")),
        Mutant("mask-forgotten-in-dx", "the dropout mask is missing from the gradient of x",
               {"lora_backward": _mask_forgotten_in_dx}, ("x",)),
        Mutant("scale-forgotten-in-db", "the gradient of B lacks alpha/r",
               {"lora_backward": _accumulated_scale_on_a_only}, ("lora_b",)),
        *conversion_faults(),
        *format_faults(),
        *range_faults(),
        *stochastic_faults(),
        *decode_faults(),
        *quantizer_faults(),
        *block_faults(),
        *code_faults(),
        *table_faults(),
        *storage_faults(),
        *restore_faults(),
        *nested_absmax_faults(),
        *nested_faults(),
        *int8_faults(),
        *quantized_linear_faults(),
        *observer_faults(),
        *affine_value_faults(),
        *llm_int8_faults(),
        *int8_kernel_faults(),
        *affine_faults(),
        *layer_faults(),
        *lora_faults(),
        *turned_faults(),
        *dora_faults(),
        *embedding_faults(),
        *product_faults(),
        *merge_faults(),
        *requantize_faults(),
        *start_faults(),
        *placing_faults(),
        *footprint_faults(),
        *adamw_faults(),
        *adamw_limit_faults(),
        *adamw8bit_faults(),
        *gradient_faults(),
        *paging_faults(),
        *trajectory_faults(),
        *sequence_faults(),
        *out_faults(),
        *path_faults(),
        *rare_layer_faults(),
        *rare_optimizer_faults(),
    ]  # fmt: skip
