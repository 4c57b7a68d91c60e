"""Inputs of layers that quantize their activations row by row, with or without outlier columns."""

from dataclasses import replace
from typing import Any

import numpy as np

from qloracle.formats import Array, format_named
from qloracle.int8 import quantize_int8
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case, each_layout
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.linear import WIDE_LENGTHS, batch_shapes, one_hot
from qloracle_conformance.generators.quantized_linear import weight_case
from qloracle_conformance.generators.values import (
    absmax_with_ties,
    any_exponent,
    full_significand,
    moved,
    near_boundaries,
    normal,
    rounded,
)

ROUND = (6.0, 2.0, 3.5)  # numbers of every format
FINE = (6 + 201 / 2048, 2 + 1421 / 2048)  # of float32 alone, a little above ones of 16 bits, which are no outliers
THRESHOLDS = (*ROUND, 0.0)
ROW_FAMILIES = (
    "boundaries", "normal", "poison", "ramps", "bias", "shapes", "memory", "squares", "exponents", "tiles", "single",
)  # fmt: skip
FAMILIES = ("thresholds", "hidden", "outliers", "large", "rows", *ROW_FAMILIES)
EXACT = ("outliers", "bias")  # families of which the result is exact in any order
INNER = (64, 200, 33, 1000)
TILES = ((67, 131), (130, 300), (33, 1031), (40, 520), (260, 70))  # rows and inputs, no multiples of a tile


def llm_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """LLM.int8() on inputs in which outliers, absmax, codes or the sum of outliers is what matters."""
    dtype, random = draw.choice(claim.dtypes), draw.random()
    threshold = (
        draw.choice(THRESHOLDS)
        if family in ("normal", "poison", "shapes", "memory")
        else draw.choice((*ROUND, *FINE) if family == "thresholds" else ROUND)
    )
    exclusion = str(draw.choice(claim.options.get("exclusion", ("columns",))))
    outlier_weight = str(draw.choice(claim.options.get("outlier_weight", ("original",))))
    x = _input(draw, claim, random, dtype, family, threshold)
    parts = _weight(draw, random, x.shape[-1], dtype, family, outlier_weight)
    bias = _bias(draw, claim, random, parts["codes"], dtype, family)
    inputs: dict[str, HostArray | None] = {"x": x, **parts, "bias": bias}
    options = {"threshold": threshold, "exclusion": exclusion, "outlier_weight": outlier_weight}
    return _made("llm_int8.forward", draw, claim, family, inputs, options)


