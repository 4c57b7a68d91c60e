"""[blockwise.quantize] and [int8.quantize] on tensors: exact at every boundary, for absmax of every magnitude."""

import numpy as np
import pytest
import torch

import qloracle
import qloracle_gpu.torch as backend
from qloracle.formats import Array
from qloracle.tables import CODEBOOKS
from qloracle_gpu.torch.codebooks import device_codebook
from qloracle_gpu.torch.nearest import CELLS, UNDECIDED, _guess

from .boundaries import INT8_BOUNDARIES, beside_boundaries, with_specials
from .words import hexadecimal, require_same, tensor, words

GRANULARITIES = ("tensor", "row", "column", "block")


def codes_of(x: torch.Tensor, codebook: str) -> list[int]:
    """Codes of one block."""
    quantized = backend.quantize_blockwise(x, codebook=codebook, block_size=x.numel())
    data = quantized.data
    return (backend.unpack_4bit(data, x.numel()) if CODEBOOKS[codebook].code_bits == 4 else data).tolist()


def require_blockwise(x: Array, codebook: str, block_size: int) -> None:
    got = backend.quantize_blockwise(torch.from_numpy(x), codebook=codebook, block_size=block_size)
    expected = qloracle.quantize_blockwise(x, codebook=codebook, block_size=block_size)
    require_same(got.absmax, expected.absmax, "float32", f"{codebook} absmax, block size {block_size}")
    require_same(got.data, expected.data, None, f"{codebook} data, block size {block_size}")


def require_int8(x: Array, granularity: str, block_size: int | None = None) -> None:
    got = backend.quantize_int8(torch.from_numpy(x), granularity=granularity, block_size=block_size)
    expected = qloracle.quantize_int8(x, granularity=granularity, block_size=block_size)
    require_same(got.absmax, expected.absmax, "float32", f"INT8 absmax by {granularity}")
    require_same(got.codes, expected.codes, None, f"INT8 codes by {granularity}")


def test_the_example_of_the_specification() -> None:
    quantized = backend.quantize_blockwise(torch.tensor([-1.0, 1.0, 0.5, 0.0]))
    assert (hexadecimal(quantized.data), hexadecimal(quantized.absmax)) == ("0f c7", "3f800000")


# Half of 3da2faff and of bdba7871, the neighbours of zero, are float32 words, and so are their neighbours.
@pytest.mark.parametrize("exponent", [0x00000000, 0x3F800000 - 0x3F000000, 0x3F800000 - 0x7F000000])
def test_a_midpoint_of_nf4_goes_to_the_lower_entry(exponent: int) -> None:
    # exponent: the words are scaled by a power of two, here 1, 1/2 and 2^127.
    patterns = [0x3F800000, 0x3D22FAFE, 0x3D22FAFF, 0x3D22FB00, 0xBD3A7870, 0xBD3A7871, 0xBD3A7872]
    x = tensor(" ".join(f"{pattern - exponent:08x}" for pattern in patterns))
    assert codes_of(x, "nf4") == [15, 7, 7, 8, 7, 6, 6]


def test_a_midpoint_of_the_dynamic_map_goes_to_the_lower_entry() -> None:
    # Half of 3513a3b7, the smallest positive entry 128; the entry of zero has code 127.
    x = tensor("3f800000 3493a3b6 3493a3b7 3493a3b8 b493a3b6 b493a3b7 b493a3b8")
    assert codes_of(x, "dynamic_signed") == [255, 127, 127, 128, 127, 126, 126]


def test_int8_ties_go_to_the_even_code() -> None:
    halves = torch.tensor([127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, -126.5])
    for power in (0, 120, -148):
        codes = backend.quantize_int8(halves * 2.0 * torch.tensor(2.0).pow(power)).codes
        assert codes.tolist() == [127, 0, 2, 2, 0, -2, -2, 126, -126], f"scaled by 2^{power + 1}"


def test_the_int8_example_of_the_specification() -> None:
    quantized = backend.quantize_int8(torch.tensor([1.2, -0.5, -4.3, 1.2, -3.1, 0.8, 2.4, 5.4]))
    assert quantized.codes.tolist() == [28, -12, -101, 28, -73, 19, 56, 127]
    assert hexadecimal(quantized.absmax) == "40accccd"


