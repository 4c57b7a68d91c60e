"""Compare interpreted quantizers with the reference for blocks of every kind of size; print how many words agreed.

Run in a process of its own, with TRITON_INTERPRET=1. Inputs lie on, and up to two floats beside, the boundaries between
codes, for absmax of every magnitude, with specials and a short last block.
"""

from itertools import product
from typing import Any

import numpy as np
import torch
from boundaries import beside_boundaries, with_specials  # type: ignore[import-not-found]  # run as a script
from words import require_same, words  # type: ignore[import-not-found]

import qloracle
import qloracle_gpu.torch as backend
from qloracle.formats import Array
from qloracle.mean_offset import mean_offset as reference_mean
from qloracle.tables import CODEBOOKS
from qloracle_gpu.torch.exact_mean import mean_offset
from qloracle_gpu.torch.kernels.availability import kernels_of

BLOCK_SIZES = (2, 6, 8, 20, 64, 96, 100, 4096)  # odd pairs, words, groups of every length, the largest
FORMATS = ("float32", "float16", "bfloat16")
INT8_GROUPS = (("tensor", None), ("row", None), ("column", None), ("block", 7), ("block", 64), ("block", 5000))
DTYPES = {name: getattr(torch, name) for name in FORMATS}


def inputs(rng: np.random.Generator, boundaries: Array, block_size: int) -> Array:
    """Blocks near boundaries and blocks with specials; the last one is short and odd."""
    blocks = max(3, 3000 // block_size)
    parts = beside_boundaries(rng, boundaries, blocks, block_size), with_specials(rng, blocks, block_size)
    flat: Array = np.concatenate([part.reshape(-1) for part in parts])
    return flat[: flat.size - block_size // 2 - 1 + block_size % 2]


def native(values: Array, fmt: str) -> tuple[torch.Tensor, Array]:
    """The numbers in a format: as a tensor, and as the reference takes them."""
    bits = qloracle.encode(values, fmt)
    tensor = torch.from_numpy(bits.view(f"i{bits.itemsize}")).view(DTYPES[fmt])
    return tensor, bits


def blockwise(rng: np.random.Generator, name: str, block_size: int, fmt: str) -> int:
    values = inputs(rng, CODEBOOKS[name].midpoints, block_size)
    x, bits = native(values, fmt)
    found = backend.quantize_double(x, codebook=name, block_size=block_size)
    plain = backend.quantize_blockwise(x, codebook=name, block_size=block_size)
    given = qloracle.quantize_blockwise(bits, codebook=name, block_size=block_size, fmt=fmt)
    expected = qloracle.quantize_double(bits, codebook=name, block_size=block_size, fmt=fmt)
    case = f"{name} in {block_size} of {fmt}"
    require_same(plain.data, expected.data, None, f"{case}: codes")
    require_same(plain.absmax, given.absmax, "float32", f"{case}: absmax")
    require_same(found.absmax.codes, expected.absmax.codes, None, f"{case}: nested codes")
    require_same(found.absmax.absmax, expected.absmax.absmax, "float32", f"{case}: nested absmax")
    require_same(found.absmax.offset, expected.absmax.offset, "float32", f"{case}: offset")
    for out in FORMATS:
        restored = qloracle.dequantize_double(expected, dtype=out)
        require_same(backend.dequantize_double(found, dtype=out), restored, out, f"{case}: nested values in {out}")
        again = backend.dequantize_blockwise(plain, dtype=out)
        require_same(again, qloracle.dequantize_blockwise(given, dtype=out), out, f"{case}: values in {out}")
    return words(plain.data).size


def constant(value: float, fmt: str) -> int:
    """Equal blocks: every residual is 0, so that the offset alone is the restored absmax."""
    x, bits = native(np.full(300 * 64, value, np.float32), fmt)
    found, expected = backend.quantize_double(x), qloracle.quantize_double(bits, fmt=fmt)
    restored = qloracle.dequantize_double(expected)
    require_same(backend.dequantize_double(found), restored, fmt, f"blocks of {value} in {fmt}")
    require_same(
        backend.dequantize_absmax(found.absmax), qloracle.dequantize_absmax(expected.absmax), "float32", "their absmax"
    )
    return restored.size


def means(rng: np.random.Generator, count: int) -> int:
    """Means of a few numbers of either sign: of any bits, subnormal, of one binade, and beside ties."""
    for index in range(count):
        size = int(rng.integers(1, 40))
        bits = rng.integers(0, 2**32, size, dtype=np.uint32)
        if index % 4 == 1:
            bits &= np.uint32(0x8000003F)
        if index % 4 == 2:
            bits = (bits & np.uint32(0x807FFFFF)) | np.uint32(int(rng.integers(0, 255)) << 23)
        if index % 4 == 3:  # (n·m + d)/n with d at and beside n/2: a tie, and what lies next to one
            size, power = 2 * size + 2, int(rng.integers(24, 220))
            near = size // 2 + int(rng.integers(-1, 2))
            values = np.zeros(size, np.float32)
            values[:] = np.ldexp(float(rng.integers(2**23, 2**24)), power - 149)
            values[:near] += np.ldexp(np.float32(1), power - 149)
            bits = values.view(np.uint32)
        values = np.where(np.isfinite(bits.view(np.float32)), bits.view(np.float32), np.float32(np.nan))
        found = mean_offset(torch.from_numpy(values.copy()))
        require_same(found, reference_mean(values), "float32", f"mean {index} of {size}")
    return count


def int8(rng: np.random.Generator, granularity: str, block_size: int | None, columns: int) -> int:
    boundaries = (np.arange(-127, 127) + 0.5) / 127
    values = inputs(rng, boundaries, columns)
    matrix = values[: values.size // columns * columns].reshape(-1, columns)
    how: dict[str, Any] = {"granularity": granularity, "block_size": block_size}
    for fmt in FORMATS:
        x, bits = native(matrix, fmt)
        found, expected = backend.quantize_int8(x, **how), qloracle.quantize_int8(bits, **how, fmt=fmt)
        case = f"INT8 by {granularity} {block_size or ''} of {matrix.shape} {fmt}"
        require_same(found.absmax, expected.absmax, "float32", f"{case}: absmax")
        require_same(found.codes, expected.codes, None, f"{case}: codes")
        values_found = backend.dequantize_int8(found)
        require_same(values_found, qloracle.dequantize_int8(expected), fmt, f"{case}: values")
    return matrix.size


def main() -> None:
    assert kernels_of("cpu").startswith("triton"), "the kernels are not interpreted here"
    rng = np.random.default_rng(7)
    formats = dict(zip(BLOCK_SIZES, (*FORMATS, *FORMATS, *FORMATS), strict=False))
    count = sum(
        blockwise(rng, *case, formats[case[1]]) for case in product(("nf4", "fp4", "dynamic_signed"), BLOCK_SIZES)
    )
    count += sum(blockwise(rng, name, 64, "float32") for name in CODEBOOKS)
    count += sum(int8(rng, *how, columns) for how in INT8_GROUPS for columns in (5, 64, 5000))
    count += sum(constant(*case) for case in product((1.0, 0.0, -3.3e38, 1e-40), ("float32", "bfloat16")))
    count += means(rng, 200)
    print(count)  # noqa: T201


if __name__ == "__main__":
    main()
