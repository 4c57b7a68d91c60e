"""[lora.merge], [lora.unmerge], [lora.merge_safe], [lora.merge_bias]: W ± s B A, rounded to the weight's format."""

from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from qloracle import decode, encode, lora_forward, lora_merge, lora_unmerge, merge_bias
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array

from .evaluated_merges import rational_merge
from .rationals import exact, round_word

SCALES = [(16.0, 8, False, Fraction(2)), (3.0, 2, False, Fraction(3, 2)), (16.0, 16, True, Fraction(4)),
          (-1.0, 4, False, Fraction(-1, 4))]  # fmt: skip
BITS = {"float32": np.uint32, "float16": np.uint16, "bfloat16": np.uint16}


def integers(seed: int, rank: int, d_out: int = 6, d_in: int = 9, largest: int = 5) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng([61, seed])
    shapes = ((d_out, d_in), (rank, d_in), (d_out, rank))
    return tuple(rng.integers(-largest, largest + 1, s).astype(np.float32) for s in shapes)  # type: ignore[return-value]


def words(values: Array, fmt: str) -> list[int]:
    return [int(v) for v in np.ascontiguousarray(values).view(BITS[fmt]).reshape(-1)]


@pytest.mark.proof("lora.merge", by="exact rationals")
@pytest.mark.proof("lora.unmerge", by="exact rationals")
@pytest.mark.parametrize("fmt", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("alpha", "rank", "stabilized", "scale"), SCALES)
def test_sums_of_integers_are_rounded_once(
    alpha: float, rank: int, stabilized: bool, scale: Fraction, fmt: str
) -> None:
    weight, a, b = integers(1, rank, largest=40)
    stored = encode(weight, fmt)
    for fan in (False, True):
        given = np.ascontiguousarray(stored.T) if fan else stored
        for function, sign in ((lora_merge, 1), (lora_unmerge, -1)):
            got = function(given, a, b, alpha=alpha, rank_stabilized=stabilized, fan_in_fan_out=fan, fmt=fmt)
            real = rational_merge(decode(stored, fmt), a, b, sign * scale)
            expected = [[round_word(v, fmt) for v in row] for row in real]
            table = np.array(expected).T if fan else np.array(expected)
            assert words(got, fmt) == table.reshape(-1).tolist(), f"{function.__name__}, fan_in_fan_out={fan}"
            assert got.shape == given.shape, "the shape of the weight is restored"


@pytest.mark.proof("lora.merge", by="PyTorch")
def test_a_merge_is_what_torch_computes_in_float64(torch: ModuleType) -> None:
    rng = np.random.default_rng(7)
    weight, a, b = (rng.standard_normal(s).astype(np.float32) for s in ((11, 5), (3, 5), (11, 3)))
    real = torch.addmm(torch.from_numpy(weight).double(), torch.from_numpy(b).double(), torch.from_numpy(a).double(),
                       alpha=8.0 / 3.0)  # fmt: skip
    got = lora_merge(weight, a, b, alpha=8.0)
    assert np.array_equal(got, real.float().numpy()), "float64 sums that differ in the last bits give the same float32"


@pytest.mark.proof("lora.merge", by="outputs of the layer")
@pytest.mark.parametrize(("alpha", "rank", "stabilized", "scale"), SCALES)
def test_the_merged_layer_without_adapter_is_the_layer(
    alpha: float, rank: int, stabilized: bool, scale: Fraction
) -> None:
    weight, a, b = integers(3, rank)
    x = np.eye(9, dtype=np.float32)
    nothing = np.zeros_like(b)
    merged = lora_merge(weight, a, b, alpha=alpha, rank_stabilized=stabilized)
    with_adapter = lora_forward(x, weight, a, b, alpha=alpha, rank_stabilized=stabilized)
    assert np.array_equal(lora_forward(x, merged, a, nothing, alpha=1), with_adapter)


