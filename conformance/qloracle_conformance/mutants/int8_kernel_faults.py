"""More faults of INT8 kernels: absmax of odd groups, codes at the ends, memory misread, scales in half."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.groups import reduce_groups, spread_groups
from qloracle.int8 import GRANULARITIES, int8_absmax, quantize_int8_codes
from qloracle.rounding import encode
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.int8_faults import scaled_by, with_codes
from qloracle_conformance.mutants.kernels import stored_items
from qloracle_conformance.mutants.mutant import Mutant, Op

F = np.float32


def with_absmax(absmax: Callable[[Array], Array]) -> Op:
    """Return a quantizer of another reduction over the rows of a matrix; codes are right for what it gives."""

    def quantize(x: HostArray, *, granularity: str, block_size: int | None) -> Any:
        single = x.single()

        def reduced(groups: Array) -> Array:
            return absmax(groups) if groups.shape[1] else np.zeros(len(groups), np.float32)

        with np.errstate(all="ignore"):
            found = reduce_groups(single, granularity, block_size, GRANULARITIES, reduced)
            found = np.asarray(found, np.float32)
            codes = quantize_int8_codes(single, spread_groups(found, single.shape, granularity, block_size))
        return host(np.asarray(codes)), host(found)

    return quantize


def _right(groups: Array) -> Array:
    return int8_absmax(groups, "row")


def _last_nan(groups: Array) -> Array:
    """Take the larger by `a > b ? a : b`, in which a NaN survives only where it comes last."""
    size = np.abs(groups)
    kept = np.where(np.isnan(size[:, :-1]), F(0), size[:, :-1])
    return int8_absmax(np.concatenate([kept, size[:, -1:]], axis=1), "row")


def _every_thread_once(groups: Array) -> Array:
    """Let 256 threads reduce one element each."""
    return _right(groups[:, :256])


def _spread_poison(x: HostArray, *, granularity: str, block_size: int | None) -> Any:
    """Poison every group of a tensor that holds a NaN."""
    codes, absmax = OPS["quantize_int8"](x, granularity=granularity, block_size=block_size)
    if not np.isnan(absmax.items).any():
        return codes, absmax
    return host(np.zeros_like(codes.items)), host(np.full_like(absmax.items, np.nan))


def _zero_divided(x: HostArray, *, granularity: str, block_size: int | None) -> Any:
    """Divide zeros by an absmax of zero, and convert the NaN to the smallest integer."""
    codes, absmax = OPS["quantize_int8"](x, granularity=granularity, block_size=block_size)
    spread = np.broadcast_to(spread_groups(absmax.items, codes.shape, granularity, block_size), codes.shape)
    return host(np.where(spread == 0, -128, codes.items).astype(np.int8)), absmax


def _zero_as_one(groups: Array) -> Array:
    """Store 1 as the absmax of zeros, so that nothing is divided by zero."""
    found = _right(groups)
    return np.where(found == 0, F(1), found)


def _sequential_inverse(x: Array, absmax: Array) -> Array:
    """Multiply by the reciprocal, which is infinite for the smallest absmax."""
    return np.rint(x * (F(1) / absmax) * F(127))


def _short_lanes(x: HostArray, *, granularity: str, block_size: int | None) -> Any:
    """Leave the codes after the last whole vector of 16 at 0, in rows longer than one."""
    codes, absmax = OPS["quantize_int8"](x, granularity=granularity, block_size=block_size)
    items = np.array(codes.items)
    if items.ndim and items.shape[-1] > 16:
        items[..., items.shape[-1] - items.shape[-1] % 16 :] = 0
    return host(items), absmax


def _dense(x: HostArray, **options: Any) -> Any:
    """Read a view as if it were dense."""
    return OPS["quantize_int8"](HostArray(stored_items(x.items), x.dtype), **options)


def _half_read_as_single(x: HostArray, **options: Any) -> Any:
    """Read bfloat16 words as float16."""
    return OPS["quantize_int8"](
        HostArray(x.items.view(np.float16), "float16") if x.dtype == "bfloat16" else x, **options
    )


def _through_half(x: HostArray, **options: Any) -> Any:
    """Cast the input to float16 first, which overflows at 65504."""
    with np.errstate(over="ignore", invalid="ignore"):
        return OPS["quantize_int8"](host(x.single().astype(np.float16)), **options)


def _row_for_column(x: HostArray, *, granularity: str, block_size: int | None) -> Any:
    """Index the absmax of a square matrix by the other axis."""
    codes, absmax = OPS["quantize_int8"](x, granularity=granularity, block_size=block_size)
    if x.items.ndim != 2 or x.shape[0] != x.shape[1] or granularity not in ("row", "column"):
        return codes, absmax
    wrong = absmax.items if granularity == "row" else absmax.items[:, np.newaxis]
    return host(quantize_int8_codes(x.single(), wrong)), absmax


def _unsigned(a: HostArray, b: HostArray) -> Any:
    """Take the magnitude of -128, which has none in 8 bits, and give it the sign of the product."""
    with np.errstate(over="ignore"):
        left, right = (np.abs(m.items).astype(np.int64) * np.sign(m.items.astype(np.int64)) for m in (a, b))
    return host((left @ right.T).astype(np.int32))


def _in_half(acc: Array, row: Array, column: Array, bias: Array) -> Array:
    """Let the accumulator pass through float16, where it overflows."""
    y: Array = acc.astype(np.float16).astype(np.float64) * row * column / 127**2 + bias
    return y


def _scaled_on_the_way(acc: Array, row: Array, column: Array, bias: Array) -> Array:
    """Multiply both absmax in float32 first, where they over- and underflow."""
    y: Array = acc * ((row.astype(F) * column.astype(F)) / F(127**2)).astype(np.float64) + bias
    return y


def _first_column_scale(acc: Array, row: Array, column: Array, bias: Array) -> Array:
    y: Array = acc * row * column[:1] / 127**2 + bias
    return y


def _through_half_result(acc: Array, row: Array, column: Array, bias: Array) -> Array:
    """Round the scaled product to float16 before the bias is added."""
    y: Array = (acc * row * column / 127**2).astype(np.float16).astype(np.float64) + bias
    return y


def _restored_by(formula: Callable[[Array, Array], Array]) -> Op:
    def restore(codes: HostArray, absmax: HostArray, *, dtype: str, **how: Any) -> Any:
        spread = spread_groups(absmax.items, codes.shape, how["granularity"], how["block_size"])
        with np.errstate(all="ignore"):
            values = np.asarray(formula(codes.items.astype(np.float64), spread.astype(np.float64))).astype(np.float32)
        return host(np.asarray(encode(values, dtype)), dtype)

    return restore


def int8_kernel_faults() -> list[Mutant]:
    """Return the mutants."""
    quantize, restore, matmul, scale = "quantize_int8", "dequantize_int8", "int8_matmul", "scale_int8_matmul"
    reductions: list[tuple[str, str, Callable[[Array], Array]]] = [
        ("int8-absmax-floor-1e-5", "the absmax is at least 1e-5", lambda g: np.maximum(_right(g), F(1e-5))),
        ("int8-absmax-floor-1e-38", "subnormal absmax become the smallest normal number",
         lambda g: np.where(_right(g) == 0, F(0), np.maximum(_right(g), F(2.0**-126)))),
        ("int8-nan-dropped", "a NaN does not reach the absmax", lambda g: _right(np.where(np.isnan(g), F(0), g))),
        ("int8-last-nan", "a NaN reaches the absmax only from the last place", _last_nan),
        ("int8-infinity-kept", "an infinity is the absmax", lambda g: np.abs(g).max(axis=1)),
        ("int8-infinity-dropped", "an infinity counts as the largest number",
         lambda g: _right(np.clip(g, -np.finfo(F).max, np.finfo(F).max))),
        ("int8-signed-maximum", "the maximum is taken without magnitudes",
         lambda g: np.abs(_right(np.maximum(g, F(0))))),
        ("int8-every-thread-once", "groups are reduced in their first 256 elements", _every_thread_once),
        ("int8-absmax-half", "the absmax passes through float16", lambda g: _right(g).astype(np.float16).astype(F)),
        ("int8-zero-as-one", "the absmax of zeros is 1", _zero_as_one),
    ]  # fmt: skip
    codes: list[tuple[str, str, Op]] = [
        ("int8-zero-divided", "zeros are divided by an absmax of zero", _zero_divided),
        ("int8-cut", "codes are cut to integers", with_codes(lambda x, a: np.trunc(127 * x.astype(np.float64) / a))),
        ("int8-half-up", "halves of codes go up",
         with_codes(lambda x, a: np.floor(127 * x.astype(np.float64) / a + 0.5))),
        ("int8-by-127.5", "the scale is 127.5/absmax",
         with_codes(lambda x, a: np.rint(127.5 * x.astype(np.float64) / a))),
        ("int8-by-reciprocal", "x is multiplied by float32 1/absmax", with_codes(_sequential_inverse)),
        ("int8-product-first", "127·x is rounded to float32 before it is divided",
         with_codes(lambda x, a: np.rint(F(127) * x / a))),
        ("int8-lanes-forgotten", "codes after the last whole vector of 16 are 0", _short_lanes),
        ("int8-row-for-column", "the absmax of a square matrix is indexed by the other axis", _row_for_column),
    ]  # fmt: skip
    inputs: list[tuple[str, str, Op]] = [
        ("int8-strides-ignored", "a view is read as if it were dense", _dense),
        ("int8-bfloat16-as-float16", "bfloat16 words are read as float16", _half_read_as_single),
        ("int8-through-float16", "the input is cast to float16", _through_half),
        ("int8-poison-spreads", "one NaN poisons every group", _spread_poison),
    ]  # fmt: skip
    values: list[tuple[str, str, Op]] = [
        ("int8-values-by-128", "codes are divided by 128", _restored_by(lambda q, a: q * a / 128)),
        ("int8-values-zero-sign", "zero codes and zero absmax give signed zeros",
         _restored_by(lambda q, a: q * a / 127)),
        ("int8-values-quotient-first", "absmax/127 is rounded before the product",
         _restored_by(lambda q, a: np.where(q * a == 0, 0.0, q * (a / 127).astype(F)))),
        ("int8-values-product-first", "code times absmax is rounded before the quotient, and may overflow",
         _restored_by(lambda q, a: np.where(q * a == 0, 0.0, (q * a).astype(F) / F(127)))),
    ]  # fmt: skip
    scalings: list[tuple[str, str, Any]] = [
        ("int8-acc-half", "the accumulator passes through float16", _in_half),
        ("int8-result-half", "the scaled product passes through float16", _through_half_result),
        ("int8-scales-multiplied-first", "row and column absmax are multiplied first, and may over- or underflow",
         _scaled_on_the_way),
        ("int8-first-column-scale", "every column has the scale of the first", _first_column_scale),
        ("int8-bias-twice", "the bias is added twice", lambda acc, r, c, b: acc * r * c / 127**2 + 2 * b),
        ("int8-bias-lost", "the bias is forgotten", lambda acc, r, c, b: acc * r * c / 127**2 + 0 * b),
        ("int8-scaled-by-128", "the constant is 1/128²", lambda acc, r, c, b: acc * r * c / 128**2 + b),
    ]  # fmt: skip
    return [
        *(Mutant(name, fault, {quantize: with_absmax(found)}, ("absmax",)) for name, fault, found in reductions),
        *(Mutant(name, fault, {quantize: op}, ("codes",)) for name, fault, op in codes),
        *(Mutant(name, fault, {quantize: op}, ("absmax", "codes")) for name, fault, op in inputs),
        *(Mutant(name, fault, {restore: op}, ("values",)) for name, fault, op in values),
        Mutant("int8-minus-128-signed", "the magnitude of -128 is taken in 8 bits", {matmul: _unsigned}, ("acc",)),
        *(Mutant(name, fault, {scale: scaled_by(formula)}, ("y",)) for name, fault, formula in scalings),
    ]  # fmt: skip
