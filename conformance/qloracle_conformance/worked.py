"""Worked examples: the docstrings' own, run live, and a small case of an operation with every intermediate."""

import doctest
from dataclasses import dataclass, replace
from functools import cache
from math import log2
from typing import Any

import numpy as np

from qloracle.errors import QloracleError
from qloracle.formats import FORMATS, TENSOR_FORMATS, Array
from qloracle.rounding import decode
from qloracle_conformance.adapters.reference import backend as reference
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.backend import Claim
from qloracle_conformance.examples import CLAUSE_EXAMPLES, EXAMPLES
from qloracle_conformance.examples.example import input_name
from qloracle_conformance.execution import Call, InProcess, Outcome
from qloracle_conformance.generators.case import Case
from qloracle_conformance.generators.draw import CounterDraw
from qloracle_conformance.given import given_case
from qloracle_conformance.judge import NAN_ORDINAL, float_ordinals, words_at
from qloracle_conformance.operations.operation import Operation
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.spec.clauses import carrier, carriers_of

_PLAIN = ("normal", "ramps", "random", "shapes", "small_lattice", "words", "memory")  # families, the plainest first
_LONG = ("sweep", "extents", "squares", "peaks", "tiles")  # whose cases are large
_TRIES = 12  # cases of a family
_WIDE = 20.0  # binary orders of magnitude within an input, beyond which it is hard to follow
_SMALL, _LARGE = 4, 48  # elements of an input that a reader can follow


@dataclass(frozen=True)
class Session:
    """The examples of one docstring, and what they print now."""

    carrier: str
    lines: tuple[str, ...]  # as they would stand in a terminal


def sessions(label: str) -> list[Session]:
    """Run the examples of every docstring that carries a clause."""
    found = []
    for name in carriers_of(label):
        lines = run_examples(name)
        if lines:
            found.append(Session(name, lines))
    return found


@cache
def run_examples(name: str) -> tuple[str, ...]:
    """Run the examples of the docstring of a function, class or module and return the session.

    Every example runs once, in a namespace that holds NumPy as `np` and the names of its module.
    """
    thing = carrier(name)
    finder = doctest.DocTestFinder(recurse=False, exclude_empty=True)
    lines: list[str] = []
    for test in finder.find(thing, name, extraglobs={"np": np}):
        printed: list[str] = []
        runner = doctest.DocTestRunner(checker=_Anything(printed), verbose=False)
        runner.run(test, out=printed.append, clear_globs=True)
        for example, output in zip(test.examples, printed, strict=True):
            first, *more = example.source.rstrip("\n").split("\n")
            lines += [f">>> {first}", *(f"... {line}" for line in more), *output.rstrip("\n").split("\n")]
    return tuple(line for line in lines if line)


class _Anything(doctest.OutputChecker):
    """Accepts every output and keeps it: whether it is right is the tests' business."""

    def __init__(self, printed: list[str]) -> None:
        self._printed = printed

    def check_output(self, want: str, got: str, optionflags: int) -> bool:  # noqa: ARG002  # doctest's signature
        """Keep the output."""
        self._printed.append(got)
        return True


def operations_of(label: str) -> list[str]:
    """Return the operations that are judged by a clause, those first that have a stage of it."""
    staged = [name for name, operation in OPERATIONS.items() if label in operation.stages.values()]
    return [*staged, *(name for name, o in OPERATIONS.items() if o.bound == label and name not in staged)]


@cache
def claim_of(operation: str) -> Claim:
    """Return what the reference claims about an operation."""
    return next(claim for claim in reference().claims if claim.operation == operation)


@cache
def example_case(name: str) -> Case:
    """Return a small case of an operation: the literal one where there is one, else the plainest generated one."""
    operation = OPERATIONS[name]
    plainest = min(_generated(operation), key=_difficulty)
    if name not in EXAMPLES:
        return plainest
    example = EXAMPLES[name]
    defaults = {option: values[0] for option, values in operation.options.items() if option in plainest.options}
    blank = Case(
        name, dict.fromkeys(plainest.inputs), {**plainest.options, **defaults, **example.options}, term=example.term
    )
    return given_case(blank, example.inputs)


