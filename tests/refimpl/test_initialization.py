"""[lora.init], [lora.init_embedding]: A is one rounding away from its draws, B is zero, and the layer is its base."""

from decimal import Decimal, getcontext
from fractions import Fraction
from math import isqrt
from types import ModuleType

import numpy as np
import pytest

from qloracle import embedding_init, encode, lora_forward, lora_init, lora_merge
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array

from .rationals import FIELDS, exact, round_word, rounded

FORMATS = ["float32", "float16", "bfloat16"]


def words_of(values: Array, fmt: str) -> list[int]:
    width = sum(FIELDS[fmt]) + 1
    return [int(v) for v in np.ascontiguousarray(values).view(f"u{width // 8}").reshape(-1)]


def uniforms(seed: int, *shape: int) -> Array:
    """Multiples of 2^-24 in [0, 1), the ends among them."""
    draws = np.random.default_rng([11, seed]).random(shape, dtype=np.float32)
    draws.flat[:4] = [0, 1 - 2**-24, 0.5, 2**-24]
    return draws


def normals(seed: int, *shape: int) -> Array:
    draws = np.random.default_rng([12, seed]).standard_normal(shape).astype(np.float32)
    draws.flat[:5] = [0.0, -0.0, 3e38, -1e-45, 2.0**-140]
    return draws


def nearest_inverse_root(number: int) -> Fraction:
    """RN_float64(RN_float64(1/RN_float64(sqrt(n)))): both operations of IEEE 754, from integer square roots."""
    root = rounded(Fraction(isqrt(number << 400), 2**200), "float64")
    return rounded(1 / root, "float64")


@pytest.mark.proof("lora.init", by="exact rationals")
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("d_in", [5, 9, 64, 100, 768, 11008])
def test_a_kaiming_start_is_one_rounding_of_the_product(d_in: int, fmt: str) -> None:
    draws = uniforms(d_in, 5, d_in)
    got = lora_init(draws, 7, fmt=fmt).lora_a
    factor = nearest_inverse_root(d_in)
    expected = [round_word(factor * (2 * exact(u) - 1), fmt) for u in draws.flat]
    assert words_of(got, fmt) == expected


@pytest.mark.proof("lora.init", by="decimal arithmetic")
def test_the_kaiming_bound_is_one_over_the_root_of_the_fan_in() -> None:
    getcontext().prec = 60
    for d_in in (1, 2, 3, 7, 64, 4096):
        bound = (Decimal(2) / (1 + Decimal(5))).sqrt() * (Decimal(3) / Decimal(d_in)).sqrt()
        draws = np.zeros((1, d_in), np.float32)
        got = lora_init(draws, 1).lora_a
        # 2u − 1 = −1 for u = 0: −bound, which float32 rounds after float64.
        assert got.flat[0] == np.float32(-float(bound)), f"fan-in {d_in}: {got.flat[0]!r}, bound {bound}"


@pytest.mark.proof("lora.init", by="exact rationals")
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("std", [None, 0.02, 1.0, 0.1, 1e-30, 1e30])
def test_a_gaussian_start_is_one_rounding_of_the_product(std: float | None, fmt: str) -> None:
    draws = normals(3, 6, 33)
    got = lora_init(draws, 40, initialization="gaussian", std=std, fmt=fmt).lora_a
    factor = exact(1 / 6) if std is None else exact(std)
    negative = np.signbit(draws).flat
    expected = [round_word(factor * exact(z), fmt, negative=bool(n)) for z, n in zip(draws.flat, negative, strict=True)]
    assert words_of(got, fmt) == expected


@pytest.mark.proof("lora.init", by="exact rationals")
def test_a_product_that_lies_next_to_a_tie_is_not_rounded_twice() -> None:
    # z·std = 1 + 2^-8 + 2^-62 exactly, and bfloat16 ties at 1 + 2^-8: float64 would lose the last part.
    std = float.fromhex("0x1.01p+0") * (1 + 2.0**-52)
    got = lora_init(np.array([[1.0]], np.float32), 1, initialization="gaussian", std=std, fmt="bfloat16").lora_a
    assert words_of(got, "bfloat16") == [round_word(exact(std), "bfloat16")] == [0x3F81]
    thirds = np.array([[3.0], [-3.0]], np.float32)
    near = float((Fraction(1) + Fraction(1, 2**8)) / 3)  # 3·near is not the tie, but float64's product is
    got = lora_init(np.repeat(thirds, 2, axis=1), 2, initialization="gaussian", std=near, fmt="bfloat16").lora_a
    assert words_of(got, "bfloat16") == [round_word(exact(near) * s, "bfloat16") for s in (3, 3, -3, -3)]


