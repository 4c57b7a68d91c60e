"""Faults of counting bytes: what is forgotten, rounded the wrong way, or counted where it is not."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from math import prod

import numpy as np

from qloracle.footprint.schemes import Scheme
from qloracle.footprint.storage import TensorBytes, group_count, tensor_bytes
from qloracle.formats import Array
from qloracle_conformance import counted
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.footprint_names import name_faults
from qloracle_conformance.mutants.mutant import Mutant, Op
from qloracle_conformance.mutants.training_faults import training_faults

Count = Callable[[tuple[int, ...], Scheme], TensorBytes]


def _parts_by(count: Count) -> Op:
    """Return a function that counts each tensor by itself."""

    def parts(shapes: HostArray, *, scheme: str, block_size: int) -> tuple[HostArray, ...]:
        chosen = counted.scheme_of(scheme, block_size)
        found = [count(counted.shape_of(row), chosen) for row in shapes.items]
        columns = ([t.codes for t in found], [t.scales for t in found], [t.offsets for t in found])
        return tuple(host(np.array(column).astype(np.int64)) for column in columns)

    return parts


def _no_scales(shape: tuple[int, ...], scheme: Scheme) -> TensorBytes:
    return replace(tensor_bytes(shape, scheme), scales=0)


def _no_zero_points(shape: tuple[int, ...], scheme: Scheme) -> TensorBytes:
    return tensor_bytes(shape, replace(scheme, zero_point_bytes=0))


def _no_nested_offset(shape: tuple[int, ...], scheme: Scheme) -> TensorBytes:
    right = tensor_bytes(shape, scheme)
    return replace(right, offsets=0) if scheme.nested else right


def _offset_a_group(shape: tuple[int, ...], scheme: Scheme) -> TensorBytes:
    right = tensor_bytes(shape, scheme)
    return replace(right, offsets=4 * -(-group_count(shape, scheme) // 256)) if scheme.nested else right


def _byte_zero_points(shape: tuple[int, ...], scheme: Scheme) -> TensorBytes:
    return tensor_bytes(shape, replace(scheme, zero_point_bytes=min(scheme.zero_point_bytes, 1)))


def _whole_blocks_only(shape: tuple[int, ...], scheme: Scheme) -> TensorBytes:
    right = tensor_bytes(shape, scheme)
    if scheme.block_size is None or scheme.nested:
        return right
    return replace(right, scales=4 * (prod(shape) // scheme.block_size))


def _whole_nested_groups_only(shape: tuple[int, ...], scheme: Scheme) -> TensorBytes:
    groups = group_count(shape, scheme)
    right = tensor_bytes(shape, scheme)
    return replace(right, scales=groups + 4 * (groups // 256)) if scheme.nested else right


def _nested_by_elements(shape: tuple[int, ...], scheme: Scheme) -> TensorBytes:
    """Take a nested group as 256 blocks of elements of the tensor, the last one not rounded up by blocks first."""
    right = tensor_bytes(shape, scheme)
    if not scheme.nested or scheme.block_size is None:
        return right
    return replace(right, scales=group_count(shape, scheme) + 4 * round(prod(shape) / scheme.block_size / 256))


def _not_nested(shape: tuple[int, ...], scheme: Scheme) -> TensorBytes:
    right = tensor_bytes(shape, scheme)
    return replace(right, scales=4 * group_count(shape, scheme)) if scheme.nested else right


def _blocks_of_rows(shape: tuple[int, ...], scheme: Scheme) -> TensorBytes:
    if scheme.block_size is None or scheme.nested or len(shape) < 2 or 0 in shape:
        return tensor_bytes(shape, scheme)
    rows = prod(shape[:-1]) * tensor_bytes(shape[-1:], scheme).scales
    return replace(tensor_bytes(shape, scheme), scales=rows)


def _half_scales(shape: tuple[int, ...], scheme: Scheme) -> TensorBytes:
    right = tensor_bytes(shape, scheme)
    return right if scheme.nested else replace(right, scales=right.scales // 2)


def _rows_for_columns(shape: tuple[int, ...], scheme: Scheme) -> TensorBytes:
    swap = {"row": "column", "column": "row"}
    return tensor_bytes(shape, replace(scheme, group=swap.get(scheme.group, scheme.group)))


def _first_axis_rows(shape: tuple[int, ...], scheme: Scheme) -> TensorBytes:
    right = tensor_bytes(shape, scheme)
    return replace(right, scales=4 * shape[0]) if scheme.group == "row" and shape else right


def _codes_cut(shape: tuple[int, ...], scheme: Scheme) -> TensorBytes:
    return replace(tensor_bytes(shape, scheme), codes=prod(shape) * scheme.code_bits // 8)


def _byte_codes(shape: tuple[int, ...], scheme: Scheme) -> TensorBytes:
    return replace(tensor_bytes(shape, scheme), codes=prod(shape) * -(-scheme.code_bits // 8))


def _rows_padded(shape: tuple[int, ...], scheme: Scheme) -> TensorBytes:
    """Pack every row by itself, so that each ends with a padded nibble."""
    row = -(-shape[-1] * scheme.code_bits // 8) if shape else -(-scheme.code_bits // 8)
    return replace(tensor_bytes(shape, scheme), codes=prod(shape[:-1]) * row)


def _padded_blocks(shape: tuple[int, ...], scheme: Scheme) -> TensorBytes:
    if scheme.block_size is None:
        return tensor_bytes(shape, scheme)
    padded = group_count(shape, scheme) * scheme.block_size
    return replace(tensor_bytes(shape, scheme), codes=-(-padded * scheme.code_bits // 8))


def _in_32_bits(shape: tuple[int, ...], scheme: Scheme) -> TensorBytes:
    elements = prod(shape) & 0xFFFFFFFF
    return replace(tensor_bytes(shape, scheme), codes=-(-elements * scheme.code_bits // 8))


def _bits_by(change: Callable[[Scheme], Scheme], nested: bool = True) -> Op:
    def bits(*, scheme: str, block_size: int) -> HostArray:
        chosen = change(counted.scheme_of(scheme, block_size))
        plain = 8 * tensor_bytes((256 * (chosen.block_size or 1),), chosen).scales if nested else 0
        size = 256 * (chosen.block_size or 1)
        offsets = 0 if chosen.nested else 8 * tensor_bytes((size,), chosen).offsets
        extra = Fraction(plain + offsets, size) if chosen.group == "block" else Fraction(0)
        return host(np.array((chosen.code_bits + extra).as_integer_ratio(), np.int64))

    return bits


def _tables_by(count: Callable[[int, Array, str], int]) -> Op:
    def tables(quantized: HostArray, *, scheme: str, tables: str) -> HostArray:
        return host(np.array(count(counted.scheme_of(scheme, None).table_entries, quantized.items, tables), np.int64))

    return tables


def _copies(quantized: Array, tables: str) -> int:
    return int(quantized.sum()) if tables == "per_tensor" else int(quantized.any())


def footprint_faults() -> list[Mutant]:
    """Return the mutants."""

    def tensor(name: str, fault: str, count: Count, stage: str) -> Mutant:
        return Mutant(f"footprint-{name}", fault, {"tensor_bytes": _parts_by(count)}, (stage,))

    def other(name: str, fault: str, function: str, op: Op, stage: str) -> Mutant:
        return Mutant(f"footprint-{name}", fault, {function: op}, (stage,))

    return [
        tensor("scales-forgotten", "the scales are not counted", _no_scales, "scales"),
        tensor("half-scales", "scales are counted as two bytes", _half_scales, "scales"),
        tensor("last-block-forgotten", "a partial block has no scale", _whole_blocks_only, "scales"),
        tensor("last-group-forgotten", "a partial nested group has no absmax", _whole_nested_groups_only, "scales"),
        tensor("nested-groups-of-elements", "nested groups are rounded, not counted", _nested_by_elements, "scales"),
        tensor("double-as-single", "nested absmax are counted as plain ones", _not_nested, "scales"),
        tensor("blocks-of-rows", "every row starts a new block", _blocks_of_rows, "scales"),
        tensor("rows-for-columns", "row and column scales are exchanged", _rows_for_columns, "scales"),
        tensor("first-axis-rows", "only the first axis counts as rows", _first_axis_rows, "scales"),
        tensor("zero-points-forgotten", "zero points are not counted", _no_zero_points, "offsets"),
        tensor("byte-zero-points", "zero points are counted as one byte", _byte_zero_points, "offsets"),
        tensor("offset-forgotten", "the offset of double quantization is not counted", _no_nested_offset, "offsets"),
        tensor("offset-a-group", "every nested group has an offset", _offset_a_group, "offsets"),
        tensor("nibble-cut", "the last nibble of an odd count is not counted", _codes_cut, "codes"),
        tensor("byte-codes", "every code takes a byte", _byte_codes, "codes"),
        tensor("rows-padded", "every row is packed by itself", _rows_padded, "codes"),
        tensor("blocks-padded", "the last block is filled up", _padded_blocks, "codes"),
        tensor("elements-in-32-bits", "the number of elements wraps at 2^32", _in_32_bits, "codes"),
        other("bits-without-scales", "the bits a weight leave the scales out", "bits_per_weight",
              _bits_by(lambda s: s, nested=False), "bits"),
        other("bits-not-nested", "the bits a weight ignore double quantization", "bits_per_weight",
              _bits_by(lambda s: replace(s, nested=False)), "bits"),
        other("bits-of-default-blocks", "the bits a weight are those of blocks of 64", "bits_per_weight",
              _bits_by(lambda s: replace(s, block_size=64) if s.group == "block" else s), "bits"),
        other("bits-without-zero-points", "the bits a weight leave zero points out", "bits_per_weight",
              _bits_by(lambda s: replace(s, zero_point_bytes=0)), "bits"),
        other("tables-forgotten", "tables are not counted", "table_bytes", _tables_by(lambda e, q, t: 0), "tables"),
        other("tables-shared", "a copy with every tensor is counted once", "table_bytes",
              _tables_by(lambda e, q, t: 4 * e * int(q.any())), "tables"),
        other("tables-copied", "a shared table is counted with every tensor", "table_bytes",
              _tables_by(lambda e, q, t: 4 * e * int(q.sum())), "tables"),
        other("tables-of-nothing", "a table is counted though nothing reads it", "table_bytes",
              _tables_by(lambda e, q, t: 4 * e * max(_copies(q, t), 1)), "tables"),
        other("tables-first-only", "the table of the nested absmax is not counted", "table_bytes",
              _tables_by(lambda e, q, t: 4 * (e - 256 if e > 256 else e) * _copies(q, t)), "tables"),
        other("tables-in-half", "entries are counted as two bytes", "table_bytes",
              _tables_by(lambda e, q, t: 2 * e * _copies(q, t)), "tables"),
        *training_faults(),
        *name_faults(),
    ]  # fmt: skip
