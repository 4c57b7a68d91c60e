"""Faults of codebooks: tables that are built or read otherwise."""

from collections.abc import Callable

import numpy as np

from qloracle.blocks import spread
from qloracle.conditional_means import conditional_means
from qloracle.formats import Array
from qloracle.packing import unpack_4bit
from qloracle.rounding import encode
from qloracle.tables import codebook_named
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.mutant import Mutant, Op
from qloracle_conformance.mutants.wrong_tables import (
    Table,
    by_division,
    dynamic_counted_upwards,
    dynamic_without_last_decade,
    e2m1,
    e4m3_with,
    e5m2,
    ends_at_both_ones,
    in_bfloat16,
    in_half,
    in_six_digits,
    in_value_order,
    named,
    nf4_counted_upwards,
    over_the_next_power,
    subnormal_lost,
    symmetric_integers,
    twos_complement_order,
    zero_unsigned,
)


def entries_of(table: Table) -> Op:
    """Return a function that shows other entries."""

    def shown(*, codebook: str) -> HostArray:
        return host(table(codebook_named(codebook)).astype(np.float32))

    return shown


def read_with(table: Table, index: Callable[[Array], Array] = np.asarray) -> Op:
    """Return a restorer that reads other entries, or the entries at other indices."""

    def restore(
        data: HostArray, absmax: HostArray, *, codebook: str, block_size: int, shape: tuple[int, ...], dtype: str
    ) -> HostArray:
        book, size = codebook_named(codebook), int(np.prod(shape, dtype=np.int64))
        codes = unpack_4bit(data.items, size) if book.code_bits == 4 else data.items.reshape(-1)
        scale = spread(absmax.items, size, block_size)
        with np.errstate(all="ignore"):
            values = np.where(scale == 0, np.float32(0), table(book).astype(np.float32)[index(codes)] * scale)
        return host(np.asarray(encode(values.reshape(shape), dtype)), dtype)

    return restore


def table_faults() -> list[Mutant]:
    """Return the mutants of tables."""
    tables: list[tuple[str, str, Table, tuple[str, ...]]] = [
        ("table-in-float16", "the table is kept in float16", in_half, ("nf4", "dynamic_signed", "float8")),
        ("table-in-bfloat16", "the table is kept in bfloat16", in_bfloat16, ("fp4", "linear_unsigned")),
        ("table-of-six-digits", "the table was typed in with six digits", in_six_digits, ("nf4", "linear_signed")),
        ("table-counted-upwards", "the spacing counts up throughout", nf4_counted_upwards, ("nf4",)),
        ("table-counted-upwards", "the spacing counts up throughout", dynamic_counted_upwards,
         ("dynamic_signed", "dynamic_unsigned")),
        ("table-of-means", "entries are conditional means of the bins", lambda _: conditional_means().entries,
         ("nf4",)),
        ("table-of-nf4", "another table is used", named("nf4"), ("fp4", "linear_signed_4bit")),
        ("table-in-value-order", "codes are taken for positions in value order", in_value_order, ("fp4", "float8")),
        ("table-of-e2m1", "the 4-bit float is e2m1", e2m1, ("fp4",)),
        ("table-subnormal-lost", "the subnormal entry is zero", subnormal_lost, ("fp4",)),
        ("table-zero-unsigned", "the second zero has no sign", zero_unsigned, ("fp4", "float8")),
        ("table-signed-for-unsigned", "the signed map serves for the unsigned one", named("dynamic_signed"),
         ("dynamic_unsigned",)),
        ("table-exponent-late", "the exponents begin one decade late", dynamic_without_last_decade,
         ("dynamic_signed", "dynamic_unsigned")),
        ("table-with-minus-one", "the lowest entry is -1", ends_at_both_ones, ("dynamic_signed",)),
        ("table-by-division", "entries are k/127, k/255, k/15", by_division,
         ("linear_signed", "linear_unsigned", "linear_unsigned_4bit")),
        ("table-over-next-power", "entries are k/256, k/16", over_the_next_power,
         ("linear_unsigned", "linear_unsigned_4bit")),
        ("table-symmetric", "entries are -7 to 7 over 7", symmetric_integers, ("linear_signed_4bit",)),
        ("table-in-twos-complement", "codes are two's complement numbers", twos_complement_order,
         ("linear_signed_4bit", "nf4")),
        ("table-over-480", "entries are divided by 480", e4m3_with(480, 7, False), ("float8",)),
        ("table-nan-is-480", "the NaN of float8 are numbers", e4m3_with(448, 7, True), ("float8",)),
        ("table-of-e5m2", "the 8-bit float is e5m2", e5m2, ("float8",)),
    ]  # fmt: skip
    return [
        *(Mutant(f"{name}-shown-{book}", fault, {"codebook_entries": entries_of(table)}, ("entries",), operations=book)
          for name, fault, table, books in tables for book in books),
        *(Mutant(f"{name}-read-{book}", fault, {"dequantize_blockwise": read_with(table)},
                 ("values", "unpacking") if name == "table-in-twos-complement" else ("values",), operations=book)
          for name, fault, table, books in tables for book in books),
        Mutant("read-from-the-top", "the table is stored in descending order",
               {"dequantize_blockwise": read_with(lambda b: b.entries[::-1])}, ("values", "unpacking")),
        Mutant("read-7-bits", "codes of 8 bits are read with 7", {"dequantize_blockwise": read_with(
               lambda b: b.entries, lambda c: c & 0x7F)}, ("values",), operations="dynamic_signed"),
    ]  # fmt: skip