@pytest.mark.proof("lora.init", by="the layer is its base")
@pytest.mark.parametrize("initialization", ["kaiming", "gaussian"])
def test_the_initial_layer_is_its_base(initialization: str) -> None:
    rng = np.random.default_rng(5)
    weight, x = (rng.standard_normal(shape).astype(np.float32) for shape in ((12, 9), (4, 9)))
    start = lora_init(uniforms(1, 3, 9), 12, initialization=initialization)
    y = lora_forward(x, weight, start.lora_a, start.lora_b, alpha=8)
    assert np.array_equal(y, x.astype(np.float64) @ weight.astype(np.float64).T)
    assert np.array_equal(lora_merge(weight, start.lora_a, start.lora_b, alpha=8), weight)


@pytest.mark.proof("lora.init_embedding", by="exact rationals")
@pytest.mark.parametrize("fmt", FORMATS)
def test_an_embedding_starts_the_other_way_round(fmt: str) -> None:
    draws = normals(9, 8, 4)
    start = embedding_init(draws, 30, fmt=fmt)
    signs = np.signbit(draws).flat
    expected = [round_word(exact(z), fmt, negative=bool(n)) for z, n in zip(draws.flat, signs, strict=True)]
    assert words_of(start.lora_b, fmt) == expected
    assert start.lora_a.shape == (4, 30), "one column of A for each token"
    assert not any(words_of(start.lora_a, fmt)), "A must be +0"


@pytest.mark.proof("lora.init_embedding", by="ml_dtypes")
def test_an_embedding_in_bfloat16_is_what_ml_dtypes_casts(ml_dtypes: ModuleType) -> None:
    draws = normals(10, 8, 4)
    expected = draws.astype(ml_dtypes.bfloat16).view(np.uint16)
    assert np.array_equal(embedding_init(draws, 30, fmt="bfloat16").lora_b, expected)
    assert np.array_equal(encode(draws, "bfloat16"), expected)


@pytest.mark.parametrize(
    ("shape", "d_out"), [((0, 5), 5), ((6, 5), 9), ((6, 9), 5), ((1, 0), 5)], ids=["zero", "in", "out", "empty"]
)
def test_a_rank_larger_than_the_matrix_is_refused(shape: tuple[int, int], d_out: int) -> None:
    with pytest.raises(ArgumentValueError, match="rank must be from 1 to"):
        lora_init(np.zeros(shape, np.float32), d_out)
    with pytest.raises(ArgumentValueError, match="rank must be from 1 to"):
        embedding_init(np.zeros(shape[::-1], np.float32), d_out)


def test_bad_arguments_are_named() -> None:
    good = np.zeros((2, 4), np.float32)
    for draws in (good.astype(np.float64), good.astype(np.float16), [[0.0]]):
        with pytest.raises(ArgumentTypeError, match="draws must be"):
            lora_init(draws, 4)  # type: ignore[arg-type]
    for value in (1.0, -0.1, np.nan, np.inf):
        with pytest.raises(ArgumentValueError, match="draws must be"):
            lora_init(np.full((2, 4), value, np.float32), 4)
    for std in (0, -1, np.nan, np.inf, 1e-300):
        with pytest.raises(ArgumentValueError, match="std must be"):
            lora_init(good, 4, initialization="gaussian", std=std)
    with pytest.raises(ArgumentValueError, match="std must be None"):
        lora_init(good, 4, std=1.0)
    with pytest.raises(ArgumentValueError, match="initialization must be one of"):
        lora_init(good, 4, initialization="xavier")
    with pytest.raises(ArgumentValueError, match="fmt must be one of"):
        lora_init(good, 4, fmt="float64")
    with pytest.raises(ArgumentTypeError, match="d_out must be"):
        lora_init(good, 4.0)  # type: ignore[arg-type]


def test_draws_of_any_layout_and_byte_order_give_the_same() -> None:
    draws = uniforms(2, 3, 6)
    expected = lora_init(draws, 4).lora_a
    for same in (np.asfortranarray(draws), draws.astype(">f4"), draws[::-1][::-1]):
        same.setflags(write=False)
        assert np.array_equal(lora_init(same, 4).lora_a, expected)
