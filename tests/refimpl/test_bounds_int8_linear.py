"""[bounds.weight_only], [bounds.llm_int8]: every evaluation with the declared roundings is inside, and little more."""

from fractions import Fraction

import numpy as np
import pytest

from qloracle import QuantizedAffine, QuantizedInt8, decompose, llm_int8_forward, quantize_affine, quantize_int8
from qloracle.bounds.int8_linear import weight_only_backward_bound, weight_only_forward_bound
from qloracle.bounds.llm_int8 import llm_int8_forward_bound
from qloracle.errors import ArgumentValueError
from qloracle.formats import Array
from qloracle.int8_linear import weight_values
from qloracle.tracking.interval import Interval
from qloracle.tracking.roundings import Roundings

from .bound_cases import NUDGE
from .rationals import exact

F = np.float32
ORDERS = ("forward", "backward", "pairs", "fused", "shuffled")


def added(left: Array, right: Array, order: str, start: Array | None = None) -> Array:
    """left @ right in float32, one addend after the other; `fused` rounds each step once."""
    places = np.arange(left.shape[1])
    if order == "backward":
        places = places[::-1]
    if order == "shuffled":
        places = np.random.default_rng(len(places)).permutation(places)
    if order == "pairs" and len(places) > 1:
        half = len(places) // 2
        return added(left[:, :half], right[:half], order, start) + added(left[:, half:], right[half:], order)
    total = (
        np.zeros((len(left), right.shape[1]), F)
        if start is None
        else np.broadcast_to(start, (len(left), right.shape[1]))
    )
    for k in places:
        step = left[:, k, np.newaxis].astype(np.float64) * right[k].astype(np.float64)
        total = (total + step).astype(F) if order == "fused" else total + step.astype(F)
    return total


def require_inside(interval: Interval, got: Array, what: str) -> None:
    values = got.astype(np.float64)
    outside = interval.judged & ~((interval.lo <= values) & (values <= interval.hi))
    assert interval.judged.any(), f"{what}: nothing is judged"
    assert not outside.any(), (
        f"{what}: {values[outside][:1]} is outside [{interval.lo[outside][:1]}, {interval.hi[outside][:1]}]"
    )


def operands(seed: int, spread: float) -> tuple[Array, Array, Array, Array]:
    rng = np.random.default_rng([561, seed])
    x = (rng.standard_normal((3, 37)) * np.exp(rng.standard_normal((3, 37)) * spread)).astype(F)
    w = (rng.standard_normal((5, 37)) * np.exp(rng.standard_normal((5, 1)) * spread)).astype(F)
    return x, w, rng.standard_normal(5).astype(F), rng.standard_normal((3, 5)).astype(F)


@pytest.mark.proof("bounds.weight_only", by="float32 evaluations")
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("spread", [0.1, 4.0])
def test_every_place_of_the_scale_and_every_order_is_inside(order: str, spread: float) -> None:
    for seed in range(12):
        x, w, bias, dy = operands(seed, spread)
        weight = quantize_int8(w, granularity="row")
        codes, scale = weight.codes.astype(F), weight.absmax / F(127)
        constant = weight.absmax * F(1 / 127)
        bound = weight_only_forward_bound(x, weight, bias=bias)
        dense = weight_values(weight)
        plans = {
            "dequantized first": added(x, dense.T, order, bias),
            "weight by the constant 1/127": added(x, (codes * constant[:, np.newaxis]).T, order) + bias,
            "scale on the sum": added(x, codes.T, order) * scale + bias,
            "constant on the sum": added(x, codes.T, order) * weight.absmax * F(1 / 127) + bias,
        }
        for name, y in plans.items():
            require_inside(bound, y, f"{name}, {order}, seed {seed}")
        backward = weight_only_backward_bound(dy, weight)
        require_inside(backward["x"], added(dy, dense, order), f"dx, {order}, seed {seed}")
        require_inside(backward["x"], added(dy * scale, codes, order), f"dx with the scale in dy, {order}, seed {seed}")
        rows = added(np.ones((1, 3), F), dy, order)[0]
        require_inside(backward["bias"], rows, f"db, {order}, seed {seed}")


