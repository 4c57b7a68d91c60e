"""Faults of what adapters start from, and of combining several of them."""

from collections.abc import Callable
from dataclasses import replace
from math import sqrt
from typing import Any

import numpy as np

from qloracle.combining import LoraAdapter, combine_adapters, concatenate_adapters
from qloracle.formats import Array
from qloracle.rounding import decode, encode
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.kernels import stored_items
from qloracle_conformance.mutants.mutant import Mutant, Op

A, BOTH = ("lora_a",), ("lora_a", "lora_b")


def _stored(values: Array, dtype: str) -> HostArray:
    with np.errstate(all="ignore"):
        return host(np.asarray(encode(values, dtype)), dtype)


def _start_by(values: Callable[[HostArray, dict[str, Any]], Array]) -> Op:
    """Return a start whose A is computed another way, in float64."""

    def start(draws: HostArray, **options: Any) -> tuple[HostArray, HostArray]:
        right = OPS["lora_init"](draws, **options)
        with np.errstate(all="ignore"):
            return _stored(values(draws, options), options["dtype"]), right[1]

    return start


def _numbers(draws: HostArray, options: dict[str, Any]) -> Array:
    u = draws.real()
    return 2 * u - 1 if options["initialization"] == "kaiming" else u


def _factor(draws: HostArray, options: dict[str, Any]) -> float:
    rank, d_in = draws.shape
    if options["initialization"] == "kaiming":
        return 1 / sqrt(d_in)
    return 1 / rank if options["std"] is None else float(options["std"])


def _kaiming_bound(bound: Callable[[HostArray, dict[str, Any]], float]) -> Op:
    """Return a start with another bound of the uniform numbers."""

    def values(draws: HostArray, options: dict[str, Any]) -> Array:
        uniform = options["initialization"] == "kaiming"
        return _numbers(draws, options) * (bound(draws, options) if uniform else _factor(draws, options))

    return _start_by(values)


def _unit_std(draws: HostArray, options: dict[str, Any]) -> Array:
    uniform = options["initialization"] == "kaiming"
    return _numbers(draws, options) * (_factor(draws, options) if uniform else 1.0)


def _one_sided(draws: HostArray, options: dict[str, Any]) -> Array:
    return draws.real() * _factor(draws, options)


def _mirrored(draws: HostArray, options: dict[str, Any]) -> Array:
    uniform = options["initialization"] == "kaiming"
    return _numbers(draws, options) * (-1 if uniform else 1) * _factor(draws, options)


def _twice_rounded(draws: HostArray, options: dict[str, Any]) -> Array:
    return (_numbers(draws, options) * _factor(draws, options)).astype(np.float32)


def _by_columns(draws: HostArray, options: dict[str, Any]) -> Array:
    values = _numbers(draws, options) * _factor(draws, options)
    return values.T.reshape(values.shape)


def _as_stored(draws: HostArray, **options: Any) -> Any:
    items = draws.items
    if not items.flags.c_contiguous:
        items = np.clip(np.nan_to_num(stored_items(items)), 0, 0.5)
    return OPS["lora_init"](HostArray(items, draws.dtype), **options)


def _matrices(change: Callable[[Array, Array], tuple[Array, Array]]) -> Op:
    """Return a start whose matrices are changed together."""

    def start(draws: HostArray, **options: Any) -> tuple[HostArray, HostArray]:
        a, b = OPS["lora_init"](draws, **options)
        first, second = change(a.real(), b.real())
        return _stored(first, a.dtype), _stored(second, b.dtype)

    return start


def _embedding_by(change: Callable[[Array, Array], tuple[Array, Array]]) -> Op:
    """Return a start of an embedding whose matrices are changed together."""

    def start(draws: HostArray, **options: Any) -> tuple[HostArray, HostArray]:
        a, b = OPS["embedding_init"](draws, **options)
        first, second = change(a.real(), draws.real())
        return _stored(first, a.dtype), _stored(second, b.dtype)

    return start


