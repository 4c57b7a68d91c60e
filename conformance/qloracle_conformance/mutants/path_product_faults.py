"""Products, DoRA and embeddings that are wrong on one of their paths: few rows, long sums, tiles, repeated indices."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle_conformance.mutants.adapter_operands import Single, backward_as, forward_as
from qloracle_conformance.mutants.dora_faults import output as dora_output
from qloracle_conformance.mutants.dora_gradient_faults import gradients, merged, norms, right_gain
from qloracle_conformance.mutants.embedding_faults import Lookup, backward_of
from qloracle_conformance.mutants.lora_faults import output
from qloracle_conformance.mutants.mutant import Mutant, Op
from qloracle_conformance.mutants.product_kernel import Product, product_by, right_product

EXACT = "exact"


def _single_row_bfloat16(p: Product) -> Array:
    """Round the weight to bfloat16 in the path for one row."""
    y: Array = p.x @ p.narrow(p.weight, "bfloat16").T + p.bias
    return y if len(p.x) == 1 else right_product(p)


def _few_rows_even(p: Product) -> Array:
    """Multiply pairs alone in the path for 2 to 8 rows."""
    inner = p.x.shape[1]
    if not 2 <= len(p.x) <= 8 or inner < 2:
        return right_product(p)
    kept = inner - inner % 2
    y: Array = p.x[:, :kept] @ p.weight[:, :kept].T + p.bias
    return y


def _later_rows_even(p: Product) -> Array:
    """Multiply pairs alone in the path for more than 8 rows."""
    inner = p.x.shape[1]
    kept = inner - inner % 2 if len(p.x) > 8 and inner > 1 else inner
    y: Array = p.x[:, :kept] @ p.weight[:, :kept].T + p.bias
    return y


def _late_split_float16(p: Product) -> Array:
    """Let the second half of a sum of more than 512 products pass through float16."""
    half = p.x.shape[1] // 2
    if p.x.shape[1] <= 512:
        return right_product(p)
    second = p.narrow(p.x[:, half:] @ p.weight[:, half:].T, "float16")
    y: Array = p.x[:, :half] @ p.weight[:, :half].T + second + p.bias
    return y


def _scale_each_32(p: Product) -> Array:
    """Look the absmax up once for 32 elements of a row, whatever the block."""
    first = np.arange(p.x.shape[1]) // 32 * 32
    scale = p.scale[:, first]
    weight = np.where(scale == 0, 0.0, (p.entries.astype(np.float32) * scale.astype(np.float32)).astype(np.float64))
    y: Array = p.x @ weight.T + p.bias
    return y


def _last_block_of_before(p: Product) -> Array:
    """Scale a short last block of the weight like the one before."""
    size = p.scale.size
    scale = p.scale.reshape(-1).copy()
    if size % p.block_size and size > p.block_size:
        scale[size - size % p.block_size :] = scale[size - size % p.block_size - 1]
    weight = np.where(scale == 0, 0.0, (p.entries.reshape(-1).astype(np.float32) * scale.astype(np.float32)))
    y: Array = p.x @ weight.reshape(p.scale.shape).T.astype(np.float64) + p.bias
    return y


def _bias_to_whole_tiles(p: Product) -> Array:
    """Add the bias in whole tiles of 16 rows, or to few rows."""
    rows = len(p.x)
    with_bias = (np.arange(rows) < rows - rows % 16) | (rows <= 16)
    y: Array = p.x @ p.weight.T + p.bias * with_bias[:, np.newaxis]
    return y


def _norm_to_512(o: Single) -> Array:
    """Cover the first 512 inputs by the norm."""
    n = norms(o, merged(o)[:, :512])
    return dora_output(o, np.where(n == 0, 0.0, o.magnitude / np.where(n == 0, 1.0, n)))


def _magnitude_of_32_rows(o: Single) -> tuple[Array, ...]:
    """Add up the first 32 rows for the gradient of the magnitude."""
    v, right = merged(o), gradients(o)
    n = norms(o, v)
    seen = np.sum((o.dy * ((o.x * o.keep) @ v.T))[:32], axis=0)
    return (*right[:3], np.where(n == 0, 0.0, seen / np.where(n == 0, 1.0, n)), right[4])


def _last_gain_stale(o: Single) -> Array:
    """Take for the last of an odd number of outputs the gain of the one before."""
    g = right_gain(o).copy()
    if len(g) % 2 and len(g) > 1:
        g[-1] = g[-2]
    return dora_output(o, g)


def _once_a_warp(o: Lookup) -> tuple[Array, Array]:
    """Let one of several lanes of a warp that hold an index write its row."""
    first = [np.unique(o.ids[i : i + 32], return_index=True)[1] + i for i in range(0, len(o.ids), 32)]
    kept = np.zeros(len(o.ids), np.bool_)
    kept[np.concatenate(first) if first else []] = True
    rows = o.scale * (o.dy @ o.lora_b)
    return o.scatter(rows * kept[:, np.newaxis]).T, o.scale * (o.dy.T @ o.lora_a.T[o.ids])


def _tail_block_of_qlora() -> dict[str, Op]:
    def forward(**arguments: Any) -> Any:
        size, block = int(np.prod(arguments["shape"])), arguments["block_size"]
        absmax = arguments["absmax"]
        if size % block and absmax.items.size > 1:
            items = np.array(absmax.items)
            items[-1] = items[-2]
            arguments = {**arguments, "absmax": type(absmax)(items, absmax.dtype)}
        return forward_as(output, EXACT)(**arguments)

    return {"qlora_forward": forward}


def path_product_faults() -> list[Mutant]:
    """Return the mutants."""
    products: dict[str, tuple[str, Callable[[Product], Array]]] = {
        "single-row-bfloat16": ("a single row is multiplied with a bfloat16 weight", _single_row_bfloat16),
        "few-rows-even": ("2 to 8 rows are multiplied in pairs of inputs", _few_rows_even),
        "later-rows-even": ("more than 8 rows are multiplied in pairs of inputs", _later_rows_even),
        "late-split-float16": ("the second half of a long sum passes through float16", _late_split_float16),
        "scale-each-32": ("the absmax is looked up once for 32 inputs", _scale_each_32),
        "last-block-of-before": ("a short last block is scaled like the one before", _last_block_of_before),
        "bias-to-whole-tiles": ("rows after the last whole tile of 16 lack the bias", _bias_to_whole_tiles),
    }
    terms = ("base", "adapter", "whole", "dropout", "bias")
    return [
        *(Mutant(f"matmul-{name}", fault, product_by(formula), ("y",)) for name, (fault, formula) in products.items()),
        Mutant("qlora-last-block-of-before", "a short last block of the weight is scaled like the one before",
               _tail_block_of_qlora(), terms),
        Mutant("dora-norm-to-512", "the norm covers the first 512 inputs",
               {"dora_forward": forward_as(_norm_to_512, EXACT)}, ("norm", *terms)),
        Mutant("dora-last-gain-stale", "the last of an odd number of outputs takes g of the one before",
               {"dora_forward": forward_as(_last_gain_stale, EXACT)}, ("norm", *terms)),
        Mutant("dora-m-of-32-rows", "the gradient of the magnitude adds up 32 rows",
               {"dora_backward": backward_as(_magnitude_of_32_rows, EXACT)}, ("magnitude",)),
        Mutant("embedding-once-a-warp", "an index that occurs twice in 32 gets one of its gradients",
               {"embedding_lora_backward": backward_of(_once_a_warp)}, ("lora_a",)),
    ]  # fmt: skip
