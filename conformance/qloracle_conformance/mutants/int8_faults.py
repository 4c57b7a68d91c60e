"""Faults of INT8 quantizers, of the integer matmul and of its scaling."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.groups import spread_groups
from qloracle.int8 import int8_absmax
from qloracle.rounding import encode
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.mutant import Mutant, Op

TILE = 64  # rows and columns that one thread block of the imagined matmul works on


def with_codes(code: Callable[[Array, Array], Array]) -> Op:
    """Return a quantizer that computes 127·x/absmax in its own way, given x and the absmax of its group."""

    def quantize(x: HostArray, *, granularity: str, block_size: int | None) -> Any:
        single = x.single()
        absmax = int8_absmax(single, granularity, block_size)
        scale = np.broadcast_to(spread_groups(absmax, single.shape, granularity, block_size), single.shape)
        usable = np.isfinite(scale) & (scale > 0)
        with np.errstate(all="ignore"):
            codes = np.where(usable, code(single, np.where(usable, scale, np.float32(1))), 0)
        return host(np.asarray(np.clip(np.nan_to_num(codes), -127, 127).astype(np.int8))), host(np.asarray(absmax))

    return quantize


def _by_inverse(x: Array, absmax: Array) -> Array:
    """Multiply by float32 127/absmax, which overflows for small absmax and rounds twice elsewhere."""
    return np.rint(x * (np.float32(127) / absmax))


def _by_128(x: Array, absmax: Array) -> Array:
    return np.rint(128 * x.astype(np.float64) / absmax)


def _rows_of_1024(x: HostArray, *, granularity: str, block_size: int | None) -> Any:
    """Reduce one element a thread with 1024 threads: longer rows are reduced in their first 1024 elements only."""
    right = OPS["quantize_int8"](x, granularity=granularity, block_size=block_size)
    if granularity != "row" or x.shape[-1] <= 1024:
        return right
    _, absmax = OPS["quantize_int8"](HostArray(x.items[..., :1024], x.dtype), granularity="row", block_size=None)
    scale = absmax.items[..., np.newaxis].astype(np.float64)
    with np.errstate(all="ignore"):
        codes = np.clip(np.nan_to_num(np.rint(127 * x.real() / scale)), -127, 127)
    return host(np.where(np.isfinite(scale), codes, 0).astype(np.int8)), absmax


def _constant_rounded(codes: HostArray, absmax: HostArray, **options: Any) -> Any:
    """Multiply by float32 1/127 instead of dividing by 127."""
    scale = spread_groups(absmax.items, codes.shape, options["granularity"], options["block_size"])
    with np.errstate(all="ignore"):
        values = np.asarray(codes.items.astype(np.float32) * scale * np.float32(1 / 127))
    values = np.where(values == 0, np.float32(0), values)
    return OPS["encode"](host(values), fmt=options["dtype"]) if options["dtype"] != "float32" else host(values)


def _square_as_stored(a: HostArray, b: HostArray) -> Any:
    """Take a square b for one that is already transposed."""
    return OPS["int8_matmul"](a, host(b.items.T) if b.shape[0] == b.shape[1] else b)


def _tail_of_k(a: HostArray, b: HostArray) -> Any:
    """Run over whole steps of 16 only, where K is longer than one tile."""
    inner = a.shape[-1]
    whole = inner - inner % 16 if inner > TILE else inner
    return OPS["int8_matmul"](host(a.items[..., :whole]), host(b.items[:, :whole]))


def _second_tile_unwritten(a: HostArray, b: HostArray) -> Any:
    acc = np.array(OPS["int8_matmul"](a, b).items)
    acc[..., TILE:] = 0
    return host(acc)


def _pairs_saturate(a: HostArray, b: HostArray) -> Any:
    """Add products in pairs of 16 bits, which saturate, as the multiply-add instruction for bytes does."""
    inner = a.shape[-1] - a.shape[-1] % 2
    left, right = a.items.astype(np.int32), b.items.astype(np.int32)
    acc = np.array(left[..., inner:] @ right[:, inner:].T)
    for k in range(0, inner, 2):
        acc += np.clip(left[..., k : k + 2] @ right[:, k : k + 2].T, -(2**15), 2**15 - 1)
    return host(acc.astype(np.int32))


def scaled_by(formula: Callable[[Array, Array, Array, Array], Array]) -> Op:
    """Return a scaling y(acc, row, column, bias), evaluated in float64."""

    def scale(
        acc: HostArray, row_absmax: HostArray, column_absmax: HostArray, bias: HostArray | None, *, dtype: str
    ) -> HostArray:
        shift = np.zeros(acc.shape[1]) if bias is None else bias.real()
        row, column = row_absmax.real()[:, np.newaxis], column_absmax.real()
        with np.errstate(all="ignore"):
            y = formula(acc.real(), row, column, shift)
        return host(np.asarray(encode(np.asarray(y), dtype)), dtype)

    return scale


def _bias_in_first_row(acc: Array, row: Array, column: Array, bias: Array) -> Array:
    y: Array = acc * row * column / 127**2 + bias * (np.arange(len(acc)) == 0)[:, np.newaxis]
    return y


def _bias_before_scales(acc: Array, row: Array, column: Array, bias: Array) -> Array:
    y: Array = (acc + bias) * row * column / 127**2
    return y


def _constant_short(acc: Array, row: Array, column: Array, bias: Array) -> Array:
    y: Array = acc * row * column * 6.2000e-05 + bias
    return y


def _nan_scale_dropped(acc: Array, row: Array, column: Array, bias: Array) -> Array:
    y: Array = acc * np.nan_to_num(row) * column / 127**2 + bias
    return y


def int8_faults() -> list[Mutant]:
    """Return the mutants of INT8."""
    quantize, matmul, scale = "quantize_int8", "int8_matmul", "scale_int8_matmul"
    products = [
        ("int8-square-as-stored", "a square right operand is not transposed", _square_as_stored),
        ("int8-k-tail-dropped", "the inner dimension is cut to a multiple of 16", _tail_of_k),
        ("int8-second-tile-unwritten", "columns from 64 on are never written", _second_tile_unwritten),
        ("int8-pairs-saturate", "pairs of products saturate at 16 bits", _pairs_saturate),
    ]
    scalings = [
        ("int8-bias-first-row", "the bias reaches the first row only", _bias_in_first_row),
        ("int8-bias-before-scales", "the bias is added to the accumulator", _bias_before_scales),
        ("int8-constant-short", "1/127² is written as 6.2000e-05", _constant_short),
        ("int8-nan-scale-dropped", "a row of scale NaN becomes a row of the bias", _nan_scale_dropped),
    ]
    return [
        Mutant("int8-by-inverse", "x is multiplied by float32 127/absmax", {quantize: with_codes(_by_inverse)},
               ("codes",)),
        Mutant("int8-by-128", "the scale is 128/absmax", {quantize: with_codes(_by_128)}, ("codes",)),
        Mutant("int8-rows-of-1024", "rows are reduced in their first 1024 elements", {quantize: _rows_of_1024},
               ("absmax",), operations="int8_row"),
        Mutant("int8-constant-rounded", "codes are multiplied by float32 1/127", {"dequantize_int8": _constant_rounded},
               ("values",)),
        *(Mutant(name, fault, {matmul: op}, ("acc",)) for name, fault, op in products),
        *(Mutant(name, fault, {scale: scaled_by(formula)}, ("y",)) for name, fault, formula in scalings),
    ]  # fmt: skip
