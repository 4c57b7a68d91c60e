"""Making a set of vectors: from every family what is small enough, and what shows a mistake that nothing else shows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from qloracle_conformance.backend import Level
from qloracle_conformance.exchange.records import case_body, case_id
from qloracle_conformance.generators.case import Case
from qloracle_conformance.operations.operation import CONDUCT, Operation
from qloracle_conformance.pipe.selection import MEMORY_FAMILIES
from qloracle_conformance.pools import results
from qloracle_conformance.registry import MODULES, OPERATIONS, Property, selected
from qloracle_conformance.usage import UsageError
from qloracle_conformance.vectors.choosing import SIZES, Size, small_cases
from qloracle_conformance.vectors.hunting import Mistake, hunted, mistakes_of, shows
from qloracle_conformance.vectors.locating import claims, reference_outputs
from qloracle_conformance.vectors.refusals import FAMILY, refusals
from qloracle_conformance.vectors.vector import Refusal, Source, Vector, expectations

ANY = "any type"
MORE = {"boundaries": 4}  # families of which one vector is too little: a mistake crosses few of their boundaries
LEVELS_OF_FILES: tuple[Level, ...] = ("exact", "tie")


@dataclass(frozen=True)
class Settings:
    """What a set of vectors was asked to hold."""

    only: str | None = None
    size: str = "small"
    level: Level = "exact"
    seed: int = 0

    @property
    def limits(self) -> Size:
        """The size itself."""
        return SIZES[self.size]

    def require_known(self) -> None:
        """Refuse a size or a level that does not exist.

        Raises
        ------
        UsageError
        """
        if self.size not in SIZES:
            raise UsageError(f"--size must be one of {', '.join(SIZES)}, got {self.size!r}")
        if self.level not in LEVELS_OF_FILES:
            raise UsageError(f"--level must be one of {', '.join(LEVELS_OF_FILES)}, got {self.level!r}")


@dataclass
class VectorSet:
    """Vectors by file, and what was asked for."""

    settings: Settings
    wanted: Mapping[str, Property]  # the properties that a file can hold
    files: dict[str, list[Vector]] = field(default_factory=dict)

    def vectors(self) -> Iterator[Vector]:
        """Yield all vectors."""
        for members in self.files.values():
            yield from members


def build(settings: Settings, advance: Callable[[str, int], None] | None = None, jobs: int = 1) -> VectorSet:
    """Return the vectors of a selection.

    Parameters
    ----------
    settings : Settings
    advance : function
        Is told the name of every operation that is done, and how many there are.
    jobs : int
        Processes that share the operations; the vectors are the same for any number.

    Raises
    ------
    UsageError
        If nothing is selected.
    """
    settings.require_known()
    wanted = holdable(selected(settings.only))
    if not wanted:
        raise UsageError(
            f"no property that a file can hold matches --only {settings.only}; ids: operation.stage.family"
        )
    made = VectorSet(settings, wanted)
    families: dict[str, dict[str, None]] = {}
    for found in wanted.values():
        families.setdefault(found.operation, {})[found.family] = None
    parts = [(name, tuple(chosen), settings) for name, chosen in families.items()]
    for (name, _, _), vectors in zip(parts, results(_part, parts, jobs), strict=True):
        if advance is not None:
            advance(name, len(parts))
        if vectors:
            made.files.setdefault(file_of(name), []).extend(vectors)
    return made


def _part(name: str, families: tuple[str, ...], settings: Settings) -> list[Vector]:
    return vectors_of(OPERATIONS[name], families, settings)


def holdable(properties: Mapping[str, Property]) -> dict[str, Property]:
    """Return the properties that ask for a single call on small inputs, and not how arrays lie in memory."""
    families = {name: set(operation.families) - set(MEMORY_FAMILIES) for name, operation in OPERATIONS.items()}
    return {
        name: found
        for name, found in properties.items()
        if found.family in families.get(found.operation, ()) and found.stage not in CONDUCT
    }


def file_of(operation: str) -> str:
    """Return the name of the file that holds an operation: one for each part of the specification."""
    return f"{_parts()[operation]}.txt"


@cache
def _parts() -> dict[str, str]:
    return {op.name: module.__name__.rpartition(".")[2] for module in MODULES for op in module.operations()}


def vectors_of(operation: Operation, families: Sequence[str], settings: Settings) -> list[Vector]:
    """Return the vectors of an operation, those that the reference refuses last."""
    found: dict[str, Vector] = {}
    unseen, reached = _sought(operation.name), set[str]()
    for family in families:
        kept, most = 0, settings.limits.cases * MORE.get(family, 1)
        for source, case in small_cases(operation, family, settings.limits, settings.seed):
            vector = vector_of(operation, source, case, settings.level)
            forms = {name for expected in vector.expected for name in (expected.stage, expected.form)}
            new = forms - reached or any(shows(vector, unseen[name]) for name in unseen if name[0] in _kinds(case))
            if (kept < most or new) and vector.id not in found:
                found[vector.id] = replace(vector, flags=hunted(vector))
                seen = {(kind, name) for kind in _kinds(case) for name in found[vector.id].flags}
                unseen = {name: mistake for name, mistake in unseen.items() if name not in seen}
                reached, kept = reached | forms, kept + 1
    for vector in _unreached(operation, families, settings, reached):
        found[vector.id] = replace(vector, flags=hunted(vector))
    first = next((vector.case for vector in found.values() if vector.case.elements), None)
    return [*found.values(), *(refused_vectors(operation, first, settings.seed) if first is not None else ())]


def _sought(operation: str) -> dict[tuple[str, str], Mistake]:
    """Return what an operation's vectors should show: each mistake, and on float32 too, which every program takes."""
    return {(kind, name): mistake for name, mistake in mistakes_of(operation).items() for kind in (ANY, "float32")}


def _kinds(case: Case) -> tuple[str, ...]:
    floats = {array.dtype for array in case.inputs.values() if array is not None and array.is_float}
    return (ANY, "float32") if floats <= {"float32"} else (ANY,)


def _unreached(
    operation: Operation, families: Sequence[str], settings: Settings, reached: set[str]
) -> Iterator[Vector]:
    """Yield a vector for each stage that is a part of a formula and was reached by none, from a longer search."""
    missing = set(operation.stages) - reached
    for family in families:
        for source, case in (
            small_cases(operation, family, settings.limits, settings.seed, searched=8) if missing else ()
        ):
            if case.term in missing:
                missing -= {case.term}
                yield vector_of(operation, source, case, settings.level)


def vector_of(operation: Operation, source: Source, case: Case, level: Level) -> Vector:
    """Return the vector of a case: the reference's outputs and limits of every stage, without what it hunts."""
    outputs = reference_outputs(case)
    expected = expectations(operation, case, outputs, claims()[operation.name], level)
    origin = f"{operation.name}.{source.family}.{source.seed}.{source.index}"
    return Vector(case_id(origin, case_body(case)), operation.name, source, case, outputs, tuple(expected))


def refused_vectors(operation: Operation, case: Case, seed: int) -> Iterator[Vector]:
    """Yield a vector for each way in which a case is spoilt and refused."""
    for name, spoilt, refusal in refusals(case):
        yield refused_vector(operation, Source(f"{FAMILY}.{name}", seed, 0, cut=False), spoilt, refusal)


def refused_vector(operation: Operation, source: Source, case: Case, refusal: Refusal) -> Vector:
    """Return the vector of a case that is refused."""
    ident = case_id(f"{operation.name}.{source.family}.{source.seed}", case_body(case))
    return Vector(ident, operation.name, source, case, refusal=refusal)