@pytest.mark.proof("lora.unmerge", by="the inverse on a lattice")
@pytest.mark.parametrize(("alpha", "rank", "stabilized", "scale"), SCALES)
def test_unmerging_what_was_merged_exactly_gives_the_weight(
    alpha: float, rank: int, stabilized: bool, scale: Fraction
) -> None:
    weight, a, b = integers(4, rank)
    merged = lora_merge(weight, a, b, alpha=alpha, rank_stabilized=stabilized)
    assert not np.array_equal(merged, weight)
    assert np.array_equal(lora_unmerge(merged, a, b, alpha=alpha, rank_stabilized=stabilized), weight)


@pytest.mark.proof("lora.merge_safe", by="literal cases")
@pytest.mark.parametrize(
    ("weight", "a", "b"),
    [
        (1.0, np.nan, 1.0),
        (1.0, 1.0, np.nan),
        (np.nan, 1.0, 1.0),
        (np.inf, 1.0, 1.0),
        (3e38, 3e38, 1.0),
        (1.0, np.inf, 0.0),
    ],
)
def test_a_result_that_is_not_finite_is_refused_and_the_weight_stays(weight: float, a: float, b: float) -> None:
    arrays = [np.full((2, 2), v, np.float32) for v in (weight, a, b)]
    before = [array.tobytes() for array in arrays]
    with pytest.raises(ArgumentValueError, match="the merged weight must be finite, got"):
        lora_merge(*arrays, alpha=2, safe=True)
    assert [array.tobytes() for array in arrays] == before, "nothing is modified"
    assert not np.isfinite(lora_merge(*arrays, alpha=2)).all(), "without safe the same merge is not finite"


@pytest.mark.proof("lora.merge_safe", by="overflow limits of formats")
@pytest.mark.parametrize(("fmt", "limit"), [("float16", 65520.0), ("bfloat16", 2.0**128 - 2.0**119)])
def test_what_counts_is_the_result_after_rounding(fmt: str, limit: float) -> None:
    one, half = np.ones((1, 1), np.float32), np.float32(limit / 2)
    stored = encode(half * one, fmt)
    lost = half - np.float32(decode(stored, fmt)[0, 0])
    with pytest.raises(ArgumentValueError, match="finite"):
        lora_merge(stored, one, (half + lost) * one, alpha=1, fmt=fmt, safe=True)
    below = np.nextafter(half + lost, np.float32(0)) * one
    kept = lora_merge(stored, one, below, alpha=1, fmt=fmt, safe=True)
    assert np.isfinite(decode(kept, fmt)).all()


@pytest.mark.proof("lora.merge_bias", by="exact rationals")
@pytest.mark.parametrize("fmt", ["float32", "float16", "bfloat16"])
def test_the_bias_of_an_adapter_is_scaled_and_that_of_the_layer_is_not(fmt: str) -> None:
    rng = np.random.default_rng(8)
    bias, added = (rng.integers(-999, 1000, 21).astype(np.float32) for _ in range(2))
    stored = encode(bias, fmt)
    for alpha, rank, stabilized, scale in SCALES:
        options: dict[str, Any] = {"alpha": alpha, "rank": rank, "rank_stabilized": stabilized, "fmt": fmt}
        for unmerge, sign in ((False, 1), (True, -1)):
            pairs = zip(decode(stored, fmt), added, strict=True)
            expected = [round_word(exact(b) + sign * scale * exact(v), fmt) for b, v in pairs]
            assert words(merge_bias(stored, added, unmerge=unmerge, **options), fmt) == expected


@pytest.mark.proof("lora.merge_bias", by="outputs of the layer")
def test_a_merged_bias_gives_the_outputs_of_the_layer() -> None:
    weight, a, b = integers(9, 8)
    bias, added, x = np.arange(6, dtype=np.float32), np.arange(6, 0, -1, dtype=np.float32), np.eye(9, dtype=np.float32)
    layer = lora_forward(x, weight, a, b, alpha=32, bias=bias, lora_bias=added)
    merged = lora_merge(weight, a, b, alpha=32)
    flat = lora_forward(x, merged, a, 0 * b, alpha=1, bias=merge_bias(bias, added, alpha=32, rank=8))
    assert np.array_equal(layer, flat)


