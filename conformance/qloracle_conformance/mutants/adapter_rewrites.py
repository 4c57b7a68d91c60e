"""Right rewrites of adapters and of products with quantized weights: float32 throughout, in several orders."""

from typing import Any

import numpy as np

from qloracle.bounds import Roundings
from qloracle.formats import Array
from qloracle.operands import as_rows
from qloracle.packing import unpack_4bit
from qloracle.rounding import decode, encode
from qloracle.tables import codebook_named
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.adapter_operands import Single, backward_as, forward_as
from qloracle_conformance.mutants.kernels import summed
from qloracle_conformance.mutants.mutant import Rewrite
from qloracle_conformance.operations.stored import restored_weight

# A library that works in bfloat16, operation by operation.
LIBRARY = Roundings(intermediate="bfloat16", dropped="bfloat16", base="bfloat16", adapter="bfloat16")
ORDERS = ("sequential", "reversed", "split", "fused")


def lora_gradients(o: Single) -> tuple[Array, ...]:
    """Return the gradients of a LoRA layer, s multiplied into dy first."""
    dropped, scaled = o.x * o.keep, o.dy * o.scale
    back = o.dot(scaled, o.lora_b)
    return (
        o.dot(o.dy, o.weight) + o.dot(back, o.lora_a) * o.keep,
        o.dot(back.T, dropped),
        o.dot(scaled.T, o.dot(dropped, o.lora_a.T)),
        o.total(o.dy),
        o.total(scaled),
    )


def qlora_gradients(o: Single) -> tuple[Array, ...]:
    """Return them without that of the adapter's bias."""
    return lora_gradients(o)[:4]


def lora_output(o: Single) -> Array:
    """Return y, the two biases added up first."""
    shift: Array = o.bias + o.lora_bias * o.scale
    y: Array = o.dot(o.x, o.weight.T) + (shift + o.dot(o.dot(o.x * o.keep, o.lora_a.T * o.scale), o.lora_b.T))
    return y


def norms(o: Single) -> tuple[Array, Array, Array]:
    """Return V, its row norms and g; a norm of 0 gives a g of 0."""
    merged = o.weight + o.dot(o.lora_b, o.lora_a) * o.scale
    largest = np.max(np.abs(merged), axis=1, initial=0.0)
    # A power of two keeps squares in range and changes no bit.
    power = np.ldexp(np.float32(1), np.frexp(np.where(np.isfinite(largest), largest, 1))[1])
    scaled = merged / power[:, np.newaxis]
    n = np.sqrt(np.sum(scaled * scaled, axis=1, dtype=np.float32)) * power
    gain = np.where(n == 0, np.float32(0), o.magnitude / np.where(n == 0, np.float32(1), n))
    largest = np.finfo(np.float32).max  # a g that overflows would make NaN of 0 or of a difference
    return merged, n, np.clip(gain, -largest, largest)


def dora_output(o: Single) -> Array:
    """Return y term by term."""
    _, _, gain = norms(o)
    dropped = o.x * o.keep
    low = o.dot(o.dot(dropped, o.lora_a.T), o.lora_b.T) * o.scale
    y: Array = (o.dot(o.x, o.weight.T) + o.bias) + (gain - 1) * o.dot(dropped, o.weight.T) + gain * low
    return y


def dora_output_merged(o: Single) -> Array:
    """Return y with g in the merged weight where nothing is dropped."""
    merged, _, gain = norms(o)
    if np.any(o.keep != 1):
        return dora_output(o)
    return o.dot(o.x, (merged * gain[:, np.newaxis]).T) + o.bias


def dora_gradients(o: Single) -> tuple[Array, ...]:
    """Return the gradients of a DoRA layer."""
    merged, n, gain = norms(o)
    dropped, gained = o.x * o.keep, o.dy * gain
    back = o.dot(gained, o.lora_b)
    through = o.dot(o.dy * (gain - 1), o.weight) + o.dot(back, o.lora_a) * o.scale
    direction = o.total(o.dy * o.dot(dropped, merged.T))
    return (
        o.dot(o.dy, o.weight) + through * o.keep,
        o.dot(back.T, dropped) * o.scale,
        o.dot(gained.T, o.dot(dropped, o.lora_a.T)) * o.scale,
        np.where(n == 0, np.float32(0), direction / np.where(n == 0, np.float32(1), n)),
        o.total(o.dy),
    )


def rounded_everywhere(o: Single) -> Array:
    """Return y as a library in bfloat16 does: every operation rounds its result."""
    low = _bfloat16(o.dot(_bfloat16(o.dot(_bfloat16(o.x * o.keep), o.lora_a.T)), o.lora_b.T) + o.lora_bias)
    return _bfloat16(o.dot(o.x, o.weight.T) + o.bias) + _bfloat16(low * o.scale)


def _bfloat16(values: Array) -> Array:
    return decode(encode(values, "bfloat16"), "bfloat16").astype(np.float32)


