"""The families of products with a weight quantized in blocks: identities, lattices, every number of rows up to 17."""

from collections.abc import Callable
from functools import partial

import numpy as np

from qloracle.blocks import block_count
from qloracle.formats import Array, format_named
from qloracle.tables import codebook_named
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case, each_layout, reshaped
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.limits import special_values
from qloracle_conformance.generators.linear import WIDE_LENGTHS, batch_shapes, one_hot
from qloracle_conformance.generators.stored_weights import NESTED, Stored, stored_weight
from qloracle_conformance.generators.values import normal, rounded

FAMILIES = (
    "identity", "subnormals", "small_lattice", "rows", "wide_lattice", "ramps", "groups", "shapes", "squares", "tiles",
    "limits", "normal", "poison", "specials", "memory",
)  # fmt: skip
BOUNDED = ("normal", "poison", "specials")
ROWS = (1, 2, 17, 3, 16, 4, 8, 5, 7, 9, 15, 6, 10, 11, 12, 13, 14)
INNER = (100, 33, 64, 256, 1, 130)  # few are multiples of a block
WIDE = 96  # rows of x with one nonzero element each


def matmul_case(draw: Draw, claim: Claim, *, family: str, operation: str, codebook: str, kind: str) -> Case:
    """Generate a case of a product with a stored weight."""
    dtype, random = draw.choice(claim.dtypes), draw.random()
    inner, outer, rows = _sizes(draw, claim, family)
    block_size = draw.choice(claim.block_sizes) if family != "groups" else min(claim.block_sizes)
    kinds = {"identity": "words", "wide_lattice": "words", "subnormals": "large", **dict.fromkeys(BOUNDED, "normal")}
    contents = kinds.get(family, "integers")
    stored = stored_weight(random, kind, (outer, inner), block_size, contents, codebook)
    if family == "ramps":
        stored = _ramped(stored, codebook)
    if family == "poison":
        stored = _poisoned(random, stored)
    x = _along(_activations(draw, random, (*rows, inner), dtype, family), claim)
    bias = None
    if "bias" in claim.features and family not in ("identity", "wide_lattice", "subnormals"):
        limits = special_values(random, format_named(dtype), outer)
        whole = limits if family == "limits" else random.integers(-7, 8, outer).astype(np.float64)
        bias = normal(random, (outer,), dtype) if family in BOUNDED else rounded(whole, dtype)
    inputs: dict[str, HostArray | None] = {"x": x, **stored.arrays, "bias": bias}
    layout = draw.choice(claim.layouts) if family == "memory" else "contiguous"
    layouts = each_layout(draw, claim, inputs) if family == "squares" else dict.fromkeys(inputs, layout)
    return Case(operation, inputs, stored.options, layouts, family not in BOUNDED, repeat=family == "memory")


def _sizes(draw: Draw, claim: Claim, family: str) -> tuple[int, int, tuple[int, ...]]:
    """Return the inner dimension, the outer one, and the leading dimensions of x."""
    inner, outer, rows = draw.choice(INNER), draw.choice((5, 3, 24, 1, 70)), draw.choice(ROWS)
    length, size = draw.choice(WIDE_LENGTHS), draw.choice((16, 8, 128))
    sizes: dict[str, tuple[int, int, tuple[int, ...]]] = {
        "identity": (inner, outer, (inner,)),
        "wide_lattice": (length, 3, (draw.choice((min(length, WIDE), 1, 16)),)),
        "squares": (size, size, (size,)),
        "shapes": (draw.choice((3, 17, 33)), draw.choice((5, 1, 3)), draw.choice(batch_shapes(claim))),
        "tiles": (draw.choice((300, 131)), draw.choice((129, 67)), (draw.choice((130, 33)),)),
        "groups": (NESTED + 7, 3, (draw.choice((1, 4)),)),
        "normal": (draw.choice((64, 200, 1000)), draw.choice((24, 7)), (rows,)),
        "limits": (draw.choice((8, 33)), 7, (3,)),
    }
    return sizes.get(family, (inner, outer, (rows,)))


def _along(x: HostArray, claim: Claim) -> HostArray:
    """Return activations along a number of axes that the claim admits; the first row alone if that is one."""
    if x.items.ndim in claim.ndims:
        return x
    if max(claim.ndims) == 1:
        return HostArray(x.items.reshape(-1, x.shape[-1])[0], x.dtype)
    return reshaped(x, claim)


def _activations(draw: Draw, random: np.random.Generator, shape: tuple[int, ...], dtype: str, family: str) -> HostArray:
    if family == "identity":
        return rounded(np.eye(shape[0]) * 2.0 ** draw.choice((0, -3, 3)), dtype)
    if family == "subnormals":  # against weights that make normal products of them
        whole = random.integers(-2, 3, shape) * 2.0 ** (format_named(dtype).minimum_exponent - 3)
        return rounded(whole, dtype)
    if family == "wide_lattice":
        return rounded(one_hot(random, shape[0], shape[1], (-3, 3)), dtype)
    if family == "limits":
        return rounded(np.zeros(shape), dtype)
    if family in BOUNDED:
        values = normal(random, shape, dtype).real()
        if family == "specials":
            place = (random.integers(0, shape[0]), random.choice([0, shape[1] // 2, shape[1] - 1]))
            values[place] = draw.choice((np.nan, np.inf, -np.inf))
        return rounded(values, dtype)
    return rounded(random.integers(-2, 3, shape).astype(np.float64), dtype)


def _ramped(stored: Stored, codebook: str) -> Stored:
    """Return a weight whose blocks, or nested groups, are told apart by their scale."""
    arrays = dict(stored.arrays)
    if "absmax" in arrays:
        blocks = arrays["absmax"].items.size
        arrays["absmax"] = host(2.0 ** (np.arange(blocks) % 7 - 3).astype(np.float32))
        return Stored(arrays, stored.options)
    table = codebook_named("dynamic_signed")
    blocks = arrays["absmax_codes"].items.size
    zero, one = (int(np.flatnonzero(table.entries == value)[0]) for value in (0, 1))
    codes: Array = np.where(np.arange(blocks) % 3 == 0, zero, one)
    arrays["absmax_codes"] = host(codes.astype(np.uint8))
    arrays["nested_absmax"] = host(2.0 ** (np.arange(block_count(blocks, NESTED)) % 5).astype(np.float32))
    return Stored(arrays, stored.options)


def _poisoned(random: np.random.Generator, stored: Stored) -> Stored:
    """Return a weight with one scale that is NaN: it reaches the outputs that read the block, and no other."""
    name = "absmax" if "absmax" in stored.arrays else "nested_absmax"
    values = stored.arrays[name].items.copy()
    if values.size:
        values[random.choice([0, values.size // 2, values.size - 1])] = np.nan
    return Stored({**stored.arrays, name: host(values)}, stored.options)


def matmul_families(operation: str, codebook: str, kind: str) -> dict[str, Callable[[Draw, Claim], Case]]:
    """Return the families of a product with a quantized weight."""
    made = partial(matmul_case, operation=operation, codebook=codebook, kind=kind)
    return {name: partial(made, family=name) for name in FAMILIES}
