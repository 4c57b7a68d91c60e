"""Right kernels: guesses that are decided exactly, other NaN, padded tails, other traversals, sorting, double."""

from fractions import Fraction
from typing import Any

import numpy as np

from qloracle.blocks import block_count
from qloracle.formats import Array, format_named
from qloracle.nested_absmax import quantize_absmax
from qloracle.rounding import encode
from qloracle.tables import codebook_named
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.adamw_kernel import Kernel, adamw_with
from qloracle_conformance.mutants.int8_faults import with_codes
from qloracle_conformance.mutants.kernels import packed
from qloracle_conformance.mutants.mutant import Rewrite

F = np.float32
NAN = np.array(0xFFC12345, np.uint32).view(F)  # quiet, negative, with a payload


def _padded_blocks(flat: Array, block_size: int) -> Array:
    """Return the absmax by a butterfly over blocks that are padded with zeros to a power of two."""
    width = 1 << max(0, block_size - 1).bit_length()
    blocks = np.zeros((block_count(flat.size, block_size), width), F)
    whole = np.zeros((len(blocks), block_size), F)
    whole.reshape(-1)[: flat.size] = np.abs(flat)
    blocks[:, :block_size] = whole
    while blocks.shape[1] > 1:
        blocks = np.maximum(blocks[:, : blocks.shape[1] // 2], blocks[:, blocks.shape[1] // 2 :])
    return np.where(np.isfinite(blocks[:, 0]), blocks[:, 0], NAN)


def _guessed(x: HostArray, *, codebook: str, block_size: int) -> Any:
    """Guess codes by a float32 reciprocal; decide exactly where the product is near a boundary, or no normal number."""
    flat, table = x.single().reshape(-1), codebook_named(codebook)
    absmax = _padded_blocks(flat, block_size)
    scale = np.repeat(absmax, block_size)[: flat.size]
    midpoints = table.midpoints
    with np.errstate(all="ignore"):
        product = flat * (F(1) / scale)
        guess = np.searchsorted(midpoints, product.astype(np.float64), side="left")
        edges = np.concatenate([[-np.inf], midpoints, [np.inf]])
        near = np.minimum(np.abs(product - edges[guess]), np.abs(edges[guess + 1] - product)) <= 2.0**-20
        doubtful = near | ~np.isfinite(product) | ~(np.abs(scale) > 2.0**-120) | ~(np.abs(scale) < 2.0**120)
        exact = np.searchsorted(midpoints, flat.astype(np.float64) / scale, side="left")
    usable = np.isfinite(scale) & (scale > 0)
    codes = np.where(usable, table.value_order[np.where(doubtful, np.minimum(exact, midpoints.size), guess)],
                     table.zero_code)  # fmt: skip
    return packed(codes.astype(np.uint8), codebook), host(absmax)


def _vector_and_tail(
    data: HostArray, absmax: HostArray, *, codebook: str, block_size: int, shape: tuple[int, ...], dtype: str
) -> HostArray:
    """Restore 16 elements at a time from the last vector to the first, the tail one by one, NaN negative."""
    table, size = codebook_named(codebook), int(np.prod(shape, dtype=np.int64))
    stored = data.items.reshape(-1)
    codes = np.stack([stored >> 4, stored & 15], axis=1).reshape(-1)[:size] if table.code_bits == 4 else stored
    values = np.empty(size, F)
    starts = [*range(size - size % 16, size), *reversed(range(0, size - size % 16, 16))]
    for start in starts:
        part = slice(start, start + (16 if start < size - size % 16 else 1))
        scale = absmax.items.reshape(-1)[np.arange(part.start, part.stop) // block_size]
        with np.errstate(all="ignore"):
            values[part] = np.where(scale == 0, F(0), table.entries[codes[part]] * scale)
    values = np.where(np.isnan(values), NAN, values)
    words = np.asarray(encode(values.reshape(shape), dtype))
    return host(words, dtype)


def _decoded_by_arithmetic(bits: HostArray, *, dtype: str) -> HostArray:
    """Build float32 numbers from sign, exponent and significand."""
    fmt = format_named(bits.dtype)
    if dtype != "float32" or fmt.code_bits > 16 or not (fmt.signed and fmt.subnormals) or fmt.numpy is None:
        result: HostArray = OPS["decode"](bits, dtype=dtype)
        return result
    words = bits.words().astype(np.int64)
    field = (words >> fmt.mantissa_bits) & ((1 << fmt.exponent_bits) - 1)
    significand = words & ((1 << fmt.mantissa_bits) - 1)
    implicit = (field > 0).astype(np.int64) << fmt.mantissa_bits
    exponent = np.maximum(field, 1) - fmt.bias - fmt.mantissa_bits
    size = np.ldexp((significand + implicit).astype(np.float64), exponent)
    top = field == (1 << fmt.exponent_bits) - 1
    size = np.where(top, np.where(significand == 0, np.inf, np.nan), size)
    return host(np.copysign(size, np.where(words & fmt.sign_bit, -1.0, 1.0)).astype(F))


def _int8_tiles(a: HostArray, b: HostArray) -> HostArray:
    """Add up tiles of 64 products in float64, the last tile first: exact below 2^53."""
    left, right = a.items.astype(np.float64), b.items.astype(np.float64).T
    acc = np.zeros((*a.shape[:-1], b.shape[0]))
    for k in reversed(range(0, a.shape[-1], 64)):
        acc = acc + left[..., k : k + 64] @ right[k : k + 64]
    return host(acc.astype(np.int64).astype(np.int32))


def _scaled_in_double(
    acc: HostArray, row_absmax: HostArray, column_absmax: HostArray, bias: HostArray | None, *, dtype: str
) -> HostArray:
    """Scale by the columns first, in float64; round once to float32, then to the output format."""
    with np.errstate(all="ignore"):
        y = acc.real() * (column_absmax.real() / 127) * (row_absmax.real()[:, np.newaxis] / 127)
        y = y if bias is None else y + bias.real()
        return host(np.asarray(encode(y.astype(F), dtype)), dtype)


def _inverse_127(x: Array, absmax: Array) -> Array:
    """Multiply by float32 127/absmax where that is a normal number, and divide elsewhere."""
    exact = np.rint(127 * x.astype(np.float64) / absmax)
    normal = (absmax > F(2.0**-110)) & (absmax < F(2.0**120))
    return np.where(normal, np.rint(x * (F(127) / absmax)), exact)


def _mean_by_fractions(absmax: HostArray, *, codebook: str) -> Any:
    """Take the mean of the absmax in rationals, and round it once."""
    finite = [Fraction(float(v)) for v in absmax.items if np.isfinite(v)]
    exact = sum(finite, Fraction(0)) / max(1, len(finite))
    near = float(exact)
    if Fraction(near) != exact and np.float64(near).view(np.int64) % 2 == 0:  # to odd, so that one rounding is left
        near = float(np.nextafter(near, np.inf if exact > Fraction(near) else -np.inf))
    nested = quantize_absmax(absmax.items, codebook=codebook, offset=F(near))
    return host(nested.codes), host(nested.absmax), host(np.asarray(nested.offset))


def _clip_by_reciprocal(first: HostArray, second: HostArray, *, max_norm: float) -> tuple[HostArray, ...]:
    """Scale by a power of two before the squares are added, in float64, and multiply by 1/norm."""
    joint = np.concatenate([first.real().reshape(-1), second.real().reshape(-1)])
    with np.errstate(all="ignore"):
        largest = np.max(np.abs(joint), initial=0.0)
        power = 2.0 ** np.frexp(largest)[1] if np.isfinite(largest) else 1.0
        norm = np.sqrt(np.sum(np.square(joint / power))) * power
        factor = max_norm * (1 / norm) if np.isfinite(norm) and norm > max_norm else 1.0
        return tuple(host(np.asarray(encode(t.real() * factor, t.dtype)), t.dtype) for t in (first, second))


def _shares_first(gradients: HostArray, counts: HostArray, *, reduction: str) -> HostArray:
    """Multiply every micro-batch by its share of all tokens in float64, then add."""
    real, total = gradients.real(), int(counts.items.sum())
    acc = np.zeros(real.shape[1:])
    with np.errstate(all="ignore"):
        for gradient, count in zip(real, counts.items.tolist(), strict=True):
            if count:
                acc = acc + gradient * ((count if reduction == "mean" else 1) / total)
        return host(np.asarray(encode(acc, gradients.dtype)), gradients.dtype)


def _observed_by_sorting(x: HostArray, *, granularity: str, group_size: int | None) -> Any:
    """Sort the whole input by value within each group, through its transpose where columns are observed."""
    if granularity != "column" or x.items.ndim != 2:
        return OPS["minmax_range"](x, granularity=granularity, group_size=group_size)
    turned = HostArray(np.ascontiguousarray(x.items.T)[::-1], x.dtype)
    lo, hi = OPS["minmax_range"](turned, granularity="row", group_size=None)
    return host(lo.items[::-1].copy()), host(hi.items[::-1].copy())


def kernel_rewrites() -> list[Rewrite]:
    """Return the right rewrites."""
    return [
        Rewrite("codes-guessed", "codes by a reciprocal, decided exactly near a boundary; absmax by a butterfly",
                {"quantize_blockwise": _guessed}, {}),
        Rewrite("values-in-vectors", "vectors from the last to the first, then a tail; another NaN",
                {"dequantize_blockwise": _vector_and_tail}, {}),
        Rewrite("decode-by-fields", "decoding by sign, exponent and significand",
                {"decode": _decoded_by_arithmetic}, {}),
        Rewrite("int8-matmul-in-double", "INT8 products added up in tiles, in float64",
                {"int8_matmul": _int8_tiles}, {}),
        Rewrite("int8-scaled-in-double", "columns first, in float64", {"scale_int8_matmul": _scaled_in_double}, {}),
        Rewrite("int8-inverse-at-tie", "codes by float32 127/absmax, claimed at level tie",
                {"quantize_int8": with_codes(_inverse_127)}, {"codes": "tie"}),
        Rewrite("offset-by-fractions", "the mean of the absmax in rationals",
                {"quantize_absmax": _mean_by_fractions}, {}),
        Rewrite("adamw-double", "AdamW in float64, each output rounded once", {"adamw_step": adamw_with(Kernel())}, {}),
        Rewrite("clip-by-reciprocal", "scaled squares in float64, and a reciprocal",
                {"clip_by_norm": _clip_by_reciprocal}, {}),
        Rewrite("accumulate-shares", "shares of all tokens first", {"accumulate_gradients": _shares_first}, {}),
        Rewrite("ranges-turned", "columns observed as the rows of the transpose, the last first",
                {"minmax_range": _observed_by_sorting}, {}),
    ]  # fmt: skip
