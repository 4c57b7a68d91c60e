"""What an adapter starts from: one factor is zero, so that the layer begins as its base.

Randomness is an argument: standard normals, or uniforms in [0, 1), drawn by the caller.
Clauses: ``[lora.init]``, ``[lora.init_embedding]``.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np

from qloracle.errors import reject_value, require_number, require_one_of, require_positive_integer
from qloracle.formats import TENSOR_FORMATS, format_named
from qloracle_gpu.cupy.arrays import carrier, flat_items, require_dtype
from qloracle_gpu.cupy.launcher import Array, Operation, operation

INITIALIZATIONS = ("kaiming", "gaussian")
_SMALLEST_STD, _LARGEST_STD = 2.0**-126, 2.0**127
_SPLIT = 2.0**27 + 1  # Dekker 1971: halves of at most 26 bits each
_ONE, _MINUS_ZERO, _MAGNITUDE, _INFINITY = map(np.uint32, (0x3F800000, 0x80000000, 0x7FFFFFFF, 0x7F800000))


@dataclass(frozen=True)
class AdapterMatrices:
    """The two trained matrices of an adapter, in one format; bfloat16 as uint16 words."""

    lora_a: Array  # (r, d_in)
    lora_b: Array  # (d_out, r)


def lora_init(
    draws: Array, d_out: int, *, initialization: str = "kaiming", std: float | None = None, fmt: str = "float32"
) -> AdapterMatrices:
    """Initialize the adapter of a linear layer: A from random numbers, B = 0.

    kaiming: A = RN_fmt(c·(2u − 1)), c = fl64(1/fl64(√d_in)); gaussian: A = RN_fmt(std·z); B = +0.

    Parameters
    ----------
    draws : array of float32, shape (r, d_in)
        For "kaiming" uniform numbers u, 0 ≤ u < 1; for "gaussian" standard normal numbers z, finite. Looking at them
        waits for the device.
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
    Clause ``[lora.init]``. Rounding points, in order: 2u − 1 to float32; the product to `fmt`.
    """
    values = _require_draws(draws)
    rank, d_in = values.shape
    d_out = require_positive_integer("d_out", d_out)
    _require_rank(rank, min(d_out, d_in))
    uniform = require_one_of("initialization", initialization, INITIALIZATIONS) == "kaiming"
    if uniform and std is not None:
        reject_value("std", "None for initialization 'kaiming'", std)
    factor = 1 / sqrt(d_in) if uniform else _standard_deviation(std, rank)
    with operation("lora_init", draws=values) as run:
        flat = flat_items(run, values)
        if uniform:
            words = flat.view("uint32")
            rule = "numbers from 0 to below 1 for initialization 'kaiming'"
            _reject_first(flat, (words >= _ONE) & (words != _MINUS_ZERO), rule)
        a = _scaled(run, flat, factor, fmt, uniform=uniform).reshape(rank, d_in)
        return AdapterMatrices(a, _zeros(run, (d_out, rank), fmt))


def embedding_init(draws: Array, num_embeddings: int, *, fmt: str = "float32") -> AdapterMatrices:
    """Initialize the adapter of an embedding the other way round: A = 0, B normal.

    A = +0, B = RN_fmt(z).

    Parameters
    ----------
    draws : array of float32, shape (dim, r)
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
    """
    values = _require_draws(draws)
    dim, rank = values.shape
    num_embeddings = require_positive_integer("num_embeddings", num_embeddings)
    _require_rank(rank, min(num_embeddings, dim))
    with operation("embedding_init", draws=values) as run:
        b = _scaled(run, flat_items(run, values), 1.0, fmt, uniform=False).reshape(dim, rank)
        return AdapterMatrices(_zeros(run, (rank, num_embeddings), fmt), b)


def _require_draws(draws: object) -> Array:
    values = require_dtype("draws", draws, "float32")
    if values.ndim != 2:
        reject_value("draws", "2-d", f"{values.ndim}-d")
    with operation("require_draws", draws=values) as run:
        flat = flat_items(run, values)
        _reject_first(flat, (flat.view("uint32") & _MAGNITUDE) >= _INFINITY, "finite")
    return values


def _reject_first(flat: Array, wrong: Array, rule: str) -> None:
    if flat.size and bool(wrong.any()):
        reject_value("draws", rule, flat[int(wrong.argmax())])


def _require_rank(rank: int, smaller_side: int) -> None:
    if not 1 <= rank <= smaller_side:
        reject_value("rank", f"from 1 to {smaller_side}, the smaller side of the matrix", rank)


def _standard_deviation(std: float | None, rank: int) -> float:
    number = 1 / rank if std is None else require_number("std", std)
    if not _SMALLEST_STD <= number <= _LARGEST_STD:
        reject_value("std", "a number from 2^-126 to 2^127", number)
    return number


def _scaled(run: Operation, numbers: Array, factor: float, fmt: str, *, uniform: bool) -> Array:
    """Return RN_fmt(factor·number) in one rounding; the kernel multiplies by both halves of the factor."""
    named = format_named(require_one_of("fmt", fmt, TENSOR_FORMATS))
    spread = factor * _SPLIT
    high = spread - (spread - factor)
    out = run.empty(numbers.size, carrier(named))
    halves = (np.float64(high), np.float64(factor - high))
    arguments = (numbers, np.int64(numbers.size), np.int32(uniform), *halves, out)
    run.launch("adapters", f"initialize_{named.name}", numbers.size, arguments)
    return out


def _zeros(run: Operation, shape: tuple[int, int], fmt: str) -> Array:
    made = run.empty(shape, carrier(format_named(fmt)))
    made[...] = 0
    return made
