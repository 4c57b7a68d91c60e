"""[adamw.moments], [adamw.parameter]: one step, against rational numbers, PyTorch in float64 and a closed form."""

from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array
from qloracle.optim.adamw import AdamwState, adamw_init, adamw_moments, adamw_parameter, adamw_step
from qloracle.optim.options import AdamwOptions, bias_correction
from qloracle.rounding import decode, encode

from . import rational_adamw as exactly
from .adamw_evaluations import Hyperparameters
from .rationals import exact, random_float32, round_word

SETTINGS = (
    Hyperparameters(1e-3, 0.9, 0.999, 1e-8, 0.01),
    Hyperparameters(0.5, 0.9, 0.95, 1e-2, 0.1),
    Hyperparameters(0.3, 0.1, 0.0, 0.5, 2.0),
    Hyperparameters(0.0, 0.0, 0.9999, 1e-6, 0.3),
)
N = 40


def options(h: Hyperparameters, **more: Any) -> AdamwOptions:
    return AdamwOptions(h.lr, h.beta1, h.beta2, h.eps, h.weight_decay, **more)


def operands(seed: int, count: int = N) -> tuple[Array, Array, Array, Array]:
    """p, g, m, v over twelve binades."""
    rng = np.random.default_rng([201, seed])
    p, g, m, v = (np.ldexp(rng.standard_normal(count), rng.integers(-6, 7, count)).astype(np.float32) for _ in range(4))
    return p, g, m, np.square(v)


def require_real(got: float, expected: Fraction, size: Fraction, what: str) -> None:
    """A real value is right up to float64 rounding: sixteen operations on terms of at most `size`."""
    error = abs(exact(got) - expected)
    assert error <= 16 * size / 2**53, f"{what}: {got!r} is off by {float(error)}, terms up to {float(size)}"


def require_rounded(word: int, real: Fraction, fmt: str, what: str) -> None:
    """A word is that of the real number, which float64 may move across a tie that is 2^−48 of itself away."""
    near = {round_word(real * (1 + Fraction(k, 2**48)), fmt) for k in (-1, 0, 1)}
    assert word in near, f"{what}: got {word:#x} for {float(real)}, expected {sorted(map(hex, near))}"


@pytest.mark.proof("adamw.moments", by="exact rationals")
@pytest.mark.parametrize("h", SETTINGS)
def test_moments_are_the_weighted_sums_of_rational_numbers(h: Hyperparameters) -> None:
    _, g, m, v = operands(1)
    got = adamw_moments(g, m, v, options(h))
    for i in range(N):
        expected = exactly.moments(exact(g[i]), exact(m[i]), exact(v[i]), h)
        sizes = (abs(exact(m[i])) + abs(exact(g[i])), exact(v[i]) + exact(g[i]) ** 2)
        for name, value, real, size in zip("mv", got, expected, sizes, strict=True):
            require_real(float(value[i]), real, size, f"{name} of element {i}")


@pytest.mark.proof("adamw.parameter", by="rationals with roots to 60 digits")
@pytest.mark.parametrize("step", [1, 2, 9, 1000])
@pytest.mark.parametrize("h", SETTINGS)
def test_the_parameter_is_that_of_rational_numbers(h: Hyperparameters, step: int) -> None:
    p, _, m, v = operands(2)
    got = adamw_parameter(p, m, v, options(h), step=step)
    for i in range(N):
        real = exactly.parameter(exact(p[i]), exact(m[i]), exact(v[i]), h, step)
        change = Fraction(h.lr) * abs(exactly.update(exact(m[i]), exact(v[i]), h, step))
        size = abs(exact(p[i])) * (1 + Fraction(h.lr) * Fraction(h.weight_decay)) + change
        require_real(float(got[i]), real, size, f"element {i}")


@pytest.mark.proof("adamw.moments", by="rationals rounded to words")
@pytest.mark.proof("adamw.parameter", by="rationals rounded to words")
@pytest.mark.parametrize("fmt", ["float32", "float16", "bfloat16"])
def test_a_step_rounds_the_moments_then_the_parameter_once(fmt: str) -> None:
    h = SETTINGS[1]
    rng = np.random.default_rng(203)
    words = encode(rng.standard_normal((2, N)), fmt)
    p64, g64 = decode(words, fmt)
    _, _, m, v = operands(3)
    p, g = (words[0], words[1]) if fmt == "bfloat16" else words.view(fmt)
    new, state = adamw_step(p, g, AdamwState(m, v, 4), options(h), fmt=fmt)
    got = np.asarray(new).view(words.dtype)
    for i in range(N):
        mean, square = exactly.moments(exact(g64[i]), exact(m[i]), exact(v[i]), h)
        require_rounded(int(state.m.view(np.uint32)[i]), mean, "float32", f"m of element {i}")
        require_rounded(int(state.v.view(np.uint32)[i]), square, "float32", f"v of element {i}")
        real = exactly.parameter(exact(p64[i]), exact(state.m[i]), exact(state.v[i]), h, 5)
        require_rounded(int(got[i]), real, fmt, f"p of element {i}")
    assert state.step == 5


