"""Faults of counting whole models and training: what is forgotten, or counted in the wrong place."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.footprint.training import OPTIMIZERS
from qloracle.formats import Array
from qloracle_conformance import counted
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.mutant import Mutant, Op


def _model_by(change: Callable[[dict[str, Any], dict[str, Any]], tuple[int, int]]) -> Op:
    def model(shapes: HostArray, quantized: HostArray, item_bytes: HostArray, **options: Any) -> tuple[HostArray, ...]:
        arrays = {"shapes": shapes.items, "quantized": quantized.items, "item_bytes": item_bytes.items}
        return tuple(host(np.array(number, np.int64)) for number in change(options, arrays))

    return model


def _without_buffers(options: dict[str, Any], arrays: dict[str, Any]) -> tuple[int, int]:
    right = counted.model(**arrays, **options)
    return right.total - right.buffers, right.printed - right.buffers


def _buffers_as_weights(options: dict[str, Any], arrays: dict[str, Any]) -> tuple[int, int]:
    widths = np.where(arrays["item_bytes"] != 0, -1, 0)
    right = counted.model(**{**arrays, "item_bytes": widths}, **options)
    return right.total, right.printed


def _rest_in_float32(options: dict[str, Any], arrays: dict[str, Any]) -> tuple[int, int]:
    right = counted.model(**arrays, **{**options, "other": "float32"})
    return right.total, right.printed


def _all_quantized(options: dict[str, Any], arrays: dict[str, Any]) -> tuple[int, int]:
    right = counted.model(**{**arrays, "quantized": arrays["item_bytes"] == 0}, **options)
    return right.total, right.printed


def _printed_with_scales(options: dict[str, Any], arrays: dict[str, Any]) -> tuple[int, int]:
    right = counted.model(**arrays, **options)
    return right.total, right.printed + right.scales


def _printed_total(options: dict[str, Any], arrays: dict[str, Any]) -> tuple[int, int]:
    right = counted.model(**arrays, **options)
    return right.total, right.total


def _printed_elements(options: dict[str, Any], arrays: dict[str, Any]) -> tuple[int, int]:
    """Add up nelement without element_size for packed weights: one for each byte of two codes."""
    right = counted.model(**arrays, **options)
    return right.total, right.printed - right.codes + right.quantized_parameters


def _total_printed(options: dict[str, Any], arrays: dict[str, Any]) -> tuple[int, int]:
    right = counted.model(**arrays, **options)
    return right.printed, right.printed


def _no_tables(options: dict[str, Any], arrays: dict[str, Any]) -> tuple[int, int]:
    right = counted.model(**arrays, **options)
    return right.total - right.tables, right.printed


def _adapters_by(change: Callable[[Array], Array]) -> Op:
    def adapters(shapes: HostArray, targeted: HostArray, *, rank: int) -> HostArray:
        return host(change(counted.adapters(shapes.items, targeted.items, rank)).astype(np.int64))

    return adapters


def _adapters_everywhere(shapes: HostArray, targeted: HostArray, *, rank: int) -> HostArray:
    return host(counted.adapters(shapes.items, np.ones(len(shapes.items), np.bool_), rank))


def _adapters_transposed(shapes: HostArray, targeted: HostArray, *, rank: int) -> HostArray:
    return host(counted.adapters(shapes.items[:, ::-1], targeted.items, rank))


def _states_by(count: Callable[[int], int], tables: int = 2048, only: str = "8bit") -> Op:
    def states(sizes: HostArray, *, optimizer: str) -> HostArray:
        if not optimizer.endswith(only):
            return host(counted.states(sizes.items, optimizer))
        found = sum(count(int(size)) for size in sizes.items)
        return host(np.array(found + (tables if only == "8bit" else 0), np.int64))

    return states


def _states_misnamed(sizes: HostArray, *, optimizer: str) -> HostArray:
    """Take a paged optimizer for one of 32 bits."""
    return host(counted.states(sizes.items, OPTIMIZERS[0] if optimizer.startswith("paged") else optimizer))


def _training_by(change: Callable[[dict[str, Any], Array, Array], None]) -> Op:
    """Return a function that changes parts by name; the total follows."""

    def training(shapes: HostArray, **options: Any) -> HostArray:
        parts = counted.training(shapes.items, **options)
        change(options, shapes.items, parts)
        parts[-1] = parts[:5].sum()
        return host(parts)

    return training


def _no_masters(options: dict[str, Any], shapes: Array, parts: Array) -> None:
    parts[2] = 0


def _float32_gradients(options: dict[str, Any], shapes: Array, parts: Array) -> None:
    trained = counted.training(shapes, **{**options, "adapter_format": "float32"})[3]
    parts[3] = 4 * np.prod(shapes, axis=1).sum() if options["method"] == "full" else trained


def _all_states(options: dict[str, Any], shapes: Array, parts: Array) -> None:
    parts[4] = counted.states(np.prod(shapes, axis=1), options["optimizer"])
    parts[5] = max(parts[4] - options["device_budget"], 0) if options["optimizer"].startswith("paged") else 0


def _nothing_on_the_host(options: dict[str, Any], shapes: Array, parts: Array) -> None:
    parts[5] = 0


def _budget_ignored(options: dict[str, Any], shapes: Array, parts: Array) -> None:
    parts[5] = parts[4] if options["optimizer"].startswith("paged") else 0


def _no_adapters(options: dict[str, Any], shapes: Array, parts: Array) -> None:
    parts[1] = 0


def _base_as_printed(options: dict[str, Any], shapes: Array, parts: Array) -> None:
    quantized = np.ones(len(shapes), np.bool_)
    rest = {"block_size": 64, "other": "float16", "tables": "shared", "scheme": options["scheme"]}
    parts[0] = counted.model(shapes, quantized, np.zeros(len(shapes), np.int64), **rest).printed


def _gradients_of_the_base(options: dict[str, Any], shapes: Array, parts: Array) -> None:
    if options["method"] == "lora":
        parts[3] += parts[0]


def training_faults() -> list[Mutant]:
    """Return the mutants."""

    def model(name: str, fault: str, change: Any, stage: str) -> Mutant:
        return Mutant(f"footprint-{name}", fault, {"model_footprint": _model_by(change)}, (stage,))

    def training(name: str, fault: str, change: Any) -> Mutant:
        return Mutant(f"footprint-{name}", fault, {"training_memory": _training_by(change)}, ("parts",))

    def other(name: str, fault: str, function: str, op: Op, stage: str) -> Mutant:
        return Mutant(f"footprint-{name}", fault, {function: op}, (stage,))

    return [
        model("buffers-forgotten", "buffers are not counted", _without_buffers, "total"),
        model("buffers-cast", "buffers are counted in the width of the model", _buffers_as_weights, "total"),
        model("rest-in-float32", "what is not quantized is counted as float32", _rest_in_float32, "total"),
        model("all-quantized", "embeddings and norms are counted as quantized", _all_quantized, "total"),
        model("tables-not-in-total", "the total leaves the tables out", _no_tables, "total"),
        model("total-as-printed", "the total is what tools print", _total_printed, "total"),
        model("printed-with-scales", "the printed number counts scales", _printed_with_scales, "printed"),
        model("printed-total", "the printed number is the honest total", _printed_total, "printed"),
        model("printed-elements", "the printed number counts codes, not bytes", _printed_elements, "printed"),
        other("adapters-swapped", "A and B are exchanged", "adapter_shapes",
              _adapters_by(lambda s: s.reshape(-1, 2, 2)[:, ::-1].reshape(-1, 2)), "shapes"),
        other("adapters-transposed", "d_in and d_out are exchanged", "adapter_shapes", _adapters_transposed, "shapes"),
        other("adapters-on-all", "every weight gets an adapter", "adapter_shapes", _adapters_everywhere, "shapes"),
        other("states-one-moment", "one moment is counted", "state_bytes",
              _states_by(lambda n: 4 * n, only="32bit"), "states"),
        other("states-without-absmax", "the absmax of the states are not counted", "state_bytes",
              _states_by(lambda n: 2 * n), "states"),
        other("states-whole-blocks", "a partial block of a state has no absmax", "state_bytes",
              _states_by(lambda n: 2 * (n + 4 * (n // 256))), "states"),
        other("states-blocks-of-2048", "states are counted in blocks of 2048", "state_bytes",
              _states_by(lambda n: 2 * (n + 4 * -(-n // 2048))), "states"),
        other("states-small-in-32-bits", "small tensors keep float32 states", "state_bytes",
              _states_by(lambda n: 8 * n if n < 4096 else 2 * (n + 4 * -(-n // 256))), "states"),
        other("states-without-tables", "the tables of the states are not counted", "state_bytes",
              _states_by(lambda n: 2 * (n + 4 * -(-n // 256)), tables=0), "states"),
        other("states-paged-in-32-bits", "paged states are counted in 32 bits", "state_bytes",
              _states_misnamed, "states"),
        training("no-masters", "master weights are not counted", _no_masters),
        training("float32-gradients", "gradients are counted in float32", _float32_gradients),
        training("states-of-the-base", "states are counted for the frozen weights", _all_states),
        training("gradients-of-the-base", "gradients are counted for the frozen weights", _gradients_of_the_base),
        training("nothing-on-the-host", "paged states are counted on the device", _nothing_on_the_host),
        training("budget-ignored", "the budget of a paged optimizer is ignored", _budget_ignored),
        training("no-adapters", "the adapters' own weights are not counted", _no_adapters),
        training("base-as-printed", "the base is counted as tools print it", _base_as_printed),
    ]  # fmt: skip
