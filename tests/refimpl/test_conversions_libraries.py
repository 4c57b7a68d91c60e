"""[format.encode], [format.rounding] against the conversions of ml_dtypes, gfloat and PyTorch, policies by name."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from qloracle.formats import Array, format_named
from qloracle.rounding import decode, encode

from .decision_points import decision_points
from .rational_formats import LAYOUTS, NO_NAN

# bfloat16 and float16: see test_encode. float8_e8m0fnu: ties go up there, and not to the even code.
OF_ML_DTYPES = [name for name in LAYOUTS if name.startswith(("float8_e4", "float8_e5", "float6_", "float4_"))]
OF_TORCH = ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "bfloat16", "float16"]
INFO = {
    "float16": "binary16", "bfloat16": "bfloat16", "tfloat32": "", "float8_e4m3fn": "ocp_e4m3",
    "float8_e5m2": "ocp_e5m2", "float8_e8m0fnu": "ocp_e8m0", "float6_e2m3fn": "ocp_e2m3",
    "float6_e3m2fn": "ocp_e3m2", "float4_e2m1fn": "ocp_e2m1",
}  # fmt: skip
MODES = {
    "ties_to_even": "TiesToEven", "ties_to_away": "TiesToAway", "toward_zero": "TowardZero",
    "toward_positive": "TowardPositive", "toward_negative": "TowardNegative",
}  # fmt: skip


def every_high_half() -> Array:
    """float32 with every sign, exponent and leading mantissa, and what lies around the ties below."""
    high = np.arange(2**16, dtype=np.uint32)[:, np.newaxis] << np.uint32(16)
    low = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    return (high | low).reshape(-1).view(np.float32)


def require_same(got: Array, expected: Array, fmt: str, values: Array, library: str) -> None:
    """Fail at the first difference; every NaN equals every NaN."""
    both = np.isnan(decode(got, fmt)) & np.isnan(decode(expected, fmt))
    wrong = np.flatnonzero((got != expected) & ~both)
    if wrong.size:
        first = wrong[0]
        raise AssertionError(
            f"{float(values[first]).hex()} to {fmt}: {wrong.size} of {got.size} differ, the first is {library}'s "
            f"{int(expected[first]):#x}, got {int(got[first]):#x}"
        )


@pytest.mark.proof("format.encode", by="ml_dtypes")
@pytest.mark.parametrize("fmt", OF_ML_DTYPES)
def test_every_high_half_of_float32_becomes_what_ml_dtypes_makes_of_it(ml_dtypes: ModuleType, fmt: str) -> None:
    values = every_high_half()
    values = values[~np.isnan(values)] if fmt in NO_NAN else values
    with np.errstate(all="ignore"):
        expected = values.astype(getattr(ml_dtypes, fmt)).view(np.uint8)
    require_same(encode(values, fmt), expected, fmt, values, "ml_dtypes")


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", range(16))
@pytest.mark.parametrize("fmt", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"])
def test_every_float32_becomes_what_ml_dtypes_makes_of_it(ml_dtypes: ModuleType, fmt: str, part: int) -> None:
    for start in range(part << 28, (part + 1) << 28, 1 << 22):
        values = np.arange(start, start + (1 << 22), dtype=np.uint32).view(np.float32)
        with np.errstate(all="ignore"):
            expected = values.astype(getattr(ml_dtypes, fmt)).view(np.uint8)
        require_same(encode(values, fmt), expected, fmt, values, "ml_dtypes")


@pytest.mark.proof("format.encode", by="PyTorch")
@pytest.mark.parametrize("fmt", OF_TORCH)
def test_every_high_half_of_float32_becomes_what_torch_makes_of_it(torch: Any, fmt: str) -> None:
    values = every_high_half()
    made = torch.from_numpy(values).to(getattr(torch, fmt))
    expected = made.view(torch.uint8 if made.itemsize == 1 else torch.int16).numpy().view(format_named(fmt).word)
    saturates = np.isfinite(decode(expected, fmt)[values == np.inf]).any()  # float8_e4m3fn, since some version
    got = encode(values, fmt, overflow="saturate" if saturates else "ieee")
    require_same(got, expected, fmt, values, "torch")


@pytest.mark.proof("format.rounding", by="gfloat")
@pytest.mark.proof("format.overflow", by="gfloat")
@pytest.mark.parametrize("rounding", MODES)
@pytest.mark.parametrize("fmt", [name for name in INFO if INFO[name]])
def test_every_rule_rounds_float32_like_gfloat(fmt: str, rounding: str) -> None:
    gfloat, formats = pytest.importorskip("gfloat"), pytest.importorskip("gfloat.formats")
    info, mode = getattr(formats, f"format_info_{INFO[fmt]}"), getattr(gfloat.RoundMode, MODES[rounding])
    points = decision_points(fmt, "float32")
    points = points if len(points) < 8000 else points[::7]
    if fmt == "float8_e8m0fnu":
        points = points[points >= 2.0**-127]  # gfloat leaves what is smaller as it is, which is no number of the format
    points = np.concatenate([points, np.array([np.inf, -np.inf][: 1 + (fmt != "float8_e8m0fnu")], np.float32)])
    for overflow in ("saturate",) if fmt in NO_NAN else ("ieee", "saturate"):
        got = decode(encode(points, fmt, rounding=rounding, overflow=overflow), fmt)
        expected = np.array([gfloat.round_float(info, float(x), mode, overflow == "saturate") for x in points])
        same = (got == expected) & (np.signbit(got) == np.signbit(expected)) | np.isnan(got) & np.isnan(expected)
        if not same.all():
            first = np.flatnonzero(~same)[0]
            raise AssertionError(
                f"{float(points[first]).hex()} to {fmt}, {rounding}, {overflow}: "
                f"gfloat {expected[first]!r}, got {got[first]!r}"
            )
