"""Printing a sequence: its arrays, its steps, and the reference's answer to each."""

from rich.console import Console
from rich.markup import escape

from qloracle_conformance.execution import Call
from qloracle_conformance.generators.case import Case
from qloracle_conformance.intermediates import shown
from qloracle_conformance.sequences.running import StepOutcome, run_sequence
from qloracle_conformance.sequences.step import FUNCTION, steps_of


def print_sequence(console: Console, case: Case) -> None:
    """Print every step in order, with what the reference makes of it."""
    from qloracle_conformance.adapters.reference import backend as reference

    for name, array in case.inputs.items():
        if array is not None:
            layout = case.layouts.get(name, "contiguous")
            console.print(
                f"input {name}: {array.dtype} {array.shape}, {layout}, {escape(shown(array))}", soft_wrap=True
            )
    outcome = run_sequence(reference(), Call(FUNCTION, case.inputs, case.options, case.layouts))
    steps = steps_of(case.options)
    for number, step in enumerate(steps, 1):
        console.print(f"step {number}: {escape(str(step))}", soft_wrap=True)
        done: StepOutcome | None = outcome.steps[number - 1] if number <= len(outcome.steps) else None
        for name, array in zip(step.made, done.outputs if done else (), strict=False):
            console.print(f"  {name}: {array.dtype} {array.shape}, {escape(shown(array))}", soft_wrap=True)
    if outcome.failure:
        console.print(f"the reference refuses: {escape(outcome.message)}", soft_wrap=True)
