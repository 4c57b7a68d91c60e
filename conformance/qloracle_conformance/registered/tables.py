"""Operations that show a codebook: its entries, and the midpoints where one code gives way to the next."""

from qloracle.tables import CODEBOOKS
from qloracle_conformance.generators import storing
from qloracle_conformance.generators.restoring import families
from qloracle_conformance.operations import storing as judges
from qloracle_conformance.operations.operation import Operation

TABLE = ("table", "memory")
CLAUSES = {
    "nf4": "nf4.table",
    "fp4": "fp4.table",
    "linear_signed_4bit": "linear.table",
    "linear_unsigned_4bit": "linear.table",
    "dynamic_signed": "dynamic.table",
    "dynamic_unsigned": "dynamic.table",
    "linear_signed": "linear.table",
    "linear_unsigned": "linear.table",
    "float8": "float8.table",
}


def operations() -> list[Operation]:
    """Return the operations."""
    made = []
    for name in CODEBOOKS:
        entries, midpoints = f"{name}.entries", f"{name}.midpoints"
        made += [
            Operation(entries, "codebook_entries", 1, {"entries": CLAUSES[name]}, judges.judge_entries,
                      families(storing.table_case, TABLE, operation=entries, codebook=name),
                      judges.table_intermediates),
            Operation(midpoints, "codebook_midpoints", 1, {"midpoints": "codebook.midpoints"}, judges.judge_midpoints,
                      families(storing.table_case, TABLE, operation=midpoints, codebook=name),
                      judges.midpoint_intermediates),
        ]  # fmt: skip
    return made
