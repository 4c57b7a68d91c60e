"""Layers that are wrong on one of their paths: split sums, single rows, last tiles, odd ranks, batches."""

from collections.abc import Callable
from dataclasses import replace
from math import isqrt
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.adapter_operands import Single, backward_as, forward_as
from qloracle_conformance.mutants.lora_faults import TERMS, output
from qloracle_conformance.mutants.lora_gradient_faults import gradients, in_bfloat16, in_float16
from qloracle_conformance.mutants.mutant import Mutant, Op
from qloracle_conformance.mutants.two_paths import Arguments, if_call, with_changed

EXACT = "exact"


def _late_split(narrow: Callable[[Any], Any]) -> Callable[[Single], Array]:
    """Return a layer that adds the base in two halves beyond 512 inputs, the second of them through another format."""

    def y(o: Single) -> Array:
        inner = o.x.shape[1]
        if inner <= 512:
            return output(o)
        half = inner // 2
        second = o.x[:, half:] @ o.weight[:, half:].T
        y: Array = output(o) - second + narrow(second)
        return y

    return y


def _bias_each_split(o: Single) -> Array:
    return output(o, bias=2 * o.bias if o.x.shape[1] > 512 else o.bias)


def _last_tile_bare(o: Single) -> Array:
    """Leave the adapter out in the rows after the last whole tile of 16."""
    rows = len(o.x)
    bare = (np.arange(rows) >= rows - rows % 16) & (rows > 16)
    return output(o, scale=np.where(bare, 0.0, o.scale)[:, np.newaxis], shift=o.scale * o.lora_bias)


def _even_ranks(o: Single) -> Array:
    """Leave the last of an odd number of ranks out."""
    rank = len(o.lora_a)
    kept = rank - rank % 2 if rank > 1 else rank
    return output(replace(o, lora_a=o.lora_a[:kept], lora_b=o.lora_b[:, :kept]))


def _first_batch_mask(mask: HostArray, arguments: Arguments) -> HostArray:
    return host(np.ascontiguousarray(np.broadcast_to(mask.items[:1], mask.shape))) if mask.items.ndim > 2 else mask


def _whole_alpha(alpha: float, arguments: Arguments) -> float:
    return float(int(alpha))


def _integer_root(o: Single, arguments: Arguments) -> Any:
    rank = len(o.lora_a)
    return arguments["alpha"] / isqrt(rank) if arguments["rank_stabilized"] else o.scale


def _with_scale(layer: Callable[..., Any], scale: Callable[[Single, Arguments], Any], **names: str) -> Op:
    """Return a layer whose scale is computed from the arguments of the call."""
    made = forward_as if layer is output else backward_as

    def op(**arguments: Any) -> Any:
        return made(lambda o: layer(replace(o, scale=scale(o, arguments))), EXACT)(**arguments)

    return op


def _kept_in_dtype(o: Single, dtype: str) -> Array:
    """Round 1/(1 − p) to the format of x."""
    narrow = {"float16": in_float16, "bfloat16": in_bfloat16}.get(dtype, lambda v: v)
    return np.asarray(narrow(o.keep))


def _dropout_in_dtype(**arguments: Any) -> Any:
    return forward_as(lambda o: output(o, keep=_kept_in_dtype(o, arguments["x"].dtype)), EXACT)(**arguments)


def _is_vector(arguments: Arguments) -> bool:
    return len(arguments["x"].shape) == 1


def _unscaled_beyond_8(o: Single) -> tuple[Array, ...]:
    """Forget the scale in the gradient of A where the rank is above 8."""
    right = gradients(o)
    return right if len(o.lora_a) <= 8 else (right[0], right[1] / o.scale, *right[2:])


def _mask_of_first_rows(o: Single) -> tuple[Array, ...]:
    return gradients(o, keep_x=o.keep[np.arange(len(o.keep)) % 32])


def _in_dtype_each_64(dtype: str) -> Callable[[Single], tuple[Array, ...]]:
    """Return gradients of A and B that round the sum of each 64 rows to the format of x."""
    narrow = {"float16": in_float16, "bfloat16": in_bfloat16}.get(dtype, lambda v: v)

    def made(o: Single) -> tuple[Array, ...]:
        right = gradients(o)
        starts = range(0, len(o.x), 64)
        parts = [gradients(replace(o, x=o.x[i : i + 64], dy=o.dy[i : i + 64], keep=o.keep[i : i + 64]))
                 for i in starts]  # fmt: skip
        if len(parts) < 2:
            return right
        a, b = (sum(np.asarray(narrow(part[place])) for part in parts) for place in (1, 2))
        return right[0], np.asarray(a), np.asarray(b), *right[3:]

    return made


