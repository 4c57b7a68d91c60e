"""Faults of products with a weight quantized in blocks: fused kernels, vector paths, scales, layouts of the weight."""

from collections.abc import Callable

import numpy as np

from qloracle.formats import Array
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.mutants.kernels import stored_items, to_bfloat16, to_tf32
from qloracle_conformance.mutants.mutant import Mutant
from qloracle_conformance.mutants.nested_product_faults import nested_product_faults
from qloracle_conformance.mutants.product_kernel import Product, product_by, right_product

TILE = 64


def _vector_path_short(p: Product) -> Array:
    """One row goes through a path whose 32 lanes read whole groups of 32."""
    kept = p.x.shape[1] - p.x.shape[1] % 32 if len(p.x) == 1 else p.x.shape[1]
    return p.x[:, :kept] @ p.weight[:, :kept].T + p.bias


def _without_last(p: Product) -> Array:
    return p.x[:, :-1] @ p.weight[:, :-1].T + p.bias


def _first_tile(p: Product) -> Array:
    """Rows from 16 on are never written by a tile of 16: they stay zero."""
    y = right_product(p)
    y[16:] = 0.0
    return y


def _columns_first_64(p: Product) -> Array:
    y = right_product(p)
    y[:, TILE:] = 0.0
    return y


def _square_turned(p: Product) -> Array:
    square = p.entries.shape[0] == p.entries.shape[1]
    return p.x @ (p.weight if square else p.weight.T) + p.bias


