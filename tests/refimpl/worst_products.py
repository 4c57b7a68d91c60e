"""Worst evaluations of products with stored weights, of scaled integer sums and of embeddings."""

from fractions import Fraction
from functools import partial
from itertools import product as all_of

import numpy as np

from qloracle import QuantizedInt8, decompose, dequantize_blockwise, quantize_blockwise, quantize_int8
from qloracle.bounds import (
    embedding_lora_backward_bound,
    embedding_lora_forward_bound,
    llm_int8_forward_bound,
    quantized_matmul_bound,
    scale_int8_matmul_bound,
    weight_only_backward_bound,
    weight_only_forward_bound,
)

from .evaluations import ORDERS, to_float32, total
from .rationals import exact
from .test_bounds_int8 import ORDERS as SCALINGS
from .test_bounds_int8 import scaled
from .test_bounds_products import embedded
from .worst_cases import LONG, SHORT, STRICT, Worst, nudges, ones, rational, uniform
from .worst_merges import SUM, Cases, first, nudged, running

UNIT = QuantizedInt8(np.ones((1, LONG), np.int8), np.float32([127]), "row", None, "float32")
UNIT_ROWS = QuantizedInt8(np.ones((LONG, 1), np.int8), np.full(LONG, 127, np.float32), "row", None, "float32")


def stored_products(backward: bool) -> Worst:
    """Products of length one with INT8 weights whose scale comes at the end."""
    codes = np.random.default_rng(363).integers(64, 128, (SHORT, 1)).astype(np.int8)
    absmax, x = uniform(7, SHORT), uniform(8, SHORT, 1)
    if backward:
        weight = QuantizedInt8(codes.reshape(1, -1), absmax[:1], "row", None, "float32")
        bound, scale = weight_only_backward_bound(x, weight)["x"], np.broadcast_to(absmax[:1, np.newaxis], (1, SHORT))
    else:
        weight = QuantizedInt8(codes, absmax, "row", None, "float32")
        bound, scale = weight_only_forward_bound(x, weight), absmax[np.newaxis]
    q, k = codes.reshape(1, -1).astype(np.float64), to_float32(np.array(1 / 127))
    got = [
        to_float32(to_float32(to_float32(x * q) * scale) * k),
        to_float32(to_float32(to_float32(x * k) * scale) * q),
        to_float32(x * to_float32(q * to_float32(scale * k))),
        to_float32(to_float32(x * to_float32(scale / 127)) * q),
    ]
    dense = [[Fraction(exact(np.float32(int(c) * exact(s) / 127))) for c, s in zip(q[0], scale[0], strict=True)]]
    return Worst(bound, got, lambda i: exact(x[i[0], 0]) * dense[0][i[1]])


def nf4_products() -> Worst:
    w, x = uniform(9, 1, SHORT * SHORT), uniform(10, SHORT, 1)
    weight = quantize_blockwise(w.reshape(-1, 1), block_size=2)
    dense = dequantize_blockwise(weight)
    rows = total([(x.astype(np.float64), dense.T.astype(np.float64))], "sequential", to_float32)
    return Worst(quantized_matmul_bound(x, weight), [rows], lambda i: exact(x[i[0], 0]) * exact(dense[i[1], 0]))


def scaling() -> Worst:
    rng = np.random.default_rng(364)
    acc = rng.integers(2**24, 2**25, (SHORT, SHORT)).astype(np.int32)
    row, column = uniform(11, SHORT), uniform(12, SHORT)
    got = [scaled(order, acc, row, column) for order in SCALINGS.values()]
    real = lambda i: int(acc[i]) * exact(row[i[0]]) * exact(column[i[1]]) / 127**2  # noqa: E731
    return Worst(scale_int8_matmul_bound(acc, row, column), got, real)


def llm_long() -> Worst:
    x = 8 * nudges(LONG)[np.newaxis]
    parts = decompose(x, 2.0**-30)
    interval = llm_int8_forward_bound(x, UNIT, parts, ones(1, LONG))
    return Worst(interval, [8 * running(nudges(LONG)[:, np.newaxis]).reshape(1, 1)], first(8 * SUM))


