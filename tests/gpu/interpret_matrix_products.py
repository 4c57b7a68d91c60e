"""Hold products of many rows with stored weights against the reference, and print how many were judged.

Run in a process of its own, with TRITON_INTERPRET=1, or without it where there is a GPU.
"""

from typing import Any

import numpy as np
import torch
from interpret_judging import DEVICE, both, placed, require_exact, require_inside, tensor  # type: ignore[import-not-found]  # run as a script

import qloracle
import qloracle_gpu.torch as backend
from qloracle.bounds import llm_int8_forward_bound, quantized_matmul_bound, weight_only_backward_bound
from qloracle.formats import Array
from qloracle.operands import real_operand
from qloracle.qlora import qlora_weight
from qloracle.tracking.roundings import Roundings
from qloracle_gpu.torch.kernels import decomposed_product
from qloracle_gpu.torch.kernels.availability import kernels_of
from qloracle_gpu.torch.kernels.tiles import FLOAT32_TILES, MATRIX_TILES, tile_of
from qloracle_gpu.torch.stored_products import stored_product

# Rows shorter than a block, of odd length, and not a multiple of it; blocks that no power of two divides.
WEIGHTS: list[tuple[str, dict[str, Any]]] = [
    ("quantize_blockwise", {"codebook": "nf4"}), ("quantize_blockwise", {"codebook": "fp4", "block_size": 10}),
    ("quantize_blockwise", {"codebook": "dynamic_signed", "block_size": 100}),
    ("quantize_blockwise", {"codebook": "float8", "block_size": 33}),
    ("quantize_double", {"codebook": "nf4"}), ("quantize_double", {"codebook": "linear_signed", "block_size": 6}),
    ("quantize_int8", {"granularity": "row"}), ("quantize_int8", {"granularity": "column"}),
    ("quantize_int8", {"granularity": "tensor"}), ("quantize_int8", {"granularity": "block", "block_size": 26}),
]  # fmt: skip
# Rows, columns, inner dimension; formats of x and of the dequantized weight.
PRODUCTS = [
    (17, 40, 101, "float32", "float32"), (70, 70, 130, "float16", "float16"), (130, 129, 65, "bfloat16", "bfloat16"),
    (33, 150, 64, "bfloat16", "bfloat16"), (66, 33, 300, "bfloat16", "float32"), (9, 128, 77, "float16", "bfloat16"),
    (40, 20, 129, "float16", "float16"), (65, 16, 40, "float32", "bfloat16"), (5, 64, 192, "bfloat16", "bfloat16"),
    (1, 1, 1, "float32", "float32"), (18, 3, 2, "float16", "float16"),
]  # fmt: skip
LATTICE = (-127, 127, 0, 1, -2, 5)  # every value an INT8 code, so that sums are exact in any order
OUTLIERS = [(7, 20, 30, "float32", 2.5), (65, 64, 100, "float16", 2.0), (130, 66, 129, "bfloat16", 1.0),
            (3, 5, 64, "bfloat16", 0.0), (20, 70, 33, "float32", 3.0)]  # fmt: skip


def some_weights(case: tuple[int, int, int, str, str]) -> list[tuple[str, dict[str, Any]]]:
    """A third of the ways to store a weight, another one for each product."""
    return WEIGHTS[PRODUCTS.index(case) % 3 :: 3]


