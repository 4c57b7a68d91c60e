"""[bounds.embedding], [bounds.matmul] and the roundings that a library declares: what is inside, and what is not."""

from collections.abc import Callable
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from qloracle import (
    embedding_lora_backward,
    embedding_lora_forward,
    quantize_affine,
    quantize_blockwise,
    quantize_double,
    quantize_int8,
)
from qloracle.blockwise import QuantizedBlocks
from qloracle.bounds import (
    Roundings,
    embedding_lora_backward_bound,
    embedding_lora_forward_bound,
    lora_backward_bound,
    lora_forward_bound,
    quantized_matmul_bound,
)
from qloracle.errors import ArgumentValueError
from qloracle.formats import Array
from qloracle.qlora import QuantizedWeight, qlora_weight
from qloracle.quantized_product import quantized_matmul
from qloracle.tables import codebook_named

from .bound_cases import NUDGE, normal
from .evaluated_layers import require_inside, used_part
from .evaluations import ORDERS, ROUNDINGS, products, to_bfloat16, to_float32, total
from .rationals import exact

DECLARED = [Roundings(), Roundings(intermediate="bfloat16"), Roundings(adapter="bfloat16", base="bfloat16"),
            Roundings(accumulate="bfloat16", intermediate="bfloat16")]  # fmt: skip
ONE = np.ones((1, 1), np.float32)


def inside(interval_lo: Array, interval_hi: Array, expected: Array) -> bool:
    pairs = zip(interval_lo.flat, interval_hi.flat, expected.flat, strict=True)
    return all(exact(lo) <= real <= exact(hi) for lo, hi, real in pairs)


def fractions(values: Array) -> Array:
    return np.array([exact(v) for v in values.flat], object).reshape(values.shape)


def embedding(seed: int) -> dict[str, Array]:
    ids = np.random.default_rng([181, seed]).integers(0, 5, 12)
    return {
        "ids": ids,
        "weight": normal(seed, 6, 4),
        "lora_a": normal(seed + 1, 3, 6),
        "lora_b": normal(seed + 2, 4, 3),
    }


def embedded(parts: dict[str, Array], dy: Array, order: str, place: str, roundings: Roundings) -> dict[str, Array]:
    """Output and gradients in low precision, s = 0.7/3 multiplied at a place."""
    rnd, between, adapter = (ROUNDINGS[getattr(roundings, n)] for n in ("accumulate", "intermediate", "adapter"))
    base, ids = ROUNDINGS[roundings.base], parts["ids"]
    w, a, b, d = (
        parts[n].astype(np.float64) if n != "dy" else dy.astype(np.float64)
        for n in ("weight", "lora_a", "lora_b", "dy")
    )
    s = rnd(rnd(np.array(0.7)) * rnd(np.array(1 / 3)))

    def at(where: str, values: Array) -> Array:
        return rnd(values * s) if where == place else values

    low = adapter(at("end", adapter(total(products(at("a", a.T[ids]), at("b", b).T), order, rnd))))
    scaled = adapter(at("a", d))
    back = at("b", between(total(products(scaled, b), order, rnd)))
    rows: list[Array] = []
    for index in range(len(w)):
        chosen = back[ids == index]
        none = np.zeros(b.shape[1])
        rows.append(total([(row, np.ones(())) for row in chosen], order, rnd) if len(chosen) else none)
    by_b = total(products(scaled.T, at("b", a.T[ids])), order, rnd)
    return {
        "y": rnd(base(w[ids]) + low),
        "lora_a": at("end", np.stack(rows, axis=1)),
        "lora_b": at("end", by_b),
    }


@pytest.mark.proof("bounds.embedding", by="evaluations in low precision")
@pytest.mark.parametrize("roundings", DECLARED)
def test_every_evaluation_of_an_embedding_is_inside(roundings: Roundings) -> None:
    for seed, order, place in product(range(4), ORDERS, ("a", "b", "end")):
        parts, dy = embedding(seed), normal(seed + 3, 12, 4)
        intervals = embedding_lora_backward_bound(dy, **parts, alpha=0.7, roundings=roundings)
        intervals["y"] = embedding_lora_forward_bound(**parts, alpha=0.7, roundings=roundings)
        for name, got in embedded(parts, dy, order, place, roundings).items():
            require_inside(intervals[name], got, f"{name} of an embedding, {roundings}, {order}, s in {place}")


