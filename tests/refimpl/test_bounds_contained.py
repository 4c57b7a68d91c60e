"""Every bound holds for at least a million judged elements of each output: low precision, many orders, the whole range.

Two kinds of operands take turns. *Wide* ones lie in a random band of the exponents of the format that accumulates,
subnormals and numbers that round to infinity included. *Lattice* ones are integers of at most four bits: every product
and partial sum of them is an integer below 2^53, which float64 computes exactly in any order, and that exact value of
an output must lie inside as well; where a norm or a root takes part there is none, and rationals judge elsewhere. What
overflow leaves without a verdict does not count towards the million, and a hundred draws are the least.
"""

from collections import Counter

import numpy as np
import pytest

from .contained_cases import GENERATORS

LEAST = 1_000_000


def judge(name: str, least: int) -> Counter[str]:
    """Judge evaluations until every output has had so many elements with a verdict."""
    generate, outputs = GENERATORS[name]
    judged: Counter[str] = Counter(dict.fromkeys(outputs, 0))
    turn = 0
    while min(judged.values()) < least or turn < least // 10_000:
        rng, fmt = np.random.default_rng([371, turn]), ("float32", "float16", "bfloat16")[turn % 3]
        with np.errstate(all="ignore"):
            for output, interval, got in generate(rng, fmt, turn % 2 == 1):
                inside = (interval.lo <= got) & (got <= interval.hi) | (np.isnan(interval.lo) & np.isnan(got))
                outside = interval.judged & ~inside
                if outside.any():
                    place = tuple(np.argwhere(outside)[0])
                    between = f"[{interval.lo[place]!r}, {interval.hi[place]!r}]"
                    raise AssertionError(f"{name} {output} in {fmt}, turn {turn}: {got[place]!r} is not in {between}")
                judged[output] += int(np.count_nonzero(interval.judged))
        turn += 1
    return judged


@pytest.mark.parametrize("name", GENERATORS)
def test_thousands_of_evaluations_are_inside(name: str) -> None:
    assert min(judge(name, 2000).values()) >= 2000


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", GENERATORS)
def test_a_million_evaluations_of_every_output_are_inside(name: str) -> None:
    assert min(judge(name, LEAST).values()) >= LEAST
