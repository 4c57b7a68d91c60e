"""Merges and combinations that are wrong on one of their paths: tails, high ranks, falling scales, equal ranks."""

from dataclasses import replace
from typing import Any

import numpy as np

from qloracle.blockwise import QuantizedBlocks
from qloracle.combining import LoraAdapter
from qloracle.formats import Array
from qloracle.int8 import QuantizedInt8
from qloracle.nearest import quantize_codes
from qloracle.packing import pack_4bit
from qloracle.qlora import QuantizedWeight
from qloracle.rounding import decode, encode
from qloracle.tables import codebook_named
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.merge_kernels import WEIGHT, Operands, merge_by, operands_of
from qloracle_conformance.mutants.mutant import Mutant, Op
from qloracle_conformance.mutants.requantize_faults import Merging
from qloracle_conformance.mutants.requantize_faults import merge_by as requantize_by
from qloracle_conformance.mutants.start_faults import combined_by


def _right(o: Operands) -> Array:
    return o.weight + o.scale * o.product


def _tail_columns(o: Operands) -> Array:
    """Leave the columns after the last whole vector of 8 as they were, where there is one."""
    columns = o.weight.shape[1]
    kept = np.arange(columns) >= columns - columns % 8
    return np.where(kept & (columns > 8), o.weight, _right(o))


def _unscaled_beyond_8(o: Operands) -> Array:
    return o.weight + (1.0 if o.rank > 8 else o.scale) * o.product


def _even_ranks(o: Operands) -> Array:
    """Leave the last of an odd number of ranks out."""
    kept = o.rank - o.rank % 2 if o.rank > 1 else 1
    return o.weight + o.scale * (o.lora_b[:, :kept] @ o.lora_a[:kept])


def _second_tile_subtracted(o: Operands) -> Array:
    """Let rows from 64 on lack the adapter."""
    return np.where((np.arange(len(o.weight)) >= 64)[:, np.newaxis], o.weight, _right(o))


def _half_sum(o: Operands) -> Array:
    """Add in float16, operands and all, where the weight is float16."""
    if o.dtype != "float16":
        return _right(o)
    change = (o.scale * o.product).astype(np.float16)
    total: Array = (o.weight.astype(np.float16) + change).astype(np.float64)
    return total


def _checks_first_1024(**arguments: Any) -> tuple[HostArray, HostArray]:
    merged = OPS["lora_merge"](**arguments)
    with np.errstate(all="ignore"):
        accepted = bool(np.isfinite(merged.real().reshape(-1)[:1024]).all())
    return (merged if accepted else arguments["weight"]), host(np.array(accepted))


def _checks_without_last(**arguments: Any) -> tuple[HostArray, HostArray]:
    merged = OPS["lora_merge"](**arguments)
    with np.errstate(all="ignore"):
        flat = merged.real().reshape(-1)
    accepted = bool(np.isfinite(flat[:-1]).all()) if flat.size > 1 else True
    return (merged if accepted else arguments["weight"]), host(np.array(accepted))


def _never_falls(m: Merging) -> QuantizedWeight:
    """Raise the absmax of a block where the merged weight needs it, and never lower it."""
    fresh = m.quantized(m.values + m.change)
    if not isinstance(fresh, QuantizedBlocks) or not isinstance(m.weight, QuantizedBlocks) or m.scales == "kept":
        return fresh
    absmax = np.where(np.isnan(fresh.absmax), fresh.absmax, np.maximum(fresh.absmax, m.weight.absmax))
    return _recoded(m, fresh, absmax)


def _recoded(m: Merging, fresh: QuantizedBlocks, absmax: Array) -> QuantizedBlocks:
    """Return the merged weight with other absmax, and codes that are right for them."""
    stored = decode(encode(m.values + m.change, m.dtype), m.dtype).astype(np.float32).reshape(-1)
    table = codebook_named(fresh.codebook)
    codes = quantize_codes(stored, absmax.astype(np.float32), table, fresh.block_size)
    data = pack_4bit(codes, table.zero_code) if table.code_bits == 4 else codes
    return replace(fresh, data=data, absmax=absmax.astype(np.float32))


