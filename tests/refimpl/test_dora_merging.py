"""[dora.merge], [dora.unmerge], [bounds.dora_merge]: rows of W + s B A brought to their magnitudes, and back."""

from fractions import Fraction
from types import ModuleType

import numpy as np
import pytest

from qloracle import decode, dora_forward, dora_merge, dora_norm, dora_unmerge, encode, lora_forward
from qloracle.bounds.dora_merge import dora_merge_bound
from qloracle.bounds.dora_unmerge import dora_unmerge_bound
from qloracle.dora_merging import MergedDora
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array
from qloracle.tracking.roundings import Roundings

from .evaluated_merges import PLANS, cases, evaluations, low_factor, merged, rational_merge
from .evaluations import ROUNDINGS
from .rationals import exact, round_word

# Rows of whole norms: 5, 3, 7, 15, and a row that cancels to zero.
ROWS = np.array([(3, 4, 0, 0), (1, 2, -2, 0), (2, 3, 6, 0), (2, -5, 14, 0), (0, 0, 0, 0)], np.float64)
NORMS = [5, 3, 7, 15, 0]
GAINS = np.array([2, -0.5, 3, 0, 4])
SCALES = [(16.0, 8, False, Fraction(2)), (8.0, 4, True, Fraction(4)), (-1.0, 2, False, Fraction(-1, 2))]


def layer(seed: int, rank: int, scale: Fraction) -> tuple[Array, Array, Array, Array]:
    rng = np.random.default_rng([81, seed])
    a, b = rng.integers(-2, 3, (rank, 4)), rng.integers(-2, 3, (5, rank))
    weight = ROWS - float(scale) * (b @ a)
    magnitude = np.where(np.array(NORMS) == 0, 9, np.array(NORMS) * GAINS)
    return tuple(np.asarray(m, np.float32) for m in (weight, a, b, magnitude))  # type: ignore[return-value]


@pytest.mark.proof("dora.merge", by="exact rationals")
@pytest.mark.parametrize("fmt", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("alpha", "rank", "stabilized", "scale"), SCALES)
def test_rows_of_whole_norms_are_scaled_exactly(
    alpha: float, rank: int, stabilized: bool, scale: Fraction, fmt: str
) -> None:
    weight, a, b, magnitude = layer(rank, rank, scale)
    stored = encode(weight, fmt)
    for fan in (False, True):
        given = np.ascontiguousarray(stored.T) if fan else stored
        got = dora_merge(given, a, b, magnitude, alpha=alpha, rank_stabilized=stabilized, fan_in_fan_out=fan, fmt=fmt)
        expected = np.zeros((5, 4), np.int64)
        for o, row in enumerate(rational_merge(decode(stored, fmt), a, b, scale)):
            norm = NORMS[o]
            gain = exact(magnitude[o]) / norm if norm else Fraction(0)
            expected[o] = [round_word(gain * v, fmt, negative=bool(v == 0 and gain < 0)) for v in row]
        words = np.ascontiguousarray(got.weight).view(np.uint32 if fmt == "float32" else np.uint16)
        zero = 0x7FFFFFFF if fmt == "float32" else 0x7FFF
        same = (words == (expected.T if fan else expected)) | ((words & zero) == 0)
        assert same.all(), f"{fmt}, fan_in_fan_out={fan}: {got.weight}"
        assert got.norms.tolist() == NORMS


@pytest.mark.proof("dora.merge", by="PyTorch")
def test_a_merge_is_what_torch_computes_in_float64(torch: ModuleType) -> None:
    rng = np.random.default_rng(6)
    weight, a, b, m = (rng.standard_normal(s).astype(np.float32) for s in ((7, 9), (3, 9), (7, 3), (7,)))
    w64, a64, b64, m64 = (torch.from_numpy(v).double() for v in (weight, a, b, m))
    rows = w64 + 8.0 / 3.0 * (b64 @ a64)
    norms = torch.linalg.norm(rows, dim=1)
    got = dora_merge(weight, a, b, m, alpha=8.0)
    assert np.array_equal(got.norms, norms.float().numpy())
    assert np.array_equal(got.weight, ((m64 / norms)[:, None] * rows).float().numpy())