def _embedding_truncated(draws: HostArray, **options: Any) -> tuple[HostArray, HostArray]:
    """Cut draws off to 16 bits."""
    a, b = OPS["embedding_init"](draws, **options)
    if b.dtype != "bfloat16":
        return a, b
    return a, HostArray((np.ascontiguousarray(draws.items).view(np.uint32) >> 16).astype(np.uint16), "bfloat16")


def _adapters(arguments: dict[str, Any]) -> list[LoraAdapter]:
    a, b, ends = arguments["lora_a"].single(), arguments["lora_b"].single(), np.cumsum(arguments["ranks"])
    parts = zip(arguments["ranks"], ends, arguments["alphas"], arguments["stabilized"], strict=True)
    return [LoraAdapter(a[end - r : end], b[:, end - r : end], alpha, root) for r, end, alpha, root in parts]


def _scale(adapter: LoraAdapter) -> float:
    rank = len(adapter.lora_a)
    return adapter.alpha / (sqrt(rank) if adapter.rank_stabilized else rank)


Change = Callable[[list[LoraAdapter], list[float]], tuple[list[LoraAdapter], list[float]]]


def combined_by(change: Change) -> dict[str, Op]:
    """Return both forms of a combination of other adapters, or with other weights."""

    def sum_of(**arguments: Any) -> HostArray:
        adapters, weights = change(_adapters(arguments), list(arguments["weights"]))
        return _stored(combine_adapters(adapters, weights), arguments["lora_a"].dtype)

    def beside(**arguments: Any) -> tuple[HostArray, HostArray]:
        adapters, weights = change(_adapters(arguments), list(arguments["weights"]))
        made, dtype = concatenate_adapters(adapters, weights), arguments["lora_a"].dtype
        return _stored(made.lora_a, dtype), _stored(made.lora_b, dtype)

    return {"combine_adapters": sum_of, "concatenate_adapters": beside}


def _cross_terms(**arguments: Any) -> HostArray:
    """Add the factors up, each with the root of its weight, and multiply the sums."""
    adapters, weights = _adapters(arguments), arguments["weights"]
    rank = max(len(x.lora_a) for x in adapters)
    a, b = np.zeros((rank, adapters[0].lora_a.shape[1])), np.zeros((len(adapters[0].lora_b), rank))
    for adapter, weight in zip(adapters, weights, strict=True):
        factor, r = weight * _scale(adapter), len(adapter.lora_a)
        a[:r] += sqrt(abs(factor)) * adapter.lora_a
        b[:, :r] += np.sign(factor) * sqrt(abs(factor)) * adapter.lora_b
    return _stored(b @ a, arguments["lora_a"].dtype)


def _on_both_sides(**arguments: Any) -> tuple[HostArray, HostArray]:
    """Multiply w s into A and into B."""
    pairs = list(zip(_adapters(arguments), arguments["weights"], strict=True))
    a = np.concatenate([w * _scale(x) * x.lora_a.astype(np.float64) for x, w in pairs])
    b = np.concatenate([w * _scale(x) * x.lora_b.astype(np.float64) for x, w in pairs], axis=1)
    return _stored(a, arguments["lora_a"].dtype), _stored(b, arguments["lora_a"].dtype)


def _scaled_by(factor: Callable[[LoraAdapter, LoraAdapter], float]) -> Change:
    """Return a change that multiplies each weight by a number of its adapter and the first one."""
    return lambda x, w: (x, [v * factor(a, x[0]) for a, v in zip(x, w, strict=True)])


