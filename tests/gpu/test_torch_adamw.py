"""AdamW on tensors: steps inside the reference's bounds, states exact, for hyperparameters that are no defaults."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qloracle
import qloracle_gpu.torch as backend
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle_gpu.torch.optim import quantized_moments, update
from qloracle_gpu.torch.optim.options import StepConstants

from .step_judging import FORMATS, host, judged_step, judged_step_8bit, native, require_same_bits
from .suite_runs import passed_operations
from .words import require_same, tensor

OPTIONS = [
    backend.AdamwOptions(lr=0.02, beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=0.3),
    backend.AdamwOptions(lr=0.5, beta1=0.3, beta2=0.2, eps=1e-3, weight_decay=0.01),
    backend.AdamwOptions(lr=3e-4, beta1=0.99, beta2=0.9999, eps=1e-12, weight_decay=2.0, max_update_norm=0.4),
]
NONFINITE = ("propagate", "skip", "reset")
SIZE = 700  # elements: two blocks of 256, and a short one


def numbers(seed: int, size: int = SIZE) -> Any:
    """Numbers of many magnitudes, zeros among them."""
    random = np.random.default_rng(seed)
    found = (random.standard_normal(size) * np.exp2(random.integers(-20, 10, size))).astype(np.float32)
    found[::9] = 0.0
    return found


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "short", "long limited"])
def test_thirty_steps_in_32_bits_stay_inside_their_bounds(fmt: str, options: backend.AdamwOptions) -> None:
    shape = (7, 5, 20)
    p, state, judged = native(numbers(0), fmt).view(shape), backend.adamw_init(shape), 0
    for step in range(30):
        p, state, count = judged_step(p, native(numbers(step + 1), fmt).view(shape), state, options)
        judged += count
    assert state.step == 30
    assert judged > 29 * SIZE, f"only {judged} parameters were judged"


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "short", "long limited"])
def test_fifteen_steps_in_8_bits_stay_inside_their_bounds(fmt: str, options: backend.AdamwOptions) -> None:
    p, state, judged = native(numbers(0), fmt), backend.adamw8bit_init((SIZE,)), 0
    for step in range(15):
        p, state, count = judged_step_8bit(p, native(numbers(step + 1), fmt), state, options)
        judged += count
    assert state.step == 15
    assert judged > 14 * SIZE, f"only {judged} parameters were judged"


@pytest.mark.parametrize("fmt", ["float16", "bfloat16"])
@pytest.mark.parametrize("nonfinite", NONFINITE)
def test_steps_with_random_bits_round_as_the_reference_does(fmt: str, nonfinite: str) -> None:
    random, p = np.random.default_rng(5), native(numbers(0), fmt)
    options, state = replace(OPTIONS[0], nonfinite=nonfinite), backend.adamw8bit_init((SIZE,))
    for step in range(5):
        bits = random.integers(0, 2**32, SIZE, dtype=np.uint32)
        bits[::5], bits[1::5] = 0, 2**32 - 1
        p, state, _ = judged_step_8bit(p, native(numbers(step + 1), fmt), state, options, bits)


@pytest.mark.parametrize("nonfinite", NONFINITE)
def test_a_gradient_that_is_not_finite_does_what_the_policy_says_for_three_steps_more(nonfinite: str) -> None:
    options = replace(OPTIONS[0], nonfinite=nonfinite)
    p, state, state_8bit = native(numbers(0), "float32"), backend.adamw_init((SIZE,)), backend.adamw8bit_init((SIZE,))
    other = p
    for step in range(5):
        gradient = native(numbers(step + 1), "float32")
        if step == 1:
            gradient[3], gradient[300], gradient[650] = torch.nan, torch.inf, -torch.inf
        p, state, _ = judged_step(p, gradient, state, options)
        other, state_8bit, _ = judged_step_8bit(other, gradient, state_8bit, options)
    lost = [3, 300, 650] if nonfinite == "propagate" else []
    assert p.isnan().nonzero().flatten().tolist() == lost
    assert other.isnan().any() == bool(lost), "a poisoned block makes all of its parameters NaN, and no other does"


@pytest.mark.parametrize(
    ("options", "state", "expected"),
    [  # coupled decay gives 0.9, decay after the update 0.891
        (backend.AdamwOptions(lr=0.1, weight_decay=0.1), backend.adamw_init((1,)), "3f63d70a"),
        (backend.AdamwOptions(lr=0.25, weight_decay=0.5, beta1=0.0, beta2=0.0, eps=0.5), backend.adamw_init((1,)),
         "3f400000"),  # 1 − 1/8 − 1/4·(1/2)/(1/2 + 1/2)
    ],
)  # fmt: skip
def test_the_decay_is_decoupled_and_comes_first(
    options: backend.AdamwOptions, state: backend.AdamwState, expected: str
) -> None:
    p, _ = backend.adamw_step(torch.ones(1), torch.tensor([0.5]), state, options)
    require_same_bits(p, tensor(expected), "p after a step with weight decay")


@pytest.mark.parametrize("fmt", FORMATS)
def test_small_integers_and_powers_of_two_give_the_bits_of_the_reference(fmt: str) -> None:
    # √v̂ + eps is a power of two, so that nothing but the last rounding rounds.
    chosen: dict[str, Any] = {"lr": 0.25, "beta1": 0.5, "beta2": 0.75, "eps": 0.25, "weight_decay": 0.5}
    p, gradient = native(np.array([1.0, -3.0, 0.5, 7.0]), fmt), native(np.array([0.75, -0.75, 1.75, -3.75]), fmt)
    new, state = backend.adamw_step(p, gradient, backend.adamw_init((4,)), backend.AdamwOptions(**chosen))
    start = qloracle.adamw_init((4,))
    expected, after = qloracle.adamw_step(host(p), host(gradient), start, qloracle.AdamwOptions(**chosen), fmt=fmt)
    require_same(new, expected, fmt, "p")
    require_same(state.m, after.m, "float32", "m")
    require_same(state.v, after.v, "float32", "v")


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("nonfinite", NONFINITE)
def test_without_gradient_state_and_decay_nothing_moves(fmt: str, nonfinite: str) -> None:
    p, zero = native(numbers(1), fmt), native(np.zeros(SIZE), fmt)
    p[0] = -0.0
    options = backend.AdamwOptions(lr=0.5, eps=1e-30, nonfinite=nonfinite)
    first, start = backend.adamw_init((SIZE,)), backend.adamw8bit_init((SIZE,))
    codes = torch.arange(SIZE).to(torch.uint8)  # of blocks whose absmax is 0: they mean nothing
    second, new, other = replace(start, codes_m=codes, codes_v=codes), p, p
    for _ in range(3):
        new, first = backend.adamw_step(new, zero, first, options)
        other, second = backend.adamw8bit_step(other, -zero, second, options)
    require_same_bits(new, p, "p in 32 bits")
    require_same_bits(other, p, "p in 8 bits")
    assert second.absmax_m.tolist() == second.absmax_v.tolist() == [0.0] * 3


def test_a_mean_of_zero_moves_nothing_whatever_the_mean_square_is() -> None:
    state = backend.AdamwState(torch.zeros(3), torch.tensor([0.0, 1e-30, 1e30]), 5)
    p, after = backend.adamw_step(torch.tensor([1.0, -0.0, 3.0]), torch.zeros(3), state, backend.AdamwOptions(lr=1.0))
    require_same_bits(p, torch.tensor([1.0, -0.0, 3.0]), "p")
    assert after.m.tolist() == [0.0] * 3


def test_a_mean_square_far_below_the_largest_in_its_block_is_kept_by_the_unsigned_map() -> None:
    state = backend.quantize_moments(backend.AdamwState(torch.zeros(2), torch.tensor([1.0, 1e-3]), 1))
    expected = qloracle.quantize_moments(
        qloracle.AdamwState(np.zeros(2, np.float32), np.array([1.0, 1e-3], np.float32), 1)
    )
    require_same(state.codes_v, expected.codes_v, None, "codes of v")
    restored = backend.dequantize_moments(state, (2,)).v
    assert restored[0] == 1.0
    assert 0.0009 < restored[1] < 0.0011


def test_a_block_of_a_state_has_256_elements() -> None:
    state = backend.adamw8bit_init((4096,))
    assert state.absmax_m.shape == state.absmax_v.shape == (16,)
    assert state.block_size == qloracle.adamw8bit_init((4096,)).block_size == 256


def test_bfloat16_parameters_stagnate_unless_they_are_rounded_stochastically() -> None:
    options, one = backend.AdamwOptions(lr=1e-3), torch.ones(64, dtype=torch.bfloat16)
    plain, _ = backend.adamw_step(one, one, backend.adamw_init((64,)), options)
    assert (plain == 1).all()
    # 0.999 is 0.744 of the way from the next bfloat16 below to 1: random bits below that share of 2^32 go up to 1.
    bits = np.arange(64, dtype=np.uint32) << np.uint32(26)
    moved, _, _ = judged_step(one, one, backend.adamw_init((64,)), options, bits)
    assert (moved < 1).tolist() == [False] * 48 + [True] * 16


def test_what_a_16_bit_format_holds_never_moves_stochastically() -> None:
    p = torch.tensor([1.0, -0.0, 3.389e38, torch.inf, -1e-38]).to(torch.bfloat16)
    zero, options = torch.zeros_like(p), backend.AdamwOptions()
    for word in (0, 1, 2**31, 2**32 - 1):
        bits = torch.full((5,), word, dtype=torch.uint32)
        new, _ = backend.adamw_step(p, zero, backend.adamw_init((5,)), options, random_bits=bits)
        require_same_bits(new, p, f"with random bits {word:#x}")


CHANGES = {"lr": 0.01, "beta1": 0.7, "beta2": 0.9, "eps": 1e-2, "weight_decay": 0.1, "max_update_norm": 0.01}


@pytest.mark.parametrize("name", CHANGES)
def test_every_hyperparameter_counts(name: str) -> None:
    p, gradients = native(numbers(0), "float32"), [native(numbers(step), "float32") for step in (1, 2)]

    def after_two(options: backend.AdamwOptions) -> torch.Tensor:
        new, state = p, backend.adamw8bit_init((SIZE,))
        for gradient in gradients:
            new, state = backend.adamw8bit_step(new, gradient, state, options)
        return new

    plain = backend.AdamwOptions()
    assert not torch.equal(after_two(plain), after_two(replace(plain, **{name: CHANGES[name]})))


@pytest.mark.parametrize(("limit", "active"), [(0.4999, True), (0.5, False), (0.5001, False)])
def test_the_norm_of_the_update_is_limited_relative_to_that_of_the_parameter(limit: float, active: bool) -> None:
    # √v̂ + eps is 2 and m̂ is 1, so that the update is 1/2 everywhere; ‖p‖ is √4.
    options = backend.AdamwOptions(lr=1.0, beta1=0.0, beta2=0.0, eps=1.0, max_update_norm=limit)
    p, state, _ = judged_step(torch.ones(4), torch.ones(4), backend.adamw_init((4,)), options)
    assert state.step == 1
    assert (p > 0.5).all() if active else (p == 0.5).all()


def coupled(p: torch.Tensor, gradient: torch.Tensor, state: Any, options: backend.AdamwOptions, **how: Any) -> Any:
    whole = gradient + options.weight_decay * p
    return STEP(p, whole.to(p.dtype), state, replace(options, weight_decay=0.0), **how)


def without_beta2(p: torch.Tensor, g: torch.Tensor, state: Any, options: backend.AdamwOptions, **how: Any) -> Any:
    return STEP(p, g, state, replace(options, beta2=backend.AdamwOptions().beta2), **how)


def step_too_late(p: torch.Tensor, g: torch.Tensor, state: Any, options: backend.AdamwOptions, **how: Any) -> Any:
    new, after = STEP(p, g, replace(state, step=state.step + 1), options, **how)
    return new, replace(after, step=state.step + 1)


def eps_inside(m: torch.Tensor, v: torch.Tensor, c: StepConstants) -> torch.Tensor:
    return m / (v * c.root * c.root + c.eps).sqrt()


def uncorrected(m: torch.Tensor, v: torch.Tensor, c: StepConstants) -> torch.Tensor:
    return m / (v.sqrt() + c.eps)


def decay_after(p: torch.Tensor, moved: torch.Tensor, c: StepConstants, limit: torch.Tensor | None) -> torch.Tensor:
    return (p.to(torch.float32) - moved * c.rate) * c.decay


STEP = backend.adamw_step
FAULTS: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "decay coupled with the gradient": (backend, "adamw_step", coupled),
    "beta2 not handed on": (backend, "adamw_step", without_beta2),
    "bias correction of the next step": (backend, "adamw_step", step_too_late),
    "eps inside the root": (update, "update_of", eps_inside),
    "no correction of the mean square": (update, "update_of", uncorrected),
    "decay after the update": (update, "new_parameter", decay_after),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("fmt", FORMATS)
def test_the_judge_of_these_tests_sees_a_wrong_step(fault: str, fmt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*FAULTS[fault])
    p, gradient = native(numbers(0), fmt), native(numbers(1), fmt)
    with pytest.raises(AssertionError, match="outside their bound"):
        judged_step(p, gradient, backend.adamw_init((SIZE,)), OPTIONS[0])


def test_the_judge_of_these_tests_sees_a_mean_square_in_the_signed_map(monkeypatch: pytest.MonkeyPatch) -> None:
    signed = dict.fromkeys("mv", quantized_moments.CODEBOOKS_OF_MOMENTS["m"])
    monkeypatch.setattr(quantized_moments, "CODEBOOKS_OF_MOMENTS", signed)
    p, state = native(numbers(0), "float32"), backend.adamw8bit_init((SIZE,))
    with pytest.raises(AssertionError, match="codes_v"):
        judged_step_8bit(p, p, state, OPTIONS[0])


def test_the_root_is_rounded_correctly_on_a_tenth_of_two_binades_and_at_the_ends_of_the_range() -> None:
    words = np.arange(0x3F800000, 0x40800000, 11, dtype=np.uint32)
    ends = np.array([0, 1, 2, 3, 0x7FFFFF, 0x800000, 0x7F7FFFFF, 0x7F800000], np.uint32)
    values = np.concatenate([words, ends]).view(np.float32)
    require_same(update._root(torch.from_numpy(values)), np.sqrt(values), "float32", "√v")


@pytest.mark.exhaustive
def test_the_root_is_rounded_correctly_for_every_significand() -> None:
    for first in range(0x3F800000, 0x40800000, 2**20):
        values = np.arange(first, first + 2**20, dtype=np.uint32).view(np.float32)
        require_same(update._root(torch.from_numpy(values)), np.sqrt(values), "float32", "√v")


def test_strides_and_empty_tensors_are_taken() -> None:
    square = native(numbers(3, 48), "bfloat16").view(8, 6)
    options = OPTIONS[0]
    for p, gradient in ((square.T, (2 * square).T), (square[::2, 1::2], square[1::2, ::2]), (square[:0], square[:0])):
        state = backend.adamw8bit_init(tuple(p.shape), block_size=10)
        flat, after, _ = judged_step_8bit(p.contiguous(), gradient.contiguous(), state, options)
        new, strided = backend.adamw8bit_step(p, gradient, state, options)
        require_same_bits(new, flat, "p")
        require_same_bits(strided.codes_v, after.codes_v, "codes of v")
    new, _ = backend.adamw_step(torch.tensor(1.0), torch.tensor(1.0), backend.adamw_init(()), backend.AdamwOptions())
    assert new.shape == ()


@pytest.mark.slow
def test_the_suite_finds_no_fault_of_the_optimizers(tmp_path: Path) -> None:
    passed = passed_operations("qloracle_gpu.torch.conformance_optimizers:backend", tmp_path)
    assert {"adamw.step", "adamw8bit.step", "adamw.paged", "adamw.resume", "accumulate.step"} <= passed


def step(**changes: Any) -> Callable[[], Any]:
    """A call of `adamw_step` with some arguments changed."""
    given = {"p": torch.ones(2), "gradient": torch.ones(2), "state": backend.adamw_init((2,)),
             "options": backend.AdamwOptions()}  # fmt: skip
    return lambda: backend.adamw_step(**{**given, **changes})  # type: ignore[arg-type]


def step_8bit(**changes: Any) -> Callable[[], Any]:
    """A call of `adamw8bit_step` with some fields of its state changed."""
    state = replace(backend.adamw8bit_init((2,)), **changes)
    return lambda: backend.adamw8bit_step(torch.ones(2), torch.ones(2), state, backend.AdamwOptions())


HALF = torch.ones(2, dtype=torch.float16)
STATE = backend.adamw_init((2,))
BITS = torch.zeros(2, dtype=torch.uint32)
REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (step(p=torch.ones(2).double()), ArgumentTypeError, "p must be float32, float16 or bfloat16, got torch.float64"),
    (step(p=[1.0]), ArgumentTypeError, "p must be a torch tensor, got list"),
    (step(gradient=HALF), ArgumentTypeError, "gradient must be of the format of p, float32, got torch.float16"),
    (step(gradient=torch.ones(2).to_sparse()), ArgumentTypeError, "gradient must be a dense tensor, got"),
    (step(gradient=torch.ones(3)), ArgumentValueError, r"gradient must be of the shape of p \(2,\), got \(3,\)"),
    (step(gradient=torch.ones(2, device="meta")), ArgumentValueError, "gradient must be on cpu"),
    (step(state=replace(STATE, m=HALF)), ArgumentTypeError, "m must be float32, got torch.float16"),
    (step(state=replace(STATE, v=torch.ones(3))), ArgumentValueError, r"v must be of shape \(2,\), got \(3,\)"),
    (step(state=replace(STATE, v=-torch.ones(2))), ArgumentValueError, "v must be a mean of squares, nowhere below 0"),
    (step(state=replace(STATE, step=-1)), ArgumentValueError, "step must be a number of steps, 0 or more, got -1"),
    (step(state=replace(STATE, step=1.5)), ArgumentTypeError, "step must be a number of steps, 0 or more, got 1.5"),
    (step(state=backend.adamw8bit_init((2,))), ArgumentTypeError, "state must be AdamwState, got Adamw8bitState"),
    (step(options={"lr": 1}), ArgumentTypeError, "options must be AdamwOptions, got dict"),
    (step(random_bits=BITS), ArgumentValueError, "random_bits must be None for float32 parameters"),
    (step(p=HALF, gradient=HALF, random_bits=BITS[:1]), ArgumentValueError, "random_bits must be of the shape of p"),
    (step(p=HALF, gradient=HALF, random_bits=HALF), ArgumentTypeError, "random_bits must be uint32, got torch.float16"),
    (step_8bit(codes_m=torch.zeros(2)), ArgumentTypeError, "codes_m must be uint8, got torch.float32"),
    (step_8bit(codes_v=torch.zeros(3, dtype=torch.uint8)), ArgumentValueError, r"codes_v must be of shape \(2,\)"),
    (step_8bit(absmax_m=torch.zeros(2)), ArgumentValueError, r"absmax_m must be of shape \(1,\), one value a block"),
    (step_8bit(absmax_v=-torch.ones(1)), ArgumentValueError, "absmax_v must be nowhere below 0"),
    (step_8bit(block_size=0), ArgumentValueError, "block_size must be a positive integer, got 0"),
    (lambda: backend.AdamwOptions(lr=-1.0), ArgumentValueError, "lr must be 0 or from 2\\^-126 to"),
    (lambda: backend.AdamwOptions(beta1=1.0), ArgumentValueError, "beta1 must be 0 or from 2\\^-126 to 0.9999"),
    (lambda: backend.AdamwOptions(eps=0.0), ArgumentValueError, "eps must be from 2\\^-126 to"),
    (lambda: backend.AdamwOptions(weight_decay=float("nan")), ArgumentValueError, "weight_decay must be"),
    (lambda: backend.AdamwOptions(nonfinite="ignore"), ArgumentValueError, "nonfinite must be one of propagate, skip"),
    (lambda: backend.AdamwOptions(lr="fast"), ArgumentTypeError, "lr must be a number, got 'fast'"),  # type: ignore[arg-type]
    (lambda: backend.adamw8bit_init((2,), block_size=-1), ArgumentValueError, "block_size must be a positive integer"),
    (lambda: backend.adamw_init((-1,)), ArgumentValueError, "shape must be of sizes that are 0 or more"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "error", "message"), REFUSED, ids=[f"{i} {case[2]}" for i, case in enumerate(REFUSED)]
)
def test_what_does_not_fit_is_refused_by_name(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
