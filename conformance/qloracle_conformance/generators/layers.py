"""The families of LoRA and QLoRA layers, forward and backward."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case, each_layout, fitted
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.grouping import OPTIONS
from qloracle_conformance.generators.limits import few_layer, limit_layer, option_layer
from qloracle_conformance.generators.linear import (
    WIDE_LENGTHS,
    Layer,
    batch_shapes,
    integer_layer,
    layer_case,
    narrowest,
    normal_layer,
    one_hot,
    quantized_weight,
    ramp_layer,
    sizes_for,
    terms_for,
    wide_layer,
    with_gradient,
)
from qloracle_conformance.generators.stored_weights import stored_weight, weight_in_codes
from qloracle_conformance.generators.tiles import (
    WEIGHT,
    exponent_layer,
    poisoned_layer,
    square_layer,
    subnormal_layer,
    tile_layer,
)
from qloracle_conformance.generators.values import full_significand

FAMILIES = (
    "small_lattice", "wide_lattice", "ramps", "shapes", "specials", "memory", "normal", "tiles", "squares", "exponents",
    "poison", "subnormals", "limits", "few",
)  # fmt: skip
STORED_FAMILIES = tuple(f for f in FAMILIES if f not in ("exponents", "subnormals", "poison", "limits"))
# How operations on quantized weights store them, by the first part of their names.
KINDS = {"qlora": "blocks", "qlora_double": "double", "qlora_int8": "int8", "qlora_affine": "affine", "qdora": "blocks"}
REACHED = {
    "wide_lattice": ("base", "adapter", "scale"),
    "exponents": ("base",),
    **dict.fromkeys(
        ("ramps", "shapes", "specials", "memory", "normal", "tiles", "squares", "poison", "subnormals", "few"),
        ("whole",),
    ),
    "limits": ("bias", "dropout", "scale"),
    "options": ("lora_bias", "fan_in_fan_out", "whole"),
}  # family → the parts of the formula that it singles out, where not all
TURNED = ("shapes", "normal", "tiles", "squares", "few")  # families in which a weight may be stored transposed
GRADIENTS = ("x", "lora_a", "lora_b", "bias", "lora_bias")


def layer_family(draw: Draw, claim: Claim, *, family: str, operation: str) -> Case:
    """Generate a case of a layer, forward or backward, with a plain or a quantized weight."""
    dtype = draw.choice(claim.dtypes)
    backward = operation.endswith("backward")
    lattice = family not in ("normal", "specials", "poison", "few")
    layer, term = _layer(draw, claim, family, dtype, backward)
    random = draw.random()
    if backward and layer.dy is None:
        layer = with_gradient(layer, random, "" if lattice else dtype)
    layer = along(layer, claim)
    if operation.startswith("lora") and "fan_in_fan_out" in claim.features and family in TURNED:
        layer = replace(layer, fan_in_fan_out=draw.choice((False, True, True) if family == "shapes" else (False, True)))
    memory = family == "memory"
    layout = draw.choice(claim.layouts) if memory else "contiguous"
    make = partial(layer_case, operation, dtype=dtype, lattice=lattice, layout=layout, repeat=memory)
    term = "" if backward else term
    if family == "squares":
        make = partial(_in_each_layout, draw, claim, make)
    if operation.startswith("lora"):
        return make(layer, term=term)
    block_size = draw.choice(claim.block_sizes)
    kind = KINDS[operation.partition(".")[0]]
    if kind != "blocks":
        contents, shape = _contents(layer, family, lattice), layer.weight.shape
        stored = (
            weight_in_codes(draw, claim, shape, kind, contents) if kind in OPTIONS
            else stored_weight(random, kind, shape, block_size, contents)
        )  # fmt: skip
        return make(layer, term=term, weight=stored.arrays, options=stored.options)
    arrays = _weight_arrays(random, layer, block_size, family, lattice)
    options = {"codebook": "nf4", "block_size": block_size, "shape": layer.weight.shape}
    return make(layer, term=term, weight=arrays, options=options)


def _in_each_layout(draw: Draw, claim: Claim, make: Callable[..., Case], layer: Layer, **rest: Any) -> Case:
    case = make(layer, **rest)
    return replace(case, layouts=each_layout(draw, claim, case.inputs))


def along(layer: Layer, claim: Claim) -> Layer:
    """Return a layer whose batch has a number of axes that the claim admits; its first row alone if that is one."""
    if layer.x.ndim in claim.ndims:
        return layer
    batch = {n: a for n in ("x", "mask", "dy") if (a := getattr(layer, n)) is not None}
    if max(claim.ndims) == 1:
        return replace(layer, **{n: a.reshape(-1, a.shape[-1])[0] for n, a in batch.items()})
    return replace(layer, **{n: a.reshape(fitted(a.shape, claim)) for n, a in batch.items()})


def _contents(layer: Layer, family: str, lattice: bool) -> str:
    if not np.any(layer.weight):
        return "zeros"
    return "words" if family == "wide_lattice" else "integers" if lattice else "normal"


def _weight_arrays(
    random: np.random.Generator, layer: Layer, block_size: int, family: str, lattice: bool
) -> dict[str, HostArray]:
    """Return the arrays of a quantized weight that fits the family; a weight of zeros stays one."""
    wide = family == "wide_lattice"
    arrays = quantized_weight(random, layer.weight.shape, block_size, lattice and not wide)
    absmax = arrays["absmax"].items
    if wide:
        # Entries times powers of two are words of full significand already; 2^16 keeps the products normal numbers.
        absmax = np.ldexp(np.float32(1), np.frexp(absmax)[1] + 16).astype(np.float32)
    if family == "exponents" or (family == "subnormals" and np.max(np.abs(layer.weight), initial=0.0) > 1):
        absmax = absmax * np.float32(WEIGHT)
    elif family == "subnormals" and np.any(layer.weight) and np.max(np.abs(layer.weight)) < 1:
        absmax = absmax * np.float32(2.0**-129)
    if not np.any(layer.weight):
        absmax = absmax * np.float32(0)
    if np.any(np.isnan(layer.weight)):
        absmax[random.integers(0, absmax.size)] = np.nan
    return {**arrays, "absmax": host(absmax)}


def _layer(draw: Draw, claim: Claim, family: str, dtype: str, backward: bool) -> tuple[Layer, str]:
    """Return the layer of a family and the term that it singles out."""
    whole: dict[str, Callable[[], Layer]] = {
        "normal": lambda: normal_layer(draw, claim, dtype),
        "specials": lambda: _special_layer(draw, claim, dtype),
        "ramps": lambda: ramp_layer(draw, claim),
        "tiles": lambda: tile_layer(draw, claim),
        "squares": lambda: square_layer(draw, claim),
        "poison": lambda: poisoned_layer(draw, claim, dtype, backward),
        "subnormals": lambda: subnormal_layer(draw, claim, dtype, backward),
        "few": lambda: few_layer(draw, claim, dtype),
    }
    if family in whole:
        return whole[family](), "whole"
    own: dict[str, Callable[[], tuple[Layer, str]]] = {
        "exponents": lambda: (exponent_layer(draw, claim, dtype, backward), "base"),
        "limits": lambda: limit_layer(draw, claim, dtype, backward),
        "options": lambda: option_layer(draw, claim, backward),
    }
    if family in own:
        return own[family]()
    if family == "wide_lattice" and backward:
        return wide_gradient_layer(draw, claim, dtype), "whole"
    if family == "wide_lattice":
        term = draw.choice(("base", "adapter", "scale"))
        return wide_layer(draw, claim, dtype, term), term
    term = draw.choice(terms_for(claim)) if family == "small_lattice" else "whole"
    rows = draw.choice(batch_shapes(claim)) if family == "shapes" else (4,)
    return integer_layer(draw, claim, term, rows, sizes_for(draw)), term


def _special_layer(draw: Draw, claim: Claim, dtype: str) -> Layer:
    """A NaN or an infinity in one row of x: it must reach every output of that row, and of no other."""
    layer = normal_layer(draw, claim, dtype)
    x = layer.x.copy()
    random = draw.random()
    x[random.integers(0, len(x)), random.choice([0, x.shape[1] // 2, x.shape[1] - 1])] = draw.choice(
        (np.nan, np.inf, -np.inf)
    )
    return replace(layer, x=x, mask=None, dropout=0.0)


def wide_gradient_layer(draw: Draw, claim: Claim, dtype: str) -> Layer:
    """One gradient at a time on a wide lattice; its sum runs over a long dimension."""
    aim = draw.choice(("base", "x", "lora_a", "lora_b"))
    length, random = draw.choice(WIDE_LENGTHS), draw.random()
    word = narrowest(dtype, claim)
    scale = draw.choice((1.0, 4.0))
    if aim in ("base", "x"):  # sums over d_out
        rows, d_in, rank = min(length, 48), 4, 2
        words = full_significand(random, (length, d_in), dtype).real()
        a, b = full_significand(random, (rank, d_in), dtype).real(), one_hot(random, length, rank, (-1, 1))
        return Layer(
            x=np.zeros((rows, d_in)),
            weight=words * (aim == "base"),
            lora_a=a,
            lora_b=b * (aim == "x"),
            alpha=rank * scale,
            dy=one_hot(random, rows, length, (-3, 3)),
        )
    d_in, d_out, rank = (4, 3, 2)  # sums over the rows of the batch
    picks = one_hot(random, rank if aim == "lora_a" else d_out, length, (-3, 3))
    a = full_significand(random, (rank, d_in), word).real()
    if aim == "lora_a":
        dy = np.zeros((length, d_out))
        dy[:, :rank] = picks.T
        x = full_significand(random, (length, d_in), dtype).real()
        return Layer(x, np.zeros((d_out, d_in)), a * 0, np.eye(d_out, rank), rank * scale, dy=dy)
    x = one_hot(random, length, d_in, (-3, 3))
    return Layer(x, np.zeros((d_out, d_in)), a, np.zeros((d_out, rank)), rank * scale, dy=picks.T)


def layer_families(operation: str) -> dict[str, Callable[[Draw, Claim], Case]]:
    """Return the families of a layer operation."""
    first = operation.partition(".")[0]
    names = (*FAMILIES, "options") if first == "lora" else FAMILIES if first == "qlora" else STORED_FAMILIES
    return {name: partial(layer_family, family=name, operation=operation) for name in names}
