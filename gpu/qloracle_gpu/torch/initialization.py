"""What an adapter starts from: one factor is zero, so that the layer begins as its base.

Randomness is an argument: standard normals, or uniforms in [0, 1), drawn by the caller.
Clauses: ``[lora.init]``, ``[lora.init_embedding]``.
"""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from qloracle.errors import reject_value, require_number, require_one_of, require_positive_integer
from qloracle.formats import TENSOR_FORMATS
from qloracle_gpu.torch.formats import DTYPES, float64_device, require_dtype
from qloracle_gpu.torch.rounding import encode

INITIALIZATIONS = ("kaiming", "gaussian")
_SMALLEST_STD, _LARGEST_STD = 2.0**-126, 2.0**127
_SPLIT = 2.0**27 + 1  # Dekker 1971: halves of at most 26 bits each


@dataclass(frozen=True)
class AdapterMatrices:
    """The two trained matrices of an adapter, in one format."""

    lora_a: Tensor  # (r, d_in)
    lora_b: Tensor  # (d_out, r)


def lora_init(
    draws: Tensor, d_out: int, *, initialization: str = "kaiming", std: float | None = None, fmt: str = "float32"
) -> AdapterMatrices:
    """Initialize the adapter of a linear layer: A from random numbers, B = 0.

    kaiming: A = RN_fmt(c·(2u − 1)), c = fl64(1/fl64(√d_in)); gaussian: A = RN_fmt(std·z); B = +0.

    Parameters
    ----------
    draws : tensor of float32, shape (r, d_in)
        For "kaiming" uniform numbers u, 0 ≤ u < 1; for "gaussian" standard normal numbers z, finite.
    d_out : int
        Number of outputs of the layer.
    initialization : {"kaiming", "gaussian"}
        Kaiming-uniform with a = √5: the bound is 1/√d_in.
    std : float, optional
        For "gaussian" only, from 2^−126 to 2^127; by default RN_float64(1/r).
    fmt : {"float32", "float16", "bfloat16"}
        Format of both matrices.

    Returns
    -------
    AdapterMatrices
        Of shapes (r, d_in) and (d_out, r), on the device of the draws.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If the draws are not float32, 2-d and in range, the rank is 0 or larger than min(d_out, d_in), the
        initialization or format is unknown, or `std` is given for "kaiming" or out of range.

    Notes
    -----
    Clause ``[lora.init]``. Rounding points, in order: 2u − 1 to float32; the product to `fmt`. Looking at the draws
    waits for the device.

    Examples
    --------
    >>> lora_init(torch.tensor([[0, 0.25, 0.5, 0.75]]), 2).lora_a
    tensor([[-0.5000, -0.2500,  0.0000,  0.2500]])
    """
    draws = _require_draws(draws)
    rank, d_in = draws.shape
    d_out = require_positive_integer("d_out", d_out)
    _require_rank(rank, min(d_out, d_in))
    require_one_of("initialization", initialization, INITIALIZATIONS)
    if initialization == "gaussian":
        factor, numbers = _standard_deviation(std, rank), draws
    else:
        if std is not None:
            reject_value("std", "None for initialization 'kaiming'", std)
        outside = draws[~((draws >= 0) & (draws < 1))]
        if outside.numel():
            rule = "numbers from 0 to below 1 for initialization 'kaiming'"
            reject_value("draws", rule, outside[0].item())
        factor = 1 / sqrt(d_in)
        numbers = (2 * draws.to(float64_device(draws.device)).to(torch.float64) - 1).to(torch.float32)
    return AdapterMatrices(_scaled(numbers, factor, fmt).to(draws.device), _zeros((d_out, rank), fmt, draws))


def embedding_init(draws: Tensor, num_embeddings: int, *, fmt: str = "float32") -> AdapterMatrices:
    """Initialize the adapter of an embedding the other way round: A = 0, B normal.

    A = +0, B = RN_fmt(z).

    Parameters
    ----------
    draws : tensor of float32, shape (dim, r)
        Standard normal numbers z, finite.
    num_embeddings : int
        Rows of the embedding's table, which has the shape (num_embeddings, dim).
    fmt : {"float32", "float16", "bfloat16"}

    Returns
    -------
    AdapterMatrices
        Of shapes (r, num_embeddings) and (dim, r).

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `lora_init`.

    Notes
    -----
    Clause ``[lora.init_embedding]``. Rounding points: one.

    Examples
    --------
    >>> embedding_init(torch.tensor([[0.5], [-2]]), 3).lora_b
    tensor([[ 0.5000],
            [-2.0000]])
    """
    draws = _require_draws(draws)
    dim, rank = draws.shape
    num_embeddings = require_positive_integer("num_embeddings", num_embeddings)
    _require_rank(rank, min(num_embeddings, dim))
    return AdapterMatrices(_zeros((rank, num_embeddings), fmt, draws), _scaled(draws, 1.0, fmt).to(draws.device))


def _require_draws(draws: Tensor) -> Tensor:
    values = require_dtype("draws", draws, torch.float32)
    if values.ndim != 2:
        reject_value("draws", "2-d", f"{values.ndim}-d")
    wrong = values[~values.isfinite()]
    if wrong.numel():
        reject_value("draws", "finite", wrong[0].item())
    return values


def _require_rank(rank: int, smaller_side: int) -> None:
    if not 1 <= rank <= smaller_side:
        reject_value("rank", f"from 1 to {smaller_side}, the smaller side of the matrix", rank)


def _standard_deviation(std: float | None, rank: int) -> float:
    number = 1 / rank if std is None else require_number("std", std)
    if not _SMALLEST_STD <= number <= _LARGEST_STD:
        reject_value("std", "a number from 2^-126 to 2^127", number)
    return number


def _scaled(numbers: Tensor, factor: float, fmt: str) -> Tensor:
    require_one_of("fmt", fmt, TENSOR_FORMATS)
    return encode(odd_product(numbers, factor), fmt)


def odd_product(values: Tensor, factor: float) -> Tensor:
    """Return float32 values · factor in float64, rounded to odd, so that one later rounding is the only one.

    With factor = high + low, halves of at most 26 bits, both products with 24 bits are exact; their sum rounded to
    nearest and the error of that rounding (Knuth 1997, "TwoSum") tell on which side the exact product lies.
    """
    spread = factor * _SPLIT
    high = spread - (spread - factor)
    wide = values.to(float64_device(values.device)).to(torch.float64)
    large, small = wide * high, wide * (factor - high)
    total = large + small
    back = total - large
    error = (large - (total - back)) + (small - back)
    even = total.view(torch.int64) & 1 == 0
    odd = torch.where((error != 0) & even, total.nextafter(torch.inf * error.sign()), total)
    return torch.where(wide == 0, large, odd)  # a zero keeps its sign


def _zeros(shape: tuple[int, int], fmt: str, like: Tensor) -> Tensor:
    require_one_of("fmt", fmt, TENSOR_FORMATS)
    return torch.zeros(shape, dtype=DTYPES[fmt], device=like.device)
