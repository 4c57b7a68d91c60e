"""What the suite does not reach: tables of one's own, every quotient by 127, other libraries' arrays."""

from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np
import pytest

import qloracle
import qloracle_gpu.cupy as backend
from qloracle_gpu.cupy.codebooks import host_tables
from qloracle_gpu.cupy.launcher import using

from .boundaries import beside_boundaries, random_absmax, with_specials
from .emulator.building import has_compiler
from .emulator.launching import ORDERS, EmulatedLauncher

pytestmark = pytest.mark.skipif(not has_compiler(), reason="NOT RUN: the emulator needs g++")


@pytest.fixture(autouse=True)
def emulator() -> Iterator[EmulatedLauncher]:
    launcher = EmulatedLauncher("shuffled")
    with using(launcher):
        yield launcher


def require_same_codes(x: np.ndarray, codebook: str | qloracle.Codebook, block_size: int) -> None:
    mine, wanted = (q.quantize_blockwise(x, codebook=codebook, block_size=block_size) for q in (backend, qloracle))
    wrong = np.flatnonzero(mine.data != wanted.data)
    assert wrong.size == 0, f"{wrong.size} of {mine.data.size} bytes differ, first at {wrong[:1]}"
    assert np.array_equal(mine.absmax, wanted.absmax, equal_nan=True)