def row_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Activations quantized row by row, nothing left out."""
    dtype, random = draw.choice(claim.dtypes), draw.random()
    x = _input(draw, claim, random, dtype, family, 0.0)
    parts = _weight(draw, random, x.shape[-1], dtype, family, "dequantized")
    bias = _bias(draw, claim, random, parts["codes"], dtype, family)
    inputs = {"x": x, "codes": parts["codes"], "absmax": parts["absmax"], "bias": bias}
    return _made("int8_linear.forward", draw, claim, family, inputs, {})


def _made(
    operation: str, draw: Draw, claim: Claim, family: str, inputs: dict[str, HostArray | None], options: dict[str, Any]
) -> Case:
    layout = draw.choice(claim.layouts) if family == "memory" else "contiguous"
    layouts = each_layout(draw, claim, inputs) if family == "squares" else dict.fromkeys(inputs, layout)
    return Case(operation, inputs, options, layouts, family in EXACT, repeat=family == "memory")


def _input(
    draw: Draw, claim: Claim, random: np.random.Generator, dtype: str, family: str, threshold: float
) -> HostArray:
    """Return x: rows with outliers beyond the threshold, if there is one."""
    rows, inner = draw.choice((5, 1, 16)), draw.choice(INNER)
    if family == "shapes":
        lead = draw.choice(batch_shapes(claim))
        x = normal(random, (*lead, draw.choice((8, 1, 3, 17))), dtype).real()
        return rounded(_with_outliers(random, x, threshold), dtype)
    if family == "squares":
        rows = inner = draw.choice((8, 16, 3))
    if family == "tiles":
        rows, inner = draw.choice(TILES)
    if family == "single":
        rows, inner = 40, draw.choice(WIDE_LENGTHS)
    if family == "boundaries":
        absmax = rounded(np.minimum(_moderate(random, rows, dtype, threshold), 2.0**100), dtype)
        boundaries = (np.arange(-127, 127) + 0.5) / 127
        x = near_boundaries(random, absmax, inner, boundaries, dtype).real()
        x[:, 0] = np.where(random.integers(0, 2, rows) == 0, 2 * threshold, x[:, 0]) if threshold else x[:, 0]
        return rounded(x, dtype)
    return _special_input(draw, random, (rows, inner), dtype, family, threshold)


def _moderate(random: np.random.Generator, rows: int, dtype: str, threshold: float) -> Array:
    """Return absmax of rows, half of them with exact ties, below the threshold if there is one."""
    absmax = absmax_with_ties(random, rows, dtype, 254).real()
    if not threshold:
        return absmax
    exponent = np.frexp(absmax)[1]
    return np.where(exponent > 0, np.ldexp(absmax, -exponent), absmax)


def _special_input(
    draw: Draw, random: np.random.Generator, shape: tuple[int, int], dtype: str, family: str, threshold: float
) -> HostArray:
    fmt, x = format_named(dtype), normal(random, shape, dtype).real()
    if family == "thresholds":
        return _at_threshold(random, shape, dtype, threshold)
    if family == "bias":
        x = x * 0
    elif family == "single":  # the last input among them: every sum is one product, so nothing hides in the bound
        x = one_hot(random, shape[0], shape[1], (-3, 0))
    elif family == "outliers":
        power = draw.choice((0, 3))
        x = one_hot(random, shape[0], shape[1], (power, power)) * 2.0 ** np.ceil(np.log2(threshold))
    elif family == "exponents":
        scale = any_exponent(random, (shape[0], 1), dtype).real()
        x = x * np.minimum(scale, 1.0 if threshold else 2.0**60)
    elif family == "ramps":
        x = np.clip(x, -1, 1) * 2.0 ** -(np.arange(shape[0]) % 12)[:, np.newaxis]
    elif family == "hidden":
        x = _hidden(random, shape, threshold)
    elif family == "rows":  # one row alone holds the outlier of a column
        x = np.clip(x, -1, 1)
        x[random.integers(0, shape[0]), random.choice([0, shape[1] - 1, shape[1] // 2])] = -threshold * 1.5
    else:
        beyond = 20.0 if family != "large" else 1e5 if fmt.exponent_bits == 8 else 4e4
        x = _with_outliers(random, x, threshold, beyond)
    if family == "poison":
        count = 1 + shape[1] // 64
        kinds = random.permutation(np.resize([np.nan, np.inf, -np.inf], count))  # a NaN is always among them
        x.reshape(-1)[random.choice(x.size, count, replace=False)] = kinds
    return rounded(np.clip(x, -fmt.largest_finite, fmt.largest_finite) if family == "exponents" else x, dtype)


def _hidden(random: np.random.Generator, shape: tuple[int, int], threshold: float) -> Array:
    """Return an input in whose outlier columns stand the largest of the elements that are no outliers themselves."""
    x = np.clip(random.standard_normal(shape), -1, 1) * 0.25
    columns = random.permutation(shape[1])[: max(1, shape[1] // 8)]
    x[:, columns] = random.uniform(0.5, 0.99, (shape[0], len(columns))) * threshold
    x[random.integers(0, shape[0], len(columns)), columns] = 2 * threshold
    return x


def _with_outliers(random: np.random.Generator, x: Array, threshold: float, largest: float = 20.0) -> Array:
    """Return an input a few of whose columns hold numbers beyond the threshold."""
    if not x.size or not threshold:
        return x
    limited = np.clip(x, -0.9 * threshold, 0.9 * threshold)
    columns = random.integers(0, x.shape[-1], 1 + x.shape[-1] // 32)
    size = random.uniform(threshold, threshold + largest, limited[..., columns].shape)
    chosen = random.integers(0, 2, size.shape) == 0
    limited[..., columns] = np.where(chosen, size * random.choice([-1.0, 1.0], size.shape), limited[..., columns])
    return limited


def _at_threshold(random: np.random.Generator, shape: tuple[int, int], dtype: str, threshold: float) -> HostArray:
    """Return one element in some columns that is the threshold, or the number before or after it, of either sign."""
    x = np.clip(random.standard_normal(shape), -1, 1)
    columns = random.permutation(shape[1])[: max(1, shape[1] // 3)]
    rows = random.integers(0, shape[0], len(columns))
    limit = rounded(np.full(len(columns), threshold), dtype)
    near = moved(limit, random.integers(-1, 2, len(columns))).real() * random.choice([-1.0, 1.0], len(columns))
    x[rows, columns] = near
    return rounded(x, dtype)


def _weight(
    draw: Draw, random: np.random.Generator, inner: int, dtype: str, family: str, outlier_weight: str
) -> dict[str, HostArray | None]:
    """Return a weight as INT8 codes by row with their absmax, and as it was."""
    outer = inner if family == "squares" else draw.choice((129, 70, 300) if family == "tiles" else (24, 7, 1))
    original = normal(random, (outer, inner), dtype, 0.05)
    if family == "outliers":
        original = full_significand(random, (outer, inner), dtype)
    if family == "ramps":
        original = rounded(original.real() * 2.0 ** (np.arange(outer) % 12)[:, np.newaxis], dtype)
    table = quantize_int8(original.single(), granularity="row")
    absmax = np.ldexp(np.float32(127), random.integers(-2, 2, outer)) if family == "outliers" else table.absmax
    if family == "poison" and draw.choice((False, True)):
        absmax = absmax.copy()
        absmax[random.integers(0, outer)] = np.nan
    weight = None if outlier_weight == "dequantized" else original
    return {"codes": host(table.codes), "absmax": host(np.asarray(absmax, np.float32)), "weight": weight}


def _bias(
    draw: Draw, claim: Claim, random: np.random.Generator, codes: HostArray | None, dtype: str, family: str
) -> HostArray | None:
    if codes is None or "bias" not in claim.features or family == "outliers":
        return None
    given = family == "bias" or draw.choice((True, False))
    return full_significand(random, (codes.shape[0],), dtype) if given else None


def backward_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """The gradient of LLM.int8(): that of a layer whose weight is INT8 by row."""
    by_row = replace(claim, options={"granularity": ("row",)})
    case = weight_case(draw, by_row, family=family, kind="int8", backward=True)
    return replace(case, operation="llm_int8.backward", options={})
