"""What is said about a failing stage: one record that tables, reports and witnesses are made from."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qloracle.formats import FORMATS, Array
from qloracle.rounding import decode
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import NAN_ORDINAL, NO_WORD_ORDINAL, StageResult, words_at
from qloracle_conformance.operations.operation import Operation
from qloracle_conformance.patterns import describe_pattern


@dataclass(frozen=True)
class Finding:
    """One failing case of one property, described without the case itself."""

    element: int  # flat index of the first failing element, −1 if outputs could not be compared
    pattern: str  # where the failing elements lie
    got: str
    allowed: str
    error: str  # size of the largest error
    cause: str  # a named mistake that explains it, or ""
    context: dict[str, str] = field(default_factory=dict)  # the reference's intermediates at that element

    def as_json(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return dict(vars(self))

    def line(self) -> str:
        """Return the finding in one line."""
        parts = [self.pattern, self.error, self.cause]
        return "; ".join(part for part in parts if part)


def show(ordinal: int, dtype: str) -> str:
    """Return an ordinal as a reader wants it: hex and decimal for floats, a number for codes and integers."""
    if dtype == "byte order":
        return "as specified" if ordinal == 0 else "otherwise"
    if dtype not in FORMATS:
        return str(ordinal)
    if ordinal == NAN_ORDINAL:
        return "NaN"
    if ordinal == NO_WORD_ORDINAL:
        return f"no word of {dtype}"
    word = words_at(np.asarray(ordinal, np.int64), dtype)
    return f"0x{int(word):0{word.dtype.itemsize * 2}x} ({float(decode(np.asarray(word), dtype)):.9g})"


def find(result: StageResult, claimed: str, case: Case, operation: Operation) -> Finding:
    """Describe a failing stage.

    Parameters
    ----------
    result : StageResult
        With at least one failing element, or a problem.
    claimed : str
        The level that the claim states.
    case : Case
    operation : Operation
    """
    if result.problem:
        return Finding(-1, "the whole output", result.problem, "", result.problem, result.cause, dict(result.extra))
    wrong, limits = result.failing(claimed).reshape(-1), result.required(claimed)
    first = int(np.flatnonzero(wrong)[0])
    lo, hi = int(limits.lo.reshape(-1)[first]), int(limits.hi.reshape(-1)[first])
    allowed = show(lo, result.dtype) if lo == hi else f"{show(lo, result.dtype)} … {show(hi, result.dtype)}"
    return Finding(
        element=first,
        pattern=describe_pattern(wrong, result.row_length, result.block_size),
        got=show(int(result.got.reshape(-1)[first]), result.dtype),
        allowed=allowed,
        error=largest_error(result, claimed),
        cause=result.cause,
        context={**result.extra, **_context(case, operation, first, wrong.size), **_distance(result, first)},
    )


def largest_error(result: StageResult, claimed: str) -> str:
    """Return how far the worst element lies outside its limits, in units of the output."""
    if result.dtype == "byte order":
        return ""
    wrong, limits = result.failing(claimed), result.required(claimed)
    got, lo, hi = (a[wrong] for a in (result.got, limits.lo, limits.hi))
    numbers = (got < NO_WORD_ORDINAL) & (lo < NO_WORD_ORDINAL)
    got, lo, hi = (a[numbers].astype(np.float64) for a in (got, lo, hi))
    finite = np.maximum(lo - got, got - hi)
    unit = "ulp" if result.dtype in FORMATS else "codes" if result.dtype == "uint8" else "units"
    nan = int(np.sum(~numbers))
    parts = [f"off by up to {int(finite.max())} {unit}"] if finite.size else []
    return ", ".join([*parts, f"{nan} NaN against a number"] if nan else parts)


def _distance(result: StageResult, element: int) -> dict[str, str]:
    """Return how far an element is from its nearest decision boundary, where that was measured."""
    distance = np.nan if result.distance is None else result.distance.reshape(-1)[element]
    return {"distance to the nearest boundary": f"{distance:.6g} x 2^-24 of it"} if np.isfinite(distance) else {}


def _context(case: Case, operation: Operation, element: int, size: int) -> dict[str, str]:
    """Return the reference's intermediates at an element, where they have one value for each."""
    shown = {}
    for name, values in operation.intermediates(case).items():
        flat: Array = np.asarray(values).reshape(-1)
        if flat.size == size:
            shown[name] = describe_number(flat[element])
    return shown


def describe_number(value: Any) -> str:
    """Return a number with its bits: hex word and decimal for floats, decimal for integers."""
    array = np.asarray(value)
    if array.dtype.kind == "f" and array.dtype.itemsize <= 4:
        return f"0x{int(array.view(f'u{array.dtype.itemsize}')):0{array.dtype.itemsize * 2}x} ({float(array):.9g})"
    return f"{float(array):.17g}" if array.dtype.kind == "f" else str(int(array))
