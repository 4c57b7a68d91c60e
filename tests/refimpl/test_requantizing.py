"""[merge.requantize], [merge.original] and their bounds: an adapter merged into every kind of quantized weight."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from qloracle import (
    DoubleQuantized,
    QuantizedBlocks,
    QuantizedInt8,
    dequantize_affine,
    dequantize_blockwise,
    dequantize_double,
    dequantize_int8,
    encode,
    lora_merge,
    lora_unmerge,
    merge_into_original,
    merge_requantize,
    quantize_affine,
    quantize_blockwise,
    quantize_double,
    quantize_int8,
    quantize_like,
)
from qloracle.bounds.cycles import merge_cycles_bound, requantize_cycles_bound
from qloracle.bounds.requantize import absmax_bound, code_bound, code_positions, merged_values_bound
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array
from qloracle.tables import CODEBOOKS
from qloracle.tracking.interval import Interval

from .evaluated_merges import evaluations, rational_merge
from .rationals import exact, int8_code, nearest_entry

QUANTIZERS: dict[str, Any] = {
    **{name: lambda x, name=name: quantize_blockwise(x, codebook=name, block_size=7) for name in CODEBOOKS},
    "nf4, one block": lambda x: quantize_blockwise(x, block_size=4096),
    "nf4 double": lambda x: quantize_double(x, block_size=4),
    "int8 row": lambda x: quantize_int8(x, granularity="row"),
    "int8 column": lambda x: quantize_int8(x, granularity="column"),
    "int8 tensor": quantize_int8,
    "int8 block": lambda x: quantize_int8(x, granularity="block", block_size=5),
    "affine": lambda x: quantize_affine(x, qmin=-8, qmax=7, granularity="row"),
    "affine group": lambda x: quantize_affine(x, qmin=0, qmax=255, granularity="group", group_size=6),
}
DEQUANTIZE: dict[type, Any] = {
    QuantizedBlocks: dequantize_blockwise, DoubleQuantized: dequantize_double, QuantizedInt8: dequantize_int8,
}  # fmt: skip


def operands(seed: int, d_out: int = 6, d_in: int = 9, rank: int = 3) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng([91, seed])
    return tuple(rng.standard_normal(s).astype(np.float32) for s in ((d_out, d_in), (rank, d_in), (d_out, rank)))  # type: ignore[return-value]


def values_of(record: Any) -> Array:
    values: Array = DEQUANTIZE.get(type(record), dequantize_affine)(record)
    return values


@pytest.mark.proof("merge.requantize", by="composition of the quantizer's own functions")
@pytest.mark.parametrize("kind", QUANTIZERS)
def test_a_requantized_merge_is_dequantize_merge_quantize(kind: str) -> None:
    weight, a, b = operands(1)
    base = QUANTIZERS[kind](weight)
    expected = QUANTIZERS[kind](lora_merge(values_of(base), a, b, alpha=2))
    got = merge_requantize(base, a, b, alpha=2)
    assert type(got) is type(base)
    for name, value in vars(expected).items():
        other = getattr(got, name)
        if name == "absmax" and isinstance(got, DoubleQuantized):
            assert all(np.array_equal(getattr(other, n), getattr(value, n)) for n in ("codes", "absmax", "offset"))
        else:
            assert np.array_equal(other, value), name
            assert getattr(other, "dtype", None) == getattr(value, "dtype", None), name


@pytest.mark.proof("merge.requantize", by="exact rationals")
@pytest.mark.parametrize("scales", ["fresh", "kept"])
def test_nf4_codes_of_a_merge_are_the_nearest_entries_of_the_real_sum(scales: str) -> None:
    rng = np.random.default_rng(4)
    weight = rng.choice([-1.0, 0.0, 1.0], (4, 10)).astype(np.float32) * 4
    a, b = rng.integers(-2, 3, (2, 10)).astype(np.float32), rng.integers(-2, 3, (4, 2)).astype(np.float32)
    base = quantize_blockwise(weight, block_size=8)
    got = merge_requantize(base, a, b, alpha=1, scales=scales)
    real = [v for row in rational_merge(weight, a, b, Fraction(1, 2)) for v in row]
    table = [exact(e) for e in CODEBOOKS["nf4"].entries]
    for block in range(5):
        part = real[8 * block : 8 * block + 8]
        absmax = max(map(abs, part)) if scales == "fresh" else exact(base.absmax[block])
        assert exact(got.absmax[block]) == absmax
        codes = [nearest_entry(v / absmax if absmax else Fraction(0), table) for v in part]
        assert code_positions(got)[8 * block : 8 * block + 8].tolist() == codes, f"block {block}"


@pytest.mark.proof("merge.original", by="exact rationals")
def test_int8_codes_of_a_merge_into_the_original_do_not_see_the_quantized_weight() -> None:
    rng = np.random.default_rng(5)
    weight = rng.integers(-50, 51, (5, 8)).astype(np.float32) / 16
    a, b = rng.integers(-2, 3, (2, 8)).astype(np.float32), rng.integers(-2, 3, (5, 2)).astype(np.float32)
    like = quantize_int8(weight, granularity="row")
    got = merge_into_original(weight, like, a, b, alpha=1)
    for o, row in enumerate(rational_merge(weight, a, b, Fraction(1, 2))):
        absmax = max(map(abs, row))
        assert exact(got.absmax[o]) == absmax
        assert got.codes[o].tolist() == [int8_code(v, absmax) if absmax else 0 for v in row]
    other = merge_requantize(like, a, b, alpha=1)
    assert not np.array_equal(other.absmax, got.absmax), "the two conventions differ by what quantizing lost"


@pytest.mark.proof("merge.original", by="composition of the quantizer's own functions")
@pytest.mark.parametrize("kind", QUANTIZERS)
def test_a_merge_into_the_original_is_a_merge_then_the_quantizer(kind: str) -> None:
    weight, a, b = operands(2)
    like, merged = QUANTIZERS[kind](weight), lora_merge(weight, a, b, alpha=2)
    got = merge_into_original(weight, like, a, b, alpha=2)
    assert np.array_equal(code_positions(got), code_positions(QUANTIZERS[kind](merged)))
    assert np.array_equal(values_of(got), values_of(QUANTIZERS[kind](merged)))


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_kept_scales_with_nothing_to_merge_change_no_value(kind: str) -> None:
    weight, a, b = operands(3)
    base = QUANTIZERS[kind](weight)
    assert np.array_equal(values_of(merge_requantize(base, a, 0 * b, alpha=2, scales="kept")), values_of(base))


@pytest.mark.parametrize("fmt", ["float16", "bfloat16"])
def test_format_and_shape_of_the_original_are_restored(fmt: str) -> None:
    weight, a, b = operands(4)
    stored = encode(weight, fmt)
    for quantize in (quantize_blockwise, quantize_double, quantize_int8, quantize_affine):
        base = quantize(stored, fmt=fmt)
        got = merge_requantize(base, a, b, alpha=2)
        assert got.dtype == fmt
        assert values_of(got).shape == weight.shape
        again = merge_into_original(stored, base, a, b, alpha=2, fmt=fmt, scales="kept")
        assert again.dtype == fmt


def test_a_poisoned_block_stays_poisoned_and_no_other() -> None:
    weight, a, b = operands(5)
    weight[0, 0] = np.nan
    got = merge_requantize(quantize_blockwise(weight, block_size=9), a, b, alpha=2)
    assert np.flatnonzero(np.isnan(got.absmax)).tolist() == [0]
    with pytest.raises(ArgumentValueError, match="the merged weight must be finite"):
        merge_requantize(quantize_blockwise(weight, block_size=9), a, b, alpha=2, safe=True)


@pytest.mark.proof("bounds.requantize", by="low-precision evaluations")
@pytest.mark.parametrize("kind", ["nf4", "fp4", "dynamic_signed", "int8 row", "int8 block", "affine", "affine group"])
def test_scales_and_codes_of_every_evaluation_are_inside(kind: str) -> None:
    for seed in range(4):
        weight, a, b = operands(seed)
        base = QUANTIZERS[kind](weight)
        interval = merged_values_bound(values_of(base), a, b, alpha=2.5, fmt="float32")
        for plan, got in list(evaluations(values_of(base), a, b, 2.5))[::5]:
            own = QUANTIZERS[kind](got.astype(np.float32))
            lo, hi = code_bound(interval, own)
            codes = code_positions(own)
            assert ((lo <= codes) & (codes <= hi)).all(), f"{kind}, {plan}"
            assert (hi - lo).max() <= 2, f"{kind}: the bound leaves {(hi - lo).max()} codes"
            if isinstance(own, QuantizedBlocks | QuantizedInt8):
                limits = absmax_bound(interval, own)
                assert limits.judged.all()
                assert ((limits.lo <= own.absmax) & (own.absmax <= limits.hi)).all(), f"{kind}, {plan}"
                assert (limits.hi <= limits.lo * (1 + 2.0**-18)).all(), "no wider than the sums are wrong"


@pytest.mark.proof("bounds.requantize", by="exact rationals")
def test_the_bound_of_an_absmax_is_that_of_its_largest_element() -> None:
    lo, hi = np.array([[-3.0, 1.0, -0.5]]), np.array([[-2.0, 1.5, 0.25]])
    like = quantize_blockwise(np.zeros((1, 3), np.float32), block_size=2)
    found = absmax_bound(Interval(lo, hi, np.array([[True, True, False]])), like)
    assert (found.lo.tolist(), found.hi.tolist(), found.judged.tolist()) == ([2, 0], [3, 0.5], [True, False])
    own = replace(like, absmax=np.array([3, 1], np.float32))
    table = [exact(e) for e in CODEBOOKS["nf4"].entries]
    positions = [
        [nearest_entry(exact(v) / a, table) for v, a in zip(end[0], (3, 3, 1), strict=True)] for end in (lo, hi)
    ]
    low, high = code_bound(Interval(lo, hi, np.ones((1, 3), np.bool_)), own)
    assert [low.tolist(), high.tolist()] == positions


def half_gap(entries: list[Fraction]) -> Fraction:
    return max(max(hi - lo for lo, hi in pairwise(entries)) / 2, 1 - entries[-1], entries[0] + 1)


@pytest.mark.proof("bounds.requantize_cycles", by="low-precision evaluations")
@pytest.mark.parametrize(
    "kind", ["nf4", "fp4", "dynamic_signed", "linear_signed_4bit", "nf4, one block", "int8 row", "int8 block"]
)
def test_ten_cycles_stay_inside(kind: str) -> None:
    for seed in range(3):
        weight, a, b = operands(seed)
        start = QUANTIZERS[kind](weight)
        state = start
        for cycle in range(1, 11):
            state = quantize_like(lora_merge(values_of(state), a, b, alpha=2), state)
            state = quantize_like(lora_unmerge(values_of(state), a, b, alpha=2), state)
            bound = requantize_cycles_bound(start, a, b, alpha=2, cycles=cycle)
            got = values_of(state).astype(np.float64)
            assert bound.judged.all()
            assert ((bound.lo <= got) & (got <= bound.hi)).all(), f"{kind}, cycle {cycle}"


@pytest.mark.proof("bounds.requantize_cycles", by="exact rationals")
def test_the_first_cycle_is_bounded_by_two_half_gaps() -> None:
    # Δ = 0 in one block of absmax 1: each of the two quantizations moves by half the widest gap at most.
    weight = np.array([[1.0, 0.3]], np.float32)
    base = quantize_blockwise(weight)
    zero = np.zeros((1, 2), np.float32)
    bound = requantize_cycles_bound(base, zero, np.zeros((1, 1), np.float32), alpha=1, cycles=1)
    table = [exact(e) for e in CODEBOOKS["nf4"].entries]
    step = half_gap(table)
    radius = (exact(bound.hi[0, 1]) - exact(bound.lo[0, 1])) / 2
    # The second block maximum may be larger by the first step.
    assert 2 * step <= radius <= (2 * step + step * step) * (1 + Fraction(1, 10**5)), f"{float(radius / step)} gaps"


@pytest.mark.proof("bounds.requantize_cycles", by="the unquantized bound")
def test_the_bound_with_codes_contains_the_bound_without() -> None:
    weight, a, b = operands(7)
    base = quantize_int8(weight, granularity="row")
    plain = merge_cycles_bound(values_of(base), a, b, alpha=2, cycles=3)
    wide = requantize_cycles_bound(base, a, b, alpha=2, cycles=3)
    assert ((wide.lo <= plain.lo) & (plain.hi <= wide.hi)).all()
    none = requantize_cycles_bound(base, a, b, alpha=2, cycles=0)
    assert np.array_equal(none.lo, values_of(base))
    assert np.array_equal(none.hi, values_of(base))


@pytest.mark.proof("merge.requantize", by="PyTorch")
def test_an_int8_merge_is_what_torch_rounds_in_float64(torch: ModuleType) -> None:
    weight, a, b = operands(8)
    base = quantize_int8(weight, granularity="row")
    values = torch.from_numpy(values_of(base)).double()
    merged = torch.addmm(values, torch.from_numpy(b).double(), torch.from_numpy(a).double(), alpha=2 / 3).float()
    absmax = merged.abs().amax(dim=1)
    codes = torch.round(127 * merged.double() / absmax.double()[:, None])
    got = merge_requantize(base, a, b, alpha=2)
    assert np.array_equal(got.absmax, absmax.numpy())
    assert np.array_equal(got.codes, codes.to(torch.int8).numpy())


def test_bad_arguments_are_named() -> None:
    weight, a, b = operands(9)
    base = quantize_blockwise(weight)
    with pytest.raises(ArgumentTypeError, match="weight must be QuantizedBlocks"):
        merge_requantize(weight, a, b, alpha=1)  # type: ignore[arg-type]
    with pytest.raises(ArgumentValueError, match="weight must be a quantized 2-d tensor"):
        merge_requantize(quantize_blockwise(weight[0]), a, b, alpha=1)
    with pytest.raises(ArgumentValueError, match="scales must be one of"):
        merge_requantize(base, a, b, alpha=1, scales="new")
    with pytest.raises(ArgumentValueError, match="original must be float32 of shape"):
        merge_into_original(weight[:, :-1], base, a[:, :-1], b, alpha=1)
    with pytest.raises(ArgumentValueError, match="original must be float32 of shape"):
        merge_into_original(weight.astype(np.float16), base, a, b, alpha=1)
    with pytest.raises(ArgumentValueError, match="x must be of shape"):
        quantize_like(weight[0], base)
    with pytest.raises(ArgumentTypeError, match="weight must be"):
        requantize_cycles_bound(quantize_affine(weight), a, b, alpha=1, cycles=1)  # type: ignore[arg-type]
    with pytest.raises(ArgumentValueError, match="cycles must be an integer, 0 or more"):
        requantize_cycles_bound(base, a, b, alpha=1, cycles=-1)
