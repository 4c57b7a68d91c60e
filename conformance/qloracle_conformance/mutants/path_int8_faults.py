"""INT8 and affine kernels that are wrong on one of their paths: split sums, single rows, squares, short groups."""

from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.rounding import decode, encode
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.affine_value_faults import values_by
from qloracle_conformance.mutants.int8_faults import scaled_by, with_codes
from qloracle_conformance.mutants.mutant import Mutant, Op
from qloracle_conformance.mutants.two_paths import Arguments, if_call, with_changed, with_items

F = np.float32


def _odd_rows_short(x: HostArray, arguments: Arguments) -> HostArray:
    """Leave the last element of bfloat16 rows of odd length out."""
    if x.dtype != "bfloat16" or not x.items.ndim or x.shape[-1] % 2 == 0 or x.shape[-1] == 1:
        return x
    items = np.array(x.items)
    items[..., -1] = 0
    return with_items(x, items)


def _absmax_of(change: Any) -> Op:
    """Return a quantizer whose absmax are those of a changed input; codes are right for the input itself."""

    def quantize(*, x: HostArray, **how: Any) -> Any:
        codes, _ = OPS["quantize_int8"](x, **how)
        return codes, OPS["quantize_int8"](change(x, how), **how)[1]

    return quantize


def _columns_in_32_rows(x: HostArray, arguments: Arguments) -> HostArray:
    """Reduce the columns after the last whole 32 in their first 32 rows."""
    if arguments["granularity"] != "column" or x.items.ndim != 2:
        return x
    items = np.array(x.items)
    items[32:, x.shape[1] - x.shape[1] % 32 :] = 0
    return with_items(x, items)


