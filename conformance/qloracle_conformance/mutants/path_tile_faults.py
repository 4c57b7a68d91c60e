"""Faults beyond a tile, a chunk or a pass of the grid: what small tensors never reach."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.rounding import decode, encode
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.adapter_operands import Single, forward_as
from qloracle_conformance.mutants.lora_faults import output
from qloracle_conformance.mutants.mutant import Mutant, Op
from qloracle_conformance.mutants.product_kernel import Product, product_by
from qloracle_conformance.mutants.two_paths import (
    Arguments,
    from_place,
    if_element,
    row_from,
    with_changed,
    with_items,
    without_inputs_from,
)

F = np.float32


def _unmerged(function: str, stored: tuple[str, ...]) -> Op:
    """Return a merge that leaves the stored arrays as they were."""

    def merge(**arguments: Any) -> Any:
        return tuple(arguments[name] for name in stored)

    return merge


def _kept_from(first: int, function: str, stored: tuple[str, ...]) -> Op:
    """Return a merge that never reaches codes from a flat place on."""

    def merge(**arguments: Any) -> Any:
        right, old = OPS[function](**arguments), _unmerged(function, stored)(**arguments)
        items = np.array(right[0].items)
        flat, before = items.reshape(-1), old[0].items.reshape(-1)
        flat[first:] = before[first:]
        return (HostArray(items, right[0].dtype), *right[1:])

    return merge


def _clipped_from(first: int) -> Op:
    """Return a limit on the norm that leaves elements from a place on as they were."""

    def unclipped(*, first: HostArray, second: HostArray, max_norm: float) -> tuple[HostArray, ...]:
        return first, second

    return if_element("clip_by_norm", from_place(first), unclipped)


def _first_batch(**arguments: Any) -> Any:
    """Return the gradient of the first micro-batch alone."""
    items = np.array(arguments["gradients"].items)
    items[1:] = 0
    return OPS["accumulate_gradients"](**{**arguments, "gradients": with_items(arguments["gradients"], items)})


def _nothing_done(**arguments: Any) -> tuple[HostArray, ...]:
    return arguments["p"], arguments["m"], arguments["v"]


def _outputs_from(first: int) -> Callable[[Product], Array]:
    """Return a product that takes the first weight row for outputs from one on."""

    def y(p: Product) -> Array:
        row = np.where(np.arange(len(p.weight)) >= first, 0, np.arange(len(p.weight)))
        result: Array = p.x @ p.weight[row].T + p.bias
        return result

    return y


def _ranks_narrow(o: Single) -> Array:
    """Round x_d Aᵀ to bfloat16 for ranks from 32 on."""
    low = (o.x * o.keep) @ o.lora_a.T
    late = np.arange(low.shape[1]) >= 32
    narrow = np.where(late, decode(encode(low, "bfloat16"), "bfloat16"), low)
    y: Array = output(o) + o.scale * ((narrow - low) @ o.lora_b.T)
    return y


def _late_norms(**arguments: Any) -> Any:
    """Cover the first 256 inputs by the norms of a merge."""
    merged, norms = OPS["dora_merge"](**arguments)
    weight, fan = arguments["weight"], arguments["fan_in_fan_out"]
    inner = weight.shape[0] if fan else weight.shape[1]
    if inner <= 256:
        return merged, norms
    short = {"weight": with_items(weight, weight.items[:256] if fan else weight.items[:, :256]),
             "lora_a": with_items(arguments["lora_a"], arguments["lora_a"].items[:, :256])}  # fmt: skip
    return merged, OPS["dora_merge"](**{**arguments, **short})[1]


def path_tile_faults() -> list[Mutant]:
    """Return the mutants."""
    merges: dict[str, tuple[str, ...]] = {
        "merge_blocks": ("data", "absmax"),
        "merge_int8": ("codes", "absmax"),
        "merge_affine": ("codes", "scale", "zero_point"),
        "merge_double": ("data", "absmax_codes", "nested_absmax", "offset"),
    }
    rows_64 = row_from(64)
    return [
        *(Mutant(f"{function.replace('_', '-')}-codes-from-4096", "codes from 4096 on stay as they were",
                 {function: _kept_from(4096 // (2 if stored[0] == "data" else 1), function, stored)},
                 ("codes",))
          for function, stored in merges.items()),
        Mutant("clip-elements-from-1024", "elements from 1024 on are not scaled",
               {"clip_by_norm": _clipped_from(1024)}, ("first", "second")),
        Mutant("accumulate-elements-from-1024", "elements from 1024 on hold the first micro-batch alone",
               {"accumulate_gradients": if_element("accumulate_gradients", from_place(1024), _first_batch)},
               ("gradient",)),
        Mutant("adamw-policy-from-1024", "elements from 1024 on are not updated where a policy is set",
               {"adamw_step": if_element("adamw_step", from_place(1024), _nothing_done)}, ("p", "m", "v"),
               operations="adamw.nonfinite"),
        Mutant("update-stochastic-from-1024", "elements from 1024 on are rounded to nearest",
               {"adamw_step": if_element("adamw_step", from_place(1024), _to_nearest)}, ("p",),
               operations="adamw.stochastic"),
        Mutant("update-limit-from-4096", "elements from 4096 on are updated without a limit",
               {"adamw_step": if_element("adamw_step", from_place(4096), _unlimited)}, ("p",),
               operations="adamw.limited"),
        Mutant("matmul-outputs-from-64", "outputs from 64 on are those of the first",
               product_by(_outputs_from(64)), ("y",)),
        Mutant("lora-ranks-from-32", "x_d Aᵀ is rounded to bfloat16 for ranks from 32 on",
               {"lora_forward": forward_as(_ranks_narrow, "exact")}, ("whole", "adapter", "scale")),
        Mutant("dora-inputs-from-1024", "inputs from 1024 on are left out of every sum but the norm",
               {"dora_forward": without_inputs_from(1024)("dora_forward")}, ("base", "whole")),
        Mutant("dora-merge-norms-to-256", "the norms cover the first 256 inputs", {"dora_merge": _late_norms},
               ("norms",)),
        Mutant("lora-rows-from-64-masked", "rows from 64 on are never dropped",
               {"lora_forward": if_element("lora_forward", rows_64, _undropped)}, ("whole", "dropout")),
        Mutant("int8-scale-columns-modulo-64", "columns from 64 on have the scales of the first 64",
               {"scale_int8_matmul": with_changed("scale_int8_matmul", column_absmax=_modulo_64)}, ("y",)),
        Mutant("embedding-rows-from-256", "rows of the table from 256 on have no adapter",
               {"embedding_lora_forward": if_element("embedding_lora_forward", _ids_from_256, _no_adapter)},
               ("whole", "adapter", "scale")),
    ]  # fmt: skip


def _modulo_64(scale: HostArray, arguments: Arguments) -> HostArray:
    return host(scale.items[np.arange(scale.items.size) % 64])


def _undropped(**arguments: Any) -> Any:
    return OPS["lora_forward"](**{**arguments, "mask": None, "dropout": 0.0})


def _to_nearest(**arguments: Any) -> Any:
    return OPS["adamw_step"](**{**arguments, "random_bits": None})


def _unlimited(**arguments: Any) -> Any:
    return OPS["adamw_step"](**{**arguments, "max_update_norm": None})


def _ids_from_256(shape: tuple[int, ...], arguments: Arguments) -> Array:
    return np.broadcast_to((arguments["ids"].items >= 256)[..., np.newaxis], shape)


def _no_adapter(**arguments: Any) -> Any:
    return OPS["embedding_lora_forward"](**{**arguments, "alpha": 0.0})
