"""[adamw8bit.dequantize], [adamw8bit.quantize]: states of 8 bits, against rationals and PyTorch, and over steps."""

from fractions import Fraction
from types import ModuleType

import numpy as np
import pytest

from qloracle.dynamic_map import derive_dynamic_signed, derive_dynamic_unsigned
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array
from qloracle.optim.adamw import AdamwState, adamw_step
from qloracle.optim.adamw8bit import (
    Adamw8bitState,
    adamw8bit_init,
    adamw8bit_step,
    dequantize_moments,
    quantize_moments,
)
from qloracle.optim.options import AdamwOptions

from .rationals import exact, nearest_entry, rounded

SIZE = 700  # two blocks of 256 and a short one
BLOCKS = [slice(0, 256), slice(256, 512), slice(512, 700)]
TABLES = {"m": derive_dynamic_signed(), "v": derive_dynamic_unsigned()}


def moments(seed: int) -> AdamwState:
    """Moments over eight decades within every block, each block of its own scale."""
    rng = np.random.default_rng([231, seed])
    scale = np.repeat([1.0, 1e-6, 300.0], [256, 256, 188])
    m = rng.choice([-1.0, 1.0], SIZE) * 10 ** rng.uniform(-8, 0, SIZE) * scale
    return AdamwState(m.astype(np.float32), np.square(m).astype(np.float32), 3)


def drawn(seed: int) -> Adamw8bitState:
    rng = np.random.default_rng([232, seed])
    codes = rng.integers(0, 256, (2, SIZE), np.uint8)
    absmax = np.abs(rng.standard_normal((2, 3))).astype(np.float32)
    return Adamw8bitState(codes[0], absmax[0], codes[1], absmax[1], 5)


@pytest.mark.proof("adamw8bit.quantize", by="exact rationals")
@pytest.mark.parametrize("name", ["m", "v"])
def test_codes_are_the_nearest_entries_to_the_moment_over_the_absmax_of_its_block(name: str) -> None:
    state = moments(1)
    moment, quantized = getattr(state, name), quantize_moments(state)
    codes, absmax = getattr(quantized, f"codes_{name}"), getattr(quantized, f"absmax_{name}")
    ascending = [exact(entry) for entry in TABLES[name]]
    for block, largest in zip(BLOCKS, absmax, strict=True):
        assert exact(largest) == max(abs(exact(value)) for value in moment[block])
        expected = [nearest_entry(exact(value) / exact(largest), ascending) for value in moment[block]]
        assert codes[block].tolist() == expected


@pytest.mark.proof("adamw8bit.quantize", by="a search of all entries in PyTorch's float64")
@pytest.mark.parametrize("name", ["m", "v"])
def test_codes_are_those_of_the_least_distance(torch: ModuleType, name: str) -> None:
    state = moments(2)
    moment, quantized = torch.tensor(getattr(state, name).astype(np.float64)), quantize_moments(state)
    table = torch.tensor(TABLES[name].astype(np.float64))
    for index, block in enumerate(BLOCKS):
        largest = moment[block].abs().max()
        assert float(largest) == getattr(quantized, f"absmax_{name}")[index]
        distance = (moment[block][:, None] / largest - table).abs()
        assert getattr(quantized, f"codes_{name}")[block].tolist() == distance.argmin(dim=1).tolist()