@pytest.mark.proof("dora.merge", by="outputs of the layer")
def test_the_merged_layer_without_adapter_is_the_layer() -> None:
    weight, a, b, magnitude = layer(3, 8, Fraction(2))
    x = np.eye(4, dtype=np.float32)
    y = dora_forward(x, weight, a, b, magnitude, alpha=16)
    flat = lora_forward(x, dora_merge(weight, a, b, magnitude, alpha=16).weight, a, 0 * b, alpha=1)
    assert np.array_equal(y, flat)


@pytest.mark.proof("dora.unmerge", by="the inverse on a lattice")
@pytest.mark.parametrize(("alpha", "rank", "stabilized", "scale"), SCALES)
def test_unmerging_gives_the_weight_back(alpha: float, rank: int, stabilized: bool, scale: Fraction) -> None:
    weight, a, b, magnitude = layer(rank, rank, scale)
    magnitude[3] = 15 * 8  # a gain of 0 leaves nothing to unmerge
    state = dora_merge(weight, a, b, magnitude, alpha=alpha, rank_stabilized=stabilized)
    assert not np.array_equal(state.weight, weight)
    got = dora_unmerge(state, a, b, magnitude, alpha=alpha, rank_stabilized=stabilized)
    assert np.array_equal(got, weight), "also the row that merges to zero"


@pytest.mark.proof("dora.unmerge", by="exact rationals")
@pytest.mark.parametrize("fmt", ["float32", "bfloat16"])
def test_an_unmerged_row_is_the_inverse_formula_rounded_once(fmt: str) -> None:
    rng = np.random.default_rng(12)
    stored = encode(rng.integers(-99, 100, (4, 5)).astype(np.float32), fmt)
    a, b = rng.integers(-3, 4, (2, 5)).astype(np.float32), rng.integers(-3, 4, (4, 2)).astype(np.float32)
    norms, magnitude = np.array([4, 8, 2, 0], np.float32), np.array([8, -2, 0.5, 0], np.float32)
    got = dora_unmerge(MergedDora(stored, norms), a, b, magnitude, alpha=4, fmt=fmt)
    ratios = [Fraction(1, 2), Fraction(-4), Fraction(4), Fraction(0)]
    change = rational_merge(np.zeros((4, 5)), a, b, Fraction(2))
    expected = [
        [round_word(r * exact(w) - c, fmt) for w, c in zip(row, line, strict=True)]
        for r, row, line in zip(ratios, decode(stored, fmt), change, strict=True)
    ]
    assert np.ascontiguousarray(got).view(np.uint32 if fmt == "float32" else np.uint16).tolist() == expected


def dora_evaluations(kind: str, seed: int) -> list[tuple[str, Array]]:
    """Merged rows in float32: every order for V, two for the norm, the gain on V or on its terms."""
    weight, a, b = cases(seed)[kind]
    rnd, found = ROUNDINGS["float32"], []
    magnitude = np.linspace(-2, 3, len(weight)).astype(np.float32)
    for plan, rows in list(evaluations(weight, a, b, 2.5))[::4]:
        for other in (rows, rows[:, ::-1]):
            square = np.zeros(len(rows))
            for column in other.T:
                square = rnd(square + rnd(column * column))
            gain = rnd(magnitude / rnd(np.sqrt(square)))
            found.append((plan, rnd(gain[:, np.newaxis] * rows)))
            found.append((plan + ", m·V/n", rnd(rnd(magnitude[:, np.newaxis] * rows) / rnd(np.sqrt(square))[:, None])))
        folded = merged(rnd(gain[:, np.newaxis] * weight), a.astype(np.float64), rnd(gain[:, np.newaxis] * b),
                        PLANS[0], low_factor(2.5, len(a), False, rnd), rnd, rnd)  # fmt: skip
        found.append((plan + ", gain on the terms", folded))
    return found


