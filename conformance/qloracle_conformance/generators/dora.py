"""The families of DoRA layers: rows whose norms are powers of two, so that norms, g and all sums are exact."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from qloracle.blocks import block_count
from qloracle.dora import row_norms
from qloracle.formats import Array, format_named
from qloracle.lora import lora_scale
from qloracle.packing import pack_4bit
from qloracle.tables import codebook_named
from qloracle_conformance.arrays import host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case, each_layout
from qloracle_conformance.generators.dora_bounded import few, normal, poisoned, tiny
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.layers import KINDS, TURNED, along
from qloracle_conformance.generators.limits import special_values
from qloracle_conformance.generators.linear import Layer, batch_shapes, integer_layer, layer_case, sizes_for
from qloracle_conformance.generators.stored_weights import Stored, stored_weight

TERMS = ("norm", "base", "adapter", "dropout", "bias", "whole")
FAMILIES = (
    "small_lattice", "shapes", "ramps", "squares", "tiles", "powers", "zero_rows", "few", "normal", "tiny", "poison",
    "memory", "limits",
)  # fmt: skip
STORED_FAMILIES = ("small_lattice", "shapes", "squares", "zero_rows", "normal", "memory")
BOUNDED = ("few", "normal", "tiny", "poison")  # families that are no lattices
REACHED = {
    **dict.fromkeys(FAMILIES, ("whole",)), "small_lattice": TERMS, "zero_rows": ("norm",), "powers": ("norm",),
    "tiny": ("norm",), "limits": ("bias", "whole"),
}  # fmt: skip
GRADIENTS = ("x", "lora_a", "lora_b", "magnitude", "bias")
# Magnitudes of the elements of rows whose norms are 1, 2, 4 and 8.
ROWS = ((1,), (1, 1, 1, 1), (2,), (3, 2, 1, 1, 1), (4,), (1,) * 16, (2, 2, 2, 2), (7, 3, 2, 1, 1), (5, 5, 3, 2, 1))
ROWS_OF_ONES = ((1,), (1, 1, 1, 1), (1,) * 16)
GAINS = (1.0, 2.0, 0.5, -1.0, 3.0, 0.0)
SIZES = ((131, 67, 16), (300, 20, 4), (67, 130, 64), (1031, 20, 4), (4099, 8, 4))


def dora_case(draw: Draw, claim: Claim, *, family: str, operation: str) -> Case:
    """Generate a case of a DoRA layer, forward or backward, with a plain or a quantized weight."""
    dtype, backward = draw.choice(claim.dtypes), operation.endswith("backward")
    layer, term = _layer(draw, claim, family, dtype, backward)
    random = draw.random()
    quantized = operation.partition(".")[0] in KINDS
    layer, stored = (_on_stored(draw, claim, layer, family in BOUNDED)) if quantized else (layer, None)
    if backward and layer.dy is None:
        shape = (*layer.x.shape[:-1], len(layer.weight))
        dy = random.standard_normal(shape) if family in BOUNDED else random.integers(-1, 2, shape).astype(np.float64)
        layer = replace(layer, dy=dy)
    layer = along(layer, claim)
    if not quantized and "fan_in_fan_out" in claim.features and family in TURNED:
        layer = replace(layer, fan_in_fan_out=draw.choice((False, True)))
    layout = draw.choice(claim.layouts) if family == "memory" else "contiguous"
    case = layer_case(
        operation, layer, dtype, lattice=family not in BOUNDED, term="" if backward else term, layout=layout,
        repeat=family == "memory", weight=stored.arrays if stored else None, options=stored.options if stored else None,
    )  # fmt: skip
    return replace(case, layouts=each_layout(draw, claim, case.inputs)) if family == "squares" else case


def _layer(draw: Draw, claim: Claim, family: str, dtype: str, backward: bool) -> tuple[Layer, str]:
    if family in ("few", "normal"):
        return (few if family == "few" else normal)(draw, claim, dtype), "whole"
    if family == "tiny":
        return tiny(draw, claim, dtype), "norm"
    if family == "poison":
        return poisoned(draw, normal(draw, claim, dtype)), "whole"
    if family == "limits":
        return _limits(draw, claim, dtype, backward)
    sizes, term = sizes_for(draw), "whole"
    rows: tuple[int, ...] = (4,)
    if family == "small_lattice":
        term = draw.choice(tuple(t for t in TERMS if t not in ("bias", "dropout") or t in claim.features))
    elif family == "shapes":
        rows = draw.choice(batch_shapes(claim))
    elif family == "squares":
        sizes = (draw.choice((8, 4, 16)),) * 3
        rows = sizes[:1]
    elif family == "tiles":
        sizes, rows = draw.choice(SIZES), draw.choice(((130,), (33,), (2, 40)))
    elif family in ("zero_rows", "powers"):
        term = "norm"
    layer = lattice(draw, claim, term, rows, sizes, zeros=family == "zero_rows", ramps=family == "ramps")
    return (powers(draw, layer, dtype, backward) if family == "powers" else layer), term


def lattice(
    draw: Draw, claim: Claim, term: str, rows: tuple[int, ...], sizes: tuple[int, int, int], *, zeros: bool, ramps: bool
) -> Layer:
    """Small integers in which one part of the formula is at work, or all: W is what makes the rows of V the given ones.

    With term "norm" and "base" the adapter is silent (its B is 0); with "adapter" the weight is 0; else both are there.
    """
    random = draw.random()
    plain = replace(claim, features=tuple(f for f in claim.features if f != "lora_bias"))
    layer = integer_layer(draw, plain, term if term in ("bias", "dropout") else "whole", rows, sizes)
    d_out, d_in = layer.weight.shape
    if term in ("norm", "base"):
        layer = replace(layer, lora_b=layer.lora_b * 0.0)
    if term not in ("dropout", "whole"):
        layer = replace(layer, mask=None, dropout=0.0)
    if term not in ("bias", "whole"):
        layer = replace(layer, bias=None)
    v = known_rows(random, d_out, d_in)
    if zeros:
        v[random.permutation(d_out)[: max(1, d_out // 2)]] = 0.0
    gains = random.permutation(np.resize(GAINS, d_out)) if term != "base" else np.ones(d_out)
    if ramps:
        v, gains = v * 2.0 ** (np.arange(d_out) % 3)[:, np.newaxis], np.resize(GAINS[:4], d_out)
    rank = len(layer.lora_a)
    scale = lora_scale(layer.alpha, rank, rank_stabilized=layer.rank_stabilized)
    if term == "adapter":  # V = s B A alone: rows of A with known norms, one of them for each output
        layer = replace(layer, lora_a=known_rows(random, rank, d_in), lora_b=_one_of(random, d_out, rank))
        v = scale * (layer.lora_b @ layer.lora_a)
    weight = v - scale * (layer.lora_b @ layer.lora_a)
    norms = row_norms(v)
    return replace(layer, weight=weight, magnitude=np.where(norms > 0, norms * gains, 3.0))


def known_rows(
    random: np.random.Generator, count: int, length: int, choices: Sequence[tuple[int, ...]] = ROWS
) -> Array:
    """Return rows of small integers whose norms are powers of two, at random places and with random signs."""
    rows = np.zeros((count, length))
    fitting = [r for r in choices if len(r) <= length]
    for row in rows:
        chosen = fitting[random.integers(0, len(fitting))]
        row[random.permutation(length)[: len(chosen)]] = np.array(chosen) * random.choice([-1.0, 1.0], len(chosen))
    return rows


def powers(draw: Draw, layer: Layer, dtype: str, backward: bool) -> Layer:
    """Rows times powers of two: large enough that squares overflow float16, and small enough that they vanish there."""
    random, fmt = draw.random(), format_named(dtype)
    wide = fmt.exponent_bits == 8
    exponents = random.choice([-50, 40, 0, 20, -20] if wide else [9, -9, 0, 5, -5], len(layer.weight))
    if backward:  # its sums run over the rows
        exponents[:] = exponents[:1]
    if not wide:
        layer = replace(layer, x=layer.x / 16.0)
    power = 2.0 ** exponents[:, np.newaxis]
    return replace(
        layer, weight=layer.weight * power, lora_b=layer.lora_b * power,
        magnitude=None if layer.magnitude is None else layer.magnitude * power[:, 0],
    )  # fmt: skip


def _limits(draw: Draw, claim: Claim, dtype: str, backward: bool) -> tuple[Layer, str]:
    """The bias alone at the ends of its format, or a row of the gradient of the output."""
    random = draw.random()
    layer = lattice(draw, replace(claim, features=()), "whole", (4,), sizes_for(draw), zeros=False, ramps=False)
    term = draw.choice(("bias", "whole")) if "bias" in claim.features else "whole"
    if term == "whole" and not backward:
        return layer, term
    values, silent = special_values(random, format_named(dtype), len(layer.weight)), replace(layer, x=layer.x * 0.0)
    if not backward:
        return replace(silent, bias=values), term
    dy = np.zeros((4, len(layer.weight)))
    dy[random.integers(0, 4)] = values
    one = np.ones(len(values))
    return replace(silent, weight=layer.weight * 0, lora_b=layer.lora_b * 0, magnitude=one, dy=dy), term


def _on_stored(draw: Draw, claim: Claim, layer: Layer, ordinary_numbers: bool) -> tuple[Layer, Stored]:
    """Return a layer on a quantized weight, and that weight.

    On a lattice half of the rows are those of the stored weight, of a few ±1 times one power of two, and half are those
    of the adapter: all norms are powers of two.
    """
    random, (d_out, d_in), rank = draw.random(), layer.weight.shape, len(layer.lora_a)
    block_size = draw.choice(claim.block_sizes)
    if ordinary_numbers:
        stored = stored_weight(random, "blocks", (d_out, d_in), block_size, "normal")
        return replace(layer, magnitude=np.asarray(random.uniform(0.1, 2.0, d_out))), stored
    own = (random.integers(0, 2, d_out) == 0)[:, np.newaxis]
    pattern = known_rows(random, d_out, d_in, ROWS_OF_ONES) * own
    table, absmax = codebook_named("nf4"), 2.0 ** int(random.integers(-1, 3))
    codes = table.value_order[np.searchsorted(table.midpoints, pattern.reshape(-1))]
    scales = np.full(block_count(codes.size, block_size), absmax, np.float32)
    arrays = {"data": host(pack_4bit(codes, table.zero_code)), "absmax": host(scales)}
    a, b = known_rows(random, rank, d_in, ROWS_OF_ONES), _one_of(random, d_out, rank) * ~own
    scale = lora_scale(layer.alpha, rank, rank_stabilized=layer.rank_stabilized)
    norms = row_norms(pattern * absmax + scale * (b @ a))
    gains = random.permutation(np.resize(GAINS, d_out))
    changed = replace(
        layer, weight=pattern * absmax, lora_a=a, lora_b=b, magnitude=np.where(norms > 0, norms * gains, 3.0)
    )
    return changed, Stored(arrays, {"codebook": "nf4", "block_size": block_size, "shape": (d_out, d_in)})


def _one_of(random: np.random.Generator, count: int, length: int) -> Array:
    """Return rows with a single ±1."""
    rows = np.zeros((count, length))
    rows[np.arange(count), random.integers(0, length, count)] = random.choice([-1.0, 1.0], count)
    return rows


def dora_families(operation: str) -> dict[str, Callable[[Draw, Claim], Case]]:
    """Return the families of a DoRA operation."""
    names = STORED_FAMILIES if operation.startswith("qdora") else FAMILIES
    return {name: partial(dora_case, family=name, operation=operation) for name in names}
