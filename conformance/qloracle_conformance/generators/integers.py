"""Inputs of the INT8 matmul and of the scaling of its accumulator."""

import numpy as np

from qloracle.formats import Array
from qloracle.int8_product import LARGEST_INNER, LARGEST_INNER_WITH_MINUS_128
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case, each_layout, reshaped
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.linear import PRIMES, batch_shapes
from qloracle_conformance.generators.values import any_exponent, full_significand, normal, rounded

INNER = (1, 2, 7, 31, 32, 33, 64, 255, 1024, 1040, 1041, 2048, 11008)
MATMUL_FAMILIES = ("random", "extremes", "ramps", "shapes", "memory", "tiles", "squares")
SCALE_FAMILIES = ("normal", "ramps", "bias", "exponents", "shapes", "memory", "tiles", "squares", "specials")

SCALE_SHAPES = {
    "shapes": ((1, 1), (2, 9), (0, 3), (65, 1)),
    "tiles": ((130, 67), (67, 131), (300, 18), (9, 300)),
    "squares": ((8, 8), (16, 16), (3, 3)),
}


def matmul_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """INT8 matrices: random; one sign and full scale at long K, with −128; told apart by place; shapes; layouts."""
    random, layout = draw.random(), "contiguous"
    inner = draw.choice(INNER)
    rows: tuple[int, ...] = (draw.choice((3, 1, 17)),)
    columns = draw.choice((5, 1, 16))
    a, b = random.integers(-127, 128, (*rows, inner)), random.integers(-127, 128, (columns, inner))
    if family == "extremes":
        low = draw.choice((-127, -128) if "minus_128" in claim.features else (-127,))
        inner = draw.choice((1040, 1041, 11008, LARGEST_INNER if low == -127 else LARGEST_INNER_WITH_MINUS_128))
        a, b = np.full((2, inner), low), np.full((3, inner), low)
        a[1], b[2] = 127, 127
    elif family == "ramps":
        rows_of_a, rows_of_b, inner = draw.choice(((6, 4, 10), (3, 7, 5), (9, 2, 33), (5, 8, 64), (2, 11, 16)))
        a, b = _ramp(random, rows_of_a, inner), _ramp(random, rows_of_b, inner)
    elif family == "shapes":
        lead = draw.choice(batch_shapes(claim))
        a = random.integers(-127, 128, (*lead, inner))
    elif family == "memory":
        layout = draw.choice(claim.layouts)
        inner = 40
        a, b = random.integers(-127, 128, (6, inner)), random.integers(-127, 128, (5, inner))
    elif family in ("tiles", "squares"):
        a, b = _tiled(draw, random, family, "minus_128" in claim.features)
    if max(claim.ndims) == 1:
        a = a.reshape(-1, a.shape[-1])[0]
    left = reshaped(host(a.astype(np.int8)), claim)
    inputs: dict[str, HostArray | None] = {"a": left, "b": host(b.astype(np.int8))}
    layouts = each_layout(draw, claim, inputs) if family == "squares" else dict.fromkeys(inputs, layout)
    return Case("int8.matmul", inputs, {}, layouts=layouts, repeat=family == "memory")


def _ramp(random: np.random.Generator, rows: int, columns: int) -> Array:
    """Return codes that tell every row, and every place in it, from all others."""
    row_step, column_step = random.permutation([11, 29, 37, 53, 71, 97])[:2]
    start = random.integers(0, 255)
    ramp: Array = (np.arange(rows)[:, np.newaxis] * row_step + np.arange(columns) * column_step + start) % 255 - 127
    return ramp


def _tiled(draw: Draw, random: np.random.Generator, family: str, minus_128: bool) -> tuple[Array, Array]:
    """Return matrices of more rows and columns than a tile, no multiples of one; or squares of one size."""
    rows, columns, inner = draw.choice(((130, 67, 100), (67, 131, 77), (33, 300, 1065), (17, 33, 4100), (300, 18, 39)))
    if family == "squares":
        rows = columns = inner = draw.choice((8, 16, 3, 64))
    low = -128 if minus_128 else -127
    return random.integers(low, 128, (rows, inner)), random.integers(low, 128, (columns, inner))


def scale_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Accumulators and scales: ordinary; primes; bias alone; exponents whose product over- or underflows on the way."""
    random = draw.random()
    rows, columns = draw.choice(((3, 5), (1, 4), (16, 7)))
    if family in SCALE_SHAPES:
        rows, columns = draw.choice([s for s in SCALE_SHAPES[family] if claim.empty or 0 not in s])
    acc = random.integers(-(2**28), 2**28, (rows, columns))
    row = normal(random, (rows,), "float32").items.copy()
    column = normal(random, (columns,), "float32", 0.05).items.copy()
    bias = random.standard_normal(columns) if "bias" in claim.features and draw.choice((True, False)) else None
    bias_dtype = draw.choice(claim.dtypes)  # drawn with or without a bias, so that later choices keep their places
    if family == "ramps":
        acc = np.full((rows, columns), 16129 * int(random.integers(1, 100)))
        row, column = np.resize(random.permutation(PRIMES), rows), np.resize(random.permutation(PRIMES), columns)
    elif family == "bias":
        acc = acc * 0
        bias = full_significand(random, (columns,), "float32").real() if "bias" in claim.features else None
    elif family == "exponents":
        row = any_exponent(random, (rows,), "float32").real()
        column = np.minimum(np.abs(random.standard_normal(columns)) / np.mean(row), 2.0**100)
        bias = None
    elif family == "specials":
        row[random.integers(0, rows)], column[random.integers(0, columns)] = draw.choice(
            ((0, np.nan), (np.nan, 0), (0, 0), (2.0**-130, 2.0**100))
        )
        acc[0] = draw.choice((2**31 - 1, -(2**31 - 1)))
        acc[random.integers(0, 3, acc.shape) == 0] = 0  # times a NaN it is one
    inputs: dict[str, HostArray | None] = {
        "acc": host(acc.astype(np.int32)),
        "row_absmax": rounded(np.abs(row), "float32"),
        "column_absmax": rounded(np.abs(column), "float32"),
        "bias": None if bias is None else rounded(bias, bias_dtype),
    }
    layout = draw.choice(claim.layouts) if family == "memory" else "contiguous"
    layouts = each_layout(draw, claim, inputs) if family == "squares" else dict.fromkeys(inputs, layout)
    options = {"dtype": draw.choice(claim.out_dtypes)}
    return Case("int8.scale", inputs, options, layouts=layouts, repeat=family == "memory")
