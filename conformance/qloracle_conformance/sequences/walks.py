"""The sequences that are judged: which operations each mixes, and how one of them is drawn."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from qloracle.formats import Array
from qloracle_conformance.backend import Claim, Level
from qloracle_conformance.generators.case import Case
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.operations.operation import Operation, level_of
from qloracle_conformance.sequences.bench import Bench, choice
from qloracle_conformance.sequences.judging import KEPT, claim_as_json, judge_sequence
from qloracle_conformance.sequences.other import other
from qloracle_conformance.sequences.step import FUNCTION, MOVES, Step
from qloracle_conformance.sequences.verbs import VERBS
from qloracle_conformance.sequences.weights import Weights

FAMILY = "walk"
OTHER = "other"
CLAUSES = {
    "quantize": "blockwise.quantize", "dequantize": "blockwise.dequantize", "matmul": "quantized.matmul",
    "forward": "qlora.forward", "backward": "qlora.backward", "merge": "lora.merge", "unmerge": "lora.unmerge",
    "merge_stored": "merge.requantize", "store": "packing.storage", "restore": "packing.storage",
    "nest": "double_quant.quantize", "unnest": "double_quant.dequantize", "train": "adamw.parameter",
    "train_8bit": "adamw8bit.quantize", OTHER: "", KEPT: "",
}  # fmt: skip
COMMON = {
    "merge": ("lora.merge",), "unmerge": ("lora.unmerge",), "store": ("packing.store",),
    "restore": ("packing.restore",), "train": ("adamw.step",), "train_8bit": ("adamw8bit.step",),
}  # fmt: skip
OWN = ("quantize", "dequantize", "matmul", "forward", "backward")
TRAINING = ("train", "train_8bit")  # a state that goes astray shows at the second step with it


@dataclass(frozen=True)
class Walk:
    """A kind of sequence."""

    name: str
    weights: Weights
    verbs: Mapping[str, tuple[str, ...]]  # verb → the operations that may do it
    own: tuple[str, ...]  # verbs at least one of which must be claimed: the others alone are another walk's


def _blocks(codebook: str) -> Walk:
    verbs = {
        "quantize": (f"{codebook}.quantize",), "dequantize": (f"{codebook}.dequantize",),
        "matmul": (f"{codebook}.matmul",), "merge_stored": ("blocks.merge",), **COMMON,
        "nest": ("absmax.quantize",), "unnest": ("absmax.dequantize",),
    }  # fmt: skip
    if codebook == "nf4":
        verbs |= {"forward": ("qlora.forward",), "backward": ("qlora.backward",)}
    return Walk(f"{codebook}.sequence", Weights("blocks", codebook), verbs, OWN)


def _grouped(kind: str, granularities: Sequence[str], rules: str) -> Walk:
    verbs = {
        "quantize": tuple(f"{kind}_{g}.quantize" for g in granularities),
        "dequantize": tuple(f"{kind}_{g}.dequantize" for g in granularities),
        "merge_stored": (f"{kind}.merge",), "forward": (f"qlora_{kind}.forward",),
        "backward": (f"qlora_{kind}.backward",), "merge": ("lora.merge",), "unmerge": ("lora.unmerge",),
        "train": ("adamw.step",),
    }  # fmt: skip
    return Walk(f"{rules}.sequence", Weights(kind), verbs, OWN)


def _double(codebook: str) -> Walk:
    verbs = {
        "quantize": (f"{codebook}_double.quantize",), "dequantize": (f"{codebook}_double.dequantize",),
        "matmul": (f"{codebook}_double.matmul",), "merge_stored": ("double.merge",),
        "forward": ("qlora_double.forward",), "backward": ("qlora_double.backward",), **COMMON,
    }  # fmt: skip
    return Walk(f"{codebook}_double.sequence", Weights("double", codebook), verbs, OWN)


_PLAIN = Walk(
    "lora.sequence", Weights(""),
    {"forward": ("lora.forward",), "backward": ("lora.backward",), "merge": ("lora.merge",),
     "unmerge": ("lora.unmerge",), "train": ("adamw.step",), "train_8bit": ("adamw8bit.step",)},
    ("forward", "backward", "merge", "unmerge", "train", "train_8bit"),
)  # fmt: skip

WALKS: dict[str, Walk] = {
    walk.name: walk
    for walk in (
        *map(_blocks, ("nf4", "fp4", "dynamic_signed")), _double("nf4"),
        _grouped("int8", ("tensor", "row", "column", "block"), "int8"),
        _grouped("affine", ("tensor", "row", "column", "group"), "affine"), _PLAIN,
    )
}  # fmt: skip


def operation_of(walk: Walk) -> Operation:
    """Return a walk as the suite's records have it: its stages are what its steps are for."""
    stages = {verb: _clause(walk, verb) for verb in (*walk.verbs, OTHER, KEPT)}
    return Operation(walk.name, FUNCTION, 0, stages, judge_sequence, {}, _intermediates, strictest="exact")


def _intermediates(case: Case) -> dict[str, Array]:
    """Return nothing: what a step shows is said of the step."""
    return {}


def _clause(walk: Walk, verb: str) -> str:
    own = {"int8": "int8", "affine": "affine"}.get(walk.weights.kind)
    if own and verb in ("quantize", "dequantize"):
        return f"{own}.{verb}"
    if walk.weights.kind == "" and verb in ("forward", "backward"):
        return f"lora.{verb}"
    return CLAUSES[verb]