def test_an_embedding_is_merged_as_a_transposed_weight() -> None:
    rng = np.random.default_rng(10)
    table, a, b = (rng.integers(-3, 4, s).astype(np.float32) for s in ((12, 5), (2, 12), (5, 2)))
    got = lora_merge(table, a, b, alpha=4, fan_in_fan_out=True)
    for token in range(12):
        assert np.array_equal(got[token], table[token] + 2 * (b @ a[:, token]))


def test_arrays_of_any_layout_give_the_same_and_are_not_modified() -> None:
    weight, a, b = integers(11, 3)
    expected = lora_merge(weight, a, b, alpha=6)
    for change in (np.asfortranarray, lambda m: m.astype(">f4"), lambda m: np.repeat(m, 2, axis=1)[:, ::2]):
        arrays = [change(m) for m in (weight, a, b)]
        for array in arrays:
            array.setflags(write=False)
        assert np.array_equal(lora_merge(*arrays, alpha=6), expected)
    empty = lora_merge(weight[:0], a, b[:0], alpha=6)
    assert empty.shape == (0, 9)


def test_ml_dtypes_arrays_are_weights(ml_dtypes: ModuleType) -> None:
    weight, a, b = integers(12, 2)
    native = weight.astype(ml_dtypes.bfloat16)
    got = lora_merge(native, a.astype(ml_dtypes.bfloat16), b, alpha=2)
    assert np.array_equal(got, lora_merge(encode(weight, "bfloat16"), a, b, alpha=2, fmt="bfloat16"))


@pytest.mark.parametrize("function", [lora_merge, lora_unmerge])
def test_bad_operands_are_named(function: Any) -> None:
    weight, a, b = integers(13, 3)
    for bad, message in [
        ((weight.astype(np.float64), a, b), "weight must be"),
        ((weight, a.astype(np.int64), b), "lora_a must be"),
        ((weight, a, [[1.0]]), "lora_b must be"),
    ]:
        with pytest.raises(ArgumentTypeError, match=message):
            function(*bad, alpha=1)
    for bad, message in [
        ((weight[0], a, b), "weight must be 2-d"),
        ((weight, a[:, :-1], b), "lora_a must be of shape"),
        ((weight, a, b[:, :-1]), "lora_b must be of shape"),
        ((weight, a, b[:-1]), "lora_b must be of shape"),
        ((weight, a[:0], b[:, :0]), "rank must be a positive integer, got 0"),
    ]:
        with pytest.raises(ArgumentValueError, match=message):
            function(*bad, alpha=1)
    with pytest.raises(ArgumentValueError, match="lora_a must be of shape"):
        function(weight, a, b, alpha=1, fan_in_fan_out=True)
    with pytest.raises(ArgumentTypeError, match="fan_in_fan_out must be a bool"):
        function(weight, a, b, alpha=1, fan_in_fan_out="yes")
    with pytest.raises(ArgumentValueError, match="alpha must be finite"):
        function(weight, a, b, alpha=np.inf)


def test_bad_biases_are_named() -> None:
    vector = np.ones(3, np.float32)
    with pytest.raises(ArgumentValueError, match="bias must be 1-d"):
        merge_bias(np.ones((1, 3), np.float32), vector, alpha=1, rank=1)
    with pytest.raises(ArgumentValueError, match="lora_bias must be of shape"):
        merge_bias(vector, vector[:2], alpha=1, rank=1)
    with pytest.raises(ArgumentTypeError, match="lora_bias must be"):
        merge_bias(vector, vector.astype(np.float64), alpha=1, rank=1)
    with pytest.raises(ArgumentValueError, match="rank must be a positive integer, got 0"):
        merge_bias(vector, vector, alpha=1, rank=0)