@pytest.mark.proof("adamw.moments", by="torch.optim.AdamW in float64")
@pytest.mark.proof("adamw.parameter", by="torch.optim.AdamW in float64")
@pytest.mark.parametrize("step", [1, 2, 17])
@pytest.mark.parametrize("h", SETTINGS[:2])
def test_a_step_is_that_of_pytorch(torch: ModuleType, h: Hyperparameters, step: int) -> None:
    p, g, m, v = operands(4)
    parameter = torch.nn.Parameter(torch.tensor(p.astype(np.float64)))
    optimizer = torch.optim.AdamW(
        [parameter], lr=h.lr, betas=(h.beta1, h.beta2), eps=h.eps, weight_decay=h.weight_decay
    )
    wide = {"exp_avg": torch.tensor(m.astype(np.float64)), "exp_avg_sq": torch.tensor(v.astype(np.float64))}
    optimizer.state[parameter] = {"step": torch.tensor(float(step - 1)), **wide}
    parameter.grad = torch.tensor(g.astype(np.float64))
    optimizer.step()
    after = parameter.detach().numpy()
    means = adamw_moments(g, m, v, options(h))
    single = tuple(part.astype(np.float32) for part in means)
    got = adamw_parameter(p, *single, options(h), step=step)
    for i in range(N):
        require_real(float(wide["exp_avg"][i]), exact(means[0][i]), abs(exact(m[i])) + abs(exact(g[i])), f"m {i}")
        require_real(float(wide["exp_avg_sq"][i]), exact(means[1][i]), exact(v[i]) + exact(g[i]) ** 2, f"v {i}")
        # PyTorch goes on from unrounded moments: half a float32 unit of each, in the update.
        change = Fraction(h.lr) * abs(exactly.update(exact(single[0][i]), exact(single[1][i]), h, step))
        error = abs(exact(after[i]) - exact(got[i]))
        assert error <= 2 * change / 2**24 + abs(exact(p[i])) / 2**50, f"p of element {i} is off by {float(error)}"


@pytest.mark.proof("adamw.moments", by="closed form for a constant gradient")
@pytest.mark.proof("adamw.parameter", by="closed form for a constant gradient")
@pytest.mark.parametrize("g", [1.0, -0.5, 8.0])
def test_a_constant_gradient_moves_by_lr_times_its_part_of_itself_and_eps(g: float) -> None:
    # From 0 the moments are g·(1 − β₁^t) and g²·(1 − β₂^t); corrected they are g and g², and √v̂ = |g| = eps here.
    chosen = AdamwOptions(lr=0.25, beta1=0.5, beta2=0.75, eps=abs(g))
    p, state = np.full(3, 4, np.float32), adamw_init((3,))
    gradient = np.full(3, g, np.float32)
    for step in range(1, 9):
        p, state = adamw_step(p, gradient, state, chosen)
        assert np.all(state.m == g * (1 - 0.5**step)), f"step {step}: m = {state.m}"
        assert np.all(state.v == g * g * (1 - 0.75**step)), f"step {step}: v = {state.v}"
        assert np.all(p == 4 - step * 0.125 * np.sign(g)), f"step {step}: p = {p}"


def test_the_decay_comes_before_the_update() -> None:
    # 1·(1 − 0.1·0.1) − 0.1·1 = 0.89; the decay after the update would give 0.891.
    chosen = AdamwOptions(lr=0.1, weight_decay=0.1, eps=2.0**-100)
    p, _ = adamw_step(np.ones(1, np.float32), np.array([0.5], np.float32), adamw_init((1,)), chosen)
    assert p.tolist() == [float(np.float32(0.89))]


