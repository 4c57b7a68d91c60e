"""What the suite does not reach of quantizers, adapters and optimizers: long inputs, odd scales, orders of threads."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qloracle
import qloracle_gpu.cupy as backend
from qloracle_gpu.cupy.launcher import using

from .boundaries import random_absmax, with_specials
from .emulator.building import has_compiler
from .emulator.launching import ORDERS, EmulatedLauncher

pytestmark = pytest.mark.skipif(not has_compiler(), reason="NOT RUN: the emulator needs g++")


@pytest.fixture(autouse=True)
def emulator() -> Iterator[EmulatedLauncher]:
    launcher = EmulatedLauncher("shuffled")
    with using(launcher):
        yield launcher


def require_same(got: np.ndarray, wanted: np.ndarray) -> None:
    """The same bits, but for the bits of a NaN."""
    same = got.view(f"u{got.itemsize}") == wanted.view(f"u{wanted.itemsize}")
    both_nan = np.isnan(got) & np.isnan(wanted)
    wrong = np.flatnonzero(~(same | both_nan))
    assert wrong.size == 0, f"{wrong.size} of {got.size} differ, first at {wrong[0]}"


def bits_in_every_order(call: Callable[[], Any]) -> set[bytes]:
    """The results of a call in all orders of threads, with one CTA and with many."""
    found = set()
    for order in ORDERS:
        for most_ctas in (1, None):
            with using(EmulatedLauncher(order, most_ctas=most_ctas)):
                found.add(call().tobytes())
    return found


@pytest.mark.parametrize("weight", [5e-324, 2.0**-1000, 0.1, 1 / 3, 1 - 2.0**-53, 0.0, 1.0])
def test_a_moved_range_is_rounded_once_whatever_the_weight(weight: float) -> None:
    rng = np.random.default_rng(1)
    old, new = (random_absmax(rng, 150) * rng.choice(np.float32([-1, 1]), 150) for _ in range(2))
    old[:4], new[:4] = np.float32([0, -0.0, 1, np.inf]), np.float32([-0.0, -0.0, -1, 1])
    ends = (old, old.copy()), (new, new.copy())
    for mine, wanted in zip(backend.moving_range(*ends, weight), qloracle.moving_range(*ends, weight), strict=True):
        require_same(mine, wanted)


@pytest.mark.parametrize("percents", [(1e-300, 99.9), (0.1, 50), (33.3, 100)])
def test_percentiles_of_any_position_are_rounded_once(percents: tuple[float, float]) -> None:
    x = with_specials(np.random.default_rng(2), 24, 37)
    for how in ({"granularity": "column"}, {"granularity": "group", "group_size": 100}):
        with np.errstate(all="ignore"):
            pairs = zip(*(q.percentile_range(x, *percents, **how) for q in (backend, qloracle)), strict=True)
        for mine, wanted in pairs:
            require_same(mine, wanted)


@pytest.mark.parametrize("most_ctas", [1, None])
def test_the_range_of_a_long_group_is_found_in_stages(most_ctas: int | None) -> None:
    x = np.random.default_rng(3).standard_normal((4096 * 3 + 5, 2)).astype(np.float32)
    with using(EmulatedLauncher("reversed", most_ctas=most_ctas)):
        for granularity in ("tensor", "column"):
            for mine, wanted in zip(
                *(q.minmax_range(x, granularity=granularity) for q in (backend, qloracle)), strict=True
            ):
                require_same(mine, wanted)
        x[-1, -1] = np.inf
        assert np.isnan(backend.minmax_range(x)[0])


def odd_scales(rng: np.random.Generator, count: int) -> np.ndarray:
    """Scales of either sign and every magnitude, zeros, infinities and NaN."""
    scales = random_absmax(rng, count) * rng.choice(np.float32([-1, 1]), count)
    scales[:5] = np.float32([0, -0.0, np.inf, -np.inf, np.nan])
    return scales


def scaled(x: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Rows times the magnitude of a scale each, beyond the end of float32 too."""
    with np.errstate(all="ignore"):
        return x * np.abs(scales[:, np.newaxis])


