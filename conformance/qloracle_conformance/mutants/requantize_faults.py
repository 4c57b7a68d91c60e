"""Faults of merges into quantized weights: stale scales, wrong states, the other convention, lost poison."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qloracle.affine import QuantizedAffine
from qloracle.blockwise import QuantizedBlocks
from qloracle.double_quant import DoubleQuantized, restore_absmax
from qloracle.formats import Array, from_bits
from qloracle.int8 import QuantizedInt8
from qloracle.lora import lora_scale
from qloracle.merge_operands import low_rank
from qloracle.qlora import QuantizedWeight
from qloracle.quantizing_like import dequantized_weight, quantize_like
from qloracle.rounding import decode, encode
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.adapters.reference.requantizing import arrays_of
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.generators.requantizing import STORED, record_of
from qloracle_conformance.mutants.mutant import Mutant, Op

CODES = ("codes",)
ABSMAX = ("absmax", "codes")


@dataclass(frozen=True)
class Merging:
    """What a merge into a quantized weight is given."""

    weight: QuantizedWeight
    values: Array  # dequantized, or the original
    change: Array  # s B A in the orientation of the weight
    scales: str
    dtype: str

    def quantized(self, merged: Array, scales: str = "") -> QuantizedWeight:
        """Return merged values as the quantizer of the weight makes them."""
        stored = from_bits(encode(merged, self.dtype), self.dtype)
        return quantize_like(stored, self.weight, scales=scales or self.scales, fmt=self.dtype)


Fault = Callable[[Merging], QuantizedWeight]


def merge_by(kind: str, fault: Fault) -> Op:
    """Return a merge that computes the record another way."""

    def merge(**arguments: Any) -> tuple[HostArray, ...]:
        with np.errstate(all="ignore"):
            return arrays_of(kind, fault(_merging_of(kind, arguments)))

    return merge


def _merging_of(kind: str, arguments: dict[str, Any]) -> Merging:
    weight = record_of(kind, {name: arguments[name] for name in STORED[kind]}, arguments)
    a, b = arguments["lora_a"].real(), arguments["lora_b"].real()
    change = lora_scale(arguments["alpha"], len(a), rank_stabilized=arguments["rank_stabilized"]) * low_rank(a, b)
    dtype = arguments["dtype"]
    values = arguments["original"].real() if "original" in arguments else decode(dequantized_weight(weight), dtype)
    return Merging(weight, values, change.T if arguments["fan_in_fan_out"] else change, arguments["scales"], dtype)


def _right(m: Merging) -> QuantizedWeight:
    return m.quantized(m.values + m.change)


def _scales_kept(m: Merging) -> QuantizedWeight:
    """Keep the old scales whatever was asked for: a stale quantization state."""
    return m.quantized(m.values + m.change, "kept")


def _scales_fresh(m: Merging) -> QuantizedWeight:
    return m.quantized(m.values + m.change, "fresh")


def _codes_of_old_scales(m: Merging) -> QuantizedWeight:
    """Write fresh scales, but codes that belong to the old ones."""
    fresh, old = _right(m), m.quantized(m.values + m.change, "kept")
    codes = {"data": old.data} if isinstance(old, QuantizedBlocks | DoubleQuantized) else {"codes": old.codes}
    return replace(fresh, **codes)  # type: ignore[arg-type]


def _not_merged(m: Merging) -> QuantizedWeight:
    return m.weight


def _merged_twice(m: Merging) -> QuantizedWeight:
    return m.quantized(m.values + 2 * m.change)


def _square_transposed(m: Merging) -> QuantizedWeight:
    square = m.change.shape[0] == m.change.shape[1]
    return m.quantized(m.values + (m.change.T if square else m.change))


def _values_in_bfloat16(m: Merging) -> QuantizedWeight:
    merged = decode(encode(m.values + m.change, "bfloat16"), "bfloat16")
    return m.quantized(merged)


def _change_in_bfloat16(m: Merging) -> QuantizedWeight:
    return m.quantized(m.values + decode(encode(m.change, "bfloat16"), "bfloat16"))


def _not_in_its_format(m: Merging) -> QuantizedWeight:
    """Quantize the float32 sum without rounding it to the weight's format."""
    single = (m.values + m.change).astype(np.float32)
    made = quantize_like(single, m.weight, scales=m.scales, fmt="float32")
    return replace(made, dtype=m.dtype)


