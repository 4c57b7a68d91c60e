"""Several adapters of one layer, combined with weights.

    Δ = Σ_i w_i s_i B_i A_i        A = [w_1 s_1 A_1; w_2 s_2 A_2; …],  B = [B_1, B_2, …],  s = 1

The second form is one adapter of rank Σ r_i whose B A is the very same Δ. Every adapter brings its own rank, alpha and
kind of scale; its scale is in Δ once, and the combined adapter is not scaled again.
Clauses: ``[adapters.combine]``, ``[adapters.concatenate]``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from qloracle.errors import reject_value, require_flag, require_items, require_number, require_one_of, require_record
from qloracle.formats import FLOAT32, TENSOR_FORMATS
from qloracle_gpu.torch.autocast import ignores_autocast
from qloracle_gpu.torch.formats import (
    DTYPES,
    NAMES,
    dtype_named,
    require_device,
    require_tensor,
    require_tensor_format,
)
from qloracle_gpu.torch.lora import lora_scale
from qloracle_gpu.torch.matmul import require_float32_matmul


@dataclass(frozen=True)
class LoraAdapter:
    """One adapter of a layer, with all that its scale depends on."""

    lora_a: Tensor  # (r, d_in)
    lora_b: Tensor  # (d_out, r)
    alpha: float
    rank_stabilized: bool = False
    fmt: str | None = None  # format that both matrices must have; None: their dtypes tell

    def __post_init__(self) -> None:
        """Refuse fields of other types, and matrices of another format than was said."""
        for argument in ("lora_a", "lora_b"):
            tensor = require_tensor(argument, getattr(self, argument))
            if self.fmt is not None:
                require_one_of("fmt", self.fmt, TENSOR_FORMATS)
                if NAMES.get(tensor.dtype) != self.fmt:
                    reject_value("fmt", f"{tensor.dtype}, the dtype of {argument}", repr(self.fmt))
        require_number("alpha", self.alpha)
        require_flag("rank_stabilized", self.rank_stabilized)


def combine_adapters(
    adapters: Sequence[LoraAdapter], weights: Sequence[float], *, out_dtype: str = "float32"
) -> Tensor:
    """Return the change of the weight that several adapters make together.

    Δ = Σ_i w_i s_i B_i A_i

    Parameters
    ----------
    adapters : sequence of LoraAdapter
        At least one, of any ranks, all of one layer and on one device.
    weights : sequence of float
        One for each adapter, finite; negative ones subtract.
    out_dtype : {"float32", "float16", "bfloat16"}
        Format of the result.

    Returns
    -------
    tensor of shape (d_out, d_in)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If there is no adapter, a weight is missing or not finite, w s is beyond the largest float32 number, a dtype is
        none of the three, or shapes or devices do not belong together.
    MatmulPrecisionError
        If torch is set to multiply float32 with fewer bits.

    Notes
    -----
    Clause ``[adapters.combine]``. Declared roundings: w s in float64; products, sums and the product with w s in
    float32; one to the format of the result.

    Examples
    --------
    >>> one = torch.ones(1, 1)
    >>> combine_adapters([LoraAdapter(one, one, alpha=4), LoraAdapter(one, 3 * one, alpha=2)], [0.5, -1])
    tensor([[-4.]])
    """
    dtype = dtype_named(out_dtype, "out_dtype")
    parts = _operands(adapters, weights)
    require_float32_matmul()
    return _sum(parts).to(dtype)


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
        As `combine_adapters`, and if `fmt` is unknown or cannot hold B. Looking at B waits for the device.

    Notes
    -----
    Clause ``[adapters.concatenate]``. Declared roundings: w s in float64, its product with A in float32; one to `fmt`.
    B is copied.

    Examples
    --------
    >>> one = torch.ones(1, 1)
    >>> made = concatenate_adapters([LoraAdapter(one, one, alpha=4), LoraAdapter(one, 3 * one, alpha=2)], [0.5, -1])
    >>> made.lora_a.tolist(), made.lora_b.tolist(), made.alpha
    ([[2.0], [-2.0]], [[1.0, 3.0]], 2.0)
    """
    require_one_of("fmt", fmt, TENSOR_FORMATS)
    parts = _operands(adapters, weights)
    beside = torch.cat([b for _, b, _ in parts], dim=1)
    lora_b = beside.to(DTYPES[fmt])
    back = lora_b.to(torch.float32)
    if not bool(((back == beside) | (back.isnan() & beside.isnan())).all()):
        reject_value("fmt", "a format that holds every element of lora_b", repr(fmt))
    stacked = torch.cat([a * factor for a, _, factor in parts])
    return LoraAdapter(stacked.to(DTYPES[fmt]), lora_b, float(len(stacked)), False, fmt)


@ignores_autocast
def _sum(parts: Sequence[tuple[Tensor, Tensor, float]]) -> Tensor:
    total = torch.zeros(len(parts[0][1]), parts[0][0].shape[1], device=parts[0][0].device)
    for a, b, factor in parts:
        total.add_((b @ a).mul_(factor))
    return total


def _operands(adapters: Sequence[LoraAdapter], weights: Sequence[float]) -> list[tuple[Tensor, Tensor, float]]:
    """Return A, B and w s of each adapter, matrices in float32, after checking that all belong to one layer."""
    given = require_items("adapters", adapters, "a sequence of LoraAdapter")
    numbers = require_items("weights", weights, "a sequence of numbers")
    if not given or len(given) != len(numbers):
        reject_value("weights", f"one for each of at least one adapter, {len(given)}", len(numbers))
    parts = [_operand(*pair, index) for index, pair in enumerate(zip(given, numbers, strict=True))]
    first = parts[0]
    shape = (len(first[1]), first[0].shape[1])
    for index, (a, b, _) in enumerate(parts):
        if (len(b), a.shape[1]) != shape:
            reject_value(f"adapters[{index}]", f"of a layer of shape {shape}", (len(b), a.shape[1]))
        require_device(f"adapters[{index}].lora_a", a, first[0].device)
        require_device(f"adapters[{index}].lora_b", b, first[0].device)
    return parts


def _operand(adapter: LoraAdapter, weight: float, index: int) -> tuple[Tensor, Tensor, float]:
    require_record(f"adapters[{index}]", adapter, LoraAdapter)
    number = require_number(f"weights[{index}]", weight)
    if not isfinite(number):
        reject_value(f"weights[{index}]", "finite", number)
    a, b = (_matrix(adapter, name, index) for name in ("lora_a", "lora_b"))
    if b.shape[1] != len(a):
        reject_value(f"adapters[{index}].lora_b", f"of shape (d_out, {len(a)})", tuple(b.shape))
    factor = number * lora_scale(adapter.alpha, len(a), rank_stabilized=adapter.rank_stabilized)
    if abs(factor) > FLOAT32.largest_finite:
        rule = f"such that its product with the adapter's scale is at most {FLOAT32.largest_finite!r}"
        reject_value(f"weights[{index}]", rule, number)
    return a, b, factor


def _matrix(adapter: LoraAdapter, name: str, index: int) -> Tensor:
    argument = f"adapters[{index}].{name}"
    tensor = require_tensor_format(argument, getattr(adapter, name))
    if tensor.ndim != 2:
        reject_value(argument, "2-d", f"{tensor.ndim}-d")
    return tensor.to(torch.float32)
