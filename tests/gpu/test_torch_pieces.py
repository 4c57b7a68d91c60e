"""Large tensors are worked through by threads of our own: same bits for any number, and torch's setting untouched."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import qloracle
import qloracle_gpu.torch as backend
from qloracle_gpu.torch.pieces import CPU_PIECE, spans, tiles, work_through

from .words import require_same

SIZE = 3 * CPU_PIECE + 11


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("inference", [False, True], ids=["", "inference mode"])
@pytest.mark.parametrize("codebook", ["nf4", "dynamic_signed"])
def test_any_number_of_threads_gives_the_bits_of_the_reference(threads: int, codebook: str, inference: bool) -> None:
    x = np.random.default_rng(17).standard_normal(SIZE).astype(np.float32)
    expected = qloracle.quantize_blockwise(x, codebook=codebook, block_size=100)
    with torch.inference_mode(inference):
        got = backend.quantize_blockwise(torch.from_numpy(x), codebook=codebook, block_size=100)
        values = backend.dequantize_blockwise(got)
    require_same(got.absmax, expected.absmax, None, f"absmax with {threads} threads")
    require_same(got.data, expected.data, None, f"data with {threads} threads")
    require_same(values, qloracle.dequantize_blockwise(expected), None, f"values with {threads} threads")


@pytest.mark.parametrize("granularity", ["tensor", "row", "column", "block"])
@pytest.mark.parametrize("shape", [(SIZE,), (3, CPU_PIECE + 7), (CPU_PIECE + 7, 3), (900, 901)])
def test_groups_longer_than_a_piece_give_the_bits_of_the_reference(shape: tuple[int, ...], granularity: str) -> None:
    x = np.random.default_rng(18).standard_normal(shape).astype(np.float32)
    options = {"granularity": granularity, "block_size": CPU_PIECE + 1 if granularity == "block" else None}
    got, expected = backend.quantize_int8(torch.from_numpy(x), **options), qloracle.quantize_int8(x, **options)
    require_same(got.absmax, expected.absmax, None, f"absmax by {granularity} of {shape}")
    require_same(got.codes, expected.codes, None, f"codes by {granularity} of {shape}")
    require_same(backend.dequantize_int8(got), qloracle.dequantize_int8(expected), None, f"values of {shape}")


def test_the_number_of_threads_of_torch_stays_as_it_was(threads: int) -> None:
    backend.block_absmax(torch.ones(SIZE), 64)
    with ThreadPoolExecutor(1) as elsewhere:
        assert (torch.get_num_threads(), elsewhere.submit(torch.get_num_threads).result()) == (threads, threads)


def test_what_a_piece_raises_arrives_at_the_caller(threads: int) -> None:
    def refuse(span: slice) -> None:
        raise ValueError(f"piece {span.start}")

    with pytest.raises(ValueError, match="piece 0"):
        work_through(spans(SIZE, CPU_PIECE), refuse, torch.ones(SIZE))


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 1), (3, 2 * CPU_PIECE + 1), (CPU_PIECE + 1, 1), (1000, 1001)])
def test_the_pieces_of_a_matrix_cover_every_element_once(shape: tuple[int, int]) -> None:
    seen = torch.zeros(shape, dtype=torch.int8)
    for tile in tiles(seen):
        assert 0 < seen[tile].numel() <= CPU_PIECE, f"a piece of shape {tuple(seen[tile].shape)}"
        seen[tile] += 1
    assert bool((seen == 1).all())
