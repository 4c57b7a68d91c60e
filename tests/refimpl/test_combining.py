"""[adapters.combine], [adapters.concatenate]: several adapters make the sum of their changes, each scaled once."""

from fractions import Fraction
from types import ModuleType

import numpy as np
import pytest

from qloracle import LoraAdapter, combine_adapters, concatenate_adapters, decode, encode, lora_merge
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array

from .evaluated_merges import rational_merge
from .rationals import exact, round_word

# Scales 2, 4 and 1/2; weights are powers of two or small integers, so that no product is rounded.
WEIGHTS = [0.5, -1.0, 3.0]
SCALES = [Fraction(2), Fraction(4), Fraction(1, 2)]


def adapters(seed: int, d_out: int = 5, d_in: int = 7) -> list[LoraAdapter]:
    rng = np.random.default_rng([51, seed])
    made = []
    for rank, alpha, stabilized in ((2, 4.0, False), (4, 8.0, True), (6, 3.0, False)):
        a, b = rng.integers(-3, 4, (rank, d_in)), rng.integers(-3, 4, (d_out, rank))
        made.append(LoraAdapter(a.astype(np.float32), b.astype(np.float32), alpha, stabilized))
    return made


def rational_sum(chosen: list[LoraAdapter], factors: list[Fraction]) -> list[list[Fraction]]:
    total = [[Fraction(0)] * chosen[0].lora_a.shape[1] for _ in range(len(chosen[0].lora_b))]
    for adapter, factor in zip(chosen, factors, strict=True):
        change = rational_merge(np.zeros((len(total), len(total[0]))), adapter.lora_a, adapter.lora_b, factor)
        total = [[t + c for t, c in zip(row, line, strict=True)] for row, line in zip(total, change, strict=True)]
    return total


@pytest.mark.proof("adapters.combine", by="exact rationals")
def test_a_combination_is_the_sum_of_scaled_changes() -> None:
    chosen = adapters(1)
    factors = [Fraction(w) * s for w, s in zip(WEIGHTS, SCALES, strict=True)]
    expected = rational_sum(chosen, factors)
    got = combine_adapters(chosen, WEIGHTS)
    assert [[exact(v) for v in row] for row in got] == expected


@pytest.mark.proof("adapters.combine", by="PyTorch")
def test_a_combination_is_what_torch_einsum_gives(torch: ModuleType) -> None:
    chosen = adapters(2)
    total = torch.zeros(5, 7, dtype=torch.float64)
    for adapter, weight, scale in zip(chosen, WEIGHTS, (2.0, 4.0, 0.5), strict=True):
        a, b = torch.from_numpy(adapter.lora_a).double(), torch.from_numpy(adapter.lora_b).double()
        total += weight * scale * torch.einsum("or,ri->oi", b, a)
    assert np.array_equal(combine_adapters(chosen, WEIGHTS), total.numpy())


@pytest.mark.proof("adapters.combine", by="successive merges")
def test_a_combination_is_what_merging_one_after_the_other_adds() -> None:
    chosen, weight = adapters(3), np.zeros((5, 7), np.float32)
    for adapter, factor in zip(chosen, WEIGHTS, strict=True):
        weight = lora_merge(weight, adapter.lora_a, adapter.lora_b, alpha=factor * adapter.alpha,
                            rank_stabilized=adapter.rank_stabilized)  # fmt: skip
    assert np.array_equal(combine_adapters(chosen, WEIGHTS), weight)


@pytest.mark.proof("adapters.concatenate", by="exact rationals")
@pytest.mark.parametrize("fmt", ["float32", "float16", "bfloat16"])
def test_the_concatenated_adapter_holds_each_scaled_row_rounded_once(fmt: str) -> None:
    chosen = adapters(4)
    got = concatenate_adapters(chosen, WEIGHTS, fmt=fmt)
    assert got.alpha == 12
    assert not got.rank_stabilized
    rows = [
        (row, Fraction(w) * s) for adapter, w, s in zip(chosen, WEIGHTS, SCALES, strict=True) for row in adapter.lora_a
    ]
    bits = np.uint32 if fmt == "float32" else np.uint16
    words = np.ascontiguousarray(got.lora_a).view(bits)
    zero = 0x7FFFFFFF if fmt == "float32" else 0x7FFF
    for index, (row, factor) in enumerate(rows):
        expected = [round_word(exact(v) * factor, fmt) for v in row]
        assert all(g == e or (g & zero) == e == 0 for g, e in zip(words[index].tolist(), expected, strict=True))
    assert np.array_equal(decode(got.lora_b, fmt), np.concatenate([x.lora_b for x in chosen], axis=1))