def random_table(entries: int, seed: int, *, wide: bool) -> qloracle.Codebook:
    """A table whose midpoints need more bits than a float64 quotient tells apart, or one of all magnitudes."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(entries).astype(np.float32)
    if wide:
        values = (rng.integers(0, 2**32, entries, dtype=np.uint32) & np.uint32(0xBEFFFFFF)).view(np.float32)
    return qloracle.Codebook(f"random {seed}", values)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("entries", [16, 256])
@pytest.mark.parametrize("block_size", [64, 100])
def test_a_table_of_one_s_own_is_decided_exactly(entries: int, block_size: int, wide: bool) -> None:
    table = random_table(entries, entries + block_size, wide=wide)
    rng = np.random.default_rng(1)
    inside = table.midpoints[np.abs(table.midpoints) <= 1]
    x = beside_boundaries(rng, inside, 200, block_size)
    require_same_codes(x, table, block_size)
    require_same_codes(with_specials(rng, 50, block_size), table, block_size)


@pytest.mark.parametrize("name", qloracle.CODEBOOKS)
def test_codes_beside_every_boundary_are_those_of_the_reference(name: str) -> None:
    x = beside_boundaries(np.random.default_rng(2), qloracle.CODEBOOKS[name].midpoints, 400, 256)
    require_same_codes(x, name, 256)


def test_a_table_of_one_value_and_one_of_equal_values_have_no_boundary() -> None:
    for entries in (np.zeros(16, np.float32), np.array([1] + [np.nan] * 15, np.float32)):
        table = qloracle.Codebook("one", entries)
        assert host_tables(table).numbers.size == 3
        require_same_codes(np.linspace(-1, 1, 130, dtype=np.float32), table, 64)


def test_every_code_times_any_absmax_over_127_is_rounded_once() -> None:
    rng = np.random.default_rng(3)
    multiples = (127 * np.arange(1, 2**17, 211, dtype=np.float64) * 2.0**-30).astype(np.float32)
    absmax = np.concatenate([random_absmax(rng, 1500), multiples, np.float32([0, np.nan, np.inf])])
    codes = np.broadcast_to(np.arange(-127, 128, dtype=np.int8), (absmax.size, 255)).copy()
    for dtype in ("float32", "float16", "bfloat16"):
        with np.errstate(all="ignore"):
            mine, wanted = (
                q.dequantize_int8(q.QuantizedInt8(codes, absmax, "row", None, dtype)) for q in (backend, qloracle)
            )
        same = mine.view(f"u{mine.itemsize}") == wanted.view(f"u{wanted.itemsize}")
        assert np.all(same | np.isnan(absmax)[:, np.newaxis] | (np.isinf(absmax)[:, np.newaxis] & (codes == 0))), dtype


def test_a_sum_of_a_product_is_the_same_in_every_order_of_threads() -> None:
    rng = np.random.default_rng(4)
    w = backend.quantize_blockwise(rng.standard_normal((70, 333)).astype(np.float32), block_size=64)
    x = rng.standard_normal((3, 333)).astype(np.float32)
    found = set()
    for order in ORDERS:
        with using(EmulatedLauncher(order, most_ctas=2)):
            found.add(backend.quantized_matmul(x, w).tobytes())
    assert len(found) == 1


@pytest.mark.parametrize("most_ctas", [1, None])
def test_a_tensor_that_is_one_block_is_reduced_in_stages(most_ctas: int | None) -> None:
    x = with_specials(np.random.default_rng(5), 1, 3 * 4096 * 5 + 7).reshape(-1)
    x[np.isnan(x) | np.isinf(x)] = 0
    with using(EmulatedLauncher(most_ctas=most_ctas)):
        assert backend.block_absmax(x, x.size) == qloracle.block_absmax(x, x.size)
        x[-1] = np.inf
        assert np.isnan(backend.block_absmax(x, 10**12)).all()


def test_an_address_that_fits_no_wide_access_gives_the_same() -> None:
    x = np.random.default_rng(6).standard_normal(1000).astype(np.float16)
    for shift in range(9):
        mine, wanted = (q.quantize_blockwise(x[shift:], block_size=64) for q in (backend, qloracle))
        assert mine.data.tobytes() == wanted.data.tobytes(), f"{2 * shift} bytes into the buffer"


def test_a_storage_view_of_bytes_that_no_item_is_aligned_to_is_a_copy() -> None:
    whole = np.arange(41, dtype=np.uint8)
    view, shifted = backend.storage_view(whole[:40], "float32"), backend.storage_view(whole[1:], "float32")
    assert np.shares_memory(view, whole)
    assert not np.shares_memory(shifted, whole)
    assert shifted.tobytes() == whole[1:].tobytes()


def test_moments_of_8_bits_pass_through_their_state_as_in_the_reference() -> None:
    rng = np.random.default_rng(7)
    p, g = rng.standard_normal((2, 700)).astype(np.float32)
    mine, wanted = backend.adamw8bit_init(p.shape), qloracle.adamw8bit_init(p.shape)
    for state in (mine, wanted):
        assert state.absmax_m.tolist() == [0, 0, 0]
    _, mine = backend.adamw8bit_step(p, g, mine, backend.AdamwOptions())
    restored = backend.dequantize_moments(mine, p.shape)
    reference = qloracle.Adamw8bitState(mine.codes_m, mine.absmax_m, mine.codes_v, mine.absmax_v, 1)
    assert restored.v.tobytes() == qloracle.dequantize_moments(reference, p.shape).v.tobytes()


@pytest.mark.skipif(find_spec("ml_dtypes") is None, reason="NOT RUN: ml_dtypes is not installed here")
def test_arrays_of_ml_dtypes_and_bit_patterns_give_the_same() -> None:
    import ml_dtypes

    x = np.random.default_rng(8).standard_normal(300).astype(ml_dtypes.bfloat16)
    own, words = backend.quantize_blockwise(x), backend.quantize_blockwise(x.view(np.uint16), fmt="bfloat16")
    assert (own.data.tobytes(), own.dtype) == (words.data.tobytes(), "bfloat16")
    eights = np.arange(256, dtype=np.uint8)
    assert np.array_equal(
        backend.decode(eights.view(ml_dtypes.float8_e4m3fn)), backend.decode(eights, "float8_e4m3fn"), equal_nan=True
    )


@pytest.mark.skipif(find_spec("torch") is None, reason="NOT RUN: torch is not installed here")
def test_tensors_of_torch_come_and_go_by_dlpack_without_a_copy() -> None:
    import torch

    x = torch.randn(256, generator=torch.Generator().manual_seed(9)).to(torch.bfloat16)
    quantized = backend.quantize_blockwise(x.view(torch.uint16), fmt="bfloat16")
    assert quantized.data.tobytes() == qloracle.quantize_blockwise(x.float().numpy()).data.tobytes()
    values = backend.dequantize_blockwise(quantized)
    back = torch.from_dlpack(values)
    assert back.data_ptr() == values.ctypes.data
    assert back.view(torch.bfloat16).shape == x.shape
