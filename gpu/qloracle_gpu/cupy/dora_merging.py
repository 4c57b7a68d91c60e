"""Merging a DoRA adapter into its weight, and taking it out again.

With V = W + s B A, its row norms n, and g = m/n (0 where n = 0), all of `dora`:

    W' = RN(g∘V)        W = RN((n/m)∘W' − s B A), with n/m = 0 where n = 0

The norms belong to the unmerged weight: merging returns them, unmerging takes them.
Clauses: ``[dora.merge]``, ``[dora.unmerge]``.
"""

from dataclasses import dataclass

import numpy as np

from qloracle.errors import reject_value, require_flag, require_record
from qloracle.formats import Format
from qloracle_gpu.cupy.arrays import carrier
from qloracle_gpu.cupy.dora import gains, merged_rows, row_norms
from qloracle_gpu.cupy.launcher import Array, Operation, operation
from qloracle_gpu.cupy.lora import product
from qloracle_gpu.cupy.merge_operands import MergeOperands, merge_operands, require_finite
from qloracle_gpu.cupy.operands import lora_scale, require_vector_operand
from qloracle_gpu.cupy.rounding import widened


@dataclass(frozen=True)
class MergedDora:
    """A merged weight, and what unmerging it needs."""

    weight: Array  # of the shape and format of the weight
    norms: Array  # float32, (d_out,): the row norms of W + s B A


def dora_merge(
    weight: Array, lora_a: Array, lora_b: Array, magnitude: Array, *, alpha: float, rank_stabilized: bool = False,
    fan_in_fan_out: bool = False, fmt: str | None = None, safe: bool = False,
) -> MergedDora:  # fmt: skip
    """Merge a DoRA adapter into its weight.

    W' = RN(g∘(W + s B A)), g = m/n, 0 where n = 0.

    Parameters
    ----------
    weight, lora_a, lora_b, alpha, rank_stabilized, fan_in_fan_out, fmt, safe
        As for `lora_merge`. With `fan_in_fan_out` a norm is that of a column of what is stored.
    magnitude : array of float32, float16 or bfloat16, shape (d_out,)

    Returns
    -------
    MergedDora

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        As `lora_merge`, and if `magnitude` is not of shape (d_out,).

    Notes
    -----
    Clause ``[dora.merge]``. Declared roundings: float32 throughout, then one to the format of the weight.
    """
    given, scale, m = _operands(weight, lora_a, lora_b, magnitude, alpha, rank_stabilized, fan_in_fan_out, fmt)
    safe = require_flag("safe", safe)
    with operation("dora_merge", weight=given.weight[0], lora_b=given.lora_b[0], magnitude=m[0]) as run:
        w, a, b = given.matrices(run)
        rows = merged_rows(run, w, a, b, scale)
        norms = row_norms(run, rows)
        out = run.empty(rows.shape, carrier(given.weight[1]))
        layout = (np.int64(rows.size), np.int64(max(rows.shape[1], 1)))
        arguments = (rows, gains(run, m, norms)[0], *layout, out)
        run.launch("dora", f"scale_rows_{given.weight[1].name}", rows.size, arguments)
        merged = _stored(run, out, given)
        return MergedDora(require_finite(run, merged, given.weight[1]) if safe else merged, norms)


def dora_unmerge(
    merged: MergedDora, lora_a: Array, lora_b: Array, magnitude: Array, *, alpha: float,
    rank_stabilized: bool = False, fan_in_fan_out: bool = False, fmt: str | None = None,
) -> Array:  # fmt: skip
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
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        As `dora_merge`, and if the norms are not of shape (d_out,), or a magnitude is 0 where the norm is not: that row
        was merged to zeros, and nothing of it is left. Looking for one waits for the device.

    Notes
    -----
    Clause ``[dora.unmerge]``. Declared roundings as for `dora_merge`.
    """
    require_record("merged", merged, MergedDora)
    given, scale, m = _operands(merged.weight, lora_a, lora_b, magnitude, alpha, rank_stabilized, fan_in_fan_out, fmt)
    n = require_vector_operand("norms", merged.norms, m[0].size, None)
    with operation("dora_unmerge", weight=given.weight[0], lora_b=given.lora_b[0], norms=n[0]) as run:
        w, a, b = given.matrices(run)
        factors, rows = _unmerge_factors(run, n, m), run.contiguous(w)
        out = run.empty(rows.shape, carrier(given.weight[1]))
        layout = (np.int64(rows.size), np.int64(max(rows.shape[1], 1)), scale)
        arguments = (rows, factors, product(run, b, a), *layout, out)
        run.launch("dora", f"unmerge_rows_{given.weight[1].name}", rows.size, arguments)
        return _stored(run, out, given)


def _operands(
    weight: object, lora_a: object, lora_b: object, magnitude: object, alpha: float, rank_stabilized: bool,
    fan_in_fan_out: bool, fmt: str | None,
) -> tuple[MergeOperands, np.float32, tuple[Array, Format]]:  # fmt: skip
    given = merge_operands(weight, lora_a, lora_b, fan_in_fan_out=fan_in_fan_out, fmt=fmt)
    scale = lora_scale(alpha, given.rank, rank_stabilized=rank_stabilized)
    return given, scale, require_vector_operand("magnitude", magnitude, len(given.lora_b[0]), fmt)


def _unmerge_factors(run: Operation, norms: tuple[Array, Format], magnitude: tuple[Array, Format]) -> Array:
    """Return n/m as float64, 0 where n = 0; a magnitude of 0 against another norm is refused."""
    n, m = widened(run, *norms), widened(run, *magnitude)
    lost = (m.view("uint32") << np.uint32(1) == 0) & (n.view("uint32") << np.uint32(1) != 0)  # 0 of either sign
    if lost.size and bool(lost.any()):
        reject_value("magnitude", "not 0 where the norm is not, to be unmerged", f"0 at {int(lost.argmax())}")
    out = run.empty(n.size, "float64")
    run.launch("dora", "unmerge_factors", n.size, (n, m, np.int64(n.size), out))
    return out


def _stored(run: Operation, rows: Array, given: MergeOperands) -> Array:
    """Return a matrix of shape (d_out, d_in) in the orientation of the weight."""
    return run.contiguous(rows.T) if given.fan_in_fan_out else rows
