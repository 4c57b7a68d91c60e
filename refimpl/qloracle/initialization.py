"""What an adapter starts from: one factor is zero, so that the layer begins as its base.

Randomness is an argument: standard normals, or uniforms in [0, 1), drawn by the caller.
Clauses: ``[lora.init]``, ``[lora.init_embedding]``.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np

from qloracle.errors import reject_type, reject_value, require_number, require_one_of, require_positive_integer
from qloracle.formats import FLOAT32, TENSOR_FORMATS, Array, format_of
from qloracle.odd_products import odd_product
from qloracle.rounding import round_to, widen

INITIALIZATIONS = ("kaiming", "gaussian")
_SMALLEST_STD, _LARGEST_STD = 2.0**-126, 2.0**127


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
        For "kaiming" uniform numbers u, 0 ≤ u < 1; for "gaussian" standard normal numbers z, finite.
    d_out : int
        Number of outputs of the layer.
    initialization : {"kaiming", "gaussian"}
        Kaiming-uniform with a = √5: the bound is √(2/(1 + a²))·√(3/d_in) = 1/√d_in.
    std : float, optional
        For "gaussian" only, from 2^−126 to 2^127; by default RN_float64(1/r).
    fmt : {"float32", "float16", "bfloat16"}
        Format of both matrices.

    Returns
    -------
    AdapterMatrices
        Of shapes (r, d_in) and (d_out, r). A layer with it equals its base for finite inputs, the sign of zero aside,
        because every product with B is a zero; after merging it, the weight has its old bits but for −0, which W + 0
        turns to +0.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If the draws are not float32, 2-d and in range, the rank is 0 or larger than min(d_out, d_in), the
        initialization or format is unknown, or `std` is given for "kaiming" or out of range.

    Notes
    -----
    Clause ``[lora.init]``. Rounding points, in order: 2u − 1 to float32 (exact for multiples of 2^−24, which is what
    generators of float32 give); the product to `fmt`. c and the default of `std` are float64 numbers.

    References
    ----------
    Hu et al. 2021, "LoRA", section 4.1 (A Gaussian, B zero). He et al. 2015, "Delving Deep into Rectifiers", section
    2.2; a = √5 and std = 1/r are what the PEFT library takes.

    Examples
    --------
    >>> start = lora_init(np.array([[0, 0.25, 0.5, 0.75]], np.float32), 2)
    >>> start.lora_a, start.lora_b
    (array([[-0.5 , -0.25,  0.  ,  0.25]], dtype=float32), array([[0.],
           [0.]], dtype=float32))
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
        if not np.all((draws >= 0) & (draws < 1)):
            outside = draws[~((draws >= 0) & (draws < 1))][0]
            reject_value("draws", "numbers from 0 to below 1 for initialization 'kaiming'", outside)
        factor, numbers = 1 / sqrt(d_in), (2 * draws.astype(np.float64) - 1).astype(np.float32)
    return AdapterMatrices(_scaled(numbers, factor, fmt), _zeros((d_out, rank), fmt))


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
    Clause ``[lora.init_embedding]``. Rounding points: one. A row of A belongs to a token: zeros there keep tokens that
    training never sees at their base, as the PEFT library does.

    Examples
    --------
    >>> embedding_init(np.array([[0.5], [-2]], np.float32), 3).lora_b
    array([[ 0.5],
           [-2. ]], dtype=float32)
    """
    draws = _require_draws(draws)
    dim, rank = draws.shape
    num_embeddings = require_positive_integer("num_embeddings", num_embeddings)
    _require_rank(rank, min(num_embeddings, dim))
    return AdapterMatrices(_zeros((rank, num_embeddings), fmt), _scaled(draws, 1.0, fmt))


def _require_draws(draws: Array) -> Array:
    if format_of(draws, None, "draws", "float32") is not FLOAT32:
        reject_type("draws", "float32", draws.dtype)
    if draws.ndim != 2:
        reject_value("draws", "2-d", f"{draws.ndim}-d")
    if not np.all(np.isfinite(draws)):
        reject_value("draws", "finite", draws[~np.isfinite(draws)][0])
    return widen(draws, argument="draws")


def _require_rank(rank: int, smaller_side: int) -> None:
    if not 1 <= rank <= smaller_side:
        reject_value("rank", f"from 1 to {smaller_side}, the smaller side of the matrix", rank)


def _standard_deviation(std: float | None, rank: int) -> float:
    number = 1 / rank if std is None else require_number("std", std)
    if not _SMALLEST_STD <= number <= _LARGEST_STD:
        reject_value("std", "a number from 2^-126 to 2^127", number)
    return number


def _scaled(numbers: Array, factor: float, fmt: str) -> Array:
    require_one_of("fmt", fmt, TENSOR_FORMATS)
    return round_to(odd_product(numbers, factor), fmt)


def _zeros(shape: tuple[int, int], fmt: str) -> Array:
    try:
        return round_to(np.zeros(shape), fmt)
    except (ValueError, MemoryError):
        reject_value("shape", "of an array that fits the memory", shape)