@pytest.mark.parametrize("fmt", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("lr", [0.0, 1e-3, 1e3])
def test_without_decay_gradient_and_moments_nothing_moves(fmt: str, lr: float) -> None:
    words = np.random.default_rng(205).integers(0, 1 << 15, 500)
    p = words.astype(np.uint16) if fmt == "bfloat16" else words.astype(np.uint16).view(np.float16).astype(fmt)
    p = np.where(np.isfinite(p), p, 0).astype(p.dtype) if fmt != "bfloat16" else np.minimum(p, 0x7F7F)
    zero = np.zeros_like(p)
    new, state = adamw_step(p, zero, adamw_init(p.shape), AdamwOptions(lr=lr), fmt=fmt)
    assert np.array_equal(new, p)
    assert not state.m.any()
    assert not state.v.any()


@pytest.mark.parametrize("beta", [0.5, 0.9, 0.999, 1 - 2.0**-24, 2.0**-126])
@pytest.mark.parametrize("step", [1, 2, 64, 65, 1000])
def test_the_bias_correction_is_that_of_rational_numbers(beta: float, step: int) -> None:
    real = 1 - Fraction(beta) ** step
    error = abs(exact(bias_correction(beta, step)) - real) / real
    assert error <= Fraction(4, 2**53), f"off by {float(error) * 2**53} units"
    if step <= 64:
        assert bias_correction(beta, step) == float(real)


def test_words_of_any_exponent_keep_their_moments_finite_or_overflow_to_infinity() -> None:
    g = random_float32(np.random.default_rng(206), 2000)
    zero = np.zeros(g.shape, np.float32)
    _, state = adamw_step(zero, g, AdamwState(zero, zero, 0), AdamwOptions())
    squares = (1 - 0.999) * np.square(g.astype(np.float64))
    assert np.array_equal(np.isinf(state.v), squares >= (2 - 2.0**-24) * 2.0**127)
    assert np.isfinite(state.m).all()


@pytest.mark.parametrize(
    ("changed", "value"),
    [
        ("lr", -1.0), ("lr", np.inf), ("lr", 1e-40), ("beta1", 1.0), ("beta1", -0.1), ("beta2", 1 - 2.0**-30),
        ("eps", 0.0), ("eps", -1e-8), ("eps", np.nan), ("weight_decay", -0.1), ("nonfinite", "ignore"),
        ("max_update_norm", 0.0),
    ],
)  # fmt: skip
def test_hyperparameters_out_of_range_are_rejected_by_name(changed: str, value: object) -> None:
    with pytest.raises(ArgumentValueError, match=f"^{changed} must be "):
        AdamwOptions(**{changed: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["lr", "beta1", "beta2", "eps", "weight_decay", "max_update_norm"])
@pytest.mark.parametrize("value", ["0.1", True, [0.1]])
def test_hyperparameters_that_are_no_numbers_are_rejected_by_name(name: str, value: object) -> None:
    with pytest.raises(ArgumentTypeError, match=f"^{name} must be "):
        AdamwOptions(**{name: value})  # type: ignore[arg-type]


def test_arguments_that_do_not_fit_are_rejected_by_name() -> None:
    p, state, chosen = np.ones(3, np.float32), adamw_init((3,)), AdamwOptions()
    cases: list[tuple[str, type[Exception], dict[str, Any]]] = [
        ("p", ArgumentTypeError, {"p": p.astype(np.float64)}),
        ("gradient", ArgumentTypeError, {"gradient": p.astype(np.float16)}),
        ("gradient", ArgumentValueError, {"gradient": p[:2]}),
        ("m", ArgumentTypeError, {"state": AdamwState(p.astype(np.float16), p, 0)}),
        ("v", ArgumentValueError, {"state": AdamwState(p, p[:1], 0)}),
        ("v", ArgumentValueError, {"state": AdamwState(p, -p, 0)}),
        ("step", ArgumentValueError, {"state": AdamwState(p, p, -1)}),
        ("random_bits", ArgumentValueError, {"random_bits": np.zeros(3, np.uint32)}),
    ]
    for name, error, changed in cases:
        arguments: dict[str, Any] = {"p": p, "gradient": p, "state": state, "options": chosen, **changed}
        with pytest.raises(error, match=f"^{name} must be "):
            adamw_step(**arguments)
    with pytest.raises(ArgumentTypeError, match=r"^step must be "):
        AdamwState(p, p, 1.5)  # type: ignore[arg-type]


def test_layouts_and_empty_and_read_only_arrays_give_the_same_bits_and_stay_as_they_are() -> None:
    p, g, m, v = (part.reshape(5, 8) for part in operands(7))
    plain, state = adamw_step(p, g, AdamwState(m, v, 2), AdamwOptions())
    for change in (np.asfortranarray, lambda a: np.repeat(a, 2, axis=1)[:, ::2], lambda a: a.astype(">f4")):
        parts = [change(part) for part in (p, g)]
        for part in parts:
            part.setflags(write=False)
        moved, after = adamw_step(*parts, AdamwState(m, v, 2), AdamwOptions())
        assert np.array_equal(moved, plain)
        assert np.array_equal(after.v, state.v)
    for shape in ((), (0,), (3, 0)):
        new, _ = adamw_step(np.ones(shape, np.float32), np.ones(shape, np.float32), adamw_init(shape), AdamwOptions())
        assert new.shape == shape
