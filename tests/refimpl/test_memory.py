"""At most six times the input: the peak beyond it of merges and optimizer steps, flat in the size of the input.

The input is every array that a function is given: a merge has a weight and two factors, a step with a limit on the norm
has the moments too, and for a step without one the parameter and its gradient alone are counted. Measured as in the
benchmark, by `tracemalloc`, after a call that warms up. Decoding a format of 8 bits is the one exception to the rule:
its result, float64 numbers, is eight times its input by itself, so that the result is left out.
"""

import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from qloracle import decode, dora_merge, dora_unmerge, encode, lora_merge, lora_unmerge
from qloracle.dora_merging import MergedDora
from qloracle.formats import Array, format_named
from qloracle.optim.accumulate import REDUCTIONS, accumulate_gradients
from qloracle.optim.adamw import AdamwOptions, AdamwState, adamw_step
from qloracle.optim.adamw8bit import adamw8bit_init, adamw8bit_step

pytestmark = pytest.mark.slow

MOST = 6.0
FORMATS = ("float32", "float16", "bfloat16")
SHAPES = {"square": (1024, 1024), "one row": (1, 1 << 20), "one column": (1 << 20, 1)}
LARGER = {"four times": (1536, 1536), "one long row": (1, 1 << 21)}
Run = Callable[[], Any]


def peak(run: Run) -> int:
    """Return the bytes that a call takes beyond what is there before it, its result included."""
    run()
    tracemalloc.start()
    try:
        result = run()
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result is not None
    return most


def drawn(fmt: str, *shape: int) -> Array:
    values = encode(np.random.default_rng(351).standard_normal(shape).astype(np.float32), fmt)
    own = format_named(fmt).numpy
    return values if own is None else values.view(own)


def merges(fmt: str, shape: tuple[int, int], rank: int = 1) -> dict[str, tuple[Run, int]]:
    """Every merge with the bytes of its input."""
    weight, a, b, m = (drawn(fmt, *s) for s in (shape, (rank, shape[1]), (shape[0], rank), shape[:1]))
    how: dict[str, Any] = {"alpha": 2.5, "fmt": fmt}
    other = np.ascontiguousarray(weight.T)
    size = weight.nbytes + a.nbytes + b.nbytes
    state = MergedDora(weight, np.ones(shape[0], np.float32))
    more = size + m.nbytes
    return {
        "lora_merge": (partial(lora_merge, weight, a, b, safe=True, **how), size),
        "lora_merge, transposed": (partial(lora_merge, other, a, b, fan_in_fan_out=True, **how), size),
        "lora_unmerge": (partial(lora_unmerge, weight, a, b, **how), size),
        "dora_merge": (partial(dora_merge, weight, a, b, m, safe=True, **how), more),
        "dora_merge, transposed": (partial(dora_merge, other, a, b, m, fan_in_fan_out=True, **how), more),
        "dora_unmerge": (partial(dora_unmerge, state, a, b, m, **how), more + state.norms.nbytes),
    }


def steps(fmt: str, shape: tuple[int, int]) -> dict[str, tuple[Run, int]]:
    """Every step with the bytes of its input."""
    p, g = drawn(fmt, *shape), drawn(fmt, *shape)
    zero = np.zeros(shape, np.float32)
    state, small = AdamwState(zero, zero, 0), adamw8bit_init(shape)
    how = {"fmt": fmt}
    found: dict[str, tuple[Run, int]] = {
        "adamw_step": (partial(adamw_step, p, g, state, AdamwOptions(), **how), p.nbytes + g.nbytes),
        "adamw8bit_step": (partial(adamw8bit_step, p, g, small, AdamwOptions(), **how), p.nbytes + g.nbytes),
        "adamw_step, skipping": (
            partial(adamw_step, p, g, state, AdamwOptions(nonfinite="skip"), **how),
            p.nbytes + g.nbytes,
        ),
        "adamw_step, limited": (
            partial(adamw_step, p, g, state, AdamwOptions(max_update_norm=0.1), **how),
            p.nbytes + g.nbytes + 2 * zero.nbytes,
        ),
    }
    if fmt != "float32":
        bits = np.random.default_rng(352).integers(0, 1 << 32, shape, np.uint32)
        stochastic = partial(adamw_step, p, g, state, AdamwOptions(), random_bits=bits, **how)
        found["adamw_step, stochastic"] = (stochastic, p.nbytes + g.nbytes)
    return found


def require_small(work: dict[str, tuple[Run, int]], what: str) -> None:
    for name, (run, size) in work.items():
        times = peak(run) / size
        assert times <= MOST, f"{name} of {what} takes {times:.2f} times its input, {MOST} are allowed"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fmt", FORMATS)
def test_a_merge_takes_at_most_six_times_its_input(shape: str, fmt: str) -> None:
    require_small(merges(fmt, SHAPES[shape]), f"{shape} in {fmt}")


@pytest.mark.parametrize("shape", ["square", "one row"])
@pytest.mark.parametrize("fmt", FORMATS)
def test_a_step_takes_at_most_six_times_its_input(shape: str, fmt: str) -> None:
    require_small(steps(fmt, SHAPES[shape]), f"{shape} in {fmt}")


@pytest.mark.parametrize("batches", [1, 2, 5])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("fmt", FORMATS)
def test_accumulating_takes_at_most_six_times_its_input(fmt: str, reduction: str, batches: int) -> None:
    gradients, counts = drawn(fmt, batches, 1 << 19), np.arange(1, batches + 1)
    run = partial(accumulate_gradients, gradients, counts, reduction=reduction, fmt=fmt)
    require_small({"accumulate_gradients": (run, gradients.nbytes)}, f"{batches} micro-batches in {fmt}")


@pytest.mark.exhaustive
@pytest.mark.parametrize("shape", LARGER)
@pytest.mark.parametrize("fmt", FORMATS)
def test_four_times_the_input_takes_no_more_of_it(shape: str, fmt: str) -> None:
    require_small({**merges(fmt, LARGER[shape]), **steps(fmt, LARGER[shape])}, f"{shape} in {fmt}")


@pytest.mark.parametrize("fmt", ["float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"])
def test_decoding_eight_bits_takes_little_beside_its_result(fmt: str) -> None:
    words = np.random.default_rng(353).integers(0, 120, 1 << 20).astype(np.uint8)
    beside = peak(partial(decode, words, fmt)) - words.size * 8
    assert beside <= MOST * words.nbytes, f"{fmt}: {beside / words.nbytes:.2f} times its input beside the result"