@pytest.mark.parametrize("codebook", ["nf4", "dynamic_unsigned"])
def test_codes_given_any_absmax_are_those_of_the_reference(codebook: str) -> None:
    rng = np.random.default_rng(4)
    x, absmax = with_specials(rng, 60, 64), odd_scales(rng, 60)
    x[5:] = scaled(x[5:], absmax[5:])
    x[20:30, 7], x[30:40, 9] = np.nan, -np.inf
    likes = [replace(q.quantize_blockwise(x, codebook=codebook), absmax=absmax) for q in (backend, qloracle)]
    with np.errstate(all="ignore"):
        made = [q.quantize_like(x, like, scales="kept") for q, like in zip((backend, qloracle), likes, strict=True)]
    assert np.array_equal(made[0].data, made[1].data)


def test_int8_codes_given_any_absmax_are_those_of_the_reference() -> None:
    rng = np.random.default_rng(5)
    x, absmax = with_specials(rng, 60, 64), odd_scales(rng, 60)
    x[5:] = scaled(x[5:], absmax[5:])
    likes = [replace(q.quantize_int8(x, granularity="row"), absmax=absmax) for q in (backend, qloracle)]
    with np.errstate(all="ignore"):
        made = [q.quantize_like(x, like, scales="kept") for q, like in zip((backend, qloracle), likes, strict=True)]
    assert np.array_equal(made[0].codes, made[1].codes)


def test_affine_codes_and_gradients_for_any_scale_are_those_of_the_reference() -> None:
    rng = np.random.default_rng(6)
    x, scale = with_specials(rng, 60, 64), odd_scales(rng, 60)
    x[5:] = scaled(x[5:], scale[5:])
    zero_point = rng.integers(-128, 128, 60).astype(np.int32)
    dy = rng.standard_normal(x.shape).astype(np.float32)
    with np.errstate(all="ignore"):
        mine, wanted = (q.fake_quantize(x, scale, zero_point, granularity="row") for q in (backend, qloracle))
        require_same(mine, wanted)
        for interval in ("values", "codes"):
            mine, wanted = (
                q.fake_quantize_backward(dy, x, scale, zero_point, granularity="row", interval=interval)
                for q in (backend, qloracle)
            )
            require_same(mine, wanted)


def test_a_norm_of_many_parts_scales_every_tensor_alike_in_every_order() -> None:
    ones = np.ones(16384 - 96, np.float32)  # together 2^14 ones: their norm is 128, in any order
    rest = np.ones((4, 24), np.float16)
    clipped = backend.clip_by_norm([ones, rest], 64.0)
    assert [set(tensor.reshape(-1).tolist()) for tensor in clipped] == [{0.5}, {0.5}]
    assert [tensor.dtype.name for tensor in clipped] == ["float32", "float16"]
    kept = backend.clip_by_norm([ones, rest], 128.0)
    assert [set(tensor.reshape(-1).tolist()) for tensor in kept] == [{1.0}, {1.0}]
    x = np.random.default_rng(7).standard_normal(20000).astype(np.float32)
    assert len(bits_in_every_order(lambda: backend.clip_by_norm([x], 1.0)[0])) == 1


@pytest.mark.parametrize("state_bits", [32, 8])
def test_an_update_is_limited_by_the_norm_of_all_its_elements(state_bits: int) -> None:
    # Every update is 1/2: their norm is 64, that of the parameter 128, so that a quarter of it halves them.
    p = np.ones(16384, np.float32)
    options = backend.AdamwOptions(lr=0.5, beta1=0, beta2=0, eps=1.0, max_update_norm=0.25)
    if state_bits == 32:
        new, after = backend.adamw_step(p, p, backend.adamw_init(p.shape), options)
    else:
        new, after = backend.adamw8bit_step(p, p, backend.adamw8bit_init(p.shape), options)
    assert set(new.tolist()) == {0.875}
    assert after.step == 1
    still, _ = backend.adamw_step(0 * p, p, backend.adamw_init(p.shape), options)
    assert not still.any(), "a parameter of zeros stays where it is"


