"""The counter-based choices: a pure function of name, index and seed, the same on every machine and for ever."""

from collections import Counter
from zlib import crc32

import pytest

from qloracle_conformance.generators.draw import CounterDraw

from .claims import FAMILIES

NAME = "nf4.quantize.boundaries"
LOCKED_CHOICES = [[2, 3, 0, 4], [1, 0, 2, 1], [4, 1, 1, 3], [0, 2, 4, 0], [3, 4, 3, 2]]
LOCKED_INTEGERS = [701, 856, 959, 768]
LOCKED_WORDS = [3012171459, 3676565381]


def choices(index: int, options: int = 5, seed: int = 0, name: str = NAME) -> list[int]:
    draw = CounterDraw(name, index, seed)
    return [draw.choice(range(options)) for _ in range(4)]


def test_the_choices_of_a_case_are_locked() -> None:
    # Written down once: a change would silently replace every case of every report by another.
    assert [choices(index) for index in range(5)] == LOCKED_CHOICES
    draw = CounterDraw(NAME, 3, 0)
    assert [draw.integer(0, 999) for _ in range(4)] == LOCKED_INTEGERS
    assert CounterDraw(NAME, 3, 0).random().integers(0, 1 << 32, 2).tolist() == LOCKED_WORDS


@pytest.mark.parametrize("options", [1, 2, 3, 7, 13])
@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_as_many_indices_as_options_cover_all_of_them(options: int, epoch: int) -> None:
    runs = [choices(epoch * options + i, options) for i in range(options)]
    for position in range(4):
        assert sorted(run[position] for run in runs) == list(range(options))


def test_two_choices_of_one_case_are_not_tied_to_each_other() -> None:
    pairs = Counter(tuple(choices(index, 3)[:2]) for index in range(90))
    assert len(pairs) == 9, f"only {sorted(pairs)} of the 9 pairs of options occur in 90 cases"


def test_a_choice_does_not_depend_on_what_was_drawn_from_the_generator_before() -> None:
    first, second = CounterDraw(NAME, 4), CounterDraw(NAME, 4)
    first.random().integers(0, 100, 1000)
    first.integer(0, 5)
    assert first.choice(range(1000)) == second.choice(range(1000))


@pytest.mark.parametrize(("low", "high"), [(0, 0), (3, 4), (-2, 2)])
def test_integers_reach_both_ends_and_no_farther(low: int, high: int) -> None:
    drawn = {CounterDraw(NAME, index).integer(low, high) for index in range(60)}
    assert drawn == set(range(low, high + 1))


def test_name_index_and_seed_each_change_the_contents() -> None:
    def words(name: str, index: int, seed: int) -> list[int]:
        return CounterDraw(name, index, seed).random().integers(0, 1 << 60, 3).tolist()

    found = [words(NAME, 0, 0), words(NAME, 1, 0), words(NAME, 0, 1), words("nf4.quantize.specials", 0, 0)]
    assert len({tuple(w) for w in found}) == 4


def test_no_two_families_share_a_key() -> None:
    names = [f"{operation}.{family}" for operation, family in FAMILIES]
    assert len({crc32(name.encode()) for name in names}) == len(names)