@pytest.mark.proof("adapters.concatenate", by="equality with the sum")
def test_both_forms_make_the_very_same_change() -> None:
    for seed in range(20):
        chosen = adapters(seed)
        one = concatenate_adapters(chosen, WEIGHTS)
        assert np.array_equal(combine_adapters([one], [1.0]), combine_adapters(chosen, WEIGHTS)), "B A equals the sum"
        assert np.array_equal(concatenate_adapters([one], [1.0]).lora_a, one.lora_a), "the scale is not applied again"


@pytest.mark.proof("adapters.concatenate", by="closed forms")
def test_one_adapter_with_weight_one_is_itself_scaled_once() -> None:
    adapter = adapters(5)[0]
    same = concatenate_adapters([adapter], [1.0])
    assert np.array_equal(same.lora_a, 2 * adapter.lora_a), "s = 2 is in A"
    assert np.array_equal(same.lora_b, adapter.lora_b)
    assert same.alpha == len(same.lora_a), "so that s = 1"
    assert np.array_equal(combine_adapters([same], [1.0]), combine_adapters([adapter], [1.0]))
    none = combine_adapters([adapter], [0.0])
    assert not none.any()


def test_bit_patterns_are_read_by_their_format() -> None:
    a, b = (np.arange(1, 5, dtype=np.float32).reshape(s) for s in ((2, 2), (2, 2)))
    words = LoraAdapter(encode(a, "bfloat16"), encode(b, "bfloat16"), 4.0, fmt="bfloat16")
    plain: Array = combine_adapters([LoraAdapter(a, b, 4.0)], [1.0])
    assert np.array_equal(combine_adapters([words], [1.0]), plain)


def test_bad_arguments_are_named() -> None:
    chosen = adapters(6)
    with pytest.raises(ArgumentValueError, match="weights must be one for each of at least one adapter"):
        combine_adapters([], [])
    with pytest.raises(ArgumentValueError, match="weights must be one for each"):
        combine_adapters(chosen, [1.0])
    with pytest.raises(ArgumentValueError, match=r"weights\[1\] must be finite"):
        combine_adapters(chosen, [1.0, np.nan, 1.0])
    with pytest.raises(ArgumentTypeError, match=r"weights\[0\] must be a number"):
        combine_adapters(chosen, ["1", 1, 1])  # type: ignore[list-item]
    with pytest.raises(ArgumentTypeError, match=r"adapters\[0\] must be a LoraAdapter"):
        combine_adapters([chosen[0].lora_a], [1.0])  # type: ignore[list-item]
    narrow = adapters(6, d_in=6)[0]
    with pytest.raises(ArgumentValueError, match=r"adapters\[1\] must be of a layer of shape \(5, 7\)"):
        combine_adapters([chosen[0], narrow], [1, 1])
    broken = LoraAdapter(chosen[0].lora_a, chosen[0].lora_b[:, :1], 4.0)
    with pytest.raises(ArgumentValueError, match=r"adapters\[0\].lora_b must be of shape"):
        combine_adapters([broken], [1])
    big = LoraAdapter(np.ones((1, 1), np.float32), np.full((1, 1), 1 + 2.0**-20, np.float32), 1.0)
    with pytest.raises(ArgumentValueError, match="fmt must be a format that holds every element of lora_b"):
        concatenate_adapters([big], [1.0], fmt="bfloat16")
    wrong = LoraAdapter(chosen[0].lora_a.astype(np.float64), chosen[0].lora_b, 4.0)
    with pytest.raises(ArgumentTypeError, match=r"adapters\[0\].lora_a must be"):
        combine_adapters([wrong], [1.0])