def start_faults() -> list[Mutant]:
    """Return the mutants of starting and combining adapters."""
    starts: list[tuple[str, str, Op, tuple[str, ...]]] = [
        ("fan-out", "the bound comes from the number of outputs", _kaiming_bound(lambda d, o: 1 / sqrt(o["d_out"])), A),
        ("rank-as-fan", "the bound comes from the rank", _kaiming_bound(lambda d, o: 1 / sqrt(d.shape[0])), A),
        ("gain", "the bound has the gain of a = 0", _kaiming_bound(lambda d, o: sqrt(6 / d.shape[1])), A),
        ("std", "the standard deviation is 1 whatever was asked for", _start_by(_unit_std), A),
        ("one-sided", "uniform numbers are not shifted", _start_by(_one_sided), A),
        ("mirrored", "uniform numbers are mirrored", _start_by(_mirrored), A),
        ("rounded-twice", "A passes through float32 on its way to 16 bits", _start_by(_twice_rounded), A),
        ("by-columns", "draws are taken column by column", _start_by(_by_columns), A),
        ("as-stored", "draws are read as they lie in memory", _as_stored, A),
        ("both-random", "B is random too", _matrices(lambda a, b: (a, np.resize(a, b.shape))), ("lora_b",)),
        ("b-random", "B is random and A zero", _matrices(lambda a, b: (a * 0, np.resize(a, b.shape))), BOTH),
        ("b-small", "B is small, not zero", _matrices(lambda a, b: (a, b + 2.0**-20)), ("lora_b",)),
        ("minus-zero", "B is minus zero", _matrices(lambda a, b: (a, -b)), ("lora_b",)),
    ]
    embeddings: list[tuple[str, str, Op]] = [
        ("as-linear", "an embedding starts as a linear layer",
         _embedding_by(lambda a, z: (np.resize(z, a.shape), z * 0))),
        ("scaled", "draws are divided by the rank", _embedding_by(lambda a, z: (a, z / z.shape[1]))),
        ("truncated", "draws are cut off to 16 bits", _embedding_truncated),
    ]  # fmt: skip
    combinations: list[tuple[str, str, Change]] = [
        ("scale-twice", "every scale is applied twice", _scaled_by(lambda a, first: _scale(a))),
        ("scale-missing", "no scale is applied", _scaled_by(lambda a, first: 1 / _scale(a))),
        ("first-scale", "all have the scale of the first", _scaled_by(lambda a, first: _scale(first) / _scale(a))),
        ("first-alpha", "all have the alpha of the first", lambda x, w: ([replace(a, alpha=x[0].alpha) for a in x], w)),
        ("root-ignored", "rsLoRA's root is ignored",
         lambda x, w: ([replace(a, rank_stabilized=False) for a in x], w)),
        ("weights-ignored", "weights are left out", lambda x, w: (x, [1.0] * len(w))),
        ("averaged", "weights are normalized to a sum of 1", lambda x, w: (x, [v / (sum(w) or 1.0) for v in w])),
        ("last-missing", "the last adapter is left out", lambda x, w: (x, [*w[:-1], 0.0])),
        ("roots", "weights enter by their roots", lambda x, w: (x, [float(np.sign(v) * sqrt(abs(v))) for v in w])),
        ("weights-in-bfloat16", "weights are rounded to bfloat16",
         lambda x, w: (x, decode(encode(np.array(w), "bfloat16"), "bfloat16").tolist())),
    ]  # fmt: skip
    forms = (("combine", "combine_adapters", ("delta",)), ("concatenate", "concatenate_adapters", A))
    return [
        *(Mutant(f"init-{n}", fault, {"lora_init": op}, stages) for n, fault, op, stages in starts),
        *(Mutant(f"embedding-init-{n}", fault, {"embedding_init": op}, BOTH) for n, fault, op in embeddings),
        *(Mutant(f"{form}-{n}", fault, {function: combined_by(change)[function]}, stages)
          for n, fault, change in combinations for form, function, stages in forms),
        Mutant("combine-cross-terms", "the factors are added up and then multiplied",
               {"combine_adapters": _cross_terms}, ("delta",)),
        Mutant("concatenate-both-sides", "w s is multiplied into A and into B",
               {"concatenate_adapters": _on_both_sides}, BOTH),
    ]  # fmt: skip
