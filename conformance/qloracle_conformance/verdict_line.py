"""A verdict as it stands in a report."""

from typing import Any

from qloracle_conformance.verdicts import PropertyResult


def property_line(result: PropertyResult) -> dict[str, Any]:
    """Return one verdict; only the key "seconds" differs from run to run."""
    tally = result.tally
    return {
        "id": result.id,
        "operation": result.operation,
        "stage": result.stage,
        "family": result.family,
        "clause": result.clause,
        "claimed": result.claimed,
        "attained": tally.attained,
        "basis": result.basis,
        "status": result.status,
        "cases": tally.cases,
        "elements": tally.elements,
        "not_judged": tally.unjudged,
        "blocked": tally.blocked,
        "failing": tally.failing,
        "boundary_hits": tally.boundary_hits,
        "bound_used": round(tally.used, 6),
        "window": round(tally.window, 3),
        **tally.distribution.as_json(),
        "message": result.message,
        "finding": tally.finding.as_json() if tally.finding else None,
        "witness": result.witness,
        "seconds": round(result.seconds, 3),
    }
