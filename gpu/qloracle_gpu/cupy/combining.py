"""Several adapters of one layer, combined with weights.

    Δ = Σ_i w_i s_i B_i A_i        A = [w_1 s_1 A_1; w_2 s_2 A_2; …],  B = [B_1, B_2, …],  s = 1

The second form is one adapter of rank Σ r_i whose B A is the very same Δ.
Clauses: ``[adapters.combine]``, ``[adapters.concatenate]``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from qloracle.errors import reject_type, reject_value, require_items, require_number, require_one_of
from qloracle.formats import FLOAT32, TENSOR_FORMATS, Format, format_named
from qloracle_gpu.cupy.arrays import carrier
from qloracle_gpu.cupy.launcher import Array, Operation, operation
from qloracle_gpu.cupy.lora import combined, product
from qloracle_gpu.cupy.operands import lora_scale, matrix, output_format, require_matrix_operand, scaled, zeros
from qloracle_gpu.cupy.rounding import encode, widened


@dataclass(frozen=True)
class LoraAdapter:
    """One adapter of a layer, with all that its scale depends on."""

    lora_a: Array  # (r, d_in)
    lora_b: Array  # (d_out, r)
    alpha: float
    rank_stabilized: bool = False
    fmt: str | None = None  # format of matrices that are bit patterns


@dataclass(frozen=True)
class _Part:
    """One adapter, checked, and the factor w s of its product."""

    lora_a: tuple[Array, Format]
    lora_b: tuple[Array, Format]
    factor: np.float32

    def matrices(self, run: Operation) -> tuple[Array, Array]:
        a, b = (matrix(run, operand, *operand[0].shape) for operand in (self.lora_a, self.lora_b))
        return a, b


def combine_adapters(
    adapters: Sequence[LoraAdapter], weights: Sequence[float], *, out_dtype: str | None = None
) -> Array:
    """Return the change of the weight that several adapters make together.

    Δ = Σ_i w_i s_i B_i A_i

    Parameters
    ----------
    adapters : sequence of LoraAdapter
        At least one, of any ranks, all of one layer.
    weights : sequence of float
        One for each adapter, finite; negative ones subtract.
    out_dtype : {"float32", "float16", "bfloat16"}, optional
        Format of the result; by default that of the first adapter's A.

    Returns
    -------
    array of `out_dtype`, shape (d_out, d_in)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        If there is no adapter, a weight is missing or not finite, or shapes do not belong together.

    Notes
    -----
    Clause ``[adapters.combine]``. Declared roundings: w s, products and sums to float32; then one to `out_dtype`.
    """
    parts = _parts(adapters, weights)
    target = output_format(out_dtype, parts[0].lora_a[1])
    with operation("combine_adapters", lora_a=parts[0].lora_a[0], lora_b=parts[0].lora_b[0]) as run:
        total = zeros(run, (len(parts[0].lora_b[0]), parts[0].lora_a[0].shape[1]))
        for part in parts:
            a, b = part.matrices(run)
            total = combined(run, total, FLOAT32, low=product(run, b, a), scale=part.factor)
        return scaled(run, total, np.float32(1), target)


def concatenate_adapters(
    adapters: Sequence[LoraAdapter], weights: Sequence[float], *, fmt: str = "float32"
) -> LoraAdapter:
    """Return one adapter that makes the same change of the weight: the factors side by side.

    A = RN_fmt([w_1 s_1 A_1; w_2 s_2 A_2; …]), B = [B_1, B_2, …], alpha = rank, so that s = 1.

    Parameters
    ----------
    adapters, weights
        As for `combine_adapters`.
    fmt : {"float32", "float16", "bfloat16"}
        Format of the result.

    Returns
    -------
    LoraAdapter
        Of rank Σ r_i, which may exceed the layer's smaller side.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `combine_adapters`, and if `fmt` is unknown or cannot hold B, which waits for the device.

    Notes
    -----
    Clause ``[adapters.concatenate]``. Declared roundings: w s and its product to float32; one to `fmt`. B is copied.
    """
    parts, target = _parts(adapters, weights), format_named(require_one_of("fmt", fmt, TENSOR_FORMATS))
    rank = sum(len(part.lora_a[0]) for part in parts)
    with operation("concatenate_adapters", lora_a=parts[0].lora_a[0], lora_b=parts[0].lora_b[0]) as run:
        stacked = run.empty((rank, parts[0].lora_a[0].shape[1]), carrier(target))
        beside = run.empty((len(parts[0].lora_b[0]), rank), carrier(target))
        first = 0
        for part in parts:
            a, b = part.matrices(run)
            stacked[first : first + len(a)] = scaled(run, a, part.factor, target)
            beside[:, first : first + len(a)] = _held(run, b, target)
            first += len(a)
    return LoraAdapter(stacked, beside, float(rank), False, fmt)


def _held(run: Operation, values: Array, target: Format) -> Array:
    """Return float32 values in a format that holds every one of them, else raise."""
    made = encode(values, target.name).view(carrier(target))
    words, back = values.view("uint32"), widened(run, made, target).view("uint32").reshape(values.shape)
    nan = (words & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    if bool(((words != back) & ~nan).any()):
        reject_value("fmt", "a format that holds every element of lora_b", repr(target.name))
    return made


def _parts(adapters: object, weights: object) -> list[_Part]:
    """Return the adapters and their factors after checking that all belong to one layer."""
    given = require_items("adapters", adapters, "a sequence of LoraAdapter")
    numbers = require_items("weights", weights, "a sequence of numbers")
    if not len(given) or len(given) != len(numbers):
        reject_value("weights", f"one for each of at least one adapter, {len(given)}", len(numbers))
    parts = [_part(i, adapter, weight) for i, (adapter, weight) in enumerate(zip(given, numbers, strict=True))]
    shape = (len(parts[0].lora_b[0]), parts[0].lora_a[0].shape[1])
    for index, part in enumerate(parts):
        own = (len(part.lora_b[0]), part.lora_a[0].shape[1])
        if own != shape:
            reject_value(f"adapters[{index}]", f"of a layer of shape {shape}", own)
    return parts


def _part(index: int, adapter: object, weight: object) -> _Part:
    if not isinstance(adapter, LoraAdapter):
        reject_type(f"adapters[{index}]", "a LoraAdapter", type(adapter).__name__)
    number = require_number(f"weights[{index}]", weight)
    if not isfinite(number):
        reject_value(f"weights[{index}]", "finite", number)
    a = require_matrix_operand(f"adapters[{index}].lora_a", adapter.lora_a, adapter.fmt)
    b = require_matrix_operand(f"adapters[{index}].lora_b", adapter.lora_b, adapter.fmt)
    if b[0].shape[1] != len(a[0]):
        reject_value(f"adapters[{index}].lora_b", f"of shape (d_out, {len(a[0])})", b[0].shape)
    with np.errstate(over="ignore"):
        factor = np.float32(number * lora_factor(adapter, len(a[0])))
    return _Part(a, b, factor)


def lora_factor(adapter: LoraAdapter, rank: int) -> float:
    """Return s of an adapter, rounded to float32."""
    return float(lora_scale(adapter.alpha, rank, rank_stabilized=adapter.rank_stabilized))
