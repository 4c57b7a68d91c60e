"""[format.decode] and [format.encode] on tensors: literal words, every 16-bit word, ties, integers."""

from typing import Any

import numpy as np
import pytest
import torch

import qloracle
import qloracle_gpu.torch as backend
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array

from .words import hexadecimal, require_same, tensor

EVERY_HALF = np.arange(2**16, dtype=np.uint16)
FORMATS = ("float64", "float32", "float16", "bfloat16")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def half_tensor(fmt: str) -> torch.Tensor:
    return torch.from_numpy(EVERY_HALF.view(np.int16)).view(getattr(torch, fmt))


@pytest.mark.parametrize("fmt", ["float16", "bfloat16"])
def test_every_half_decodes_to_its_exact_value(fmt: str) -> None:
    with np.errstate(invalid="ignore"):
        expected = qloracle.decode(EVERY_HALF, fmt).astype(np.float32)
    require_same(backend.decode(half_tensor(fmt)), expected, "float32", f"decode {fmt}")


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("fmt", ["float16", "bfloat16"])
def test_every_half_encodes_like_the_reference(fmt: str, target: str) -> None:
    expected = qloracle.encode(qloracle.decode(EVERY_HALF, fmt), target)
    require_same(backend.encode(half_tensor(fmt), target), expected, target, f"{fmt} to {target}")


@pytest.mark.parametrize(
    ("value", "fmt", "expected"),
    [
        (1 + 2**-8 + 2**-40, "bfloat16", "3f81"),
        (1 + 2**-8, "bfloat16", "3f80"),
        (1 + 3 * 2**-8 - 2**-45, "bfloat16", "3f81"),
        (1 + 2**-11 + 2**-52, "float16", "3c01"),
        (2**-25 * (1 + 2**-52), "float16", "0001"),
        (2**-25, "float16", "0000"),
        (-(2**-1074), "bfloat16", "8000"),
        (2**-134 * (1 + 2**-52), "bfloat16", "0001"),
        (65520 - 2**-36, "float16", "7bff"),
        (65520, "float16", "7c00"),
        (1e300, "bfloat16", "7f80"),
        (2**-150 * (1 + 2**-52), "float32", "00000001"),
        (-0.0, "float16", "8000"),
    ],
)
def test_float64_is_rounded_once(value: float, fmt: str, expected: str) -> None:
    assert hexadecimal(backend.encode(torch.tensor(value, dtype=torch.float64), fmt)) == expected


@pytest.mark.parametrize(
    ("value", "fmt", "expected"),
    [
        (16842753, "bfloat16", "4b81"),
        (16842752, "bfloat16", "4b80"),
        (2**53 + 1, "float64", "4340000000000000"),
        (2**62 + 2**38 + 1, "float32", "5e800001"),
        (-(2**62) - 2**54 - 1, "bfloat16", "de81"),
        (-(2**63), "float32", "df000000"),
        (65519, "float16", "7bff"),
        (65520, "float16", "7c00"),
    ],
)
def test_integers_are_rounded_once(value: int, fmt: str, expected: str) -> None:
    assert hexadecimal(backend.encode(torch.tensor(value, dtype=torch.int64), fmt)) == expected


def around_ties(fmt: str) -> Array:
    """float64 at every tie between 16-bit numbers, a few steps beside it, and so far beside that float32 hides it."""
    reals = qloracle.decode(EVERY_HALF, fmt)
    with np.errstate(invalid="ignore"):
        ties = (reals[:-1] + reals[1:]) / 2
    ties = ties[np.isfinite(ties)]
    steps = [(ties.view(np.int64) + step).view(np.float64) for step in (-1, 0, 1)]
    return np.concatenate([*steps, ties * (1 - 2.0**-40), ties * (1 + 2.0**-40)])


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("fmt", ["float16", "bfloat16"])
def test_float64_and_float32_around_every_tie_encode_like_the_reference(fmt: str, target: str) -> None:
    for values in (around_ties(fmt), around_ties(fmt).astype(np.float32)):
        got = backend.encode(torch.from_numpy(values), target)
        require_same(got, qloracle.encode(values, target), target, f"{values.dtype} around {fmt} ties to {target}")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("target", FORMATS)
