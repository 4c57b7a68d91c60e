"""Inputs of tables and of storage views."""

import numpy as np

from qloracle.formats import Array, format_named
from qloracle_conformance.arrays import host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case, admitted, fitted
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.values import special_words, words

WIDEST = 4  # bytes of the widest storage item: so many bytes, or a multiple of them, fill whole items of any
SHAPES: tuple[tuple[int, ...], ...] = (
    (4,), (8,), (0,), (12,), (60,), (64,), (68,), (252,), (256,), (260,), (4, 3), (3, 8), (2, 0), (2, 3, 4),
    (1, 4, 1, 5),
)  # fmt: skip
LARGE: tuple[tuple[int, ...], ...] = ((70004,), (16388,), (300, 80))
STORAGES = ("uint8", "float16", "bfloat16", "float32")


def table_case(draw: Draw, claim: Claim, *, family: str, operation: str, codebook: str) -> Case:
    """Nothing but the name: there is one table; memory: asked for again and again."""
    return Case(operation, {}, {"codebook": codebook}, repeat=family == "memory")


def store_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Packed bytes; specials: those of items that are zeros, subnormals, infinities and NaN of every class."""
    storage = str(draw.choice(claim.options.get("storage", STORAGES[:1])))
    packed = host(_bytes(draw, claim, family, storage))
    layouts = {"packed": draw.choice(claim.layouts) if family == "memory" else "contiguous"}
    return Case("packing.store", {"packed": packed}, {"storage": storage}, layouts=layouts, repeat=family == "memory")


def restore_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Storage items, with the same bytes."""
    storage = str(draw.choice(claim.options.get("storage", STORAGES[:1])))
    packed = _bytes(draw, claim, family, storage).reshape(-1)
    items = host(packed) if storage == "uint8" else words(packed.view(format_named(storage).word), storage)
    layouts = {"stored": draw.choice(claim.layouts) if family == "memory" else "contiguous"}
    return Case("packing.restore", {"stored": items}, {"storage": storage}, layouts=layouts, repeat=family == "memory")


def _bytes(draw: Draw, claim: Claim, family: str, storage: str) -> Array:
    if family == "specials" and storage != "uint8":
        fmt = format_named(storage)
        items = draw.random().choice(special_words(fmt).astype(fmt.word), 64)
        return items.view(np.uint8).reshape(fitted((items.nbytes,), claim))
    known = {"memory": ((4, 6), (60,), (2, 3, 8)), "extents": LARGE}.get(family, SHAPES)
    return draw.random().integers(0, 256, draw.choice(admitted(claim, known)), np.uint8)
