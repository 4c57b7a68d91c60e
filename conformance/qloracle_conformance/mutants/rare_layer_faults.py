"""Layers and merges that are wrong for what is rarely given: many ranks, two rows, the code -128, NaN in an adapter."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.rounding import decode, encode
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.mutant import Mutant, Op
from qloracle_conformance.mutants.two_paths import (
    Arguments,
    if_call,
    if_element,
    row_from,
    with_changed,
    with_items,
    without_inputs_from,
)

REQUANTIZED = {
    "merge_blocks": ("absmax", "codes"),
    "merge_double": ("codes", "offset", "nested_absmax", "nested_codes"),
    "merge_int8": ("absmax", "codes"),
    "merge_affine": ("scale", "zero_point", "codes"),
    "merge_blocks_original": ("absmax", "codes"),
}  # function → the stages of what it returns


def _threshold_in_dtype(**arguments: Any) -> Any:
    """Compare with the threshold as the format of x holds it."""
    dtype = arguments["x"].dtype
    narrow = decode(encode(np.array([arguments["threshold"]]), dtype), dtype)[0]
    return OPS["llm_int8_forward"](**{**arguments, "threshold": float(narrow)})


def _without_lowest(codes: HostArray, arguments: Arguments) -> HostArray:
    return host(np.maximum(codes.items, np.int8(-127)))


def _rows_of(arguments: Arguments) -> int:
    return int(np.prod(arguments["x"].shape[:-1], dtype=np.int64))


def _last_input_left_out(function: str) -> Op:
    def op(**arguments: Any) -> Any:
        return without_inputs_from(arguments["x"].shape[-1] - 1)(function)(**arguments)

    return op


def _column_from(first: int) -> Callable[[tuple[int, ...], Arguments], Array]:
    """Mark all elements of a row from one on."""
    return lambda shape, _: np.broadcast_to(np.arange(shape[-1] if shape else 1) >= first, shape)


def _first_repeated(function: str, output: int = 0) -> Op:
    """Return a function whose output repeats its first column."""

    def op(**arguments: Any) -> Any:
        found = OPS[function](**arguments)
        parts = list(found) if isinstance(found, tuple) else [found]
        items = parts[output].items
        parts[output] = with_items(parts[output], np.broadcast_to(items[..., :1], items.shape))
        return tuple(parts) if isinstance(found, tuple) else parts[0]

    return op


def without_ranks_from(first: int) -> Callable[[str], Op]:
    """Return, for a function, one that leaves the ranks from one on out."""

    def shortened(lora_b: HostArray, arguments: Arguments) -> HostArray:
        kept = np.arange(lora_b.shape[1]) < first
        return with_items(lora_b, np.where(kept, lora_b.items, np.zeros((), lora_b.items.dtype)))

    return lambda function: with_changed(function, lora_b=shortened)


def _nan_as_zero(matrix: HostArray, arguments: Arguments) -> HostArray:
    return with_items(matrix, np.where(np.isnan(matrix.real()), np.zeros((), matrix.items.dtype), matrix.items))


def _first_four(weights: tuple[float, ...], arguments: Arguments) -> tuple[float, ...]:
    return tuple(weight if place < 4 else 0.0 for place, weight in enumerate(weights))


def _in_format_of_weight(matrix: HostArray, arguments: Arguments) -> HostArray:
    dtype = arguments["weight"].dtype
    return host(np.asarray(encode(matrix.single(), dtype)), dtype)


def _plain_scale(rank_stabilized: bool, arguments: Arguments) -> bool:  # as `with_changed` calls it
    return False


def _turned(arguments: Arguments) -> bool:
    return bool(arguments.get("fan_in_fan_out", False))


def _without(function: str, name: str) -> Op:
    return lambda **arguments: OPS[function](**{**arguments, name: None})


def _small_letters(**arguments: Any) -> Any:
    """Compare names and listed targets without regard to capitals."""
    if isinstance(arguments["targets"], str):
        return OPS["select_targets"](**arguments)
    small = {name: tuple(part.lower() for part in arguments[name]) for name in ("names", "targets")}
    return OPS["select_targets"](**{**arguments, **small})


def rare_layer_faults() -> list[Mutant]:
    """Return the mutants of layers, embeddings and merges."""
    weight_only = ("int8_weight_forward", "affine_weight_forward")
    return [
        Mutant("llm-threshold-in-dtype", "the threshold is rounded to the format of the activations",
               {"llm_int8_forward": _threshold_in_dtype}, ("outliers",)),
        Mutant("llm-outputs-from-256", "outputs from 256 on are those of the first",
               {"llm_int8_forward": if_element("llm_int8_forward", _column_from(256),
                                               _first_repeated("llm_int8_forward", 3), 3)}, ("y",)),
        Mutant("int8-lowest-as-next", "the code -128 is restored as -127",
               {"dequantize_int8": with_changed("dequantize_int8", codes=_without_lowest)}, ("values",)),
        Mutant("weight-only-lowest-as-next", "the code -128 is multiplied as -127",
               {"int8_weight_forward": with_changed("int8_weight_forward", codes=_without_lowest)}, ("y",)),
        Mutant("weight-only-two-rows", "two rows are multiplied without the last input",
               {f: if_call(f, lambda a: _rows_of(a) == 2, _last_input_left_out(f)) for f in weight_only}, ("y",)),
        Mutant("weight-only-nine-to-twelve-rows", "9 to 12 rows are multiplied without the last input",
               {f: if_call(f, lambda a: 9 <= _rows_of(a) <= 12, _last_input_left_out(f)) for f in weight_only}, ("y",)),
        Mutant("weight-only-rows-from-256", "the last input is left out in rows from 256 on",
               {f: if_element(f, row_from(256), _last_input_left_out(f)) for f in weight_only}, ("y",)),
        Mutant("weight-only-outputs-from-256", "outputs from 256 on are those of the first",
               {f: if_element(f, _column_from(256), _first_repeated(f)) for f in weight_only}, ("y",)),
        Mutant("embedding-ranks-from-16", "ranks from 16 on are left out",
               {"embedding_lora_forward": without_ranks_from(16)("embedding_lora_forward")},
               ("adapter", "whole", "scale")),
        Mutant("embedding-gradient-ranks-from-16", "ranks from 16 on are left out of the gradient of A",
               {"embedding_lora_backward": without_ranks_from(16)("embedding_lora_backward")}, ("lora_a",)),
        Mutant("embedding-dimensions-from-128", "dimensions from 128 on are those of the first",
               {"embedding_lora_forward": if_element("embedding_lora_forward", _column_from(128),
                                                     _first_repeated("embedding_lora_forward"))},
               ("base", "adapter", "whole", "scale")),
        Mutant("lora-turned-bias-missing", "the adapter's bias is missing where the weight is stored transposed",
               {"lora_forward": if_call("lora_forward", _turned, _without("lora_forward", "lora_bias"))}, ("whole",)),
        Mutant("lora-turned-ranks-from-8", "ranks from 8 on are left out where the weight is stored transposed",
               {"lora_forward": if_call("lora_forward", _turned, without_ranks_from(8)("lora_forward"))}, ("whole",)),
        *(Mutant(f"{f.replace('_', '-')}-root-ignored", "rsLoRA's root is ignored",
                 {f: with_changed(f, rank_stabilized=_plain_scale)}, stages) for f, stages in REQUANTIZED.items()),
        *(Mutant(f"{f.replace('_', '-')}-ranks-from-32", "ranks from 32 on are left out",
                 {f: without_ranks_from(32)(f)}, REQUANTIZED[f]) for f in ("merge_blocks", "merge_int8")),
        *(Mutant(f"{f.replace('_', '-')}-nan-as-zero", "a NaN of the adapter counts as zero",
                 {f: with_changed(f, lora_a=_nan_as_zero, lora_b=_nan_as_zero)}, REQUANTIZED[f])
          for f in ("merge_blocks", "merge_affine")),
        Mutant("dora-merge-adapter-in-weight-format", "A and B are rounded to the format of the weight",
               {"dora_merge": with_changed("dora_merge", lora_a=_in_format_of_weight, lora_b=_in_format_of_weight)},
               ("weight", "norms")),
        Mutant("combine-four-adapters", "adapters after the fourth are left out",
               {"combine_adapters": with_changed("combine_adapters", weights=_first_four)}, ("delta",)),
        Mutant("targets-small-letters", "capitals of listed targets and of names are not told apart",
               {"select_targets": _small_letters}, ("selected",)),
    ]  # fmt: skip