@pytest.mark.proof("adamw8bit.dequantize", by="exact rationals")
@pytest.mark.parametrize("name", ["m", "v"])
def test_restored_moments_are_one_float32_product(name: str) -> None:
    state = drawn(3)
    codes, absmax = getattr(state, f"codes_{name}"), getattr(state, f"absmax_{name}")
    restored = getattr(dequantize_moments(state, (7, 100)), name)
    assert restored.shape == (7, 100)
    for index, value in enumerate(restored.reshape(-1)):
        product = exact(TABLES[name][codes[index]]) * exact(absmax[index // 256])
        assert exact(value) == (rounded(product) if product else 0), f"element {index}"


@pytest.mark.proof("adamw8bit.dequantize", by="PyTorch's float32 products")
def test_restored_moments_are_pytorchs_products(torch: ModuleType) -> None:
    state = drawn(4)
    restored = dequantize_moments(state, (SIZE,))
    for name in ("m", "v"):
        table, codes = torch.tensor(TABLES[name]), torch.tensor(getattr(state, f"codes_{name}").astype(np.int64))
        scale = torch.tensor(getattr(state, f"absmax_{name}")).repeat_interleave(256)[:SIZE]
        assert np.array_equal(getattr(restored, name), (table[codes] * scale).numpy())


def test_a_step_is_that_of_the_restored_moments_and_its_moments_are_quantized() -> None:
    rng = np.random.default_rng(233)
    p, g = rng.standard_normal((2, 7, 100)).astype(np.float32)
    chosen, state = AdamwOptions(lr=0.1, weight_decay=0.1), drawn(5)
    expected, after = adamw_step(p, g, dequantize_moments(state, p.shape), chosen)
    new, stored = adamw8bit_step(p, g, state, chosen)
    assert np.array_equal(new, expected)
    again = quantize_moments(after)
    for name, part in vars(again).items():
        assert np.array_equal(getattr(stored, name), part), name


def test_requantizing_what_was_restored_changes_no_code_where_the_largest_entry_occurs() -> None:
    state = drawn(6)
    for name in ("m", "v"):
        getattr(state, f"codes_{name}")[[0, 256, 512]] = 255
    again = quantize_moments(dequantize_moments(state, (SIZE,)))
    assert np.array_equal(again.codes_m, state.codes_m)
    assert np.array_equal(again.codes_v, state.codes_v)
    assert np.array_equal(again.absmax_v, state.absmax_v)


def test_the_mean_square_keeps_small_gradients_beside_large_ones() -> None:
    # 1 and 10^-3 in one block: squares six decades apart, which a signed map or a floor would lose.
    g = np.full(256, 1e-3, np.float32)
    g[7] = 1
    _, state = adamw8bit_step(np.zeros(256, np.float32), g, adamw8bit_init((256,)), AdamwOptions())
    restored = dequantize_moments(state, (256,))
    ratio = restored.v[0] / restored.v[7]
    assert 0.5e-6 < ratio < 1.5e-6, f"the mean squares are {ratio} apart, expected 10^-6"


@pytest.mark.parametrize("steps", [1, 4])
def test_elements_without_gradients_never_move(steps: int) -> None:
    rng = np.random.default_rng(234)
    p, state = rng.standard_normal(600).astype(np.float32), adamw8bit_init((600,))
    still = (np.arange(600) % 3 == 0) | (np.arange(600) >= 512)
    new = p
    for _ in range(steps):
        g = np.where(still, 0, rng.standard_normal(600)).astype(np.float32)
        new, state = adamw8bit_step(new, g, state, AdamwOptions(lr=0.5))
    assert np.array_equal(new[still], p[still])
    assert np.all(new[~still] != p[~still])


def test_a_bad_gradient_poisons_the_states_of_its_block_alone() -> None:
    p, state = np.ones(SIZE, np.float32), drawn(7)
    g = np.ones(SIZE, np.float32)
    g[300] = np.inf
    new, state = adamw8bit_step(p, g, state, AdamwOptions())
    assert np.flatnonzero(~np.isfinite(new)).tolist() == [300], "in its own step only its own element is lost"
    assert np.isnan(state.absmax_m).tolist() == np.isnan(state.absmax_v).tolist() == [False, True, False]
    new, _ = adamw8bit_step(new, np.ones(SIZE, np.float32), state, AdamwOptions())
    assert np.isnan(new[256:512]).all(), "the next step shows that the block is lost"
    assert np.isfinite(new[:256]).all()


@pytest.mark.parametrize("policy", ["skip", "reset"])
def test_the_other_policies_keep_the_block(policy: str) -> None:
    g = np.ones(SIZE, np.float32)
    g[300] = np.nan
    chosen = AdamwOptions(nonfinite=policy)
    new, state = adamw8bit_step(np.ones(SIZE, np.float32), g, drawn(8), chosen)
    assert np.isfinite(new).all()
    assert np.isfinite(state.absmax_m).all()
    assert new[300] == 1


def test_the_cost_is_two_bytes_and_a_32nd_an_element() -> None:
    state = adamw8bit_init((1024,))
    size = sum(getattr(state, name).nbytes for name in ("codes_m", "absmax_m", "codes_v", "absmax_v"))
    assert Fraction(size, 1024) == 2 + Fraction(1, 32)


def test_states_that_do_not_belong_to_the_parameter_are_rejected_by_name() -> None:
    state, p = adamw8bit_init((300,)), np.ones(300, np.float32)
    for name, changed, error in (
        ("codes_m", {"codes_m": state.codes_m[:5]}, ArgumentValueError),
        ("codes_v", {"codes_v": state.codes_v.astype(np.int8)}, ArgumentTypeError),
        ("absmax_m", {"absmax_m": state.absmax_m[:1]}, ArgumentValueError),
        ("absmax_v", {"absmax_v": state.absmax_v.astype(np.float64)}, ArgumentTypeError),
        ("block_size", {"block_size": 0}, ArgumentValueError),
        ("block_size", {"block_size": 2.5}, ArgumentTypeError),
    ):
        with pytest.raises(error, match=f"^{name} must be "):
            adamw8bit_step(p, p, Adamw8bitState(**{**vars(state), **changed}), AdamwOptions())  # type: ignore[arg-type]


def test_an_empty_parameter_has_an_empty_state() -> None:
    empty: Array = np.zeros((0, 3), np.float32)
    new, state = adamw8bit_step(empty, empty, adamw8bit_init((0,)), AdamwOptions())
    assert new.shape == (0, 3)
    assert state.absmax_m.shape == (0,)


def test_a_state_starts_from_the_shape_of_its_parameter() -> None:
    state = adamw8bit_init(shape=(3, 200))
    assert (state.codes_m.shape, state.absmax_v.shape) == ((600,), (3,))
    with pytest.raises(ArgumentTypeError, match=r"^shape must be a sequence of integers, got 3$"):
        adamw8bit_init(3)  # type: ignore[arg-type]
