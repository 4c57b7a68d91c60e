"""Operations that pack 4-bit codes."""

from qloracle_conformance.generators import converting, extents, restoring
from qloracle_conformance.operations import conversion, dequantize
from qloracle_conformance.operations.operation import Operation

BOTH = ("shapes", "memory")


def operations() -> list[Operation]:
    """Return the operations."""
    return [
        Operation("packing.pack", "pack_4bit", 1, {"packed": "packing.nibbles"}, conversion.judge_pack,
                  {**restoring.families(converting.pack_case, BOTH),
                   **restoring.families(extents.pack_case, ("extents", "squares"))}, conversion.packing_intermediates),
        Operation("packing.unpack", "unpack_4bit", 1, {"codes": "packing.nibbles"}, dequantize.judge_unpack,
                  {**restoring.families(converting.unpack_case, BOTH),
                   **restoring.families(extents.unpack_case, ("extents",))}, conversion.packing_intermediates),
    ]  # fmt: skip