@pytest.mark.parametrize("order", ORDERS)
def test_affine_weights_are_inside(order: str) -> None:
    for seed in range(8):
        x, w, bias, _ = operands(seed, 1.0)
        weight = quantize_affine(w, granularity="row", qmin=0, qmax=15)
        steps = (weight.codes.astype(np.int32) - weight.zero_point[:, np.newaxis]).astype(F)
        bound = weight_only_forward_bound(x, weight, bias=bias)
        require_inside(bound, added(x, weight_values(weight).T, order) + bias, f"dequantized first, {order}")
        require_inside(bound, added(x, steps.T, order) * weight.scale + bias, f"scale on the sum, {order}")


@pytest.mark.parametrize(("exponent", "size"), [(-140, -5), (-149, 0), (-100, -45)])
def test_scales_and_products_below_the_normal_range_are_inside(exponent: int, size: int) -> None:
    rng = np.random.default_rng(562)
    codes = rng.integers(-127, 128, (4, 20)).astype(np.int8)
    absmax = np.ldexp(rng.random(4) + 1, exponent).astype(F)
    weight = QuantizedInt8(codes, absmax, "row", None, "float32")
    x = np.ldexp(rng.standard_normal((3, 20)), size).astype(F)
    bound = weight_only_forward_bound(x, weight)
    scale = absmax / F(127)
    require_inside(bound, added(x, weight_values(weight).T, "forward"), "dequantized first")
    require_inside(bound, added(x, codes.T.astype(F), "forward") * scale, "scale on the sum")
    require_inside(bound, added(x, (codes * scale[:, np.newaxis]).astype(F).T, "forward"), "codes times absmax/127")


@pytest.mark.proof("bounds.weight_only", by="exact rationals")
def test_the_exact_value_is_inside() -> None:
    for seed in range(5):
        x, w, bias, _ = operands(seed, 3.0)
        for weight in (quantize_int8(w, granularity="row"), quantize_affine(w, granularity="group", group_size=9)):
            bound, dense = weight_only_forward_bound(x, weight, bias=bias), weight_values(weight)
            for i, n in np.ndindex(3, 5):
                real = sum((exact(a) * exact(b) for a, b in zip(x[i], dense[n], strict=True)), exact(bias[n]))
                assert exact(bound.lo[i, n]) <= real <= exact(bound.hi[i, n]), f"{float(real)} is outside"


def used(interval: Interval, got: Fraction, real: Fraction) -> float:
    return float(abs(got - real) / ((exact(interval.hi.reshape(-1)[0]) - exact(interval.lo.reshape(-1)[0])) / 2))


@pytest.mark.parametrize("rounding", ["float32", "bfloat16"])
def test_the_bound_of_a_sum_is_used_but_for_the_roundings_of_the_scale(rounding: str) -> None:
    count = 1000
    x = np.full((1, count), NUDGE)
    x[0, 0] = 1
    weight = QuantizedInt8(np.ones((1, count), np.int8), F([127]), "row", None, "float32")
    interval = weight_only_forward_bound(x, weight, roundings=Roundings(weight=rounding))
    got, real = exact(added(x, np.ones((count, 1), F), "forward")[0, 0]), sum(map(exact, x[0]), Fraction(0))
    # K − 1 of K roundings, and 4 1/16 more where the scale may be applied elsewhere.
    least = (count - 1) / (count + (4.0625 if rounding == "float32" else 0)) * 0.999
    assert used(interval, got, real) >= least, f"only {used(interval, got, real):.4f} of the bound is used, {least:.4f}"


def test_a_bias_alone_is_allowed_one_rounding_and_no_rows_none() -> None:
    weight = quantize_int8(np.zeros((1, 3), F), granularity="row")
    bound = weight_only_forward_bound(np.ones((1, 3), F), weight, bias=F([0.1]))
    half = (exact(bound.hi.item()) - exact(bound.lo.item())) / 2
    assert half <= exact(F(0.1)) * Fraction(4, 2**24), f"a bias alone: half width {float(half)}"
    empty = weight_only_backward_bound(np.zeros((0, 1), F), weight)
    assert empty["bias"].lo.tolist() == empty["bias"].hi.tolist() == [0], "no rows add up to exactly 0"