@pytest.mark.proof("bounds.dora_merge", by="low-precision evaluations")
@pytest.mark.parametrize("kind", ["ordinary", "wide", "cancelling", "one rank"])
def test_every_evaluation_is_inside(kind: str) -> None:
    for seed in range(3):
        weight, a, b = cases(seed)[kind]
        magnitude = np.linspace(-2, 3, len(weight)).astype(np.float32)
        interval, _ = dora_merge_bound(weight, a, b, magnitude, alpha=2.5)
        assert interval.judged.any() or kind == "cancelling", "otherwise nothing is tested"
        for what, got in dora_evaluations(kind, seed):
            outside = interval.judged & ~((interval.lo <= got) & (got <= interval.hi))
            assert not outside.any(), f"{kind}, {what}: {np.argwhere(outside)[0]}, {got[outside][0]!r}"


@pytest.mark.proof("bounds.dora_merge", by="exact rationals")
def test_the_real_merge_is_inside_where_norms_are_rational() -> None:
    weight, a, b, magnitude = layer(5, 8, Fraction(2))
    interval, norms = dora_merge_bound(weight, a, b, magnitude, alpha=16)
    for o, row in enumerate(rational_merge(weight, a, b, Fraction(2))):
        for k, value in enumerate(row):
            real = exact(magnitude[o]) / NORMS[o] * value if NORMS[o] else Fraction(0)
            if interval.judged[o, k]:
                assert exact(interval.lo[o, k]) <= real <= exact(interval.hi[o, k])
        assert exact(norms.lo[o]) <= NORMS[o] <= exact(norms.hi[o])
    assert interval.judged[:4].all(), "rows that do not vanish are judged"
    assert not interval.judged[4].any(), "a row that cancels is not"


@pytest.mark.proof("bounds.dora_merge", by="counted roundings")
def test_the_bound_counts_these_roundings() -> None:
    # V has two (its sum, a gain folded in), n has those of V, 1/2 + 4 of its own and one more; g one; the product two.
    one, small = np.ones((1, 1), np.float32), 1 + Fraction(1, 10**5)
    interval, norms = dora_merge_bound(one, one, 0 * one, one[0], alpha=1)
    half = (exact(interval.hi[0, 0]) - exact(interval.lo[0, 0])) / 2 * 2**24
    assert Fraction(25, 2) <= half <= Fraction(25, 2) * small, f"{float(half)} roundings"
    of_norm = (exact(norms.hi[0]) - exact(norms.lo[0])) / 2 * 2**24
    assert Fraction(15, 2) <= of_norm <= Fraction(15, 2) * small, f"{float(of_norm)} roundings"
    coarse, _ = dora_merge_bound(one, one, 0 * one, one[0], alpha=1, roundings=Roundings(norm="bfloat16"))
    wide = (exact(coarse.hi[0, 0]) - exact(coarse.lo[0, 0])) / 2 * 2**8
    assert 4 <= wide <= Fraction(402, 100), f"{float(wide)} roundings to bfloat16: V twice, n and g"


def test_a_row_of_zeros_stays_zero_and_is_judged() -> None:
    weight, a, b = np.zeros((2, 3), np.float32), np.ones((1, 3), np.float32), np.array([[0], [1]], np.float32)
    m = np.ones(2, np.float32)
    got = dora_merge(weight, a, b, m, alpha=1)
    assert got.weight[0].tolist() == [0, 0, 0]
    assert np.isfinite(got.weight).all()
    interval, _ = dora_merge_bound(weight, a, b, m, alpha=1)
    assert interval.judged[0].all()
    assert interval.lo[0].tolist() == interval.hi[0].tolist() == [0, 0, 0]