@cache
def example_of(name: str) -> Case | None:
    """Return the worked example of a clause or operation, or None where no operation shows it.

    A clause that the example of its operation leaves idle has one of its own.
    """
    if name in OPERATIONS or name not in CLAUSE_EXAMPLES:
        operation = name if name in OPERATIONS else next(iter(operations_of(name)), "")
        return example_case(operation) if operation else None
    operation, example = CLAUSE_EXAMPLES[name]
    known = vocabulary(operation)
    given = {input_name(text) for text in example.inputs}
    plain = example_case(operation)
    blank = replace(
        plain,
        inputs=dict.fromkeys((*plain.inputs, *given)),
        options={**plain.options, **example.options},
        term=example.term,
    )
    return given_case(blank, example.inputs, known=known)


def bounds_of(case: Case, outcome: Outcome) -> dict[str, Array]:
    """Return the lowest and the highest number that every output of a bounded sum may be, under the reference's claim.

    They are what the judge allows; infinite ends, or NaN, where the bound says nothing.
    """
    operation = OPERATIONS[case.operation]
    if not operation.bound or outcome.failure:
        return {}
    try:
        stages = operation.judge(replace(case, lattice=False), outcome.outputs, claim_of(case.operation))
    except (QloracleError, IndexError, TypeError, ValueError):
        return {}  # the inputs of a user that the rule admits and the bound does not
    shown = dict[str, Array]()
    for stage in stages:
        if stage.problem or stage.dtype not in FORMATS or "bound" not in stage.allowed:
            continue
        limits, named = stage.allowed["bound"], FORMATS[stage.dtype]
        infinity = float_ordinals(np.asarray(named.infinity_bits, named.word), stage.dtype)
        what = f"{'y' if stage.stage == case.term else stage.stage} as {stage.dtype}"
        for end, ordinals in (("lowest", limits.lo), ("highest", limits.hi)):
            bits = words_at(np.clip(ordinals, -infinity - 1, NAN_ORDINAL), stage.dtype)
            native = stage.dtype in ("float16", "float32")
            shown[f"{end} {what}"] = bits.view(stage.dtype) if native else decode(bits, stage.dtype)
    return shown


@cache
def vocabulary(name: str) -> Case:
    """Return a case that has every input and option that an operation may be called with."""
    operation, inputs, options = OPERATIONS[name], dict[str, HostArray | None](), dict[str, Any]()
    for family, generate in operation.families.items():
        if family not in _LONG:
            case = generate(CounterDraw(f"{name}.{family}", 0), claim_of(name))
            inputs |= {n: _usual(a) for n, a in case.inputs.items() if a is not None or n not in inputs}
            options |= case.options
    example = example_case(name)
    chosen = {option: values[0] for option, values in operation.options.items()}
    return Case(name, {**inputs, **example.inputs}, {**options, **chosen, **example.options})


def _usual(array: HostArray | None) -> HostArray | None:
    """Return an input of the type that a user means who names none: float32 where weights and activations go."""
    single = array is not None and array.dtype in TENSOR_FORMATS
    return HostArray(np.zeros(array.shape, np.float32), "float32") if array is not None and single else array


def _generated(operation: Operation) -> list[Case]:
    known = [family for family in _PLAIN if family in operation.families]
    chosen = known[:3] or list(operation.families)[:2]
    return [
        operation.families[family](CounterDraw(f"{operation.name}.{family}", index), claim_of(operation.name))
        for family in chosen
        for index in range(_TRIES)
    ]


def _difficulty(case: Case) -> tuple[float, int]:
    """Return how hard a case is to follow: empty, special, tiny or large inputs, and types of few digits."""
    arrays = [array for array in case.inputs.values() if array is not None]
    sizes = [array.items.size for array in arrays] or [1]
    hard = sum(10.0 for array in arrays if not np.all(np.isfinite(array.real())))
    hard += sum(2.0 for array in arrays if array.dtype in ("bfloat16", "float16") or len(array.shape) > 2)
    hard += sum(4.0 for array in arrays if array.is_float and _spread(array.real()) > _WIDE)
    hard += 100.0 * (max(sizes) < _SMALL) + 50.0 * (min(sizes) == 0)
    return hard + 8 * log2(max(max(sizes) / _LARGE, 1)), sum(sizes)


def _spread(values: Array) -> float:
    """Return the binary logarithm of the largest over the smallest magnitude, zeros and special values left out."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    return float(np.log2(sizes.max()) - np.log2(sizes.min())) if sizes.size else 0.0


def run_reference(case: Case) -> Outcome:
    """Run a case on the reference; what it raises is in the outcome."""
    call = Call(OPERATIONS[case.operation].function, case.inputs, case.options, {})
    return InProcess(reference()).run(call)