def test_where_the_sum_of_codes_could_overflow_there_is_no_verdict() -> None:
    weight = quantize_int8(np.full((1, 2), 1e-30, F), granularity="row")
    assert not weight_only_forward_bound(F([[1e37, 1]]), weight).judged.any()
    assert weight_only_forward_bound(F([[1e37, 1]]), weight, roundings=Roundings(weight="bfloat16")).judged.all()


def scaled_in(order: str, acc: Array, row: Array, column: Array) -> Array:
    a, r = acc.astype(F), row[:, np.newaxis]
    return {
        "a·(r·c)/127²": a * (r * column) / F(127**2),
        "(r/127)·(c/127)·a": (r / F(127)) * (column / F(127)) * a,
        "(a·r)·(c·k²)": (a * r) * (column * F(1 / 127**2)),
    }[order]


@pytest.mark.proof("bounds.llm_int8", by="float32 evaluations")
@pytest.mark.proof("bounds.llm_int8", by="exact rationals")
@pytest.mark.parametrize("threshold", [6.0, 0.0, 1.0])
@pytest.mark.parametrize("how", ["original", "dequantized"])
def test_both_parts_in_every_order_are_inside(threshold: float, how: str) -> None:
    for seed in range(12):
        x, w, bias, _ = operands(seed, 1.0)
        x *= F(3)
        weight, parts = quantize_int8(w, granularity="row"), decompose(x, threshold)
        bound = llm_int8_forward_bound(x, weight, parts, w, outlier_weight=how, bias=bias)
        dense = (w if how == "original" else weight_values(weight))[:, parts.outliers]
        acc = parts.codes.astype(np.int64) @ weight.codes.astype(np.int64).T
        for order in ORDERS:
            floating = added(x[:, parts.outliers], dense.T, order)
            for scaling in ("a·(r·c)/127²", "(r/127)·(c/127)·a", "(a·r)·(c·k²)"):
                integer = scaled_in(scaling, acc, parts.absmax, weight.absmax)
                require_inside(bound, (integer + floating) + bias, f"{scaling}, {order}, seed {seed}")
                start = integer + bias
                joined = start + floating if order != "forward" else added(x[:, parts.outliers], dense.T, order, start)
                require_inside(bound, joined, f"onto the INT8 part, {scaling}, {order}, seed {seed}")
        for i, n in np.ndindex(3, 5):
            real = int(acc[i, n]) * exact(parts.absmax[i]) * exact(weight.absmax[n]) / 127**2 + exact(bias[n])
            real += sum((exact(a) * exact(b) for a, b in zip(x[i, parts.outliers], dense[n], strict=True)), Fraction(0))
            assert exact(bound.lo[i, n]) <= real <= exact(bound.hi[i, n]), f"{float(real)} is outside, seed {seed}"


def test_a_declared_rounding_of_the_parts_is_allowed_and_none_that_is_not() -> None:
    x, w, _, _ = operands(3, 0.5)
    x[:, 4] = 8
    weight, parts = quantize_int8(w, granularity="row"), decompose(x, 6.0)
    plain = llm_int8_forward(x, weight, w, parts=parts)
    acc = parts.codes.astype(np.int64) @ weight.codes.astype(np.int64).T
    integer = scaled_in("a·(r·c)/127²", acc, parts.absmax, weight.absmax).astype(np.float16)
    y = integer.astype(F) + (plain - acc * parts.absmax[:, np.newaxis] * weight.absmax.astype(float) / 127**2).astype(
        np.float16
    )
    require_inside(
        llm_int8_forward_bound(x, weight, parts, w, roundings=Roundings(intermediate="float16")), y, "float16"
    )
    strict = llm_int8_forward_bound(x, weight, parts, w)
    assert not np.all((strict.lo <= y) & (y <= strict.hi)), "float16 parts must be outside the default bound"


