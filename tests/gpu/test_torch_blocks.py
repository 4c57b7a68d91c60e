"""[blocks.absmax] and [packing.nibbles] on tensors."""

import numpy as np
import pytest
import torch

import qloracle
import qloracle_gpu.torch as backend

from .boundaries import with_specials
from .words import hexadecimal, require_same, tensor

INFINITY, NAN = float("inf"), float("nan")


def test_the_last_block_may_be_short() -> None:
    assert backend.block_absmax(torch.tensor([1.0, -3.0, 2.0, 0.0, 5.0]), 2).tolist() == [3.0, 2.0, 5.0]


@pytest.mark.parametrize("bad", [NAN, INFINITY, -INFINITY])
@pytest.mark.parametrize("position", [3, 4, 5])
def test_nan_and_infinity_poison_their_block_alone(bad: float, position: int) -> None:
    x = torch.ones(9)
    x[position] = bad
    assert backend.block_absmax(x, 3).isnan().tolist() == [False, True, False]


def test_absmax_is_exact_for_zeros_subnormals_and_the_largest_number() -> None:
    x = tensor("80000000 00000000 80000001 00000000 ff7fffff 3f800000")
    assert hexadecimal(backend.block_absmax(x, 2)) == "00000000 00000001 7f7fffff"


@pytest.mark.parametrize("block_size", [1, 2, 3, 64, 100, 2**40])
@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 1000])
def test_absmax_agrees_with_the_reference(size: int, block_size: int) -> None:
    x = with_specials(np.random.default_rng(size), 40, 25).reshape(-1)[:size]
    expected = qloracle.block_absmax(x, block_size)
    require_same(backend.block_absmax(torch.from_numpy(x), block_size), expected, "float32", f"{size} by {block_size}")


def test_absmax_of_more_elements_than_are_worked_on_at_a_time() -> None:
    x = np.random.default_rng(0).standard_normal(2**19 + 7).astype(np.float32)
    for block_size in (64, 2**18 + 1, 2**20):
        expected = qloracle.block_absmax(x, block_size)
        require_same(backend.block_absmax(torch.from_numpy(x), block_size), expected, None, f"blocks of {block_size}")


def test_every_byte_unpacks_high_nibble_first_and_packs_back() -> None:
    packed = torch.arange(256, dtype=torch.uint8)
    codes = backend.unpack_4bit(packed, 512)
    assert codes.tolist() == [nibble for byte in range(256) for nibble in divmod(byte, 16)]
    assert torch.equal(backend.pack_4bit(codes), packed)


def test_an_odd_length_ends_with_the_padding_code_and_readers_ignore_it() -> None:
    codes = torch.tensor([0, 15, 9], dtype=torch.uint8)
    assert hexadecimal(backend.pack_4bit(codes, 7)) == "0f 97"
    assert backend.unpack_4bit(tensor("0f 9c", torch.uint8), 3).tolist() == [0, 15, 9]


def test_packing_reads_in_row_major_order_whatever_the_strides() -> None:
    codes = torch.arange(15, dtype=torch.uint8).reshape(3, 5)
    expected = qloracle.pack_4bit(codes.T.numpy(), 3)
    require_same(backend.pack_4bit(codes.T, 3), expected, None, "transposed codes")
    require_same(backend.unpack_4bit(codes.T, 29), qloracle.unpack_4bit(codes.T.numpy(), 29), None, "transposed bytes")


def test_nothing_packs_to_nothing() -> None:
    assert backend.pack_4bit(torch.zeros(0, dtype=torch.uint8)).shape == (0,)
    assert backend.unpack_4bit(torch.zeros(0, dtype=torch.uint8), 0).shape == (0,)
