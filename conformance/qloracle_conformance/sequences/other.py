"""A call of any claimed operation between the others, on inputs of its own: what it leaves behind must disturb none."""

from collections.abc import Sequence

from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.sequences.bench import Bench, choice

LARGEST = 1 << 12  # elements of all inputs
FAMILIES = ("memory", "shapes", "normal")
TRIES = 20


def other(bench: Bench, draw: Draw, related: Sequence[str]) -> None:
    """Call an operation on one of its own small cases, in half of the cases a related one if there is any."""
    for _ in range(TRIES):
        operation = choice(draw, list(related if related and draw.integer(0, 1) else bench.claims))
        case = own_case(draw, bench.claims[operation])
        if case is not None and case.elements <= LARGEST:
            call(bench, case)
            return
    raise LookupError(f"none of {', '.join(bench.claims)} has a small case")


def own_case(draw: Draw, claim: Claim) -> Case | None:
    """Return a case of an operation's plainest families, None if it has none of them."""
    from qloracle_conformance.registry import OPERATIONS

    families = OPERATIONS[claim.operation].families
    known = [families[name] for name in FAMILIES if name in families]
    return choice(draw, known)(draw, claim) if known else None


def call(bench: Bench, case: Case, do: str = "other", made: Sequence[str] = ()) -> tuple[str, ...]:
    """Add the call of a case, and return the names of its results; `made` is what they are."""
    from qloracle_conformance.registry import OPERATIONS

    stem = bench.name("o")
    names = {role: None if array is None else f"{stem}.{role}" for role, array in case.inputs.items()}
    for role, array in case.inputs.items():
        name = names[role]
        if name is not None:
            bench.inputs[name] = array
            bench.layouts[name] = case.layouts.get(role, "contiguous")
    made = made or [f"output{i}" for i in range(OPERATIONS[case.operation].outputs)]
    return bench.call(do, case.operation, names, case.options, made, lattice=case.lattice, term=case.term)
