"""Evaluations in low precision of operands over the whole range, and the exact values of those on a lattice."""

from collections.abc import Callable

import numpy as np

from qloracle import decompose, quantize_int8
from qloracle.bounds import (
    Interval,
    Roundings,
    adamw_moments_bound,
    adamw_parameter_bound,
    embedding_lora_backward_bound,
    embedding_lora_forward_bound,
    llm_int8_forward_bound,
    quantized_matmul_bound,
    scale_int8_matmul_bound,
    weight_only_backward_bound,
    weight_only_forward_bound,
)
from qloracle.int8_linear import weight_values
from qloracle.optim.accumulate import accumulate_gradients_bound
from qloracle.optim.clipping import clip_by_norm_bound
from qloracle.optim.options import AdamwOptions

from .adamw_evaluations import PLANS as STEP_PLANS
from .adamw_evaluations import Hyperparameters, moments, parameter
from .contained_draws import Judged, drawer
from .contained_merges import MERGES
from .evaluated_dora import PLANS as DORA_PLANS
from .evaluated_dora import backward as dora_backward
from .evaluated_dora import backward_intervals as dora_intervals
from .evaluated_dora import forward as dora_forward
from .evaluated_dora import forward_interval as dora_interval
from .evaluated_layers import Case, backward, backward_intervals, forward, forward_interval
from .evaluations import BACKWARD_PLANS, FORWARD_PLANS, ORDERS, ROUNDINGS, products, to_float32, total
from .test_accumulate import accumulated
from .test_bounds_int8 import ORDERS as SCALINGS
from .test_bounds_int8 import scaled
from .test_bounds_products import embedded
from .test_clipping import clipped


def lora(rng: np.random.Generator, fmt: str, lattice: bool) -> Judged:
    """Layers whose outputs, input gradients, adapter gradients, or bias gradients are many, in turn."""
    draw, how = drawer(rng, fmt, lattice), Roundings(accumulate=fmt, intermediate=fmt)
    n, d_in, d_out, rank = ((96, 24, 96, 4), (24, 96, 24, 48), (96, 96, 8, 4), (17, 1, 9000, 1))[rng.integers(4)]
    x, w, a, b = draw(n, d_in), draw(d_out, d_in), draw(rank, d_in), draw(d_out, rank)
    case = Case(x, w, a, b, draw(n, d_out), alpha=rank * 2.0)
    interval, intervals = forward_interval(case, how), backward_intervals(case, how)
    if lattice:
        x64, w64, a64, b64, dy = (part.astype(np.float64) for part in (*case.operands, case.dy))
        yield "y", interval, x64 @ w64.T + 2 * ((x64 @ a64.T) @ b64.T)
        yield "x", intervals["x"], dy @ w64 + 2 * ((dy @ b64) @ a64)
        yield "lora_a", intervals["lora_a"], 2 * ((dy @ b64).T @ x64)
        yield "lora_b", intervals["lora_b"], 2 * (dy.T @ (x64 @ a64.T))
        yield "bias", intervals["bias"], dy.sum(axis=0)
        yield "lora_bias", intervals["lora_bias"], 2 * dy.sum(axis=0)
    for place in rng.choice(len(FORWARD_PLANS), 3):
        yield "y", interval, forward(case, FORWARD_PLANS[place], how)
    for place in rng.choice(len(BACKWARD_PLANS), 3):
        for name, got in backward(case, BACKWARD_PLANS[place], how).items():
            yield name, intervals[name], got
    rnd, one = ROUNDINGS[fmt], np.ones(())
    for order in ORDERS:
        rows = total([(row, one) for row in case.dy.astype(np.float64)], order, rnd)
        yield "lora_bias", intervals["lora_bias"], rnd(2 * rows)