def _poison_lost(m: Merging) -> QuantizedWeight:
    return m.quantized(np.nan_to_num(m.values) + m.change)


def _from_dequantized(m: Merging) -> QuantizedWeight:
    """Merge into the dequantized weight where the original was asked for."""
    return m.quantized(decode(dequantized_weight(m.weight), m.dtype) + m.change)


def _last_block_stale(m: Merging) -> QuantizedWeight:
    """Leave the absmax of the last block as it was."""
    made = _right(m)
    if not isinstance(made, QuantizedBlocks) or not isinstance(m.weight, QuantizedBlocks) or not made.absmax.size:
        return made
    absmax = made.absmax.copy()
    absmax[-1] = m.weight.absmax[-1]
    return replace(made, absmax=absmax)


def _old_nested(m: Merging) -> QuantizedWeight:
    """Quantize the blocks anew and leave the nested absmax as they were."""
    made = _right(m)
    if isinstance(made, DoubleQuantized) and isinstance(m.weight, DoubleQuantized):
        return replace(made, absmax=m.weight.absmax)
    return made


def _old_offset(m: Merging) -> QuantizedWeight:
    made = _right(m)
    if isinstance(made, DoubleQuantized) and isinstance(m.weight, DoubleQuantized):
        return replace(made, absmax=replace(made.absmax, offset=m.weight.absmax.offset))
    return made


def _codes_of_restored(m: Merging) -> QuantizedWeight:
    """Take the codes from the absmax as they come back from double quantization."""
    made = _right(m)
    if not isinstance(made, DoubleQuantized) or m.scales == "kept":
        return made
    stored = from_bits(encode(m.values + m.change, m.dtype), m.dtype)
    again = quantize_like(stored, restore_absmax(made), scales="kept", fmt=m.dtype)
    return replace(made, data=again.data) if isinstance(again, QuantizedBlocks) else made


def _stale_zero_point(m: Merging) -> QuantizedWeight:
    made = _right(m)
    if isinstance(made, QuantizedAffine) and isinstance(m.weight, QuantizedAffine):
        return replace(made, zero_point=m.weight.zero_point)
    return made


def _saturated_codes(m: Merging) -> QuantizedWeight:
    """Wrap INT8 codes that leave their range under kept scales instead of saturating them."""
    made = _right(m)
    if not isinstance(made, QuantizedInt8) or m.scales == "fresh" or made.granularity == "block":
        return made
    absmax = np.where(np.isfinite(made.absmax) & (made.absmax != 0), made.absmax, np.inf)
    per = absmax[..., np.newaxis] if made.granularity == "row" else absmax
    steps = np.nan_to_num(np.rint(127 * (m.values + m.change) / per))
    return replace(made, codes=steps.astype(np.int64).astype(np.int8))


def _scale_in_bfloat16(kind: str) -> Op:
    def merge(**arguments: Any) -> Any:
        rank = arguments["lora_a"].shape[0]
        scale = float(decode(encode(np.array(arguments["alpha"] / rank), "bfloat16"), "bfloat16"))
        return OPS[f"merge_{kind}"](**{**arguments, "alpha": scale * rank})

    return merge


def _cycles_by(op: str, last: float) -> Op:
    """Return cycles whose unmerge applies `last` times the change."""

    def cycles(*, cycles: int, **arguments: Any) -> HostArray:
        weight = {name: arguments.pop(name) for name in STORED["blocks"]}
        for _ in range(cycles):
            for factor in (1.0, last):
                scaled = {**arguments, "alpha": factor * arguments["alpha"], "scales": "fresh"}
                made = OPS[op](**weight, **scaled)
                weight = dict(zip(STORED["blocks"], made, strict=True))
        record = record_of("blocks", weight, arguments)
        return host(np.asarray(dequantized_weight(record)), arguments["dtype"])

    return cycles


