"""Faults of LoRA and QLoRA layers: roundings on the way, tiles, squares, and gradients that miss a part."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.lora import dropout_factor, lora_scale
from qloracle.operands import as_rows
from qloracle.packing import unpack_4bit
from qloracle.rounding import decode, encode
from qloracle.tables import codebook_named
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.kernels import stored_items
from qloracle_conformance.mutants.mutant import Mutant, Op

TILE = 64  # rows that one thread block of the imagined kernel works on


@dataclass(frozen=True)
class Operands:
    """The operands of a layer as real numbers; x and dy as matrices of all rows."""

    x: Array
    weight: Array
    lora_a: Array
    lora_b: Array
    bias: Array
    factor: Array  # mask/(1 − p) for each element of x
    scale: float
    dtype: str
    dy: Array

    def narrow(self, values: Array) -> Array:
        """Return values rounded to the format of the layer."""
        return decode(encode(values, self.dtype), self.dtype)

    @property
    def hidden(self) -> Array:
        """x_d Aᵀ."""
        product: Array = (self.x * self.factor) @ self.lora_a.T
        return product

    @property
    def base(self) -> Array:
        """X Wᵀ + b."""
        product: Array = self.x @ self.weight.T + self.bias
        return product


def _operands(arguments: dict[str, Any]) -> Operands:
    real = {n: a.real() for n, a in arguments.items() if isinstance(a, HostArray) and a.is_float}
    mask, x = arguments.get("mask"), real["x"]
    weight = real["weight"].T if arguments.get("fan_in_fan_out") else real["weight"]
    factor = dropout_factor(None if mask is None else mask.items, arguments["dropout"], x.shape)
    return Operands(
        x=as_rows(x), weight=weight, lora_a=real["lora_a"], lora_b=real["lora_b"],
        bias=real.get("bias", np.zeros(len(weight))),
        factor=as_rows(np.broadcast_to(factor, x.shape)),
        scale=lora_scale(arguments["alpha"], len(real["lora_a"]), rank_stabilized=arguments["rank_stabilized"]),
        dtype=arguments["x"].dtype,
        dy=as_rows(real["dy"]) if "dy" in real else np.zeros((len(as_rows(x)), len(weight))),
    )  # fmt: skip


def forward_by(formula: Callable[[Operands], Array]) -> Op:
    """Return a layer that computes y by a formula of its own, in float64."""

    def forward(**arguments: Any) -> HostArray:
        x = arguments["x"]
        with np.errstate(all="ignore"):
            y = formula(_operands(arguments))
        return host(
            encode(y.reshape(*x.shape[:-1], -1) if y.size else y.reshape(*x.shape[:-1], y.shape[-1]), x.dtype), x.dtype
        )

    return forward


def backward_with(index: int, formula: Callable[[Operands], Array]) -> Op:
    """Return a backward pass, one of whose gradients (x, A, B, bias) is computed by a formula of its own."""

    def backward(**arguments: Any) -> tuple[HostArray, ...]:
        gradients = list(OPS["lora_backward"](**arguments))
        with np.errstate(all="ignore"):
            wrong = formula(_operands(arguments)).reshape(gradients[index].shape)
        gradients[index] = host(encode(wrong, arguments["x"].dtype), arguments["x"].dtype)
        return tuple(gradients)

    return backward


def _hidden_narrow(o: Operands) -> Array:
    return o.base + o.scale * (o.narrow(o.hidden) @ o.lora_b.T)


def _base_narrow(o: Operands) -> Array:
    return o.narrow(o.base) + o.scale * (o.hidden @ o.lora_b.T)


def _partial_sums_narrow(o: Operands) -> Array:
    starts = range(0, o.x.shape[1], TILE)
    base = sum(
        (o.narrow(o.x[:, k : k + TILE] @ o.weight[:, k : k + TILE].T) for k in starts),
        np.zeros((len(o.x), len(o.weight))),
    )
    return base + o.bias + o.scale * (o.hidden @ o.lora_b.T)


def _subnormal_x_lost(o: Operands) -> Array:
    smallest = 2.0**-14 if o.dtype == "float16" else 2.0**-126
    x = np.where(np.abs(o.x) < smallest, 0.0, o.x)
    return x @ o.weight.T + o.bias + o.scale * (o.hidden @ o.lora_b.T)


def _second_row_tile_without_adapter(o: Operands) -> Array:
    first = (np.arange(len(o.x)) < TILE)[:, np.newaxis]
    return o.base + np.where(first, o.scale * (o.hidden @ o.lora_b.T), 0.0)


def _rank_of_16(o: Operands) -> Array:
    return o.base + o.scale * (o.hidden[:, :16] @ o.lora_b[:, :16].T)


def _square_weight_as_stored(o: Operands) -> Array:
    square = o.weight.shape[0] == o.weight.shape[1]
    y: Array = o.x @ (o.weight if square else o.weight.T) + o.bias + o.scale * (o.hidden @ o.lora_b.T)
    return y


def _bias_in_first_row(o: Operands) -> Array:
    first = (np.arange(len(o.x)) == 0)[:, np.newaxis]
    y: Array = o.x @ o.weight.T + o.bias * first + o.scale * (o.hidden @ o.lora_b.T)
    return y


def _kept_scaled_down(o: Operands) -> Array:
    """Multiply what the mask keeps by 1 − p instead of dividing by it."""
    kept = o.factor != 0
    factor = np.where(kept, 1 / np.where(kept, o.factor, 1.0), 0.0)
    return o.base + o.scale * (((o.x * factor) @ o.lora_a.T) @ o.lora_b.T)


def _gradient_of_a_square(o: Operands) -> Array:
    gradient: Array = o.scale * ((o.dy @ o.lora_b).T @ (o.x * o.factor))
    return gradient.T if gradient.shape[0] == gradient.shape[1] else gradient


def _gradient_of_a_first_tile(o: Operands) -> Array:
    gradient: Array = o.scale * ((o.dy @ o.lora_b)[:TILE].T @ (o.x * o.factor)[:TILE])
    return gradient


def _gradient_of_b_unmasked(o: Operands) -> Array:
    gradient: Array = o.scale * (o.dy.T @ (o.x @ o.lora_a.T))
    return gradient


def _gradient_of_bias_whole_tiles(o: Operands) -> Array:
    rows = len(o.dy) - len(o.dy) % 32 if len(o.dy) > TILE else len(o.dy)
    gradient: Array = o.dy[:rows].sum(axis=0)
    return gradient


def _gradient_of_x_without_base(o: Operands) -> Array:
    gradient: Array = o.scale * o.factor * ((o.dy @ o.lora_b) @ o.lora_a)
    return gradient


def _mask_read_like_x(**arguments: Any) -> Any:
    """Read the mask with the strides of x: dense if x is."""
    mask, x = arguments["mask"], arguments["x"]
    if mask is not None and x.items.flags.c_contiguous and not mask.items.flags.c_contiguous:
        arguments = {**arguments, "mask": host(stored_items(mask.items))}
    return OPS["lora_forward"](**arguments)


def _absmax_by_row(**arguments: Any) -> Any:
    """Scale the weight as if every row started a new block."""
    shape, size = arguments["shape"], arguments["block_size"]
    codes = unpack_4bit(arguments["data"].items, int(np.prod(shape))).reshape(shape)
    across = max(1, -(-shape[1] // size))
    block = np.arange(shape[0])[:, np.newaxis] * across + np.arange(shape[1]) // size
    absmax = arguments["absmax"].items
    with np.errstate(all="ignore"):
        weight = codebook_named("nf4").entries[codes] * absmax[np.minimum(block, max(absmax.size - 1, 0))]
    rest = {n: v for n, v in arguments.items() if n not in ("data", "absmax", "codebook", "block_size", "shape")}
    return OPS["lora_forward"](**rest, weight=host(weight.astype(np.float32)))


def layer_faults() -> list[Mutant]:
    """Return the mutants of layers."""
    forward = [
        (
            "hidden-in-dtype",
            "x_d Aᵀ is rounded to the format of the layer",
            _hidden_narrow,
            ("adapter", "scale", "whole"),
        ),
        (
            "base-in-dtype",
            "x Wᵀ + b is rounded to the format of the layer before the adapter is added",
            _base_narrow,
            ("whole",),
        ),
        (
            "partial-sums-in-dtype",
            "the sum of each 64 products is rounded to the format of the layer",
            _partial_sums_narrow,
            ("base", "whole"),
        ),
        ("subnormal-x-lost", "subnormals of x count as zero", _subnormal_x_lost, ("base", "whole")),
        (
            "adapter-first-row-tile",
            "rows from 64 on lack the adapter",
            _second_row_tile_without_adapter,
            ("adapter", "scale", "whole"),
        ),
        ("rank-of-16", "ranks from 16 on are left out", _rank_of_16, ("whole", "adapter", "scale")),
        ("square-weight-as-stored", "a square weight is not transposed", _square_weight_as_stored, ("base", "whole")),
        ("bias-first-row", "the bias reaches the first row only", _bias_in_first_row, ("bias", "whole")),
        ("dropout-scaled-down", "what is kept is multiplied by 1 - p", _kept_scaled_down, ("dropout", "whole")),
    ]
    backward = [
        ("gradient-a-square", "a square gradient of A is transposed", 1, _gradient_of_a_square, "lora_a"),
        ("gradient-a-first-tile", "the gradient of A covers the first 64 rows", 1, _gradient_of_a_first_tile, "lora_a"),
        ("gradient-b-unmasked", "the gradient of B lacks the mask", 2, _gradient_of_b_unmasked, "lora_b"),
        (
            "gradient-bias-whole-tiles",
            "the gradient of the bias covers whole tiles of 32 rows",
            3,
            _gradient_of_bias_whole_tiles,
            "bias",
        ),
        ("gradient-x-without-base", "the gradient of x lacks dy W", 0, _gradient_of_x_without_base, "x"),
    ]
    return [
        *(Mutant(name, fault, {"lora_forward": forward_by(formula)}, stages)
          for name, fault, formula, stages in forward),
        *(Mutant(name, fault, {"lora_backward": backward_with(index, formula)}, (stage,))
          for name, fault, index, formula, stage in backward),
        Mutant("mask-read-like-x", "the mask is read with the strides of x", {"lora_forward": _mask_read_like_x},
               ("whole",)),
        Mutant("qlora-absmax-by-row", "every row of the weight starts a new block", {"qlora_forward": _absmax_by_row},
               ("base", "whole")),
    ]  # fmt: skip