def test_random_words_encode_like_the_reference(dtype: str, target: str) -> None:
    rng = np.random.default_rng(1)
    patterns = rng.integers(0, 2**64, 2**17, dtype=np.uint64, endpoint=False)
    values = patterns.view(dtype)
    got = backend.encode(torch.from_numpy(values), target)
    require_same(got, qloracle.encode(values, target), target, f"{dtype} to {target}")


def integers_around_ties(dtype: str) -> Array:
    rng, info = np.random.default_rng(2), np.iinfo(dtype)
    extremes = [info.min, info.min + 1, info.max, info.max - 1, 0, 1]
    any_size = rng.integers(info.min, info.max, 2**14, dtype=dtype, endpoint=True)
    any_size >>= rng.integers(0, info.bits, any_size.size).astype(dtype)
    if info.bits < 64:
        return np.concatenate([np.array(extremes, dtype), any_size])
    # Ten leading bits, zeros, and one step either way: ties and what lies just beside them.
    power = rng.integers(9, 62, 2**14).astype(dtype)
    ties = (rng.integers(512, 1024, power.size).astype(dtype) << (power - np.array(9, dtype))).astype(dtype)
    return np.concatenate([np.array(extremes, dtype), any_size, ties - 1, ties, ties + 1, 0 - ties, 1 - ties])


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_of_every_size_encode_like_the_reference(dtype: str, target: str) -> None:
    values = integers_around_ties(dtype)
    got = backend.encode(torch.from_numpy(values), target)
    require_same(got, qloracle.encode(values, target), target, f"{dtype} to {target}")


@pytest.mark.parametrize("fmt", ["float32", "float16", "bfloat16"])
def test_conversions_return_new_tensors(fmt: str) -> None:
    x = tensor("3f800000").to(getattr(torch, fmt))
    assert backend.encode(x, fmt).data_ptr() != x.data_ptr()
    assert backend.decode(x).data_ptr() != x.data_ptr()


BITS = torch.zeros(2, dtype=torch.int32).view(torch.uint32)
TWO = torch.ones(2)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rounding": "stochastic"}, ArgumentValueError, "^random_bits must be given"),
        ({"random_bits": BITS}, ArgumentValueError, "^random_bits must be None where rounding is ties_to_even"),
        ({"rounding": "stochastic", "random_bits": BITS[:1]}, ArgumentValueError, "^random_bits must be of shape"),
        ({"rounding": "stochastic", "random_bits": BITS.view(torch.int32)}, ArgumentTypeError, "^random_bits must be"),
        ({"nan": "zero"}, ArgumentValueError, "^nan must be one of payload, sign, canonical"),
        ({"fmt": "float64", "rounding": "toward_zero"}, ArgumentValueError, "^rounding must be ties_to_even"),
        ({"fmt": "float8_e4m3fnuz"}, ArgumentValueError, "^fmt must be one of float64"),
    ],
)
def test_rules_that_do_not_belong_together_are_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        backend.encode(TWO, **{"fmt": "float16", **arguments})


def test_64_bit_integers_have_no_stochastic_rounding_to_float32() -> None:
    with pytest.raises(ArgumentValueError, match=r"^rounding must be another one than stochastic"):
        backend.encode(TWO.to(torch.int64), "float32", rounding="stochastic", random_bits=BITS)


def test_stochastic_rounding_of_float64_to_float32_uses_every_random_bit() -> None:
    # A third of the way up: up for random bits below a third of 2^32, and no others.
    values = torch.full((3,), 1 + 2.0**-23 / 3, dtype=torch.float64)
    bits = torch.tensor([1431655760, 1431655768, 2**32 - 1]).to(torch.uint32)
    found = backend.encode(values, "float32", rounding="stochastic", random_bits=bits)
    assert hexadecimal(found) == "3f800001 3f800000 3f800000"