def llm_short() -> Worst:
    x, w = uniform(13, SHORT, 1200), uniform(14, SHORT, 1200)
    weight, parts = quantize_int8(w, granularity="row"), decompose(x, 0.0)
    acc = (parts.codes.astype(np.int64) @ weight.codes.astype(np.int64).T).astype(np.int32)
    got = [scaled(order, acc, parts.absmax, weight.absmax) for order in SCALINGS.values()]
    real = lambda i: int(acc[i]) * exact(parts.absmax[i[0]]) * exact(weight.absmax[i[1]]) / 127**2  # noqa: E731
    return Worst(llm_int8_forward_bound(x, weight, parts, w), got, real)


def embedding(name: str) -> Worst:
    n = SHORT
    parts = {"ids": np.arange(n), "weight": uniform(23, n, n), "lora_a": uniform(24, 1, n), "lora_b": uniform(25, n, 1)}
    if name != "y":
        parts = {**parts, "weight": uniform(23, n, 1), "lora_a": uniform(24, n, n), "lora_b": uniform(25, 1, n)}
        parts["ids"] = np.arange(n) if name == "lora_a" else np.zeros(1, np.int64)
    if name == "lora_b":
        parts = {**parts, "weight": uniform(23, 1, n), "lora_a": uniform(24, n, 1), "lora_b": uniform(25, n, n)}
    dy = uniform(26, len(parts["ids"]), parts["weight"].shape[1])
    bounds = embedding_lora_backward_bound(dy, **parts, alpha=0.7 * len(parts["lora_a"]) / 3)
    bounds["y"] = embedding_lora_forward_bound(**parts, alpha=0.7 * len(parts["lora_a"]) / 3)
    got = [embedded(parts, dy, order, place, STRICT)[name] for order, place in all_of(ORDERS[:1], ("a", "b", "end"))]
    w, a, b, d = (rational(part) for part in (parts["weight"], parts["lora_a"], parts["lora_b"], dy))
    s = exact(0.7 * len(parts["lora_a"]) / 3) / len(parts["lora_a"])
    made = {
        "y": lambda i: w[i] + s * (a[:, i[0]] @ b[i[1]]),
        "lora_a": lambda i: s * (d[i[1]] @ b[:, i[0]]),
        "lora_b": lambda i: s * (d[:, i[0]] @ a[i[1], parts["ids"]]),
    }
    return Worst(bounds[name], got, made[name])


def embedding_long(name: str) -> Worst:
    count = LONG
    ids, column = np.zeros(count, np.int64), nudges(count)[:, np.newaxis]
    if name == "y":
        wide = embedding_lora_forward_bound(
            ids[:1], ones(1, 1), nudges(count + 1)[1:, np.newaxis], ones(1, count), alpha=count
        )
        got = running(nudges(count + 1)[:, np.newaxis]).reshape(1, 1)
        return Worst(wide, [got], first(1 + count * exact(nudges(2)[1])))
    return nudged(embedding_lora_backward_bound(column, ids, ones(1, 1), ones(1, 1), ones(1, 1), alpha=1)[name], SUM)


X = nudges(LONG)[np.newaxis]
PRODUCTS: dict[str, Cases] = {
    "quantized_matmul_bound": {
        "long": lambda: nudged(quantized_matmul_bound(X, UNIT), SUM),
        "short": nf4_products,
    },
    "weight_only_forward_bound": {
        "long": lambda: nudged(weight_only_forward_bound(X, UNIT), SUM),
        "short": partial(stored_products, False),
    },
    "weight_only_backward_bound[x]": {
        "long": lambda: nudged(weight_only_backward_bound(X, UNIT_ROWS)["x"], SUM),
        "short": partial(stored_products, True),
    },
    "weight_only_backward_bound[bias]": {
        "long": lambda: nudged(weight_only_backward_bound(X.T, quantize_int8(ones(1, 3)))["bias"], SUM),
    },
    "llm_int8_forward_bound": {"long": llm_long, "short": llm_short},
    "scale_int8_matmul_bound": {"short": scaling},
    "embedding_lora_forward_bound": {"long": partial(embedding_long, "y"), "short": partial(embedding, "y")},
    **{
        f"embedding_lora_backward_bound[{n}]": {"long": partial(embedding_long, n), "short": partial(embedding, n)}
        for n in ("lora_a", "lora_b")
    },
}