def within_bounds(rng: np.random.Generator, case: tuple[int, int, int, str, str]) -> int:
    """Judge products with a weight and with its transpose."""
    rows, columns, inner, fmt, rounding = case
    w, bias = (rng.standard_normal(shape).astype(np.float32) for shape in ((columns, inner), columns))
    x, dy = (tensor(rng.standard_normal((rows, length)), fmt) for length in (inner, columns))
    roundings, count = Roundings(weight=rounding), 0
    for quantize, how in some_weights(case):
        reference, record = both(quantize, w, **how)
        rule = f"{quantize} {how}, {case}"
        y = backend.quantized_matmul(x, record, bias=tensor(bias, fmt), weight_rounding=rounding)
        given = tensor(bias, fmt).float().cpu().numpy()
        allowed = quantized_matmul_bound(x.float().cpu().numpy(), reference, bias=given, roundings=roundings)
        count += require_inside(y, allowed, rule)
        if quantize == "quantize_int8":
            dx = backend.weight_only_backward(dy, record, weight_rounding=rounding).x
            expected = weight_only_backward_bound(dy.float().cpu().numpy(), reference, roundings=roundings)["x"]
            count += require_inside(dx, expected, f"transposed {rule}")
    return count


def one_place(rng: np.random.Generator, rows: int, length: int, fmt: str) -> tuple[torch.Tensor, Array, Array]:
    """Rows with one power of two each, first and last places among them: exact in any order."""
    places = rng.integers(0, length, rows)
    places[:: max(rows // 2, 1)] = length - 1
    x = np.zeros((rows, length))
    powers = np.ldexp(rng.choice([-1.0, 1.0], rows), rng.integers(-7, 8, rows))
    x[np.arange(rows), places] = powers
    return tensor(x, fmt), places, powers


def exact(rng: np.random.Generator, case: tuple[int, int, int, str, str]) -> int:
    """Compare sums that are exact in any order: single products of full length, and small integers."""
    rows, columns, inner, fmt, rounding = case
    w, count = rng.standard_normal((columns, inner)).astype(np.float32), 0
    for quantize, how in some_weights(case):
        reference, record = both(quantize, w, **how)
        values = real_operand(qlora_weight(reference, weight_rounding=rounding), "weight")
        x, places, powers = one_place(rng, rows, inner, fmt)
        y = backend.quantized_matmul(x, record, weight_rounding=rounding, out_dtype="float32")
        count += require_exact(y, powers[:, None] * values[:, places].T, f"one place, {quantize} {how}, {case}")
        dy, places, powers = one_place(rng, rows, columns, fmt)
        dx = stored_product(dy, record, torch.float32, weight_rounding=rounding, transposed=True)
        assert dx is not None, "no kernel took the product"
        count += require_exact(dx, powers[:, None] * values[places], f"transposed {quantize} {how}, {case}")
    return count + integers(rng, case)


def integers(rng: np.random.Generator, case: tuple[int, int, int, str, str]) -> int:
    """Compare sums of small integers, INT8's and those of NF4 codes that stand for -1, 0 and 1."""
    rows, columns, inner, fmt, rounding = case
    w = rng.choice(LATTICE, (columns, inner)).astype(np.float32)
    w[:, 0], w[0] = 127, -127
    signs = np.ldexp(rng.choice([-1.0, 1.0], (columns, inner)), -3).astype(np.float32)
    stored = [(w, "quantize_int8", {"granularity": g}) for g in ("row", "column", "tensor")]
    count = 0
    for values, quantize, how in [*stored, (signs, "quantize_blockwise", {"codebook": "nf4", "block_size": 24})]:
        reference, record = both(quantize, values, **how)
        assert (qlora_weight(reference) == values).all(), "the lattice is no lattice"
        x, dy = (tensor(rng.integers(-2, 3, (rows, length)), fmt) for length in (inner, columns))
        y = backend.quantized_matmul(x, record, weight_rounding=rounding, out_dtype="float32")
        count += require_exact(y, x.double().cpu().numpy() @ values.T.astype(np.float64), f"integers, {how}, {case}")
        dx = stored_product(dy, record, torch.float32, weight_rounding=rounding, transposed=True)
        assert dx is not None, "no kernel took the product"
        expected = dy.double().cpu().numpy() @ values.astype(np.float64)
        count += require_exact(dx, expected, f"integers, transposed, {how}, {case}")
    return count


def decomposed(rng: np.random.Generator, case: tuple[int, int, int, str, float]) -> int:
    """Judge LLM.int8() with either weight of its outliers, and where every product is exact."""
    rows, columns, inner, fmt, threshold = case
    w, bias = (rng.standard_normal(shape).astype(np.float32) for shape in ((columns, inner), columns))
    spread = rng.standard_normal((rows, inner))
    spread[:, :: max(inner // 20, 1)] *= 4
    x = tensor(spread, fmt)
    reference, record = both("quantize_int8", w, granularity="row")
    wide = x.float().cpu().numpy()
    parts, count = qloracle.decompose(wide, threshold), 0
    for kept, original, rounding in (("original", w, "float32"), ("dequantized", None, "bfloat16")):
        y = backend.llm_int8_forward(
            x, record, None if original is None else placed(original), threshold=threshold,
            outlier_weight=kept, weight_rounding=rounding, bias=placed(bias),
        )  # fmt: skip
        allowed = llm_int8_forward_bound(wide, reference, parts, original, outlier_weight=kept, bias=bias,
                                         roundings=Roundings(weight=rounding))  # fmt: skip
        count += require_inside(y, allowed, f"LLM.int8(), {kept}, {case}")
    return count + outliers_of_one_place(rng, rows, columns, inner, fmt)


def outliers_of_one_place(rng: np.random.Generator, rows: int, columns: int, inner: int, fmt: str) -> int:
    """Compare outliers alone: one in each row, times an original of full length."""
    w = rng.standard_normal((columns, inner)).astype(np.float32)
    _, record = both("quantize_int8", w, granularity="row")
    x, places, powers = one_place(rng, rows, inner, fmt)
    y = backend.llm_int8_forward(x, record, placed(w), threshold=2.0**-9, out_dtype="float32")
    return require_exact(y, powers[:, None] * w[:, places].T.astype(np.float64), f"outliers, {rows} by {inner}")


def not_finite() -> int:
    """An infinity meets the weight of its own column only, and NaN its own row."""
    w = np.ones((18, 70), np.float32)
    _, record = both("quantize_blockwise", w)
    x = torch.ones(20, 70, device=DEVICE)
    x[3, 69], x[19, 0] = torch.inf, torch.nan
    y = backend.quantized_matmul(x, record)
    expected = np.full((20, 18), 70.0)
    expected[3], expected[19] = np.inf, np.nan
    assert np.array_equal(y.cpu().numpy(), expected, equal_nan=True), "what is not finite spreads"
    poisoned = w.copy()
    poisoned[17, 69] = np.nan
    _, record = both("quantize_blockwise", poisoned, block_size=30)
    bad = backend.quantized_matmul(torch.ones(20, 70, device=DEVICE), record).isnan()
    assert bad.sum() == 20, "a poisoned block reaches other outputs than its own"
    assert bad[:, 17].all(), "a poisoned block is lost"
    return y.numel() + bad.numel()


def every_tile_is_tried() -> None:
    tried = set()
    for rows, columns, inner, fmt, rounding in PRODUCTS:
        operand = fmt if fmt == rounding else "float32"
        tried |= {tile_of(rows, columns, operand), tile_of(rows, inner, operand)}
    assert tried == {*MATRIX_TILES, *FLOAT32_TILES}, "a tile is not tried"
    reached = [sum(rows > tile.rows for tile in decomposed_product.TILES[:-1]) for rows, *_ in OUTLIERS]
    assert set(reached) == {0, 1, 2}, "a tile of LLM.int8() is not tried"


def main() -> None:
    assert kernels_of(DEVICE).startswith("triton"), "no kernels run here"
    every_tile_is_tried()
    rng = np.random.default_rng(7)
    count = sum(within_bounds(rng, case) + exact(rng, case) for case in PRODUCTS)
    count += sum(decomposed(rng, case) for case in OUTLIERS) + not_finite()
    print(count)  # noqa: T201


if __name__ == "__main__":
    main()
