"""Operations that merge adapters into quantized weights."""

from qloracle.quantizing_like import SCALES
from qloracle.tables import CODEBOOKS
from qloracle_conformance.backend import Level
from qloracle_conformance.generators import requantizing as inputs
from qloracle_conformance.generators.grouping import OPTIONS
from qloracle_conformance.generators.restoring import families
from qloracle_conformance.operations import requantizing as judges
from qloracle_conformance.operations.operation import Operation

Options = dict[str, tuple[object, ...]]
COMMON: Options = {"scales": SCALES, "fan_in_fan_out": (False, True)}
BOUND: dict[str, Level] = {"codes": "bound"}


def operations() -> list[Operation]:
    """Return the operations."""
    books: Options = {"codebook": tuple(CODEBOOKS)}
    nested = ("codes", "offset", "nested_absmax", "nested_codes")
    lattices = inputs.LATTICES
    return [
        _merge("blocks.merge", "blocks", ("absmax", "codes"), inputs.FAMILIES, books),
        _merge("double.merge", "double", nested, lattices, {"codebook": ("nf4", "fp4")}),
        _merge("int8.merge", "int8", ("absmax", "codes"), inputs.FAMILIES, OPTIONS["int8"]),
        _merge("affine.merge", "affine", ("scale", "zero_point", "codes"), inputs.FAMILIES, OPTIONS["affine"]),
        Operation("blocks.merge_original", "merge_blocks_original", 2,
                  {"absmax": "merge.original", "codes": "merge.original"}, judges.judge_of("blocks"),
                  families(inputs.requantize_case, inputs.FAMILIES, kind="blocks", operation="blocks.merge_original"),
                  judges.intermediates_of("blocks"), strictest="bound", bound="bounds.requantize",
                  options={**COMMON, **books}),
        Operation("blocks.merge_cycles", "merge_blocks_cycles", 1, {"values": "merge.requantize"},
                  judges.judge_cycles,
                  families(inputs.requantize_case, inputs.CYCLES, kind="blocks", operation="blocks.merge_cycles"),
                  judges.intermediates_of("blocks"), strictest="bound", bound="bounds.requantize_cycles",
                  options={"fan_in_fan_out": (False, True), **books}),
    ]  # fmt: skip


def _merge(name: str, kind: str, stages: tuple[str, ...], chosen: tuple[str, ...], options: Options) -> Operation:
    made = families(inputs.requantize_case, chosen, kind=kind, operation=name)
    return Operation(name, f"merge_{kind}", len(inputs.STORED[kind]), dict.fromkeys(stages, "merge.requantize"),
                     judges.judge_of(kind), made, judges.intermediates_of(kind), strictest="bound",
                     bound="bounds.requantize", options={**COMMON, **options})  # fmt: skip
