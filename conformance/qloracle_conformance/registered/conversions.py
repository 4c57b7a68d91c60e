"""Operations that convert between formats."""

from qloracle.formats import FORMATS, format_named
from qloracle_conformance.generators import choosing, conversion_options, converting, extents, restoring
from qloracle_conformance.operations import conversion
from qloracle_conformance.operations.operation import Operation

LONG = ("extents", "degenerate", "squares")
STAGES = {
    "bits": "format.encode", "rounding": "format.rounding", "overflow": "format.overflow",
    "stochastic": "format.stochastic", "nan": "format.nan",
}  # fmt: skip
FIRST = ("bfloat16", "float16")


def operations() -> list[Operation]:
    """Return the operations: a conversion to every format, and from all that are narrower than float32."""
    names = [*FIRST, *(name for name in FORMATS if name not in FIRST)]
    narrow = [name for name in names if format_named(name).mantissa_bits < format_named("float32").mantissa_bits]
    made = []
    for fmt in names:
        made.append(_encode(fmt, from_float32=fmt in narrow))
        if fmt in narrow:
            families = {
                **converting.decode_families(fmt), **restoring.families(extents.decode_case, LONG, fmt=fmt),
            }  # fmt: skip
            made.append(
                Operation(f"{fmt}.decode", "decode", 1, {"values": "format.decode"}, conversion.judge_decode, families,
                          conversion.decode_intermediates)
            )  # fmt: skip
    return made


def _encode(fmt: str, *, from_float32: bool) -> Operation:
    """Return the conversion to a format; families of float32 inputs only where that loses something."""
    plain = choosing.plain_families(fmt)
    if from_float32:
        plain = {**converting.encode_families(fmt), **restoring.families(extents.encode_case, LONG, fmt=fmt)}
    families = {**plain, **choosing.choice_families(fmt)}
    reached = {family: (choosing.STAGE_OF.get(family, "bits"),) for family in families}
    stages = {stage: clause for stage, clause in STAGES.items() if (stage,) in reached.values()}
    return Operation(
        f"{fmt}.encode", "encode", 1, stages, conversion.judge_encode, families, conversion.encode_intermediates,
        reached=reached, options=conversion_options.options_of(fmt), optional=conversion_options.optional_of(fmt),
    )  # fmt: skip