def requantize_faults() -> list[Mutant]:
    """Return the mutants of merges into quantized weights."""
    blocks: list[tuple[str, str, Fault, tuple[str, ...]]] = [
        ("stale-absmax", "the absmax stay those of the old weight", _scales_kept, ABSMAX),
        ("absmax-not-kept", "absmax are computed anew although they were to be kept", _scales_fresh, ABSMAX),
        ("codes-of-old-absmax", "fresh absmax are written with codes of the old ones", _codes_of_old_scales, CODES),
        ("not-merged", "the weight is returned as it was", _not_merged, ABSMAX),
        ("merged-twice", "the adapter is merged twice", _merged_twice, ABSMAX),
        ("square-transposed", "a square change is transposed", _square_transposed, ABSMAX),
        ("values-in-bfloat16", "the merged weight passes through bfloat16", _values_in_bfloat16, ABSMAX),
        ("change-in-bfloat16", "s B A is rounded to bfloat16", _change_in_bfloat16, ABSMAX),
        ("format-skipped", "the sum is not rounded to the weight's format", _not_in_its_format, ABSMAX),
        ("poison-lost", "a poisoned block becomes one of zeros", _poison_lost, ABSMAX),
        ("last-block-stale", "the absmax of the last block stays", _last_block_stale, ABSMAX),
    ]
    double: list[tuple[str, str, Fault, tuple[str, ...]]] = [
        ("old-nested", "nested absmax and offset stay those of the old weight", _old_nested,
         ("offset", "nested_absmax", "nested_codes")),
        ("old-offset", "the offset stays that of the old weight", _old_offset, ("offset",)),
        ("codes-of-restored", "codes are those of the restored absmax", _codes_of_restored, CODES),
    ]  # fmt: skip
    integer: list[tuple[str, str, str, Fault, tuple[str, ...]]] = [
        ("int8", "stale-absmax", "the absmax stay those of the old weight", _scales_kept, ABSMAX),
        ("int8", "codes-of-old-absmax", "fresh absmax are written with codes of the old ones", _codes_of_old_scales,
         CODES),
        ("int8", "wrapped", "codes beyond kept scales wrap around", _saturated_codes, CODES),
        ("int8", "poison-lost", "a poisoned group becomes one of zeros", _poison_lost, ABSMAX),
        ("affine", "stale-zero-point", "the zero point stays that of the old weight", _stale_zero_point,
         ("zero_point", "codes")),
        ("affine", "stale-scale", "scale and zero point stay those of the old weight", _scales_kept,
         ("scale", "zero_point", "codes")),
        ("affine", "merged-twice", "the adapter is merged twice", _merged_twice, ("scale", "zero_point", "codes")),
    ]  # fmt: skip
    original: list[tuple[str, str, Fault]] = [
        ("from-dequantized", "the dequantized weight is merged instead of the original", _from_dequantized),
        ("stale-absmax", "the absmax stay those of the old weight", _scales_kept),
        ("merged-twice", "the adapter is merged twice", _merged_twice),
    ]
    scaled = [("blocks", ABSMAX), ("int8", ABSMAX), ("affine", ("scale", "zero_point", "codes"))]
    return [
        *(Mutant(f"merge-blocks-{n}", f, {"merge_blocks": merge_by("blocks", op)}, s) for n, f, op, s in blocks),
        *(Mutant(f"merge-double-{n}", f, {"merge_double": merge_by("double", op)}, s) for n, f, op, s in double),
        *(Mutant(f"merge-{k}-{n}", f, {f"merge_{k}": merge_by(k, op)}, s) for k, n, f, op, s in integer),
        *(Mutant(f"merge-original-{n}", f, {"merge_blocks_original": merge_by("blocks", op)}, ABSMAX)
          for n, f, op in original),
        *(Mutant(f"merge-{k}-scale-in-bfloat16", "the scale is rounded to bfloat16",
                 {f"merge_{k}": _scale_in_bfloat16(k)}, s) for k, s in scaled),
        Mutant("merge-blocks-cycles-add", "unmerging adds", {"merge_blocks_cycles": _cycles_by("merge_blocks", 1.0)},
               ("values",)),
        Mutant("merge-blocks-cycles-stay", "the weight stays merged",
               {"merge_blocks_cycles": _cycles_by("merge_blocks", 0.0)}, ("values",)),
    ]  # fmt: skip