@pytest.mark.proof("bounds.embedding", by="exact rationals")
def test_the_exact_rows_and_gradients_of_an_embedding_are_inside() -> None:
    parts, dy = embedding(9), normal(10, 12, 4)
    w, a, b, d = (fractions(v) for v in (parts["weight"], parts["lora_a"], parts["lora_b"], dy))
    scale, ids = exact(0.75) / 3, parts["ids"]
    y = embedding_lora_forward_bound(**parts, alpha=0.75)
    assert inside(y.lo, y.hi, w[ids] + scale * (a.T[ids] @ b.T)), "the exact y is outside its bound"
    bounds = embedding_lora_backward_bound(dy, **parts, alpha=0.75)
    assert inside(bounds["lora_b"].lo, bounds["lora_b"].hi, scale * (d.T @ a.T[ids])), "the exact dB is outside"
    one_hot = fractions((ids == np.arange(6)[:, np.newaxis]).astype(float))
    assert inside(bounds["lora_a"].lo, bounds["lora_a"].hi, scale * (one_hot @ (d @ b)).T), "the exact dA is outside"


def test_gradients_of_a_repeated_index_use_the_additions_that_the_bound_counts() -> None:
    dy = np.full((1000, 1), NUDGE)
    dy[0] = 1
    bound = embedding_lora_backward_bound(dy, np.zeros(1000, np.int64), ONE, ONE, ONE, alpha=1)["lora_a"]
    running = np.float32(0)
    for value in dy[:, 0]:
        running = np.float32(running + value)
    error = abs(exact(running) - sum(map(exact, dy[:, 0]), Fraction(0)))
    half = (exact(bound.hi[0, 0]) - exact(bound.lo[0, 0])) / 2
    # 999 additions of the 1004 roundings that are counted: one for dy B, four for s.
    assert Fraction(999, 1004) * Fraction(999, 1000) <= error / half <= 1, f"used: {float(error / half)}"


def test_a_wrong_row_or_a_lost_occurrence_is_outside() -> None:
    parts, dy = embedding(11), normal(12, 12, 4)
    interval = embedding_lora_forward_bound(**parts, alpha=0.7)
    y = embedding_lora_forward(**{**parts, "ids": np.roll(parts["ids"], 1)}, alpha=0.7)
    moved = parts["ids"] != np.roll(parts["ids"], 1)
    assert not np.any(((interval.lo <= y) & (y <= interval.hi))[moved]), "the row of another index is outside"
    bound = embedding_lora_backward_bound(dy, **parts, alpha=0.7)["lora_a"]
    lost = embedding_lora_backward(dy[1:], **{**parts, "ids": parts["ids"][1:]}, alpha=0.7).lora_a[:, parts["ids"][0]]
    lo, hi = bound.lo[:, parts["ids"][0]], bound.hi[:, parts["ids"][0]]
    assert not np.any((lo <= lost) & (lost <= hi)), "a gradient without one occurrence is outside"


WEIGHT = normal(20, 5, 50)
WEIGHTS: dict[str, QuantizedWeight] = {
    "nf4": quantize_blockwise(WEIGHT, block_size=16),
    "fp4": quantize_blockwise(WEIGHT, codebook="fp4", block_size=7),
    "dynamic_signed": quantize_blockwise(WEIGHT, codebook="dynamic_signed"),
    "nf4 double": quantize_double(WEIGHT, block_size=16),
    "int8 row": quantize_int8(WEIGHT, granularity="row"),
    "int8 column": quantize_int8(WEIGHT, granularity="column"),
    "affine": quantize_affine(WEIGHT, granularity="row"),
}


def dequantized_first(name: str, x: Array, order: str, fused: bool) -> Array:
    w = qlora_weight(WEIGHTS[name]).astype(np.float64)
    return total(products(x, w.T), order, to_float32, fused=fused)


def scaled_later(name: str, x: Array, order: str, fused: bool) -> Array:
    """Integer codes summed up, and one scale a row applied at the end: by 1/127, or by a quotient."""
    record = WEIGHTS["int8 row"]
    codes, absmax = record.codes.astype(np.float64), record.absmax.astype(np.float64)  # type: ignore[union-attr]
    acc = total(products(x, codes.T), order, to_float32, fused=fused)
    scale = to_float32(absmax * to_float32(np.array(1 / 127))) if fused else to_float32(absmax / 127)
    return to_float32(acc * scale)


