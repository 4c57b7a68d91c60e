"""Operations that pack 4-bit codes."""

from qloracle_conformance.generators import converting, extents, restoring, storing
from qloracle_conformance.operations import conversion, dequantize
from qloracle_conformance.operations import storing as judges
from qloracle_conformance.operations.operation import Operation

BOTH = ("shapes", "memory")
STORED = ("shapes", "specials", "memory", "extents")


def operations() -> list[Operation]:
    """Return the operations."""
    return [
        Operation("packing.pack", "pack_4bit", 1, {"packed": "packing.nibbles"}, conversion.judge_pack,
                  {**restoring.families(converting.pack_case, BOTH),
                   **restoring.families(extents.pack_case, ("extents", "squares"))}, conversion.packing_intermediates),
        Operation("packing.unpack", "unpack_4bit", 1, {"codes": "packing.nibbles"}, dequantize.judge_unpack,
                  {**restoring.families(converting.unpack_case, BOTH),
                   **restoring.families(extents.unpack_case, ("extents",))}, conversion.packing_intermediates),
        Operation("packing.store", "storage_view", 1, {"items": "packing.storage"}, judges.judge_stored,
                  restoring.families(storing.store_case, STORED), judges.storage_intermediates,
                  options={"storage": storing.STORAGES}),
        Operation("packing.restore", "storage_bytes", 1, {"bytes": "packing.storage"}, judges.judge_restored,
                  restoring.families(storing.restore_case, STORED), judges.storage_intermediates,
                  options={"storage": storing.STORAGES}),
    ]  # fmt: skip