@pytest.mark.parametrize("codebook", CODEBOOKS)
@pytest.mark.parametrize("block_size", [2, 3, 16, 64, 257])
def test_codes_beside_every_boundary_agree_with_the_reference(codebook: str, block_size: int) -> None:
    rng = np.random.default_rng(block_size)
    x = beside_boundaries(rng, CODEBOOKS[codebook].midpoints, 2**18 // block_size, block_size)
    require_blockwise(x, codebook, block_size)


@pytest.mark.parametrize("codebook", CODEBOOKS)
def test_codes_of_small_multiples_of_the_smallest_number_agree_with_the_reference(codebook: str) -> None:
    absmax, x = np.meshgrid(np.arange(1, 128), np.arange(-128, 128))
    pairs = np.stack([absmax, np.clip(x, -absmax, absmax)], axis=-1).astype(np.float32) * np.float32(2**-149)
    require_blockwise(pairs.astype(np.float32).reshape(-1), codebook, 2)


@pytest.mark.parametrize("codebook", CODEBOOKS)
@pytest.mark.parametrize("block_size", [1, 2, 7, 64])
def test_codes_with_specials_agree_with_the_reference(codebook: str, block_size: int) -> None:
    require_blockwise(with_specials(np.random.default_rng(block_size), 4096, block_size), codebook, block_size)


@pytest.mark.parametrize("codebook", CODEBOOKS)
def test_codes_of_random_words_agree_with_the_reference(codebook: str) -> None:
    x = np.random.default_rng(3).integers(0, 2**32, 2**18 + 1, dtype=np.uint32).view(np.float32)
    require_blockwise(x, codebook, 5)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_int8_codes_beside_every_boundary_agree_with_the_reference(granularity: str) -> None:
    rng = np.random.default_rng(4)
    x = beside_boundaries(rng, INT8_BOUNDARIES, 2**12, 64)
    for matrix in (x, np.ascontiguousarray(x.T)):
        require_int8(matrix, granularity, 64 if granularity == "block" else None)
    for row in x[:64]:
        require_int8(row, "tensor")


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("shape", [(0,), (1,), (3, 0), (0, 3), (5, 7), (2, 3, 4), (64, 33)])
def test_int8_codes_with_specials_agree_with_the_reference(shape: tuple[int, ...], granularity: str) -> None:
    x = with_specials(np.random.default_rng(5), 64, 33).reshape(-1)[: int(np.prod(shape))].reshape(shape)
    require_int8(x, granularity, 7 if granularity == "block" else None)


def test_cells_near_a_boundary_are_undecided_and_the_others_hold_the_nearest_code() -> None:
    codebook = CODEBOOKS["nf4"]
    cells = device_codebook(CODEBOOKS["nf4"], torch.device("cpu")).rule.cells.numpy()
    undecided = np.flatnonzero(cells == UNDECIDED)
    assert 15 <= undecided.size <= 30, f"{undecided.size} cells are undecided for 15 midpoints"
    place = (np.arange(cells.size) - (CELLS + 1) + 0.5) / CELLS
    middle = np.copysign(place**2, place)
    nearest = np.searchsorted(codebook.midpoints, middle)
    assert np.array_equal(cells[cells != UNDECIDED], nearest[cells != UNDECIDED])


@pytest.mark.parametrize("codebook", CODEBOOKS)
def test_a_guess_from_an_approximate_quotient_is_right_or_undecided(codebook: str) -> None:
    # Four units in the last place is what a device may get wrong in a division, and flushing to zero is allowed.
    rng, midpoints = np.random.default_rng(16), CODEBOOKS[codebook].midpoints
    beside = rng.choice(midpoints, 2**18) * (1 + rng.integers(-64, 65, 2**18) * 2.0**-24)
    quotient = np.concatenate([beside, rng.uniform(-1, 1, 2**18), midpoints, [0.0, 2.0**-127, -(2.0**-149), 1.0, -1.0]])
    nearest = CODEBOOKS[codebook].value_order[np.searchsorted(midpoints, quotient)]
    for error in (-(2.0**-21), 0.0, 2.0**-21):
        approximate = (quotient * (1 + error)).astype(np.float32)
        approximate[np.abs(approximate) < 2.0**-126] = 0
        guess = _guess(
            torch.from_numpy(approximate), device_codebook(CODEBOOKS[codebook], torch.device("cpu")).rule.cells
        ).numpy()
        wrong = (guess != nearest) & (guess != UNDECIDED)
        assert not wrong.any(), f"{np.count_nonzero(wrong)} wrong guesses, first at {quotient[wrong][0].hex()}"


@pytest.mark.parametrize("codebook", CODEBOOKS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_half_in_a_block_with_the_largest_quantizes_like_the_reference(codebook: str, dtype: str) -> None:
    patterns = np.arange(2**16, dtype=np.uint16)
    for absmax in (0x0001, 0x0080, 0x3C00, 0x7BFF):
        pairs = np.stack([patterns, np.full_like(patterns, absmax)], axis=1)
        x = torch.from_numpy(pairs.view(np.int16)).view(getattr(torch, dtype))
        got = backend.quantize_blockwise(x, codebook=codebook, block_size=2)
        expected = qloracle.quantize_blockwise(pairs, codebook=codebook, block_size=2, fmt=dtype)
        require_same(got.absmax, expected.absmax, "float32", f"{dtype} absmax")
        require_same(got.data, expected.data, None, f"{dtype} codes beside {absmax:#06x}")
        assert (got.dtype, got.shape) == (dtype, (2**16, 2))


def test_words_of_a_tensor_are_its_bit_patterns() -> None:
    assert words(torch.tensor([1.0, -0.0])).tolist() == [0x3F800000, 0x80000000]
