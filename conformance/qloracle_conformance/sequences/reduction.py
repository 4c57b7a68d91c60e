"""Reducing a failing sequence: steps are left out one after another, and with them what only they need."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from qloracle_conformance.generators.case import Case
from qloracle_conformance.sequences.step import MOVES, Step, steps_of

FRESH_TRIES = 24  # a backend may take seconds to start


def reduced_sequence(case: Case, still_fails: Callable[[Case], bool], afresh: Callable[[], None]) -> Case:
    """Return a sequence that still fails when it is all that a backend was ever asked, with few steps.

    Parameters
    ----------
    case : Case
    still_fails : function
        Runs a candidate and says whether it fails in the same way.
    afresh : function
        Starts the backend anew: it may have kept something of the sequences before, which no replay has.
    """

    def fails_alone(candidate: Case) -> bool:
        afresh()
        return still_fails(candidate)

    quick = _shortened(case, still_fails, len(steps_of(case.options)) ** 2)
    if fails_alone(quick):
        return quick
    if not fails_alone(case):
        return case
    kept = _shortened(case, fails_alone, FRESH_TRIES)
    fails_alone(kept)  # so that what is said last is said of the sequence that is kept
    return kept


def _shortened(case: Case, still_fails: Callable[[Case], bool], tries: int) -> Case:
    """Return a shorter sequence that still fails: halves of the steps go first, then quarters, in the end single ones.

    It is run `tries` times at most.
    """
    steps, kept = steps_of(case.options), case
    width = max(1, len(steps) // 2)
    while tries > 0:
        place, before = len(steps), len(steps)
        while place > 0 and tries > 0:
            place = max(0, place - width)
            shorter = without(steps, range(place, min(place + width, len(steps))))
            if not shorter or len(shorter) == len(steps):
                continue
            tries -= 1
            candidate = with_steps(case, shorter)
            if still_fails(candidate):
                steps, kept = shorter, candidate
                place = min(place, len(steps))
        if width == 1 and len(steps) == before:
            break
        width = max(1, width // 2)
    return kept


def without(steps: Sequence[Step], left_out: range) -> tuple[Step, ...]:
    """Return the steps but some, and but those that use their results; a load goes with the save of its arrays."""
    gone, left, saved = {name for place in left_out for name in steps[place].made}, list[Step](), set[str]()
    for place, step in enumerate(steps):
        if place in left_out or gone.intersection(name for name in step.given.values() if name):
            gone.update(step.made)
            continue
        if step.do in MOVES:
            names = tuple(n for n in step.names if n not in gone and (step.do != "load" or n in saved))
            if not names:
                continue
            step = replace(step, names=names)  # noqa: PLW2901  # the same step with fewer arrays
        if step.do == "save":
            saved.update(step.names)
        left.append(step)
    return tuple(left)


def with_steps(case: Case, steps: Sequence[Step]) -> Case:
    """Return the case of fewer steps, with the inputs and claims that they use."""
    used = {name for step in steps for name in (*step.given.values(), *step.names)}
    called = {step.operation for step in steps}
    claims = {name: claim for name, claim in case.options["claims"].items() if name in called}
    options = {"steps": tuple(step.as_json() for step in steps), "claims": claims}
    inputs = {name: array for name, array in case.inputs.items() if name in used}
    return replace(case, inputs=inputs, options=options)
