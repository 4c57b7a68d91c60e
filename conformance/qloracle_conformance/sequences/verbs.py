"""What a sequence can do with weights: one function for each verb, which adds calls to the bench."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from qloracle_conformance.arrays import HostArray
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.requantizing import STORED
from qloracle_conformance.generators.values import normal
from qloracle_conformance.sequences.bench import Bench, Slot
from qloracle_conformance.sequences.keeping import nest, restore, store, unnest
from qloracle_conformance.sequences.other import call as own_call
from qloracle_conformance.sequences.training import train, train_8bit
from qloracle_conformance.sequences.weights import Weights, adapter, stored, weight

ADAPTER = {"alpha": 3.0, "rank_stabilized": False}

Verb = Callable[[Bench, Draw, str, Weights], None]


def quantize(bench: Bench, draw: Draw, operation: str, weights: Weights) -> None:
    """Quantize a weight."""
    claim = bench.claims[operation]
    source, options = weight(bench, draw, claim, matrix=False), weights.settings(operation, claim, bench, draw)
    roles = STORED[weights.kind]
    made = bench.call("quantize", operation, {"x": source.names["weight"]}, options, roles)
    bench.slots.append(Slot("stored", dict(zip(roles, made, strict=True)), source.shape, options=options))


def dequantize(bench: Bench, draw: Draw, operation: str, weights: Weights) -> None:
    """Restore a stored weight."""
    claim = bench.claims[operation]
    source = stored(bench, draw, operation, weights, matrix=False)
    dtype = bench.usual(draw, "dtype", claim.out_dtypes)
    shape = {"shape": source.shape} if weights.kind in ("blocks", "double") else {}
    (name,) = bench.call("dequantize", operation, source.names, {**source.options, **shape, "dtype": dtype}, ["values"])
    bench.slots.append(Slot("weight", {"weight": name}, source.shape, dtype))


def layer_options(source: Slot, weights: Weights) -> dict[str, Any]:
    """Return the options by which a layer reads a stored weight."""
    options = {name: value for name, value in source.options.items() if name != "nested_codebook"}
    return {**options, **({"shape": source.shape} if weights.kind in ("blocks", "double") else {})}


def matmul(bench: Bench, draw: Draw, operation: str, weights: Weights) -> None:
    """Multiply by a stored weight."""
    claim, source = bench.claims[operation], stored(bench, draw, operation, weights, matrix=True)
    x = bench.take(activations(bench, draw, claim, source.shape[1]), "x")
    bench.call("matmul", operation, {"x": x, **source.names, "bias": None}, layer_options(source, weights), ["y"])


def activations(bench: Bench, draw: Draw, claim: Claim, length: int, dtype: str | None = None) -> HostArray:
    """Return two rows of ordinary numbers, or one where the claim admits a single axis."""
    shape = (2, length) if 2 in claim.ndims else (length,)
    return normal(draw.random(), shape, dtype or bench.usual(draw, "dtype", claim.dtypes))


def forward(bench: Bench, draw: Draw, operation: str, weights: Weights) -> None:
    """Run a layer with an adapter."""
    given, options, dtype, inner, _ = _layer(bench, draw, operation, weights)
    x = bench.take(activations(bench, draw, bench.claims[operation], inner, dtype), "x")
    bench.call("forward", operation, {"x": x, **given, "bias": None, "mask": None}, options, ["y"], term="whole")


def backward(bench: Bench, draw: Draw, operation: str, weights: Weights) -> None:
    """Run a layer backward: what it returns for the adapter is what a training step takes."""
    given, options, dtype, inner, used = _layer(bench, draw, operation, weights)
    claim = bench.claims[operation]
    x = bench.take(activations(bench, draw, claim, inner, dtype), "x")
    dy = bench.take(activations(bench, draw, claim, used.shape[0], dtype), "d")
    roles = ["dx", "lora_a", "lora_b", "db"]
    roles += ["lora_bias"] if operation == "lora.backward" and "lora_bias" in claim.features else []
    made = dict(
        zip(roles, bench.call("backward", operation, {"dy": dy, "x": x, **given, "mask": None}, options, roles),
            strict=True)
    )  # fmt: skip
    names = {"p": used.names["lora_a"], "gradient": made["lora_a"]}
    bench.slots.append(Slot("gradients", names, used.shape, dtype, {"rank": used.options["rank"]}))


def _layer(
    bench: Bench, draw: Draw, operation: str, weights: Weights
) -> tuple[dict[str, str], dict[str, Any], str, int, Slot]:
    """Return names of a weight and an adapter, options, type, inner dimension, and the adapter."""
    claim, plain = bench.claims[operation], operation.startswith("lora.")
    if plain:
        source = weight(bench, draw, claim, matrix=True)
        names, dtype, options = dict(source.names), source.dtype, dict[str, Any]()
    else:
        source = stored(bench, draw, operation, weights, matrix=True)
        names, dtype, options = (
            dict(source.names),
            bench.usual(draw, "dtype", claim.dtypes),
            layer_options(source, weights),
        )
    used = adapter(bench, draw, source.shape, dtype)
    names |= {role: used.names[role] for role in ("lora_a", "lora_b")}
    return names, {**ADAPTER, "dropout": 0.0, **options}, dtype, source.shape[1], used


def merge(bench: Bench, draw: Draw, operation: str, weights: Weights, do: str = "merge") -> None:
    """Merge an adapter into a weight."""
    claim = bench.claims[operation]
    source = weight(bench, draw, claim, matrix=True)
    used = adapter(bench, draw, source.shape, source.dtype)
    given = {**source.names, **{role: used.names[role] for role in ("lora_a", "lora_b")}}
    (name,) = bench.call(do, operation, given, {**ADAPTER, "fan_in_fan_out": False}, ["weight"])
    bench.slots.append(Slot("weight", {"weight": name}, source.shape, source.dtype))


def unmerge(bench: Bench, draw: Draw, operation: str, weights: Weights) -> None:
    """Take an adapter out of a weight."""
    merge(bench, draw, operation, weights, "unmerge")


def merge_stored(bench: Bench, draw: Draw, operation: str, weights: Weights) -> None:
    """Merge an adapter into a stored weight."""
    if weights.kind == "double":  # whose merges only lattices judge
        _merge_lattice(bench, draw, operation, weights)
        return
    claim, source = bench.claims[operation], stored(bench, draw, operation, weights, matrix=True)
    dtype = bench.usual(draw, "dtype", claim.dtypes)
    used = adapter(bench, draw, source.shape, dtype)
    given = {**source.names, **{role: used.names[role] for role in ("lora_a", "lora_b")}}
    out = bench.usual(draw, "dtype", claim.out_dtypes)
    options = {**ADAPTER, "fan_in_fan_out": False, **layer_options(source, weights), "shape": source.shape,
               "dtype": out, "scales": draw.choice(claim.options.get("scales", ("fresh",)))}  # fmt: skip
    roles = STORED[weights.kind]
    made = bench.call("merge_stored", operation, given, options, roles)
    bench.slots.append(Slot("stored", dict(zip(roles, made, strict=True)), source.shape, options=source.options))


def _merge_lattice(bench: Bench, draw: Draw, operation: str, weights: Weights) -> None:
    from qloracle_conformance.registry import OPERATIONS

    claim = bench.claims[operation]
    narrowed = replace(claim, options={**claim.options, "codebook": (weights.codebook,)}, layouts=("contiguous",))
    case = OPERATIONS[operation].families["small_lattice"](draw, narrowed)
    roles = STORED[weights.kind]
    made = own_call(bench, case, "merge_stored", roles)
    options = {name: case.options[name] for name in ("codebook", "block_size")}
    options["nested_codebook"] = "dynamic_signed"
    bench.slots.append(Slot("stored", dict(zip(roles, made, strict=True)), case.options["shape"], options=options))


VERBS: dict[str, Verb] = {
    "quantize": quantize, "dequantize": dequantize, "matmul": matmul, "forward": forward, "backward": backward,
    "merge": merge, "unmerge": unmerge, "merge_stored": merge_stored, "store": store, "restore": restore,
    "nest": nest, "unnest": unnest, "train": train, "train_8bit": train_8bit,
}  # fmt: skip
