"""Observers on tensors: ranges of the reference to the last bit, on order statistics beside every rounding."""

from fractions import Fraction

import numpy as np
import pytest
import torch

import qloracle
import qloracle_gpu.torch as backend
from qloracle.formats import Array
from qloracle.mean_offset import round_ratio
from qloracle_gpu.torch.odd_sums import exact_sum_to_odd

from .affine_inputs import FORMATS, GROUPS, any_words, in_format
from .words import require_same

PERCENTS = ((0, 100), (0.1, 99.9), (1, 99), (50, 50), (0, 33.3), (25, 75), (5e-324, 100))
# The last of them move nothing but zeros, by less than the smallest number.
WEIGHTS = (0.0, 1.0, 0.5, 0.25, 0.01, 0.9, 1 - 2**-53, 2**-25, 2**-53, 2.0**-149, 2.0**-301, 5e-324)


def tensors(*arrays: Array) -> list[torch.Tensor]:
    return [torch.from_numpy(np.array(array)) for array in arrays]


def samples(rng: np.random.Generator) -> list[Array]:
    """Matrices of ordinary numbers, of few, of neighbours, and of any bits but for rows that are not finite."""
    ordinary = rng.standard_normal((9, 30)).astype(np.float32)
    few = rng.choice(np.float32([0, -0.0, 1, -1, 1e-45]), (9, 30))
    neighbours = (np.float32(1).view(np.int32) + rng.integers(-3, 4, (9, 30), dtype=np.int32)).view(np.float32)
    anything = any_words(rng, 9, 30)
    finite = np.where(np.isfinite(anything), anything, np.float32(1e30))
    finite[2] = anything[2]
    return [ordinary, few, neighbours, anything, finite]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize(("granularity", "size"), GROUPS)
def test_smallest_largest_and_percentiles_are_those_of_the_reference(
    granularity: str, size: int | None, dtype: str
) -> None:
    how = {"granularity": granularity, "group_size": size}
    for x in samples(np.random.default_rng(1)):
        mine, theirs = in_format(x, dtype)
        pairs = [(backend.minmax_range(mine, **how), qloracle.minmax_range(theirs, **how, fmt=dtype))]
        for lower, upper in PERCENTS[:3] if dtype != "float32" else PERCENTS:
            expected = qloracle.percentile_range(theirs, lower, upper, **how, fmt=dtype)
            pairs.append((backend.percentile_range(mine, lower, upper, **how), expected))
        for got, expected in pairs:
            for end, wanted in zip(got, expected, strict=True):
                require_same(end, np.asarray(wanted), "float32", f"{granularity} in {dtype}")


def moving_pairs(rng: np.random.Generator, weight: float, count: int) -> tuple[Array, Array]:
    """Any numbers, neighbours, zeros, and numbers that cancel but for a few units."""
    old, new = any_words(rng, count), any_words(rng, count)
    with np.errstate(all="ignore"):
        cancelling = (-old.astype(np.float64) * (1 - weight) / (weight or 1.0)).astype(np.float32)
        beside = np.nextafter(old, np.float32(np.inf))
    cancelling = (cancelling.view(np.int32) + rng.integers(-1, 2, count, dtype=np.int32)).view(np.float32)
    kind = rng.integers(0, 5, count)
    new = np.select([kind == 0, kind == 1, kind == 2], [old, beside, cancelling], new)
    return old, np.where(kind == 3, np.float32(0), new)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_a_moved_range_is_the_real_number_rounded_once(weight: float) -> None:
    old, new = moving_pairs(np.random.default_rng(2), weight, 1500)
    got = backend.moving_range(tuple(tensors(old, new)), tuple(tensors(new, old)), weight)
    expected = qloracle.moving_range((old, new), (new, old), weight)
    for end, wanted in zip(got, expected, strict=True):
        require_same(end, wanted, "float32", f"moved by {weight}")


def test_sums_to_odd_round_to_the_float32_number_next_to_the_real_sum() -> None:
    # Float32 numbers times powers of two, whose sums lie on, and a hair beside, midpoints of float32.
    rng = np.random.default_rng(3)
    terms = np.ldexp(rng.integers(-(2**24), 2**24, (5, 2000)), rng.integers(-60, 60, (5, 2000))).astype(np.float64)
    terms[1] = -terms[0] + np.ldexp(2.0 * rng.integers(2**23, 2**24, 2000) + 1, rng.integers(-30, 30, 2000))
    terms[2] = np.ldexp(rng.integers(-1, 2, 2000), rng.integers(-140, -90, 2000))
    terms[3:] = np.where(rng.integers(0, 2, 2000) == 0, 0.0, terms[3:])
    got = exact_sum_to_odd([torch.from_numpy(term) for term in terms]).to(torch.float32)
    sums = [sum(map(Fraction, column)) for column in terms.T.tolist()]
    expected = [round_ratio(s.numerator, s.denominator, 0) for s in sums]
    require_same(got, np.array(expected, np.float32), None, "sums of five numbers")
