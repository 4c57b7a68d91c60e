"""Faults of embeddings with LoRA: indices that are cut, clamped or lost, and gradients that overwrite each other."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.operands import as_rows
from qloracle.rounding import decode, encode
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.kernels import stored_items
from qloracle_conformance.mutants.mutant import Mutant


@dataclass(frozen=True)
class Lookup:
    """The operands of an embedding in float64, indices flat."""

    ids: Array
    weight: Array
    lora_a: Array
    lora_b: Array
    dy: Array
    scale: float
    dtype: str

    def narrow(self, values: Array, dtype: str) -> Array:
        """Return values rounded to a format."""
        return decode(encode(values, dtype), dtype)

    def scatter(self, rows: Array, ids: Array | None = None) -> Array:
        """Return the sums of rows that share an index."""
        total = np.zeros((len(self.weight), rows.shape[1]))
        np.add.at(total, self.ids if ids is None else ids, rows)
        return total


def lookup_of(arguments: dict[str, Any]) -> Lookup:
    """Return the arguments of an embedding as real numbers."""
    rank = arguments["lora_a"].shape[0]
    dimension = arguments["weight"].shape[1]
    ids = arguments["ids"].items.reshape(-1)
    dy = as_rows(arguments["dy"].real()) if "dy" in arguments else np.zeros((len(ids), dimension))
    scale = arguments["alpha"] / (np.sqrt(rank) if arguments["rank_stabilized"] else rank)
    weight, a, b = (arguments[name].real() for name in ("weight", "lora_a", "lora_b"))
    return Lookup(ids, weight, a, b, dy, scale, arguments["weight"].dtype)


def forward_of(formula: Callable[[Lookup], Array]) -> Callable[..., HostArray]:
    """Return a lookup that computes y by a formula."""

    def forward(**arguments: Any) -> HostArray:
        with np.errstate(all="ignore"):
            o = lookup_of(arguments)
            y = formula(o).reshape(*arguments["ids"].shape, o.weight.shape[1])
        return host(np.asarray(encode(y, o.dtype)), o.dtype)

    return forward


def backward_of(formula: Callable[[Lookup], tuple[Array, Array]]) -> Callable[..., tuple[HostArray, ...]]:
    """Return a backward pass that computes both gradients by a formula."""

    def backward(**arguments: Any) -> tuple[HostArray, ...]:
        with np.errstate(all="ignore"):
            o = lookup_of(arguments)
            parts = formula(o)
        return tuple(host(np.asarray(encode(part, o.dtype)), o.dtype) for part in parts)

    return backward


def _rows(o: Lookup, ids: Array | None = None, scale: float | None = None) -> Array:
    index = o.ids if ids is None else ids
    y: Array = o.weight[index] + (o.scale if scale is None else scale) * (o.lora_a.T[index] @ o.lora_b.T)
    return y


def _a_of_another(o: Lookup) -> Array:
    """Look A up with the index within its rank."""
    index = np.minimum(o.ids, o.lora_a.shape[0] - 1)
    y: Array = o.weight[o.ids] + o.scale * (o.lora_a.T[index] @ o.lora_b.T)
    return y


def _a_turned(o: Lookup) -> Array:
    square = o.lora_a.shape[0] == o.lora_a.shape[1]
    return o.weight[o.ids] + o.scale * ((o.lora_a if square else o.lora_a.T)[o.ids] @ o.lora_b.T)


def _first_is_padding(o: Lookup) -> Array:
    return np.where((o.ids == 0)[:, np.newaxis], 0.0, _rows(o))


def _adapter_of_first_skipped(o: Lookup) -> Array:
    return _rows(o) - np.where((o.ids == 0)[:, np.newaxis], o.scale * (o.lora_a.T[o.ids] @ o.lora_b.T), 0.0)


def _last_clamped(o: Lookup) -> Array:
    return _rows(o, np.minimum(o.ids, len(o.weight) - 2) if len(o.weight) > 1 else o.ids)


def _base_missing(o: Lookup) -> Array:
    return o.scale * (o.lora_a.T[o.ids] @ o.lora_b.T)


def _looked_up_in(dtype: str) -> Callable[[Lookup], Array]:
    return lambda o: o.weight[o.ids] + o.scale * (o.narrow(o.lora_a.T[o.ids], dtype) @ o.lora_b.T)


def _adapter_in_dtype(o: Lookup) -> Array:
    return o.weight[o.ids] + o.narrow(o.scale * (o.lora_a.T[o.ids] @ o.lora_b.T), o.dtype)


def _scale_in_float16(o: Lookup) -> Array:
    return _rows(o, scale=float(np.float16(o.scale)))


def _gradients(o: Lookup) -> tuple[Array, Array]:
    return o.scale * o.scatter(o.dy @ o.lora_b).T, o.scale * (o.dy.T @ o.lora_a.T[o.ids])


def _last_wins(o: Lookup) -> tuple[Array, Array]:
    rows = np.zeros((len(o.weight), o.lora_b.shape[1]))
    rows[o.ids] = o.dy @ o.lora_b
    return o.scale * rows.T, _gradients(o)[1]


def _mean_over_occurrences(o: Lookup) -> tuple[Array, Array]:
    counts = np.maximum(np.bincount(o.ids, minlength=len(o.weight)), 1)
    return _gradients(o)[0] / counts, _gradients(o)[1]


def _unsigned_byte(o: Lookup) -> tuple[Array, Array]:
    cut = np.minimum(o.ids & 0xFFFF, len(o.weight) - 1)
    return o.scale * o.scatter(o.dy @ o.lora_b, cut).T, _gradients(o)[1]


def _padding_gets_none(o: Lookup) -> tuple[Array, Array]:
    by_a = _gradients(o)[0].copy()
    by_a[:, :1] = 0.0
    return by_a, _gradients(o)[1]


def _added_up_in(dtype: str) -> Callable[[Lookup], tuple[Array, Array]]:
    def gradients(o: Lookup) -> tuple[Array, Array]:
        rows, total = o.dy @ o.lora_b, np.zeros((len(o.weight), o.lora_b.shape[1]))
        for index, row in zip(o.ids, rows, strict=True):
            total[index] = o.narrow(total[index] + row, dtype)
        return o.scale * total.T, _gradients(o)[1]

    return gradients


def _a_unscaled(o: Lookup) -> tuple[Array, Array]:
    return o.scatter(o.dy @ o.lora_b).T, _gradients(o)[1]


def _b_unscaled(o: Lookup) -> tuple[Array, Array]:
    return _gradients(o)[0], o.dy.T @ o.lora_a.T[o.ids]


def _b_of_distinct(o: Lookup) -> tuple[Array, Array]:
    """Take each index once in the gradient of B."""
    _, first = np.unique(o.ids, return_index=True)
    return _gradients(o)[0], o.scale * (o.dy[first].T @ o.lora_a.T[o.ids[first]])


def _first_rows(o: Lookup) -> tuple[Array, Array]:
    return o.scale * o.scatter((o.dy @ o.lora_b)[:256], o.ids[:256]).T, _gradients(o)[1]


def _ids_as_stored(**arguments: Any) -> HostArray:
    """Read the indices as contiguous; what is no index then wraps around."""
    stored = stored_items(arguments["ids"].items) % arguments["weight"].shape[0]
    return forward_of(_rows)(**{**arguments, "ids": host(stored)})


def embedding_faults() -> list[Mutant]:
    """Return the mutants of embeddings."""
    terms = ("base", "adapter", "scale", "whole")
    forward: list[tuple[str, str, Callable[[Lookup], Array]]] = [
        ("unscaled", "alpha is used instead of alpha/r", lambda o: _rows(o, scale=o.scale * len(o.lora_a))),
        ("scale-missing", "the scale is missing", lambda o: _rows(o, scale=1.0)),
        ("scale-float16", "the scale is rounded to float16", _scale_in_float16),
        ("ids-16-bits", "indices are cut to 16 bits", lambda o: _rows(o, o.ids & 0xFFFF)),
        ("ids-8-bits", "indices are cut to 8 bits", lambda o: _rows(o, o.ids & 0xFF)),
        ("last-clamped", "the last row of the table is out of reach", _last_clamped),
        ("a-of-another", "A is looked up with a clamped index", _a_of_another),
        ("a-turned", "a square A is not transposed", _a_turned),
        ("first-is-padding", "index 0 is taken for padding", _first_is_padding),
        ("adapter-skips-first", "the adapter takes index 0 for padding", _adapter_of_first_skipped),
        ("base-missing", "the table is left out", _base_missing),
        ("a-bfloat16", "what is looked up in A is rounded to bfloat16", _looked_up_in("bfloat16")),
        ("a-float16", "what is looked up in A is rounded to float16", _looked_up_in("float16")),
        ("adapter-in-dtype", "the adapter is rounded to the format of the table", _adapter_in_dtype),
    ]
    backward: list[tuple[str, str, Callable[[Lookup], tuple[Array, Array]], str]] = [
        ("last-wins", "of several gradients of an index the last one stays", _last_wins, "lora_a"),
        ("mean", "gradients of an index are averaged", _mean_over_occurrences, "lora_a"),
        ("gradient-16-bits", "gradients go to indices cut to 16 bits", _unsigned_byte, "lora_a"),
        ("padding-gets-none", "index 0 gets no gradient", _padding_gets_none, "lora_a"),
        ("added-in-bfloat16", "gradients of an index are added up in bfloat16", _added_up_in("bfloat16"), "lora_a"),
        ("added-in-float16", "gradients of an index are added up in float16", _added_up_in("float16"), "lora_a"),
        ("gradient-a-unscaled", "the gradient of A lacks the scale", _a_unscaled, "lora_a"),
        ("gradient-b-unscaled", "the gradient of B lacks the scale", _b_unscaled, "lora_b"),
        ("gradient-b-distinct", "repeated indices count once in the gradient of B", _b_of_distinct, "lora_b"),
        ("first-256-rows", "gradients of A cover the first 256 indices", _first_rows, "lora_a"),
    ]
    return [
        *(Mutant(f"embedding-{n}", f, {"embedding_lora_forward": forward_of(formula)}, terms)
          for n, f, formula in forward),
        *(Mutant(f"embedding-{n}", f, {"embedding_lora_backward": backward_of(formula)}, (stage,))
          for n, f, formula, stage in backward),
        Mutant("embedding-ids-as-stored", "indices are read as contiguous", {"embedding_lora_forward": _ids_as_stored},
               terms),
    ]  # fmt: skip
