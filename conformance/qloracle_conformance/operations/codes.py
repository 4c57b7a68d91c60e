"""Which codes a quantizer may give: the exact one, and at level `tie` its neighbour across a boundary that is too near.

Level tie: two neighbouring codes are allowed where |x/absmax − boundary| ≤ 3·2^−24·|boundary|, the error of three
float32 roundings (a reciprocal, its product, and the boundary rounded to float32), if 1/absmax is a normal number; and
then codes must not decrease with x within a group.
"""

import numpy as np

from qloracle.formats import Array
from qloracle_conformance.judge import Allowed, CodeSteps, StageResult, exactly

TIE_WINDOW = 3.0  # in units of 2^−24 of the boundary
_UNIT = 2.0**-24
_NORMAL_RECIPROCAL = (2.0**-128, 2.0**126)  # absmax whose reciprocal is a normal float32
MOST_DISTANCES = 1 << 18  # beyond that many elements only those that differ are measured


def code_limits(
    x: Array, absmax: Array, boundaries: Array, exact: Array, got: Array, group: Array, lowest: int = 0
) -> dict[str, Allowed]:
    """Return the limits at levels exact and tie, for flat arrays.

    Parameters
    ----------
    x, absmax : array of float32, shape (n,)
        Elements, and the absmax that the backend used for each.
    boundaries : array of float64
        Where code position i gives way to i + 1, as real values of x/absmax.
    exact, got : array of int64, shape (n,)
        Positions in value order: the rule's and the backend's.
    group : array of int64, shape (n,)
        Number of the group of each element.
    lowest : int
        The number that position 0 has in `exact` and `got`.
    """
    lo, hi = exact.copy(), exact.copy()
    differs = np.flatnonzero(exact != got)
    if differs.size:
        below, above = _near(x[differs], absmax[differs], boundaries, exact[differs] - lowest)
        lo[differs] -= below
        hi[differs] += above
        decreasing = _decreasing(x, got, group, differs)
        lo[decreasing], hi[decreasing] = exact[decreasing], exact[decreasing]
    return {"exact": exactly(exact), "tie": Allowed(lo, hi)}


def boundary_distance(x: Array, absmax: Array, boundaries: Array, exact: Array, got: Array) -> Array:
    """Return how far x/absmax is from its nearest boundary, in units of 2^−24 of the boundary; NaN where unmeasured."""
    distance = np.full(x.shape, np.nan)
    chosen = np.arange(x.size) if x.size <= MOST_DISTANCES else np.flatnonzero(exact != got)
    quotient = _quotient(x[chosen], absmax[chosen])
    place = np.searchsorted(boundaries, quotient)
    candidates = [boundaries[np.clip(place + shift, 0, len(boundaries) - 1)] for shift in (-1, 0)]
    with np.errstate(invalid="ignore", divide="ignore"):
        distances = [np.abs(quotient - b) / (np.abs(b) * _UNIT) for b in candidates]
    distance[chosen] = np.minimum(*distances)
    return distance


def _quotient(x: Array, absmax: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(x.astype(np.float64) / absmax.astype(np.float64), nan=0.0, posinf=2.0, neginf=-2.0)


def _near(x: Array, absmax: Array, boundaries: Array, place: Array) -> tuple[Array, Array]:
    """Return where the boundary below, and the one above code position `place`, lies within the quotient's window."""
    quotient = _quotient(x, absmax)
    last = len(boundaries) - 1
    low, high = boundaries[np.clip(place - 1, 0, last)], boundaries[np.clip(place, 0, last)]
    width = TIE_WINDOW * _UNIT
    with np.errstate(invalid="ignore"):
        usable = (absmax >= _NORMAL_RECIPROCAL[0]) & (absmax <= _NORMAL_RECIPROCAL[1])
    below = usable & (place > 0) & (np.abs(quotient - low) <= width * np.abs(low))
    above = usable & (place <= last) & (np.abs(quotient - high) <= width * np.abs(high))
    return below.astype(np.int64), above.astype(np.int64)


def _decreasing(x: Array, got: Array, group: Array, differs: Array) -> Array:
    """Return the elements among `differs` whose code is out of order with another of their group: equal x included."""
    members = np.flatnonzero(np.isin(group, group[differs]))
    order = members[np.lexsort((got[members], x[members], group[members]))]
    same = group[order][1:] == group[order][:-1]
    later, earlier = got[order][1:], got[order][:-1]
    falls = same & ((later < earlier) | ((x[order][1:] == x[order][:-1]) & (later != earlier)))
    suspects = np.zeros(x.shape, np.bool_)
    suspects[order[1:][falls]] = True
    suspects[order[:-1][falls]] = True
    return differs[suspects[differs]]


def likely_cause(distance: Array, wrong: Array) -> str:
    """Name what usually moves codes this far from a boundary; nothing for codes that are not near one."""
    farthest = float(np.nanmax(distance[wrong])) if np.any(wrong) else 0.0
    if farthest == 0.0:
        return "exact midpoints go to the upper entry"
    if farthest <= TIE_WINDOW:
        return f"boundaries missed by up to {farthest:.2g} x 2^-24: a reciprocal, or float32 midpoints"
    if farthest <= 64:
        return f"boundaries missed by up to {farthest:.2g} x 2^-24: an approximate division"
    return ""


def code_stage(
    stage: str,
    x: Array,
    absmax: Array,
    boundaries: Array,
    exact: Array,
    got: Array,
    group: Array,
    blocked: Array | None,
    lowest: int = 0,
    codebook: str = "",
) -> StageResult:
    """Return the result of a stage of codes, given as for `code_limits`; what messages need is the caller's to add."""
    distance = boundary_distance(x, absmax, boundaries, exact, got)
    differs = np.flatnonzero(exact != got)
    steps = CodeSteps(codebook, differs, _quotient(x[differs], absmax[differs]), exact[differs], got[differs])
    wrong = (got != exact) if blocked is None else (got != exact) & ~blocked
    return StageResult(
        stage=stage,
        got=got,
        allowed=code_limits(x, absmax, boundaries, exact, got, group, lowest),
        blocked=blocked,
        distance=distance,
        steps=steps,
        cause=likely_cause(distance, wrong) if wrong.any() else "",
        dtype="uint8",
    )