def _gradients_each_64(**arguments: Any) -> Any:
    return backward_as(_in_dtype_each_64(arguments["x"].dtype), EXACT)(**arguments)


def _last_batch_alone(**arguments: Any) -> Any:
    """Add up the last batch alone for the gradient of the bias."""
    right = OPS["lora_backward"](**arguments)
    dy, x = arguments["dy"], arguments["x"]
    if dy.items.ndim < 3 or not dy.items.size:
        return right
    rows = {"dy": HostArray(dy.items[-1], dy.dtype), "x": HostArray(x.items[-1], x.dtype), "mask": None}
    return (*right[:3], OPS["lora_backward"](**{**arguments, **rows, "dropout": 0.0})[3], *right[4:])


def _unwritten_without_rows(**arguments: Any) -> Any:
    """Leave the gradients of the adapter as they were allocated where there are no rows."""
    right = OPS["lora_backward"](**arguments)
    if arguments["dy"].items.size or not arguments["lora_a"].items.size:
        return right
    left = HostArray(np.ones_like(right[1].items), right[1].dtype)
    return (right[0], left, *right[2:])


def path_layer_faults() -> list[Mutant]:
    """Return the mutants of adapters."""
    forward: dict[str, tuple[str, Op]] = {
        "late-split-float16": ("the second half of a long sum passes through float16",
                               forward_as(_late_split(in_float16), EXACT)),
        "late-split-bfloat16": ("the second half of a long sum passes through bfloat16",
                                forward_as(_late_split(in_bfloat16), EXACT)),
        "bias-each-split": ("both halves of a long sum add the bias", forward_as(_bias_each_split, EXACT)),
        "last-tile-bare": ("rows after the last whole tile of 16 lack the adapter",
                           forward_as(_last_tile_bare, EXACT)),
        "even-ranks": ("the last of an odd number of ranks is left out", forward_as(_even_ranks, EXACT)),
        "first-batch-mask": ("the mask of the first batch serves all",
                             with_changed("lora_forward", mask=_first_batch_mask)),
        "root-ignored": ("rsLoRA's root is ignored", with_changed("lora_forward", rank_stabilized=lambda s, a: False)),
        "whole-alpha": ("alpha is an integer", with_changed("lora_forward", alpha=_whole_alpha)),
        "integer-root": ("the root of the rank is an integer", _with_scale(output, _integer_root)),
        "dropout-in-dtype": ("1/(1 - p) is a number of the format of x", _dropout_in_dtype),
        "vector-without-bias": ("the bias is not added to a single vector", if_call(
            "lora_forward", _is_vector, forward_as(lambda o: output(o, bias=0 * o.bias), EXACT))),
        "vector-without-adapter": ("the adapter is not applied to a single vector", if_call(
            "lora_forward", _is_vector, forward_as(lambda o: output(o, scale=0.0), EXACT))),
    }  # fmt: skip
    backward: dict[str, tuple[str, Op, tuple[str, ...]]] = {
        "a-unscaled-beyond-8": ("the gradient of A lacks the scale above rank 8",
                                backward_as(_unscaled_beyond_8, EXACT), ("lora_a",)),
        "mask-modulo-32": ("rows from 32 on take the masks of the first 32 in the gradient of x",
                           backward_as(_mask_of_first_rows, EXACT), ("x",)),
        "root-ignored": ("rsLoRA's root is ignored in the gradients",
                         with_changed("lora_backward", rank_stabilized=lambda s, a: False),
                         ("x", "lora_a", "lora_b", "lora_bias")),
        "whole-alpha": ("alpha is an integer in the gradients",
                        with_changed("lora_backward", alpha=_whole_alpha), ("x", "lora_a", "lora_b", "lora_bias")),
        "each-64": ("sums of each 64 rows are rounded to the format of x", _gradients_each_64, ("lora_a", "lora_b")),
        "last-batch-bias": ("the gradient of the bias adds up the last batch alone", _last_batch_alone, ("bias",)),
        "unwritten-without-rows": ("the gradient of A is not written where there are no rows",
                                   _unwritten_without_rows, ("lora_a",)),
    }  # fmt: skip
    return [
        *(Mutant(f"lora-{name}", fault, {"lora_forward": op}, TERMS) for name, (fault, op) in forward.items()),
        *(Mutant(f"gradient-{name}", fault, {"lora_backward": op}, stages)
          for name, (fault, op, stages) in backward.items()),
    ]  # fmt: skip
