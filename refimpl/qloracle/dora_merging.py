"""Merging a DoRA adapter into its weight, and taking it out again.

With V = W + s B A, its row norms n, and g = m/n (0 where n = 0), all of `dora`:

    W' = RN(g∘V)        W = RN((n/m)∘W' − s B A), with n/m = 0 where n = 0

The norms belong to the unmerged weight and cannot be computed from the merged one: merging returns them, unmerging
takes them. Clauses: ``[dora.merge]``, ``[dora.unmerge]``.
Sources: Liu et al. 2024, "DoRA", section 4.1 (merging leaves no extra cost at inference); the PEFT library keeps the
norms in a cache.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from qloracle.blocks import CHUNK
from qloracle.dora import over_norms, row_norms
from qloracle.errors import reject_value, require_flag, require_record
from qloracle.formats import Array, format_named, format_of
from qloracle.merge_operands import change_of, real_values, require_finite
from qloracle.records import require_fields
from qloracle.rounding import round_to


@dataclass(frozen=True)
class MergedDora:
    """A merged weight, and what unmerging it needs."""

    weight: Array  # of the shape and format of the weight
    norms: Array  # float32, (d_out,): RN_float32 of the row norms of W + s B A

    def __post_init__(self) -> None:
        """Refuse fields of other types."""
        require_fields(self)


def dora_merge(
    weight: Array,
    lora_a: Array,
    lora_b: Array,
    magnitude: Array,
    *,
    alpha: float,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
    fmt: str | None = None,
    safe: bool = False,
) -> MergedDora:
    """Merge a DoRA adapter into its weight.

    W' = RN(g∘(W + s B A)), g = m/n, 0 where n = 0; norms = RN_float32(n).

    Parameters
    ----------
    weight, lora_a, lora_b, alpha, rank_stabilized, fan_in_fan_out, fmt, safe
        As for `lora_merge`. With `fan_in_fan_out` a norm is that of a column of what is stored.
    magnitude : array, shape (d_out,)

    Returns
    -------
    MergedDora
        `bounds_dora_merge.dora_merge_bound` says which weights are allowed.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `lora_merge`, and if `magnitude` is not of shape (d_out,).

    Notes
    -----
    Clause ``[dora.merge]``. Finite operands never give NaN, for a scale that is 0 or at least 2^−149 in magnitude: a
    row of V that is 0 stays 0. The scale s is in V once, and the magnitude is not scaled. Rounding points of an
    implementation are declared by it; the last one is to the format of the weight.

    Examples
    --------
    >>> a, b = np.array([[1, 0]], np.float32), np.array([[3], [0]], np.float32)
    >>> w, m = np.array([[0, 4], [0, 0]], np.float32), np.array([10, 7], np.float32)
    >>> merged = dora_merge(w, a, b, m, alpha=1)
    >>> merged.weight.tolist(), merged.norms.tolist()
    ([[6.0, 8.0], [0.0, 0.0]], [5.0, 0.0])
    """
    change = change_of(weight, lora_a, lora_b, alpha=alpha, rank_stabilized=rank_stabilized,
                       fan_in_fan_out=fan_in_fan_out, fmt=fmt)  # fmt: skip
    m64, single = real_magnitude(magnitude, len(change), fmt), np.empty(len(change), np.float32)
    name = format_of(weight, fmt, "weight").name
    stored = np.empty(weight.shape, format_named(name).carrier)
    with np.errstate(invalid="ignore", over="ignore"):
        for rows in _row_pieces(change.shape):
            merged = change[rows]
            merged += _rows_of(weight, rows, fmt, fan_in_fan_out=fan_in_fan_out)
            norms = row_norms(merged)
            single[rows] = norms.astype(np.float32)
            merged *= over_norms(m64[rows], norms)[:, np.newaxis]
            _store(stored, rows, merged, name, fan_in_fan_out=fan_in_fan_out)
    if require_flag("safe", safe):
        require_finite(stored, name, "the merged weight")
    return MergedDora(stored, single)


def dora_unmerge(
    merged: MergedDora,
    lora_a: Array,
    lora_b: Array,
    magnitude: Array,
    *,
    alpha: float,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
    fmt: str | None = None,
) -> Array:
    """Take a DoRA adapter out of a merged weight.

    W = RN((n/m)∘W' − s B A), with n/m = 0 where n = 0.

    Parameters
    ----------
    merged : MergedDora
        As `dora_merge` returned it: the norms are not those of the merged weight.
    lora_a, lora_b, magnitude, alpha, rank_stabilized, fan_in_fan_out, fmt
        As for `dora_merge`.

    Returns
    -------
    array of the weight's shape and format; bfloat16 as uint16 words

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `dora_merge`, and if the norms are not of shape (d_out,), or a magnitude is 0 where the norm is not: that row
        was merged to zeros, and nothing of it is left.

    Notes
    -----
    Clause ``[dora.unmerge]``. Rounding points as in `dora_merge`.

    Examples
    --------
    >>> a, b = np.array([[1, 0]], np.float32), np.array([[3], [0]], np.float32)
    >>> w, m = np.array([[0, 4], [0, 0]], np.float32), np.array([10, 7], np.float32)
    >>> dora_unmerge(dora_merge(w, a, b, m, alpha=1), a, b, m, alpha=1).tolist()
    [[0.0, 4.0], [0.0, 0.0]]
    """
    require_record("merged", merged, MergedDora)
    weight = merged.weight
    change = change_of(weight, lora_a, lora_b, alpha=alpha, rank_stabilized=rank_stabilized,
                       fan_in_fan_out=fan_in_fan_out, fmt=fmt)  # fmt: skip
    factor = unmerge_factor(merged.norms, magnitude, len(change), fmt)
    name = format_of(weight, fmt, "weight").name
    stored = np.empty(weight.shape, format_named(name).carrier)
    with np.errstate(invalid="ignore", over="ignore"):
        for rows in _row_pieces(change.shape):
            real = _rows_of(weight, rows, fmt, fan_in_fan_out=fan_in_fan_out)
            real *= factor[rows, np.newaxis]
            real -= change[rows]
            _store(stored, rows, real, name, fan_in_fan_out=fan_in_fan_out)
    return stored


def unmerge_factor(norms: Array, magnitude: Array, d_out: int, fmt: str | None) -> Array:
    """Return n/m as float64, 0 where n = 0; a magnitude of 0 against another norm is refused."""
    n64, m64 = real_values(norms, None, "norms"), real_magnitude(magnitude, d_out, fmt)
    if n64.shape != (d_out,):
        reject_value("norms", f"of shape ({d_out},)", n64.shape)
    lost = np.flatnonzero((m64 == 0) & (n64 != 0))
    if lost.size:
        reject_value("magnitude", "not 0 where the norm is not, to be unmerged", f"0 at {lost[0]}")
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(n64 == 0, 0.0, n64 / np.where(m64 == 0, 1.0, m64))


def real_magnitude(magnitude: Array, d_out: int, fmt: str | None) -> Array:
    """Return the magnitudes as float64, after checking their shape."""
    real = real_values(magnitude, fmt, "magnitude")
    if real.shape != (d_out,):
        reject_value("magnitude", f"of shape ({d_out},)", real.shape)
    return real


def _row_pieces(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yield whole rows, together at most `CHUNK` elements or else one row: a norm needs all of it."""
    together = max(CHUNK // max(shape[1], 1), 1)
    for start in range(0, shape[0], together):
        yield slice(start, min(start + together, shape[0]))


def _rows_of(weight: Array, rows: slice, fmt: str | None, *, fan_in_fan_out: bool) -> Array:
    return real_values(weight[:, rows], fmt, "weight").T if fan_in_fan_out else real_values(weight[rows], fmt, "weight")


def _store(stored: Array, rows: slice, values: Array, fmt: str, *, fan_in_fan_out: bool) -> None:
    """Write RN_fmt of some rows in the orientation in which the weight is stored."""
    if fan_in_fan_out:
        stored[:, rows] = round_to(np.ascontiguousarray(values.T), fmt)
    else:
        stored[rows] = round_to(values, fmt)
