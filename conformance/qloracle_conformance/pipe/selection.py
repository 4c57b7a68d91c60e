"""Which cases flow through a pipe: the same for `gen`, which writes them, and for `judge`, which expects answers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from qloracle.bounds import Roundings
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import TENSOR_FORMATS
from qloracle_conformance.backend import DEFAULT_BLOCK_SIZES, Claim, Level
from qloracle_conformance.exchange.records import case_body, case_id
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import LEVELS
from qloracle_conformance.operations.conversion import NO_STAGE
from qloracle_conformance.operations.operation import Operation, with_default_options
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.task import Task, case_at
from qloracle_conformance.usage import UsageError

MEMORY_FAMILIES = ("memory", "layouts")  # they ask how arrays lie in memory, of which a text knows nothing
_FEATURES = ("bias", "dropout", "rank_stabilized")  # as of a claim that names none


@dataclass(frozen=True)
class Selection:
    """What was asked for; lists that are empty mean everything that exists."""

    operation: str
    count: int = 20  # cases of a family
    seed: int = 0
    families: tuple[str, ...] = ()
    index: int | None = None  # only this case of every family
    largest: int | None = None  # elements that the inputs of a case may have together
    dtypes: tuple[str, ...] = TENSOR_FORMATS
    out_dtypes: tuple[str, ...] = TENSOR_FORMATS
    block_sizes: tuple[int, ...] = DEFAULT_BLOCK_SIZES
    ndims: tuple[int, ...] = (0, 1, 2, 3, 4)
    empty: bool = True
    features: tuple[str, ...] = _FEATURES
    options: tuple[str, ...] = ()  # NAME=VALUE, several for several values
    roundings: tuple[str, ...] = ()  # NAME=FORMAT
    level: Level = "exact"


@dataclass(frozen=True)
class Sent:
    """A case of a pipe."""

    id: str
    body: str
    task: Task
    index: int
    case: Case


def tasks_of(selection: Selection) -> list[Task]:
    """Return the tasks that a selection consists of.

    Raises
    ------
    UsageError
        If it names something that does not exist.
    """
    operation, claim = operation_named(selection.operation), claim_of(selection)
    known = [name for name in operation.families if name not in MEMORY_FAMILIES]
    for name in selection.families:
        if name not in known:
            raise UsageError(f"--family must be one of {', '.join(known)} for {operation.name}, got {name!r}")
    families = [name for name in known if not selection.families or name in selection.families]
    return [Task(operation, name, claim, selection.count, 0, selection.seed) for name in families]


def cases_of(task: Task, selection: Selection) -> Iterator[Sent]:
    """Yield the cases of one task; those that ask nothing, or are too large, are left out."""
    indices = range(task.cases) if selection.index is None else (selection.index,)
    for index in indices:
        case = replace(case_at(task, index), repeat=False)
        too_large = selection.largest is not None and case.elements > selection.largest
        if case.term != NO_STAGE and not too_large:
            body = case_body(case)
            source = f"{task.operation.name}.{task.family}.{task.seed}.{index}"
            yield Sent(case_id(source, body), body, task, index, case)


def operation_named(name: str) -> Operation:
    """Return an operation.

    Raises
    ------
    UsageError
        If there is none of that name.
    """
    if name not in OPERATIONS:
        near = [other for other in OPERATIONS if name and other.partition(".")[0] == name.partition(".")[0]]
        raise UsageError(
            f"no operation {name!r}; {'there is ' + ', '.join(near) if near else '`qloracle explain` lists them'}"
        )
    return OPERATIONS[name]


def claim_of(selection: Selection) -> Claim:
    """Return the claim that a selection stands for: contiguous arrays, and each stage at the level or its own loosest.

    Raises
    ------
    UsageError
        If a part of it cannot be claimed.
    """
    operation = operation_named(selection.operation)
    if selection.level not in LEVELS:
        raise UsageError(f"--level must be one of {', '.join(LEVELS)}, got {selection.level!r}")
    levels = {stage: looser_of(selection.level, operation.strictest_of(stage)) for stage in operation.stages}
    outputs = ("float32",) if operation.function == "decode" else selection.out_dtypes
    try:
        claim = Claim(
            operation.name, levels, selection.dtypes, outputs, selection.block_sizes, selection.ndims, selection.empty,
            ("contiguous",), selection.features, options_of(operation, selection.options),
            roundings_of(selection.roundings), "promised", "the options of this command",
        )  # fmt: skip
    except (ArgumentTypeError, ArgumentValueError) as error:
        raise UsageError(str(error)) from error
    if not {1, 2, 3, 4} & set(claim.ndims):
        raise UsageError(f"--ndim must name one of 1, 2, 3, 4, got {', '.join(map(str, claim.ndims))}")
    return with_default_options(claim, operation)


def looser_of(level: Level, strictest: Level) -> Level:
    """Return the looser of two levels."""
    return max(level, strictest, key=LEVELS.index)


def options_of(operation: Operation, texts: Sequence[str]) -> dict[str, tuple[object, ...]]:
    """Return the values of options that ``NAME=VALUE`` name, as an operation knows them.

    Raises
    ------
    UsageError
        If the operation has no such option or value.
    """
    found: dict[str, tuple[object, ...]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        existing = operation.options.get(name, ())
        matching = [item for item in existing if str(item) == value]
        if not equals or not matching:
            values = ", ".join(map(str, existing)) or f"one of {', '.join(operation.options) or 'none at all'}"
            raise UsageError(f"--option must be NAME=VALUE of {operation.name}: {values}; got {text!r}")
        found[name] = (*found.get(name, ()), matching[0])
    return found


def roundings_of(texts: Sequence[str]) -> Roundings:
    """Return the declared rounding points that ``NAME=FORMAT`` name.

    Raises
    ------
    UsageError
        If there is no such rounding point.
    """
    chosen: dict[str, Any] = {}
    for text in texts:
        name, _, fmt = text.partition("=")
        if name not in vars(Roundings()):
            raise UsageError(
                f"--rounding must be NAME=FORMAT with a name of {', '.join(vars(Roundings()))}, got {text!r}"
            )
        chosen[name] = fmt
    return Roundings(**chosen)