@pytest.mark.proof("bounds.dora_merge", by="low-precision evaluations")
def test_an_unmerged_row_of_any_evaluation_is_inside() -> None:
    weight, a, b = cases(2)["ordinary"]
    magnitude = np.linspace(-2, 3, len(weight)).astype(np.float32)
    state = dora_merge(weight, a, b, magnitude, alpha=2.5)
    interval = dora_unmerge_bound(state, a, b, magnitude, alpha=2.5)
    rnd = ROUNDINGS["float32"]
    gain = rnd(magnitude / state.norms.astype(np.float64))
    for rows in (rnd(state.weight / gain[:, None]), rnd(state.weight * rnd(1 / gain)[:, None])):
        for _, change in list(evaluations(0 * weight, a, b, 2.5))[::3]:
            got = rnd(rows - change)
            assert ((interval.lo <= got) & (got <= interval.hi)).all()


def test_bad_operands_are_named() -> None:
    weight, a, b, magnitude = layer(1, 2, Fraction(2))
    state = dora_merge(weight, a, b, magnitude, alpha=4)
    with pytest.raises(ArgumentValueError, match="magnitude must be of shape"):
        dora_merge(weight, a, b, magnitude[:-1], alpha=4)
    with pytest.raises(ArgumentTypeError, match="magnitude must be"):
        dora_merge(weight, a, b, magnitude.astype(np.float64), alpha=4)
    with pytest.raises(ArgumentValueError, match="norms must be of shape"):
        dora_unmerge(MergedDora(state.weight, state.norms[:-1]), a, b, magnitude, alpha=4)
    with pytest.raises(ArgumentValueError, match="magnitude must be not 0 where the norm is not"):
        dora_unmerge(state, a, b, 0 * magnitude, alpha=4)
    with pytest.raises(ArgumentValueError, match="the merged weight must be finite"):
        dora_merge(np.full_like(weight, np.nan), a, b, magnitude, alpha=4, safe=True)
    assert dora_norm(weight, a, b, alpha=4).shape == (5,)


@pytest.mark.parametrize("flag", ["no", 1, np.array([1, 0])], ids=repr)
def test_safe_is_true_or_false(flag: object) -> None:
    one = np.ones((1, 1), np.float32)
    with pytest.raises(ArgumentTypeError, match=r"^safe must be True or False, got "):
        dora_merge(one, one, one, one[0], alpha=1, safe=flag)  # type: ignore[arg-type]


def test_a_quotient_that_underflows_is_inside() -> None:
    weight, zero, m = np.float32([[2.0**40]]), np.zeros((1, 1), np.float32), np.float32([1.37 * 2.0**-100])
    got = (m / weight[0]) * weight[0]
    interval, _ = dora_merge_bound(weight, zero, zero, m, alpha=1)
    assert interval.judged.all()
    assert interval.lo.item() <= got.item() <= interval.hi.item(), f"(m/n)·V = {got} is outside {interval}"
    interval, _ = dora_merge_bound(weight, zero, zero, 0 * m, alpha=1)
    assert abs(interval.hi.item()) < 2.0**-140, "m = 0 gives g = 0"


@pytest.mark.parametrize("alpha", [3.4e38, -3.4e38, 2.0**-149, 0.0])
@pytest.mark.parametrize("size", [3.4e38, 2.0**-149])
def test_finite_operands_merge_to_no_nan_at_the_ends_of_float32(alpha: float, size: float) -> None:
    a, b = np.array([[size, 0], [0, size]], np.float32), np.array([[size, 0], [size, -size]], np.float32)
    for weight in (0, 3.4e38, 2.0**-149):
        w = np.array([[weight, 0], [0, 0]], np.float32)
        for magnitude in (3.4e38, 2.0**-149, 0):
            merged = dora_merge(w, a, b, np.full(2, magnitude, np.float32), alpha=alpha)
            assert not np.isnan(merged.weight).any(), f"{weight}, {magnitude}: {merged.weight}"
