"""Hold interpreted products with quantized weights against the reference, and print how many results were judged.

Run in a process of its own, with TRITON_INTERPRET=1.
"""

from itertools import product
from typing import Any

import numpy as np
import torch
from words import words  # type: ignore[import-not-found]  # its neighbour, since this file is run as a script

import qloracle
import qloracle_gpu.torch as backend
from qloracle.bounds import quantized_matmul_bound, scale_int8_matmul_bound
from qloracle.formats import Array
from qloracle.tracking.roundings import Roundings
from qloracle_gpu.torch.int8_scale import scaled_int8_matmul
from qloracle_gpu.torch.kernels.availability import kernels_of

SHAPES = [(1, 1, 1), (1, 64, 128), (3, 65, 257), (16, 130, 96), (17, 7, 300), (33, 40, 64), (130, 129, 65)]
FEW_ROWS = [
    ("nf4", 1, 256, 64, "float32"), ("nf4", 16, 1234, 64, "bfloat16"), ("fp4", 3, 100, 24, "float16"),
    ("dynamic_signed", 1, 333, 100, "float32"), ("dynamic_signed", 5, 2500, 4096, "bfloat16"),
    ("nf4", 2, 34, 64, "float32"),
]  # fmt: skip
OUT_DTYPES = ("float32", "float16", "bfloat16")


def scales(rng: np.random.Generator, count: int) -> Array:
    """Absmax of any magnitude whose products keep clear of the largest float32, among them 0."""
    found = rng.integers(0x20000000, 0x5A000000, count, dtype=np.uint32).view(np.float32)
    found[::5] = 0.0
    return found


def judged(rng: np.random.Generator, shape: tuple[int, int, int], out_dtype: str, with_bias: bool) -> int:
    """Judge one product: inside the bound in float32, and that rounded once in a 16-bit format."""
    rows, columns, inner = shape
    a, b = (rng.integers(-127, 128, (count, inner)).astype(np.int8) for count in (rows, columns))
    row, column = scales(rng, rows), scales(rng, columns)
    bias = rng.standard_normal(columns).astype(np.float32) if with_bias else None
    tensors = [torch.from_numpy(part) for part in (a, b, row, column)]
    shift = None if bias is None else torch.from_numpy(bias)
    y = scaled_int8_matmul(*tensors, shift).numpy()
    allowed = scale_int8_matmul_bound(qloracle.int8_matmul(a, b), row, column, bias)
    outside = ~((allowed.lo <= y) & (y <= allowed.hi)) & allowed.judged
    assert not outside.any(), f"{shape}: {np.count_nonzero(outside)} of {y.size} outside their bound"
    got = scaled_int8_matmul(*tensors, shift, out_dtype=out_dtype)
    wrong = words(got) != qloracle.encode(y, out_dtype)
    assert not wrong.any(), f"{shape} to {out_dtype}: {np.count_nonzero(wrong)} of {y.size} rounded wrongly"
    return int(np.count_nonzero(allowed.judged))


def exact(rng: np.random.Generator, shape: tuple[int, int, int]) -> int:
    """Scales of 127 times powers of two, so that every result is a float32 number."""
    rows, columns, inner = shape
    a, b = (rng.integers(-9, 10, (count, inner)).astype(np.int8) for count in (rows, columns))
    row, column = (np.ldexp(np.float32(127), rng.integers(-40, 40, count)) for count in (rows, columns))
    y = scaled_int8_matmul(*(torch.from_numpy(part) for part in (a, b, row, column))).numpy()
    expected = qloracle.scale_int8_matmul(qloracle.int8_matmul(a, b), row, column)
    assert (y == expected).all(), f"{shape}: {np.count_nonzero(y != expected)} of {y.size} are not exact"
    return y.size


def few_rows(rng: np.random.Generator, name: str, rows: int, inner: int, block_size: int, rounding: str) -> int:
    """Judge the product of few rows with a weight in codes, its absmax plain and nested."""
    w, x = rng.standard_normal((37, inner)).astype(np.float32), rng.standard_normal((rows, inner)).astype(np.float32)
    bias, how = rng.standard_normal(37).astype(np.float32), {"codebook": name, "block_size": block_size}
    given, stored = torch.from_numpy(x), torch.from_numpy(w)
    found: list[tuple[Any, Any]] = [
        (qloracle.quantize_blockwise(w, **how), backend.quantize_blockwise(stored, **how)),
        (qloracle.quantize_double(w, **how), backend.quantize_double(stored, **how)),
    ]
    for reference, record in found:
        y = backend.quantized_matmul(given, record, bias=torch.from_numpy(bias), weight_rounding=rounding).numpy()
        allowed = quantized_matmul_bound(x, reference, bias=bias, roundings=Roundings(weight=rounding))
        outside = ~((allowed.lo <= y) & (y <= allowed.hi)) & allowed.judged
        assert not outside.any(), f"{name} {rows} by {inner}, {rounding}: {np.count_nonzero(outside)} outside"
    return 2 * y.size


def whole(rng: np.random.Generator, shape: tuple[int, int, int]) -> int:
    """Compare sums of integers, the smallest and largest codes among them."""
    rows, columns, inner = shape
    a, b = (rng.integers(-128, 128, (count, inner)).astype(np.int8) for count in (rows, columns))
    acc, expected = backend.int8_matmul(*map(torch.from_numpy, (a, b))).numpy(), qloracle.int8_matmul(a, b)
    assert (acc == expected).all(), f"{shape}: {np.count_nonzero(acc != expected)} of {acc.size} sums are wrong"
    return acc.size


def main() -> None:
    assert kernels_of("cpu").startswith("triton"), "the kernels are not interpreted here"
    rng = np.random.default_rng(6)
    count = sum(judged(rng, *case) for case in product(SHAPES, OUT_DTYPES, (False, True)))
    count += sum(exact(rng, shape) + whole(rng, shape) for shape in SHAPES)
    count += sum(few_rows(rng, *case) for case in FEW_ROWS)
    print(count)  # noqa: T201


if __name__ == "__main__":
    main()