def test_the_parts_of_a_step_make_the_step() -> None:
    rng = np.random.default_rng(8)
    p, g, m = (rng.standard_normal(700).astype(np.float16).astype(np.float32) for _ in range(3))
    state, options = backend.AdamwState(m, m * m, 3), backend.AdamwOptions(weight_decay=0.125)
    new, after = backend.adamw_step(p, g, state, options)
    moments = backend.adamw_moments(g, state.m, state.v, options)
    assert [moment.tobytes() for moment in moments] == [after.m.tobytes(), after.v.tobytes()]
    assert backend.adamw_parameter(p, *moments, options, step=4).tobytes() == new.tobytes()


@pytest.mark.parametrize("weight", ["n subnormal", "n zero"])
def test_a_dora_layer_of_tiny_rows_gives_no_nan_from_finite_operands(weight: str) -> None:
    w = np.zeros((2, 3), np.float32)
    if weight == "n subnormal":
        w[:, 0] = 2.0**-149
    a, b, m = np.zeros((1, 3), np.float32), np.zeros((2, 1), np.float32), np.full(2, 3e38, np.float32)
    y = backend.dora_forward(np.float32([[0, 1, 2]]), w, a, b, m, alpha=1)
    assert y.tolist() == [[0, 0]]
    merged = backend.dora_merge(w, a, b, m, alpha=1)
    assert merged.weight.tolist() == [[float(m[0]) if w[0, 0] else 0, 0, 0]] * 2
    assert backend.dora_unmerge(merged, a, b, m, alpha=1).tobytes() == w.tobytes()


def test_gradients_of_an_index_that_occurs_often_are_the_same_in_every_order() -> None:
    rng = np.random.default_rng(9)
    ids = np.where(rng.random(900) < 0.5, 3, rng.integers(0, 50, 900))
    table, a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((50, 8), (4, 50), (8, 4)))
    dy = rng.standard_normal((900, 8)).astype(np.float32)
    call = lambda: backend.embedding_lora_backward(dy, ids, table, a, b, alpha=4).lora_a  # noqa: E731
    assert len(bits_in_every_order(call)) == 1
    assert not call()[:, np.setdiff1d(np.arange(50), ids)].any()


def test_states_wait_in_a_file_and_come_back_bit_for_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(10)
    options, p = backend.AdamwOptions(), {name: rng.standard_normal(300).astype(np.float32) for name in "abc"}
    states = {name: backend.state_arrays(backend.adamw8bit_init((300,))) for name in p}
    size = sum(array.nbytes for array in states["a"].values())
    files = {name: np.memmap(tmp_path / name, np.uint8, "w+", shape=(size,)) for name in p}
    paged, plain = backend.page_states(states, 2 * size, files), {n: backend.adamw8bit_init((300,)) for n in p}
    moved = dict(p)
    for _ in range(3):
        for name, before in p.items():
            gradient = rng.standard_normal(300).astype(np.float32)
            paged, arrays = backend.fetch_state(paged, name)
            moved[name], after = backend.adamw8bit_step(
                moved[name], gradient, backend.state_from_arrays(arrays), options
            )
            paged = backend.store_state(paged, name, backend.state_arrays(after))
            p[name], plain[name] = backend.adamw8bit_step(before, gradient, plain[name], options)
            assert paged.plan.used <= paged.plan.budget
    assert paged.plan.resident == ("b", "c")
    assert {name: moved[name].tobytes() for name in p} == {name: p[name].tobytes() for name in p}
    paged, arrays = backend.fetch_state(paged, "a")
    assert arrays["codes_m"].tobytes() == plain["a"].codes_m.tobytes()
    arrays["codes_m"][...] = 0
    assert backend.fetch_state(paged, "a")[1]["codes_m"].tobytes() == plain["a"].codes_m.tobytes()