def _split_twice(*, a: HostArray, b: HostArray) -> Any:
    """Cut an odd inner dimension beyond 512 in two halves that share the element between them."""
    acc, inner = OPS["int8_matmul"](a, b).items, a.shape[-1]
    if inner <= 512 or inner % 2 == 0:
        return host(acc)
    middle = a.items[..., inner // 2].astype(np.int64)[..., np.newaxis] * b.items[:, inner // 2].astype(np.int64)
    return host((acc + middle).astype(np.int32))


def _splits_in_float32(*, a: HostArray, b: HostArray) -> Any:
    """Add the int32 sums of each 512 products in float32."""
    parts = [OPS["int8_matmul"](host(a.items[..., k : k + 512]), host(b.items[:, k : k + 512])).items.astype(F)
             for k in range(0, a.shape[-1], 512)]  # fmt: skip
    if len(parts) < 2:
        return OPS["int8_matmul"](a, b)
    total = np.add.reduce(parts, dtype=F)
    return host(np.clip(total.astype(np.float64), -(2**31), 2**31 - 1).astype(np.int32))


def _lowest_code(*, x: HostArray, **how: Any) -> Any:
    """Give the largest negative element the code −128."""
    codes, absmax = OPS["quantize_int8"](x, **how)
    return host(np.where(codes.items == -127, np.int8(-128), codes.items)), absmax


def _31_bits(*, a: HostArray, b: HostArray) -> Any:
    """Let the accumulator wrap one bit too early."""
    acc = OPS["int8_matmul"](a, b).items.astype(np.int64)
    return host(((acc + 2**30) % 2**31 - 2**30).astype(np.int32))


def _single_row(arguments: Arguments) -> bool:
    a = arguments["a"].items
    return bool(a.ndim and a.size // max(1, a.shape[-1]) == 1)


def _whole_fours(operand: HostArray, arguments: Arguments) -> HostArray:
    inner = operand.shape[-1]
    return host(operand.items[..., : inner - inner % 4]) if inner >= 4 else operand


def _row_as_column(acc: Array, row: Array, column: Array, bias: Array) -> Array:
    """Broadcast the scales of the rows along the columns, where the shapes allow it."""
    turned = row.T if acc.shape[0] == acc.shape[1] else row
    y: Array = acc * turned * column / 127**2 + bias
    return y


def _rows_modulo_32(acc: Array, row: Array, column: Array, bias: Array) -> Array:
    y: Array = acc * row[np.arange(len(row)) % 32] * column / 127**2 + bias
    return y


def _narrow_before_bias(*, dtype: str, **arguments: Any) -> Any:
    """Round to the output format, then add the bias in it."""
    bias = arguments["bias"]
    y = OPS["scale_int8_matmul"](**{**arguments, "bias": None}, dtype=dtype)
    if bias is None:
        return y
    with np.errstate(all="ignore"):
        shift = decode(encode(bias.real(), dtype), dtype)
        return host(np.asarray(encode(np.asarray(y.real() + shift), dtype)), dtype)


def _last_of_before(name: str, size: str) -> Op:
    """Return a function in which a short last group is read with the scale of the one before."""

    def change(array: HostArray, arguments: Arguments) -> HostArray:
        items, groups = np.array(array.items), arguments[size]
        if groups and items.ndim == 1 and items.size > 1 and arguments["codes"].items.size % groups:
            items[-1] = items[-2]
        return host(items)

    return with_changed("dequantize_int8" if size == "block_size" else "dequantize_affine", **{name: change})


def _signed_bytes(codes: Array, scale: Array, zero_point: Array) -> Array:
    """Read the zero points as signed bytes."""
    steps = codes.astype(np.int64) - zero_point.astype(np.int8)
    return np.where(steps == 0, 0.0, steps * scale.astype(np.float64))


def _zero_point_8(zero_point: HostArray, arguments: Arguments) -> HostArray:
    """Take every 4-bit zero point for 8."""
    return host(np.full_like(zero_point.items, 8)) if arguments["qmax"] == 15 else zero_point


def path_int8_faults() -> list[Mutant]:
    """Return the mutants."""
    quantize, matmul, scale = "quantize_int8", "int8_matmul", "scale_int8_matmul"
    single = if_call(matmul, _single_row, with_changed(matmul, a=_whole_fours, b=_whole_fours))
    return [
        Mutant("int8-odd-bfloat16", "the last element of bfloat16 rows of odd length does not count for the absmax",
               {quantize: _absmax_of(_odd_rows_short)}, ("absmax",)),
        Mutant("int8-columns-in-32-rows", "columns after the last whole 32 are reduced in their first 32 rows",
               {quantize: _absmax_of(_columns_in_32_rows)}, ("absmax",), operations="int8_column"),
        Mutant("int8-negative-half-up", "halves of negative codes go up", {quantize: with_codes(
            lambda x, a: np.where(x < 0, np.floor(127 * x.astype(np.float64) / a + 0.5),
                                  np.rint(127 * x.astype(np.float64) / a)))}, ("codes",)),
        Mutant("int8-last-block-of-before", "a short last block is restored with the absmax of the one before",
               {"dequantize_int8": _last_of_before("absmax", "block_size")}, ("values",), operations="int8_block"),
        Mutant("int8-lowest-code", "the largest negative element has the code -128", {quantize: _lowest_code},
               ("codes",)),
        Mutant("int8-accumulator-31-bits", "the accumulator has 31 bits", {matmul: _31_bits}, ("acc",)),
        Mutant("int8-split-twice", "both halves of a long odd inner dimension hold the element between them",
               {matmul: _split_twice}, ("acc",)),
        Mutant("int8-splits-in-float32", "sums of each 512 products are added in float32",
               {matmul: _splits_in_float32}, ("acc",)),
        Mutant("int8-single-row-fours", "a single row is multiplied in whole groups of 4", {matmul: single}, ("acc",)),
        Mutant("int8-row-as-column", "row scales of a square result go along its columns",
               {scale: scaled_by(_row_as_column)}, ("y",)),
        Mutant("int8-rows-modulo-32", "rows from 32 on take the scales of the first 32",
               {scale: scaled_by(_rows_modulo_32)}, ("y",)),
        Mutant("int8-narrow-before-bias", "the result is rounded to its format before the bias is added",
               {scale: _narrow_before_bias}, ("y",)),
        Mutant("affine-last-of-before", "a short last group is restored with the scale of the one before",
               {"dequantize_affine": _last_of_before("scale", "group_size")}, ("values",), operations="affine_group"),
        Mutant("affine-zero-point-8-bits", "zero points are read as signed bytes",
               {"dequantize_affine": values_by(_signed_bytes)}, ("values",)),
        Mutant("affine-zero-point-8", "every unsigned 4-bit zero point is taken for 8",
               {"dequantize_affine": with_changed("dequantize_affine", zero_point=_zero_point_8)}, ("values",)),
    ]  # fmt: skip