def _rows_from_16_stale(m: Merging) -> QuantizedWeight:
    """Keep the absmax of rows from 16 on, with codes for the new ones."""
    fresh = m.quantized(m.values + m.change)
    if not isinstance(fresh, QuantizedInt8) or not isinstance(m.weight, QuantizedInt8) or fresh.granularity != "row":
        return fresh
    absmax = np.where(np.arange(fresh.absmax.size) >= 16, m.weight.absmax, fresh.absmax)
    return replace(fresh, absmax=absmax)


def _equal_ranks(adapters: list[LoraAdapter], weights: list[float]) -> tuple[list[LoraAdapter], list[float]]:
    """Take the A of the first adapter for every one of its rank."""
    first = adapters[0].lora_a
    return [replace(a, lora_a=first) if a.lora_a.shape == first.shape else a for a in adapters], weights


def _weight_size(adapters: list[LoraAdapter], weights: list[float]) -> tuple[list[LoraAdapter], list[float]]:
    """Lose the sign of a weight."""
    return adapters, [abs(weight) for weight in weights]


def _bias_tail(**arguments: Any) -> HostArray:
    """Leave the bias after the last whole vector of 4 as it was."""
    merged, base = OPS["merge_bias"](**arguments), arguments["base_bias"]
    items = np.array(merged.items)
    whole = items.size - items.size % 4 if items.size > 4 else items.size
    items[whole:] = base.items[whole:]
    return HostArray(items, merged.dtype)


def _dora_norms_to_32(**arguments: Any) -> tuple[HostArray, HostArray]:
    """Cover the first 32 inputs by the norms."""
    merged, norms = OPS["dora_merge"](**arguments)
    with np.errstate(all="ignore"):
        o = operands_of(arguments)
        short = np.sqrt(np.sum(np.square(_right(o)[:, :32]), axis=1)).astype(np.float32)
    return merged, host(short if o.weight.shape[1] > 32 else norms.items)


def path_merge_faults() -> list[Mutant]:
    """Return the mutants."""
    merges = {
        "tail-columns": ("columns beyond the last multiple of 8 are not merged", _tail_columns),
        "unscaled-beyond-8": ("the scale is missing above rank 8", _unscaled_beyond_8),
        "even-ranks": ("the last of an odd number of ranks is left out", _even_ranks),
        "rows-from-64": ("rows from 64 on are not merged", _second_tile_subtracted),
        "half-sum": ("float16 weights are added up in float16", _half_sum),
    }
    safe: dict[str, tuple[str, Op]] = {
        "first-1024": ("the first 1024 elements are checked", _checks_first_1024),
        "without-last": ("the last element is not checked", _checks_without_last),
    }
    changes = {
        "equal-ranks": ("adapters of the rank of the first have its A", _equal_ranks),
        "weight-size": ("a negative weight loses its sign", _weight_size),
    }
    forms = (("combine", "combine_adapters", ("delta",)), ("concatenate", "concatenate_adapters", ("lora_a", "lora_b")))
    return [
        *(Mutant(f"merge-{name}", fault, {"lora_merge": merge_by(formula)}, WEIGHT)
          for name, (fault, formula) in merges.items()),
        *(Mutant(f"safe-merge-{name}", fault, {"lora_merge_safe": op}, ("weight", "accepted"))
          for name, (fault, op) in safe.items()),
        Mutant("merge-blocks-absmax-never-falls", "an absmax is raised and never lowered",
               {"merge_blocks": requantize_by("blocks", _never_falls)}, ("absmax",)),
        Mutant("merge-int8-rows-from-16-stale", "rows from 16 on keep their absmax",
               {"merge_int8": requantize_by("int8", _rows_from_16_stale)}, ("absmax",)),
        *(Mutant(f"{form}-{name}", fault, {function: combined_by(change)[function]}, stages)
          for form, function, stages in forms for name, (fault, change) in changes.items()),
        Mutant("merge-bias-tail", "the bias after the last whole vector of 4 is not merged",
               {"merge_bias": _bias_tail}, ("bias",)),
        Mutant("dora-merge-norms-to-32", "the norms cover the first 32 inputs", {"dora_merge": _dora_norms_to_32},
               ("norms",)),
    ]  # fmt: skip