def dora(rng: np.random.Generator, fmt: str, lattice: bool) -> Judged:
    draw, how = drawer(rng, fmt, lattice), Roundings(accumulate=fmt, intermediate=fmt, norm=fmt)
    n, d_in, d_out, rank = ((96, 24, 96, 4), (24, 96, 24, 48), (96, 96, 8, 4), (17, 2, 9000, 1))[rng.integers(4)]
    parts = draw(n, d_in), draw(d_out, d_in), draw(rank, d_in), draw(d_out, rank)
    case, m = Case(*parts, draw(n, d_out), alpha=rank * 2.0), draw(d_out)
    interval, intervals = dora_interval(case, m, how), dora_intervals(case, m, how)
    for place in rng.choice(len(DORA_PLANS), 3):
        # Where g is unbounded any number is right; that NaN is wrong is another test's.
        y = dora_forward(case, m, DORA_PLANS[place], how)
        yield "y", Interval(interval.lo, interval.hi, interval.judged & np.isfinite(interval.lo)), y
        for name, got in dora_backward(case, m, DORA_PLANS[place], how).items():
            yield name, intervals[name], got


def stored(rng: np.random.Generator, fmt: str, lattice: bool) -> Judged:
    """Products with INT8 weights, dequantized first or scaled last; these accumulate in float32."""
    draw, bias_rows = drawer(rng, fmt, lattice), drawer(rng, fmt, lattice)(17, 9000)
    w, x = draw(100, 24) * np.float32(1 if fmt != "float32" else 2.0**-4), draw(100, 24)
    weight = quantize_int8(w, granularity="row")
    dense, codes = weight_values(weight).astype(np.float64), weight.codes.astype(np.float64)
    dy, scale = draw(100, 100), to_float32(weight.absmax / np.float64(127))
    bound, other = quantized_matmul_bound(x, weight), weight_only_forward_bound(x, weight)
    back = weight_only_backward_bound(dy, weight)
    for order in ORDERS:
        for got in (
            total(products(x.astype(np.float64), dense.T), order, to_float32),
            to_float32(total(products(x.astype(np.float64), codes.T), order, to_float32) * scale),
        ):
            yield "matmul", bound, got
            yield "forward", other, got
        yield "x", back["x"], total(products(dy.astype(np.float64), dense), order, to_float32)
    wide = weight_only_backward_bound(bias_rows, quantize_int8(np.ones((9000, 1), np.float32)))["bias"]
    for order in ORDERS:
        rows = [(row, np.ones(())) for row in bias_rows.astype(np.float64)]
        yield "bias", wide, total(rows, order, to_float32)


def integer(rng: np.random.Generator, fmt: str, lattice: bool) -> Judged:
    """Scaled accumulators in every order, alone and as all of LLM.int8(); sizes as the clause asks."""
    acc = (rng.integers(-(2**31) + 1, 2**31, (150, 150)) >> rng.integers(0, 31, (150, 150))).astype(np.int32)
    row, column = (np.ldexp(rng.uniform(1, 2, 150), rng.integers(-30, 20, 150)).astype(np.float32) for _ in range(2))
    interval = scale_int8_matmul_bound(acc, row, column)
    if lattice:  # at most 31 + 11 + 11 bits
        row, column = (127 * rng.integers(1, 16, 150).astype(np.float32) for _ in range(2))
        interval = scale_int8_matmul_bound(acc, row, column)
        yield "scale", interval, acc.astype(np.float64) * (row[:, np.newaxis] / 127.0) * (column / 127.0)
    for order in SCALINGS.values():
        yield "scale", interval, scaled(order, acc, row, column)
    x, w = rng.standard_normal((100, 40)).astype(np.float32) * 3, rng.standard_normal((100, 40)).astype(np.float32)
    weight, parts = quantize_int8(w, granularity="row"), decompose(x, 8.0)
    bound = llm_int8_forward_bound(x, weight, parts, w)
    sums = (parts.codes.astype(np.int64) @ weight.codes.astype(np.int64).T).astype(np.int32)
    out = parts.outliers
    rest = products(x[:, out].astype(np.float64), w[:, out].T.astype(np.float64))
    for scaling in SCALINGS.values():
        part = scaled(scaling, sums, parts.absmax, weight.absmax)
        yield "llm", bound, to_float32(part + total(rest, ORDERS[rng.integers(5)], to_float32)) if rest else part