def matmul_in(order: str) -> Any:
    """Return a product that restores the weight first."""

    def matmul(x: HostArray, bias: HostArray | None, **rest: Any) -> HostArray:
        weight = restored_weight(rest)
        y = summed(as_rows(x.single()), weight.T, order)
        y = y if bias is None else y + bias.single()
        return host(np.asarray(encode(y.reshape(*x.shape[:-1], len(weight)), x.dtype)), x.dtype)

    return matmul


def matmul_by_entries(
    x: HostArray, data: HostArray, absmax: HostArray, bias: HostArray | None, *, codebook: str, block_size: int,
    shape: tuple[int, int],
) -> HostArray:  # fmt: skip
    """Add up products with bare entries, and multiply each partial sum of a block by its absmax."""
    table, (d_out, d_in) = codebook_named(codebook), shape
    codes = unpack_4bit(data.items, d_out * d_in) if table.code_bits == 4 else data.items.reshape(-1)
    entries = table.entries[codes].reshape(shape)
    block = (np.arange(d_out * d_in) // block_size).reshape(shape)
    rows, scale = as_rows(x.single()), absmax.items[block]
    y = np.zeros((len(rows), d_out), np.float32) + (np.float32(0) if bias is None else bias.single())
    part = np.zeros_like(y)
    with np.errstate(all="ignore"):
        for k in range(d_in):
            part = part + rows[:, k, np.newaxis] * entries[:, k]
            ends = np.ones(d_out, np.bool_) if k == d_in - 1 else block[:, k] != block[:, k + 1]
            y = np.where(ends, y + part * scale[:, k], y)
            part = np.where(ends, np.float32(0), part)
    return host(np.asarray(encode(y.reshape(*x.shape[:-1], d_out), x.dtype)), x.dtype)


def embedding_forward(
    ids: HostArray, weight: HostArray, lora_a: HostArray, lora_b: HostArray, **options: Any
) -> HostArray:
    """Look up in a table of merged rows."""
    with np.errstate(all="ignore"):
        scale = _embedding_scale(lora_a, **options)
        merged = weight.single() + summed(lora_a.single().T, lora_b.single().T, "split") * scale
        return host(np.asarray(encode(merged[ids.items], weight.dtype)), weight.dtype)


def embedding_backward(
    dy: HostArray, ids: HostArray, weight: HostArray, lora_a: HostArray, lora_b: HostArray, **options: Any
) -> tuple[HostArray, ...]:
    """Add up rows of dy first, in reverse order, and multiply each sum with B once."""
    rows, flat = as_rows(dy.single()), ids.items.reshape(-1)
    with np.errstate(all="ignore"):
        scale = _embedding_scale(lora_a, **options)
        scattered = np.zeros(weight.shape, np.float32)
        for index in reversed(range(len(flat))):
            scattered[flat[index]] += rows[index]
        by_a = summed(scattered, lora_b.single(), "reversed").T * scale
        by_a = np.where(np.isin(np.arange(len(scattered)), flat), by_a, np.float32(0))
        by_b = summed(rows.T, lora_a.single().T[flat], "sequential") * scale
    return tuple(host(np.asarray(encode(part, weight.dtype)), weight.dtype) for part in (by_a, by_b))


def _embedding_scale(lora_a: HostArray, *, alpha: float, rank_stabilized: bool) -> np.float32:
    rank = np.float32(lora_a.shape[0])
    return np.float32(alpha) / (np.sqrt(rank) if rank_stabilized else rank)


def adapter_rewrites() -> list[Rewrite]:
    """Return all right rewrites of adapters."""
    stored = ("qlora_double", "qlora_int8", "qlora_affine")
    return [
        *(Rewrite(f"adapters-{order}", f"adapters, embeddings and products in float32, {order} sums", {
            "lora_backward": backward_as(lora_gradients, order),
            **{f"{kind}_forward": forward_as(lora_output, order) for kind in stored},
            **{f"{kind}_backward": backward_as(qlora_gradients, order) for kind in stored},
            **{f"{kind}_forward": forward_as(dora_output, order) for kind in ("dora", "qdora")},
            **{f"{kind}_backward": backward_as(dora_gradients, order) for kind in ("dora", "qdora")},
            **{name: matmul_in(order) for name in ("quantized_matmul", "double_quantized_matmul")},
          }, {}) for order in ORDERS),
        Rewrite("lora-biases-first", "both biases are added up before the sums", {
            "lora_forward": forward_as(lora_output, "split")}, {}),
        Rewrite("dora-merged", "g is multiplied into the merged weight", {
            "dora_forward": forward_as(dora_output_merged, "split")}, {}),
        Rewrite("matmul-by-entries", "absmax multiplies the sum of each block's entries", {
            "quantized_matmul": matmul_by_entries}, {}),
        Rewrite("embedding-merged", "rows of a merged table; rows of dy are added up before the product with B", {
            "embedding_lora_forward": embedding_forward, "embedding_lora_backward": embedding_backward}, {}),
        Rewrite("lora-rounded-everywhere", "every operation rounds its result to bfloat16, and declares it", {
            "lora_forward": forward_as(rounded_everywhere, "split")}, {}, LIBRARY),
    ]  # fmt: skip