SEQUENCES: dict[str, Operation] = {walk.name: operation_of(walk) for walk in WALKS.values()}


def bound_operation(name: str, claims: Mapping[str, Claim]) -> tuple[Operation, Claim] | None:
    """Return a walk over what is claimed of it, and the claim that follows; None if that is nothing.

    Parameters
    ----------
    name : str
    claims : mapping
        Of the operations that are claimed and there, by name, with values for every option.
    """
    walk = WALKS[name]
    verbs = {verb: tuple(o for o in ops if admits(walk, verb, claims.get(o))) for verb, ops in walk.verbs.items()}
    verbs = {verb: ops for verb, ops in verbs.items() if ops}
    if not set(verbs) & set(walk.own):
        return None
    narrowed = replace(walk, verbs=verbs)
    levels: dict[str, Level] = {verb: loosest(claims[o] for o in ops) for verb, ops in verbs.items()}
    others = loosest(claims.values())
    used = [claims[o] for ops in verbs.values() for o in ops]
    promised = all(claim.basis == "promised" for claim in used)
    basis: Literal["promised", "assumed"] = "promised" if promised else "assumed"
    source = "what is claimed of each operation holds whatever was called before"
    claim = Claim(name, {**levels, OTHER: others, KEPT: "exact"}, basis=basis, source=source)
    operation = SEQUENCES[name]
    stages = {stage: clause for stage, clause in operation.stages.items() if stage in claim.levels}
    made = {FAMILY: partial(walk_case, walk=narrowed, claims=claims)}
    return replace(operation, stages=stages, families=made), claim


def loosest(claims: Iterable[Claim]) -> Level:
    """Return the loosest level that any of some claims states for any stage."""
    from qloracle_conformance.registry import OPERATIONS

    stated = {level_of(claim, stage) for claim in claims for stage in OPERATIONS[claim.operation].stages}
    levels: tuple[Level, ...] = ("bound", "tie", "exact")
    return next(level for level in levels if level in stated)


def admits(walk: Walk, verb: str, claim: Claim | None) -> bool:
    """Return whether a claim admits what a verb makes: some need matrices, one its codebook, one bytes as bytes."""
    if claim is None:
        return False
    if verb in ("matmul", "merge", "unmerge", "merge_stored", "forward", "backward", "train", "train_8bit"):
        matrix = 2 in claim.ndims or verb == "matmul"
    else:
        matrix = True
    codebooks = claim.options.get("codebook", (walk.weights.codebook,))
    own = verb != "merge_stored" or not walk.weights.codebook or walk.weights.codebook in codebooks
    return matrix and own and (verb != "restore" or "uint8" in claim.options.get("storage", ("uint8",)))


def walk_case(draw: Draw, claim: Claim, *, walk: Walk, claims: Mapping[str, Claim]) -> Case:
    """Every verb three times, training steps five times, and every move twice, in any order."""
    bench = Bench(claims)
    training = [verb for verb in walk.verbs if verb in TRAINING]
    upcoming = [*walk.verbs, OTHER, *MOVES, *walk.verbs, OTHER, *training, *MOVES, *training, *walk.verbs]
    while upcoming:
        take(bench, draw, walk, upcoming.pop(draw.integer(0, len(upcoming) - 1)))
    return finished(bench, walk)


def take(bench: Bench, draw: Draw, walk: Walk, what: str) -> None:
    """Add the steps of one verb, or one move."""
    if what in MOVES:
        _move(bench, draw, what, walk)
    elif what == OTHER:
        other(bench, draw, related(walk, bench.claims))
    else:
        VERBS[what](bench, draw, draw.choice(walk.verbs[what]), walk.weights)


def related(walk: Walk, claims: Mapping[str, Claim]) -> list[str]:
    """Return the operations outside a walk that call the same functions: what they share is most likely to leak."""
    from qloracle_conformance.registry import OPERATIONS

    inside = {operation for operations in walk.verbs.values() for operation in operations}
    functions = {OPERATIONS[operation].function for operation in inside}
    return [name for name in claims if name not in inside and OPERATIONS[name].function in functions]


def _move(bench: Bench, draw: Draw, what: str, walk: Walk) -> None:
    """Save, load, move or drop the arrays of one slot; nothing where there is none yet."""
    if what == "load":
        if bench.saved:
            bench.steps.append(Step("load", names=tuple(bench.saved)))
        return
    slots = [slot for slot in bench.slots if slot.kind in ("weight", "stored", "adapter", "nested", "packed")]
    if not slots:
        return
    slot = choice(draw, slots[::-1])
    names = tuple(dict.fromkeys(slot.names.values()))
    if what == "drop":
        bench.forget(slot)
    if what == "save":
        bench.saved = [*bench.saved, *(n for n in names if n not in bench.saved)]
    used = {operation for operations in walk.verbs.values() for operation in operations}
    common = [x for x in bench.claims[next(iter(used))].layouts if all(x in bench.claims[o].layouts for o in used)]
    layout = choice(draw, common or ["contiguous"]) if what == "move" else ""
    bench.steps.append(Step(what, names=names, layout=layout))


def finished(bench: Bench, walk: Walk) -> Case:
    """Return the case of a sequence."""
    called = {step.operation for step in bench.steps if step.operation}
    claims = {name: claim_as_json(bench.claims[name]) for name in sorted(called)}
    options = {"steps": tuple(step.as_json() for step in bench.steps), "claims": claims}
    return Case(walk.name, bench.inputs, options, bench.layouts)