def embedding(rng: np.random.Generator, fmt: str, lattice: bool) -> Judged:
    draw, how = drawer(rng, fmt, lattice), Roundings(accumulate=fmt, intermediate=fmt)
    rows, dim, rank, count = ((100, 100, 3, 100), (300, 3, 60, 100), (20, 200, 30, 40))[rng.integers(3)]
    parts = {
        "ids": rng.integers(0, rows, count), "weight": draw(rows, dim), "lora_a": draw(rank, rows),
        "lora_b": draw(dim, rank),
    }  # fmt: skip
    dy = draw(count, dim)
    # `embedded` has s = 0.7/3.
    alpha = 0.7 / 3 * rank
    intervals = embedding_lora_backward_bound(dy, **parts, alpha=alpha, roundings=how)
    intervals["y"] = embedding_lora_forward_bound(**parts, alpha=alpha, roundings=how)
    for place in ("a", "b", "end"):
        for name, got in embedded(parts, dy, ORDERS[rng.integers(5)], place, how).items():
            yield name, intervals[name], got


def optimizer(rng: np.random.Generator, fmt: str, lattice: bool) -> Judged:
    draw, rnd, how = drawer(rng, fmt, lattice), ROUNDINGS[fmt], Roundings(accumulate=fmt)
    p, g, m, v = (draw(20000) for _ in range(4))
    v, (lr, eps) = np.abs(v), np.exp2(rng.uniform(-12, 1, 2))
    h = Hyperparameters(float(lr), 0.9, float(rng.choice([0.95, 0.999, 0.99999])), float(eps), 0.1)
    options, step = AdamwOptions(h.lr, h.beta1, h.beta2, h.eps, h.weight_decay), int(rng.integers(1, 2000))
    bounds = adamw_moments_bound(g, m, v, options, roundings=how)
    for place in rng.choice([i for i, plan in enumerate(STEP_PLANS) if plan.scalars == "double"], 6):
        new = moments(*(part.astype(np.float64) for part in (g, m, v)), h, STEP_PLANS[place], rnd)
        yield from (("m", bounds[0], new[0]), ("v", bounds[1], new[1]))
        own = [np.where(np.isfinite(part), part, 0.0) for part in new]
        single = (part.astype(np.float32) for part in own)
        interval = adamw_parameter_bound(p, *single, options, step=step, roundings=how)
        yield "p", interval, parameter(p.astype(np.float64), *own, h, step, STEP_PLANS[place], rnd)


def gradients(rng: np.random.Generator, fmt: str, lattice: bool) -> Judged:
    draw, how = drawer(rng, fmt, lattice), Roundings(accumulate=fmt)
    g, counts = draw(5, 9000), np.array([1, 2, 3, 4, 6])
    interval = accumulate_gradients_bound(g, counts, roundings=how)
    if lattice:  # the sum is exact; a sixteenth of it too
        yield "gradient", interval, (g.astype(np.float64) * counts[:, np.newaxis]).sum(axis=0) / 16
    for form in ("weights first", "quotient", "reciprocal"):
        for order in ORDERS:
            yield "gradient", interval, accumulated(g, counts, "mean", form, order, fmt)
    tensors = [draw(300), draw(300)]
    size = float(np.sqrt(sum(np.sum(part.astype(np.float64) ** 2) for part in tensors)))
    most = min(max(size * float(rng.choice([0.1, 0.9, 1.0])), 2.0**-140), 3e38)
    for order in ORDERS:
        found = clipped(tensors, most, order, fmt, by_tensor=bool(rng.integers(2)))
        pairs = zip(clip_by_norm_bound(tensors, most, roundings=how), found, strict=True)
        yield from (("clipped", bound, got) for bound, got in pairs)


GENERATORS: dict[str, tuple[Callable[..., Judged], tuple[str, ...]]] = {
    "lora": (lora, ("y", "x", "lora_a", "lora_b", "bias", "lora_bias")),
    "dora": (dora, ("y", "x", "lora_a", "lora_b", "magnitude", "bias")),
    **MERGES,
    "stored": (stored, ("matmul", "forward", "x", "bias")),
    "integer": (integer, ("scale", "llm")),
    "embedding": (embedding, ("y", "lora_a", "lora_b")),
    "optimizer": (optimizer, ("m", "v", "p")),
    "gradients": (gradients, ("gradient", "clipped")),
}
