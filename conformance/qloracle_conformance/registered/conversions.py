"""Operations that convert between formats."""

from qloracle_conformance.generators import converting, extents, restoring
from qloracle_conformance.operations import conversion
from qloracle_conformance.operations.operation import Operation

LONG = ("extents", "degenerate", "squares")


def operations() -> list[Operation]:
    """Return the operations."""
    made = []
    for fmt in ("bfloat16", "float16"):
        made += [
            Operation(f"{fmt}.encode", "encode", 1, {"bits": "format.encode"}, conversion.judge_encode,
                      {**converting.encode_families(fmt), **restoring.families(extents.encode_case, LONG, fmt=fmt)},
                      conversion.encode_intermediates),
            Operation(f"{fmt}.decode", "decode", 1, {"values": "format.decode"}, conversion.judge_decode,
                      {**converting.decode_families(fmt), **restoring.families(extents.decode_case, LONG, fmt=fmt)},
                      conversion.decode_intermediates),
        ]  # fmt: skip
    return made
