"""Faults of the choice of codes, given the right absmax: zeros, tiny scales, ties, ends of the table, indices."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.blocks import block_absmax, spread
from qloracle.codebooks import Codebook
from qloracle.formats import Array
from qloracle.tables import codebook_named
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.kernels import codes_by_division, packed
from qloracle_conformance.mutants.mutant import Mutant, Op


def with_codes(change: Callable[[Array, Array, Array, Codebook], Array]) -> Op:
    """Return a quantizer with the right absmax and codes changed from (codes, x, absmax of each element, table)."""

    def quantize(x: HostArray, *, codebook: str, block_size: int) -> Any:
        flat = x.single().reshape(-1)
        absmax = block_absmax(flat, block_size)
        codes = codes_by_division(flat, absmax, codebook, block_size)
        scale = spread(absmax, flat.size, block_size) if flat.size else absmax
        with np.errstate(all="ignore"):
            changed = change(codes, flat, scale, codebook_named(codebook))
        return packed(changed.astype(np.uint8), codebook), host(absmax)

    return quantize


def _ranked(table: Codebook, quotient: Array, side: str = "left") -> Array:
    return table.value_order[np.searchsorted(table.midpoints, quotient, side="left" if side == "left" else "right")]


def _zero_by_zero(codes: Array, x: Array, scale: Array, table: Codebook) -> Array:
    """Divide 0 by 0 in a block of zeros: the NaN passes every comparison and gets the highest code."""
    return np.where(scale == 0, table.value_order[-1], codes)


def _zero_block_code_0(codes: Array, x: Array, scale: Array, table: Codebook) -> Array:
    """Leave a block of zeros at the first entry of the table."""
    return np.where(scale == 0, table.value_order[0], codes)


def _zero_counts_as_positive(codes: Array, x: Array, scale: Array, table: Codebook) -> Array:
    """Look among the entries above zero as soon as an element is not negative."""
    above = table.value_order[table.position[table.zero_code] + 1]
    return np.where((x == 0) & (scale > 0), above, codes)


def _minus_zero_counts_as_negative(codes: Array, x: Array, scale: Array, table: Codebook) -> Array:
    below = table.value_order[max(table.position[table.zero_code] - 1, 0)]
    return np.where((x == 0) & np.signbit(x) & (scale > 0), below, codes)


def _infinite_reciprocal(codes: Array, x: Array, scale: Array, table: Codebook) -> Array:
    """Multiply by 1/absmax where that has overflowed: everything but zeros saturates."""
    overflown = (scale > 0) & np.isinf(np.float32(1) / scale)
    return np.where(overflown & (x != 0), _ranked(table, np.sign(x) * np.inf), codes)


def _subnormals_flushed(codes: Array, x: Array, scale: Array, table: Codebook) -> Array:
    """Take subnormal elements for zeros."""
    return np.where((np.abs(x) < 2.0**-126) & np.isfinite(scale), table.zero_code, codes)


def _with_epsilon(codes: Array, x: Array, scale: Array, table: Codebook) -> Array:
    """Divide by absmax + 1e-12, so that it never is zero."""
    usable = np.isfinite(scale)
    quotient = np.where(usable, x.astype(np.float64) / (scale.astype(np.float64) + 1e-12), 0.0)
    return _ranked(table, quotient)


def _poisoned_codes(codes: Array, x: Array, scale: Array, table: Codebook) -> Array:
    """Give the codes of elements of a poisoned block that compare: infinities saturate."""
    poisoned = np.isnan(scale) & np.isinf(x)
    return np.where(poisoned, _ranked(table, x), codes)


def _ties_away(codes: Array, x: Array, scale: Array, table: Codebook) -> Array:
    """Send an exact midpoint to the entry of the larger magnitude."""
    quotient = np.where((scale > 0) & np.isfinite(scale), x.astype(np.float64) / scale, 0.0)
    return np.where(quotient > 0, _ranked(table, quotient, "right"), _ranked(table, quotient))


def _ties_to_even(codes: Array, x: Array, scale: Array, table: Codebook) -> Array:
    """Send an exact midpoint to the entry at the even position."""
    quotient = np.where((scale > 0) & np.isfinite(scale), x.astype(np.float64) / scale, 0.0)
    up = _ranked(table, quotient, "right")
    return np.where(table.position[up] % 2 == 0, up, codes)


def _float32_quotient(codes: Array, x: Array, scale: Array, table: Codebook) -> Array:
    """Round the quotient to float32 before it is compared."""
    quotient = np.where((scale > 0) & np.isfinite(scale), x / scale, np.float32(0)).astype(np.float64)
    return _ranked(table, np.nan_to_num(quotient))


def _two_kinds_of_lanes(codes: Array, x: Array, scale: Array, table: Codebook) -> Array:
    """Let every second element meet float32 midpoints, as a vector path beside a scalar one does."""
    quotient = np.where((scale > 0) & np.isfinite(scale), x.astype(np.float64) / scale, 0.0)
    other = table.value_order[np.searchsorted(table.midpoints.astype(np.float32), quotient.astype(np.float32))]
    return np.where(np.arange(x.size) % 2 == 1, other, codes)


def _index_16_bits(codes: Array, x: Array, scale: Array, table: Codebook) -> Array:
    return np.asarray(codes[np.arange(codes.size) & 0xFFFF])


def _after_rows_of_a_grid(codes: Array, x: Array, scale: Array, table: Codebook) -> Array:
    """Leave what lies beyond 65535 blocks of a launch unwritten."""
    return np.where(np.arange(codes.size) < 65535, codes, 0)


def _negative_clamped(codes: Array, x: Array, scale: Array, table: Codebook) -> Array:
    """Never write the lowest entry, as a clamp at -7 or -127 does."""
    return np.where(codes == table.value_order[0], table.value_order[1], codes)


def _nan_code_written(codes: Array, x: Array, scale: Array, table: Codebook) -> Array:
    """Round up past the largest number: what equals the absmax gets the code of NaN."""
    return np.where((scale > 0) & (x == scale), codes + np.uint8(1), codes)


def _seven_steps(codes: Array, x: Array, scale: Array, table: Codebook) -> Array:
    """Search 256 entries in seven steps: every second entry is out of reach."""
    return codes & 0xFE


def _last_not_reached(codes: Array, x: Array, scale: Array, table: Codebook) -> Array:
    return np.where(codes == table.value_order[-1], table.value_order[-2], codes)


def code_faults() -> list[Mutant]:
    """Return the mutants of the choice of codes."""
    codes: list[tuple[str, str, Callable[[Array, Array, Array, Codebook], Array], str]] = [
        ("zero-by-zero", "a block of zeros divides 0 by 0", _zero_by_zero, ""),
        ("zero-block-code-0", "a block of zeros gets the lowest entry", _zero_block_code_0, ""),
        ("zero-as-positive", "a zero among numbers gets the entry above it", _zero_counts_as_positive, ""),
        ("minus-zero-as-negative", "-0 gets the entry below zero", _minus_zero_counts_as_negative, "dynamic_signed"),
        ("reciprocal-infinite", "1/absmax overflows for a subnormal absmax", _infinite_reciprocal, ""),
        ("elements-flushed", "subnormal elements count as zeros", _subnormals_flushed, ""),
        ("divided-with-epsilon", "x is divided by absmax + 1e-12", _with_epsilon, ""),
        ("poisoned-codes", "infinities of a poisoned block get codes of their own", _poisoned_codes, ""),
        ("ties-away-from-zero", "a midpoint goes to the larger magnitude", _ties_away, "fp4"),
        ("ties-to-even-code", "a midpoint goes to the even code", _ties_to_even, ""),
        ("quotient-in-float32", "the quotient is a float32 number", _float32_quotient, ""),
        ("two-kinds-of-lanes", "every second element meets float32 midpoints", _two_kinds_of_lanes, ""),
        ("codes-index-16-bits", "elements are counted in 16 bits", _index_16_bits, ""),
        ("codes-grid-limit", "elements beyond 65535 are never written", _after_rows_of_a_grid, ""),
        ("lowest-code-clamped", "the lowest entry is never written", _negative_clamped, "linear_signed_4bit"),
        ("lowest-code-clamped-8bit", "the lowest entry is never written", _negative_clamped, "linear_signed"),
        ("nan-code-written", "the absmax itself gets the code of NaN", _nan_code_written, "float8"),
        ("seven-steps", "256 entries are searched in seven steps", _seven_steps, "dynamic_unsigned"),
        ("highest-code-not-reached", "the highest entry is never written", _last_not_reached, "linear_unsigned"),
        ("highest-code-not-reached-4bit", "the highest entry is never written", _last_not_reached,
         "linear_unsigned_4bit"),
    ]  # fmt: skip
    return [
        Mutant(name, fault, {"quantize_blockwise": with_codes(change)}, ("codes",), operations=book)
        for name, fault, change, book in codes
    ]