def test_the_bound_of_the_int8_part_is_used_almost_up() -> None:
    # The operands of test_bounds_int8: four products, 1/127 twice and the conversion, nearly all rounded the same way.
    acc, row, column = 17458185, np.uint32(1065356835).view(F), np.uint32(1065589499).view(F)
    k = F(1 / 127)
    got = exact((row * k) * (column * k) * F(acc))
    codes, rest = np.full(1083, 127, np.int8), acc - 1082 * 127**2
    left, right = codes.copy(), codes.copy()
    left[-1], right[-1] = rest // 127, 127
    tail = rest - int(left[-1]) * 127
    left, right = np.append(left, np.int8(tail)), np.append(right, np.int8(1))
    assert int(left.astype(np.int64) @ right.astype(np.int64)) == acc, "the codes must sum up to the accumulator"
    x = left[np.newaxis].astype(F)
    parts = decompose(x, 0.0, absmax=row.reshape(1))
    parts = type(parts)(parts.outliers, left[np.newaxis], row.reshape(1))
    weight = QuantizedInt8(right[np.newaxis], column.reshape(1), "row", None, "float32")
    interval = llm_int8_forward_bound(x, weight, parts, outlier_weight="dequantized")
    part = used(interval, got, acc * exact(row) * exact(column) / 127**2)
    assert 0.94 < part <= 1, f"this evaluation must use 94 % or more of the bound, got {part:.4f}"


def test_an_accumulator_finer_than_float32_is_refused() -> None:
    weight: QuantizedInt8 | QuantizedAffine = quantize_int8(np.ones((1, 1), F), granularity="row")
    with pytest.raises(ArgumentValueError, match=r"^accumulate must be no finer than float32, .*"):
        weight_only_forward_bound(np.ones((1, 1), F), weight, roundings=Roundings(accumulate="float64"))


def test_an_int8_weight_that_underflows_to_0_is_no_exact_zero() -> None:
    weight = QuantizedInt8(np.int8([[1]]), F([60 * 2.0**-149]), "row", None, "float32")
    assert weight_values(weight).item() == 0, "the case: 60/127 of the smallest subnormal"
    got = (F([[2.0**100]]) * F(1)) * weight.absmax / F(127)
    assert got.item() != 0, "the case: applied later the scale does not underflow"
    require_inside(weight_only_forward_bound(F([[2.0**100]]), weight), got, "x·code·absmax/127")
    require_inside(weight_only_backward_bound(F([[2.0**100]]), weight)["x"], got, "dy·code·absmax/127")


def test_the_int8_part_below_the_range_of_the_accumulation_may_underflow_anywhere() -> None:
    count = 2081
    weight = QuantizedInt8(np.full((1, count), 127, np.int8), F([1.37 * 2.0**-70]), "row", None, "float32")
    x = np.full((1, count), 1.37 * 2.0**-70, F)
    parts, acc = decompose(x, 0.0), F(count * 127**2)
    got = (weight.absmax * parts.absmax[0]) * (acc / F(127**2))
    require_inside(llm_int8_forward_bound(x, weight, parts, x), got[:, np.newaxis], "row · column first")


def test_what_underflows_is_a_matter_of_the_accumulation_format() -> None:
    # 127·127·(1/128)²/127² = 2^-14 / 1.5: normal in float32, not in float16.
    weight = QuantizedInt8(np.int8([[127]]), F([2.0**-7 / 1.5]), "row", None, "float32")
    x = F([[2.0**-7]])
    parts = decompose(x, 0.0)
    half = llm_int8_forward_bound(x, weight, parts, x, roundings=Roundings(accumulate="float16"))
    scales = (parts.absmax[0] / F(127)).astype(np.float16) * (weight.absmax[0] / F(127)).astype(np.float16)
    got = scales * np.float16(127**2)
    require_inside(half, np.array([[got]]), "(row/127)·(column/127)·acc in float16")


def test_a_part_beyond_its_declared_format_has_no_verdict() -> None:
    x, weight = F([[300, 1]]), quantize_int8(F([[300, 1]]), granularity="row")
    declared = Roundings(intermediate="float16")
    assert llm_int8_forward_bound(x / 2, weight, decompose(x / 2, 0.0), x, roundings=declared).judged.all()
    assert not llm_int8_forward_bound(x, weight, decompose(x, 0.0), x, roundings=declared).judged.any(), "90001"
