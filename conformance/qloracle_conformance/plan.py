"""Which tasks a run consists of: what a backend claims, what the user selected, and how large the run is."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from qloracle_conformance.backend import BackendInfo, Claim
from qloracle_conformance.judge import LEVELS
from qloracle_conformance.operations.operation import level_of, with_default_options
from qloracle_conformance.registry import OPERATIONS, selected
from qloracle_conformance.sequences.walks import FAMILY as WALK
from qloracle_conformance.sequences.walks import SEQUENCES, bound_operation
from qloracle_conformance.task import Task
from qloracle_conformance.usage import UsageError


@dataclass(frozen=True)
class Profile:
    """Sizes of a run; a profile never changes what is claimed or how it is judged."""

    cases: int  # enumerated cases of a family
    sweep: int  # of families that cut an exhaustive sweep into sixteen
    examples: int  # of Hypothesis, a family
    walks: int  # sequences of a kind


# Families of a few listed shapes: the enumerated cases cover them, a search of random ones adds only time.
LISTED = ("extents", "degenerate", "squares", "layouts", "tiles", "peaks", "single", WALK)

PROFILES = {
    "smoke": Profile(cases=3, sweep=4, examples=0, walks=2),
    "default": Profile(cases=20, sweep=16, examples=5, walks=12),
    "thorough": Profile(cases=250, sweep=16, examples=60, walks=120),
}


@dataclass(frozen=True)
class Plan:
    """A run before it starts."""

    tasks: Sequence[Task]
    properties: frozenset[str]  # ids that are reported
    unclaimed: Sequence[str]  # operations that the selection names and the backend does not claim
    absent: Sequence[str]  # operations that are claimed but not there
    foundations: Mapping[str, Sequence[Task]] = field(default_factory=dict)  # tasks of operations that others rest on


def make_plan(
    info: BackendInfo, profile: str, seed: int, only: str | None = None, stage: str | None = None, explore: bool = False
) -> Plan:
    """Return the tasks of a run.

    Raises
    ------
    UsageError
        If nothing is selected, or a claim names an operation or stage that does not exist.
    """
    if profile not in PROFILES:
        raise UsageError(f"profile must be one of {', '.join(PROFILES)}, got {profile!r}")
    chosen = {k: p for k, p in selected(only).items() if stage is None or p.stage == stage}
    if not chosen:
        raise UsageError(
            f"no property matches --only {only or '*'} --stage {stage or '*'}; ids are operation.stage.family"
        )
    claims = {}
    for claim in info.claims:
        _check_claim(claim, info.name)
        if claim.operation in claims:
            raise UsageError(f"backend {info.name!r} claims {claim.operation!r} twice")
        claims[claim.operation] = with_default_options(claim, OPERATIONS[claim.operation])
    size, named = PROFILES[profile], list(dict.fromkeys(p.operation for p in chosen.values()))

    def tasks_of(name: str, families: Iterable[str]) -> list[Task]:
        if name in SEQUENCES:
            return sequence_tasks(name, there, size.walks, _examples(size, WALK, explore), seed)
        if name not in claims or OPERATIONS[name].function not in info.functions:
            return []
        return [
            Task(OPERATIONS[name], family, claims[name], size.sweep if family == "sweep" else size.cases,
                 _examples(size, family, explore), seed) for family in families
        ]  # fmt: skip

    there = {name: c for name, c in claims.items() if OPERATIONS[name].function in info.functions}
    wanted = {(p.operation, p.family) for p in chosen.values()}
    tasks = [t for n in named for t in tasks_of(n, (f for f in _families(n) if (n, f) in wanted))]
    named = [n for n in named if n in OPERATIONS]  # a sequence follows from what is claimed of operations
    given = dict.fromkeys(OPERATIONS[n].given for n in named if OPERATIONS[n].given)
    if any(t.family == WALK for t in tasks):  # a step may fail by a fault that is its operation's own
        given |= dict.fromkeys(there)
    foundations = {n: [replace(t, examples=0) for t in tasks_of(n, OPERATIONS[n].families)] for n in given}
    absent = [n for n in named if n in claims and OPERATIONS[n].function not in info.functions]
    return Plan(tasks, frozenset(chosen), [n for n in named if n not in claims], absent, foundations)


def _families(name: str) -> Iterable[str]:
    return OPERATIONS[name].families if name in OPERATIONS else ()


def sequence_tasks(name: str, claims: Mapping[str, Claim], cases: int, examples: int, seed: int) -> list[Task]:
    """Return the task of a kind of sequence, none where nothing of it is claimed.

    `claims` are those of operations that are there, by name, with values for every option.
    """
    bound = bound_operation(name, claims)
    return [] if bound is None else [Task(bound[0], WALK, bound[1], cases, examples, seed)]


def _examples(size: Profile, family: str, explore: bool) -> int:
    if explore:
        return max(size.examples, 50) * 4
    return 0 if family in LISTED else size.examples


def _check_claim(claim: Claim, backend: str) -> None:
    operation, levels = claim.operation, claim.levels
    if operation not in OPERATIONS:
        raise UsageError(f"backend {backend!r} claims unknown operation {operation!r}; known: {', '.join(OPERATIONS)}")
    known = {*OPERATIONS[operation].stages, "*"}
    unknown = set(levels) - known
    if unknown:
        raise UsageError(f"backend {backend!r} claims unknown stages of {operation!r}: {', '.join(sorted(unknown))}")
    for name, values in claim.options.items():
        existing = OPERATIONS[operation].options.get(name, ())
        wrong = [value for value in values if value not in existing]
        if wrong or not existing:
            raise UsageError(
                f"backend {backend!r} claims option {name!r} of {operation!r} for {wrong or values}; "
                f"there is {existing or 'no such option'}"
            )
    for stage in OPERATIONS[operation].stages:
        strictest = OPERATIONS[operation].strictest_of(stage)
        if LEVELS.index(level_of(claim, stage)) < LEVELS.index(strictest):
            raise UsageError(
                f"backend {backend!r} claims {operation}.{stage} at level {level_of(claim, stage)};"
                f" the strictest that can be judged is {strictest}"
            )
    if not set(claim.dtypes) & set(OPERATIONS[operation].dtypes):
        raise UsageError(
            f"backend {backend!r} claims {operation!r} for dtypes {claim.dtypes}; "
            f"it is defined for {', '.join(OPERATIONS[operation].dtypes)}"
        )
    if not {1, 2, 3, 4} & set(claim.ndims):
        raise UsageError(f"backend {backend!r} claims {operation!r} for ndims {claim.ndims}, none of which is 1 to 4")