def _absmax_of_row_blocks(p: Product) -> Array:
    """Take the absmax of the block at the start of a row for the row's first block_size elements, and so on."""
    starts = np.minimum((np.arange(p.x.shape[1]) // p.block_size) * p.block_size, p.x.shape[1] - 1)
    with_rows = p.scale[:, starts]
    y: Array = p.x @ (p.entries * with_rows).T + p.bias
    return y


def _absmax_of_next(p: Product) -> Array:
    flat = np.roll(p.scale.reshape(-1), -1).reshape(p.scale.shape)
    y: Array = p.x @ (p.entries * flat).T + p.bias
    return y


def _one_absmax(p: Product) -> Array:
    return p.x @ (p.entries * p.scale.reshape(-1)[:1]).T + p.bias if p.scale.size else right_product(p)


def _weight_rounded(dtype: str) -> Callable[[Product], Array]:
    return lambda p: p.x @ p.narrow(p.weight, dtype).T + p.bias


def _entries_in_bfloat16(p: Product) -> Array:
    y: Array = p.x @ (p.narrow(p.entries, "bfloat16") * p.scale).T + p.bias
    return y


def _scale_in(dtype: str) -> Callable[[Product], Array]:
    return lambda p: p.x @ (p.entries * p.narrow(p.scale, dtype)).T + p.bias


def _partial_sums_narrow(p: Product) -> Array:
    starts = range(0, p.x.shape[1], TILE)
    parts = (p.narrow(p.x[:, k : k + TILE] @ p.weight[:, k : k + TILE].T) for k in starts)
    return sum(parts, np.zeros((len(p.x), len(p.entries)))) + p.bias


def _all_in_float16(p: Product) -> Array:
    """Accumulate in float16."""
    acc = np.zeros((len(p.x), len(p.entries)), np.float16)
    for k in range(p.x.shape[1]):
        acc += (p.x[:, k : k + 1] * p.weight[:, k]).astype(np.float16)
    return acc.astype(np.float64) + p.bias


def _product_in_dtype(p: Product) -> Array:
    return p.narrow(p.x @ p.weight.T) + p.bias


def _x_by(change: Callable[[Array], Array]) -> Callable[[Product], Array]:
    return lambda p: change(p.x.astype(np.float32)).astype(np.float64) @ p.weight.T + p.bias


def _flushed(p: Product) -> Array:
    x = np.where(np.abs(p.x) < (2.0**-14 if p.dtype == "float16" else 2.0**-126), 0.0, p.x)
    return x @ p.weight.T + p.bias


def _bias_flushed(p: Product) -> Array:
    smallest = 2.0**-14 if p.dtype == "float16" else 2.0**-126
    return p.x @ p.weight.T + np.where(np.abs(p.bias) < smallest, 0.0, p.bias)


def _bias_first_row(p: Product) -> Array:
    y: Array = p.x @ p.weight.T + p.bias * (np.arange(len(p.x)) == 0)[:, np.newaxis]
    return y


def _bias_in_float16(p: Product) -> Array:
    return p.x @ p.weight.T + p.bias.astype(np.float16).astype(np.float64)


def _bias_twice(p: Product) -> Array:
    y: Array = p.x @ p.weight.T + 2 * p.bias
    return y


def _nan_dropped(p: Product) -> Array:
    y: Array = np.nan_to_num(p.x, nan=0.0) @ np.nan_to_num(p.weight, nan=0.0).T + p.bias
    return y


def _poison_spread(p: Product) -> Array:
    """A NaN scale reaches all outputs."""
    return right_product(p) + np.where(np.any(np.isnan(p.scale)), np.nan, 0.0)


def _x_as_stored(x: HostArray, **rest: object) -> HostArray:
    """Read x as contiguous."""
    return product_by(right_product)["quantized_matmul"](x=HostArray(stored_items(x.items), x.dtype), **rest)


def product_faults() -> list[Mutant]:
    """Return the mutants of products with a weight quantized in blocks."""
    made: list[tuple[str, str, Callable[[Product], Array]]] = [
        ("vector-path-short", "a single row is multiplied in whole groups of 32", _vector_path_short),
        ("last-k-dropped", "the last element of the inner dimension is left out", _without_last),
        ("rows-from-16", "rows from 16 on are not written", _first_tile),
        ("columns-from-64", "outputs from 64 on are not written", _columns_first_64),
        ("square-turned", "a square weight is read as (d_in, d_out)", _square_turned),
        ("absmax-of-row-blocks", "blocks are counted from the start of each row", _absmax_of_row_blocks),
        ("absmax-of-next", "the last element of a block gets the next block's absmax", _absmax_of_next),
        ("one-absmax", "the first absmax serves all blocks", _one_absmax),
        ("weight-bfloat16", "the weight is rounded to bfloat16, undeclared", _weight_rounded("bfloat16")),
        ("weight-float16", "the weight is rounded to float16, undeclared", _weight_rounded("float16")),
        ("entries-bfloat16", "the table is rounded to bfloat16", _entries_in_bfloat16),
        ("absmax-bfloat16", "absmax are rounded to bfloat16", _scale_in("bfloat16")),
        ("absmax-float16", "absmax are rounded to float16", _scale_in("float16")),
        ("partial-sums", "the sum of each 64 products is rounded to the format of x", _partial_sums_narrow),
        ("float16-accumulator", "products are added up in float16", _all_in_float16),
        ("product-in-dtype", "x Wᵀ is rounded to the format of x before the bias", _product_in_dtype),
        ("x-bfloat16", "x is rounded to bfloat16", _x_by(to_bfloat16)),
        ("x-tf32", "x is rounded to TF32", _x_by(to_tf32)),
        ("x-flushed", "subnormals of x count as zero", _flushed),
        ("bias-flushed", "subnormals of the bias count as zero", _bias_flushed),
        ("bias-first-row", "the bias reaches the first row only", _bias_first_row),
        ("bias-float16", "the bias passes through float16", _bias_in_float16),
        ("bias-twice", "the bias is added twice", _bias_twice),
        ("nan-dropped", "NaN count as zero", _nan_dropped),
        ("poison-spreads", "one poisoned block poisons all outputs", _poison_spread),
    ]
    return [
        *(Mutant(f"matmul-{name}", fault, product_by(formula), ("y",)) for name, fault, formula in made),
        *nested_product_faults(),
        Mutant("matmul-x-as-stored", "x is read as contiguous", {"quantized_matmul": _x_as_stored}, ("y",)),
    ]