@pytest.mark.proof("bounds.matmul", by="evaluations in low precision")
@pytest.mark.parametrize("rows", [1, 17])
@pytest.mark.parametrize(("evaluate", "names"), [(dequantized_first, tuple(WEIGHTS)), (scaled_later, ("int8 row",))])
def test_every_evaluation_of_a_product_is_inside(
    evaluate: Callable[..., Array], names: tuple[str, ...], rows: int
) -> None:
    x, bias = normal(21, rows, 50), normal(22, 5)
    for name, order, fused in product(names, ORDERS, (False, True)):
        got = to_float32(evaluate(name, x.astype(np.float64), order, fused) + bias)
        interval = quantized_matmul_bound(x, WEIGHTS[name], bias=bias)
        require_inside(interval, got, f"y of {name}, {rows} rows, {order}, {evaluate.__name__}")


@pytest.mark.proof("bounds.matmul", by="exact rationals")
@pytest.mark.parametrize("rounding", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_the_exact_product_is_inside_and_one_with_a_weight_rounded_otherwise_is_not(name: str, rounding: str) -> None:
    x, declared = normal(23, 2, 50)[:, :50], Roundings(weight=rounding)
    w = fractions(qlora_weight(WEIGHTS[name], weight_rounding=rounding))
    interval = quantized_matmul_bound(x, WEIGHTS[name], roundings=declared)
    assert inside(interval.lo, interval.hi, fractions(x) @ w.T), f"the exact y of {name} is outside its bound"
    other = quantized_matmul(x, WEIGHTS[name], weight_rounding="bfloat16" if rounding == "float32" else "float32")
    outside = ~((interval.lo <= other) & (other <= interval.hi))
    assert np.mean(outside) > 0.6, f"{name}: another rounding of the weight must show, {outside.sum()} of 10 do"


def test_a_product_of_nudges_uses_the_additions_that_the_bound_counts() -> None:
    x = np.full((1, 1000), NUDGE)
    x[0, 0] = 1
    interval = quantized_matmul_bound(x, quantize_blockwise(np.ones((1, 1000), np.float32)))
    running = total([(np.array([[v]], np.float64), np.ones(())) for v in x[0]], "sequential", to_float32)
    used = used_part(interval, running, quantized_matmul(x, quantize_blockwise(np.ones((1, 1000), np.float32))))
    # 999 additions of the 1004 roundings that are counted, less second order.
    assert 999 / 1004 * 0.999 <= used <= 1, f"used: {used}"


def test_where_products_with_bare_codes_could_overflow_there_is_no_verdict() -> None:
    weight = quantize_int8(np.full((1, 2), 1e-3, np.float32))
    judged = [quantized_matmul_bound(np.array([[v, -v]], np.float32), weight).judged.item() for v in (1e35, 3e38)]
    assert judged == [True, False], f"127·6e38 overflows float32, got {judged}"


LIBRARY = Roundings(intermediate="bfloat16", dropped="bfloat16", base="bfloat16", adapter="bfloat16")


def library_layer(seed: int) -> tuple[dict[str, Array], Array, dict[str, Array]]:
    """Operands in bfloat16, and the layer as a library in bfloat16 computes it: every operation rounds its result."""
    shapes = ((3, 40), (5, 40), (4, 40), (5, 4), (5,), (3, 5))
    x, w, a, b, bias, dy = (to_bfloat16(normal(30 + 7 * seed + i, *shape)) for i, shape in enumerate(shapes))
    mask, s, cut = np.random.default_rng(seed).random((3, 40)) < 0.5, 0.7 / 4, to_bfloat16
    dropped = cut(x * mask * (1 / 0.9))
    hidden = cut(to_float32(dropped @ a.T))
    y = cut(to_float32(x @ w.T + bias)) + cut(cut(to_float32(hidden @ b.T)) * s)
    scaled = cut(dy * s)
    back = cut(to_float32(scaled @ b))
    gradients = {
        "x": cut(to_float32(dy @ w)) + cut(cut(to_float32(back @ a)) * mask * (1 / 0.9)),
        "lora_a": to_float32(back.T @ dropped),
        "lora_b": to_float32(scaled.T @ hidden),
        "bias": to_float32(dy.sum(axis=0)),
        "lora_bias": to_float32(scaled.sum(axis=0)),
    }
    parts = {"x": x, "weight": w, "lora_a": a, "lora_b": b, "bias": bias, "dy": dy}
    operands = {n: v.astype(np.float32) for n, v in parts.items()}
    return {**operands, "mask": mask}, y, gradients


@pytest.mark.proof("bounds.lora", by="a library in bfloat16")
def test_a_layer_that_rounds_every_result_to_bfloat16_is_inside_its_own_bound_and_not_the_strict_one() -> None:
    strict = 0
    for seed in range(20):
        arrays, y, gradients = library_layer(seed)
        dy = arrays.pop("dy")
        options = {**arrays, "alpha": 0.7, "dropout": 0.1}
        require_inside(lora_forward_bound(**options, roundings=LIBRARY), y, f"y in bfloat16, seed {seed}")
        narrow = lora_forward_bound(**options)
        strict += int(np.sum((narrow.lo <= y) & (y <= narrow.hi)))
        del options["bias"]
        bounds = lora_backward_bound(dy, **options, roundings=LIBRARY)
        for name, got in gradients.items():
            require_inside(bounds[name], got, f"gradient of {name} in bfloat16, seed {seed}")
    assert strict < 60, f"{strict} of 300 results that are rounded on the way pass as if they were not"


@pytest.mark.parametrize(("name", "step"), [("base", 2.0**-8), ("adapter", 2.0**-8), ("dropped", 2.0**-8)])
def test_each_declared_rounding_is_used_up_by_a_tie_and_missing_without_it(name: str, step: float) -> None:
    x, keep = np.array([[1 + step]], np.float32), {"mask": ONE > 0, "dropout": 0.0}
    operands = (x, ONE, 0 * ONE, 0 * ONE) if name == "base" else (x, 0 * ONE, ONE, ONE)
    declared = lora_forward_bound(*operands, alpha=1, **keep, roundings=Roundings(**{name: "bfloat16"}))
    plain = lora_forward_bound(*operands, alpha=1, **keep)
    half = (exact(declared.hi.item()) - exact(declared.lo.item())) / 2
    used = exact(step) / half
    assert declared.lo.item() <= 1 < plain.lo.item(), f"{name}: 1 + 2^-8 becomes 1 where declared, and only there"
    assert used >= Fraction(45 if name == "adapter" else 95, 100), f"{name}: a tie uses {float(used)} of the bound"


def test_where_products_with_the_steps_of_an_affine_weight_could_overflow_there_is_no_verdict() -> None:
    weight = quantize_affine(np.array([[0, 255]], np.float32) * np.float32(2.0**-100), qmin=0, qmax=255)
    judged = [quantized_matmul_bound(np.float32([[0, 2.0**e]]), weight).judged.item() for e in (118.5, 120.2)]
    assert judged == [True, False], f"255 · 2^120.2 overflows float32, 2 · 255 · 2^118.5 does not, got {judged}"


@pytest.mark.parametrize("size", [-130, -125])
def test_a_product_with_the_smallest_entry_of_a_codebook_may_underflow_before_its_scale(size: int) -> None:
    # Code 128 of linear_signed is about 2^-28: the product of both underflows, and its scale is 2^100.
    weight = QuantizedBlocks(np.uint8([128, 255]), np.float32([2.0**100]), "linear_signed", 2, (1, 2), "float32")
    entry = codebook_named("linear_signed").entries[128]
    x = np.ldexp(np.float32([[1.37, 0]]), size).astype(np.float32)
    got = np.float32(x[0, 0] * entry) * np.float32(2.0**100)
    require_inside(
        quantized_matmul_bound(x, weight), np.array([[got]], np.float64), f"x·entry·absmax, x = 1.37·2^{size}"
    )


def test_a_weight_that_underflows_to_0_is_no_exact_zero_where_its_scale_comes_later() -> None:
    weight = quantize_blockwise(np.float32([[900000, 1]]) * np.float32(2.0**-149), codebook="dynamic_signed")
    assert qlora_weight(weight)[0, 1] == 0, "the case: entry · absmax underflows"
    entry, x = codebook_named("dynamic_signed").entries[weight.data[1]], np.float32([[0, 2.0**100]])
    got = (x[0, 1] * entry) * weight.absmax[0]
    assert got != 0, "the case: applied later it does not"
    require_inside(quantized_matmul_bound(x, weight), np.array([[got]], np.float64), "x·entry·absmax")
    parts = (np.zeros((1, 2), np.float32), 0 * ONE)
    layer = lora_forward_bound(x, qlora_weight(weight), *parts, alpha=1, stored=weight)
    require_inside(layer, np.array([[got]], np.float64), "x·entry·absmax in a layer")
    strict = quantized_matmul_bound(x, weight, roundings=Roundings(weight="bfloat16"))
    assert strict.lo.item() == strict.hi.item() == 0, "where another rounding is declared, 0 is exact"


def test_a_record_of_another_shape_is_refused() -> None:
    stored = quantize_int8(np.ones((1, 2), np.float32))
    with pytest.raises(ArgumentValueError, match=r"^stored must be of the shape of the weight"):
        lora_forward_bound(ONE, ONE, ONE, ONE, alpha=1, stored=stored)
