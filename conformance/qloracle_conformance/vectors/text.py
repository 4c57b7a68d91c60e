"""Vectors as text: the lines of a case, then what the reference gives, then what each stage may be.

::

    vector ID OPERATION FUNCTION
    source FAMILY SEED INDEX whole|cut lattice|bounded PART
    flags COUNT NAME …
    option NAME KIND VALUE
    input NAME TYPE NDIM DIM …
    words
    output TYPE NDIM DIM …
    words
    stage NAME CLAUSE LEVEL OUTPUT UNIT OF COUNT exactly|between
    words of the lowest allowed elements
    their ordinals, in decimal
    words of the highest ones, and their ordinals: only where the line says between
    end

PART is the part of a formula that the inputs single out, or ``-``. Where the reference refuses the arguments, one line
``error KIND ARGUMENT`` stands in place of outputs and stages.
"""

from collections.abc import Iterable

from qloracle.formats import Array
from qloracle_conformance.exchange.records import case_body
from qloracle_conformance.exchange.words import WORDS_ON_A_LINE, array_text, words_text
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.vectors.vector import Expected, Vector


def vector_text(vector: Vector) -> str:
    """Return a vector as lines."""
    lines = [
        f"vector {vector.id} {vector.operation} {OPERATIONS[vector.operation].function}\n",
        _origin(vector),
        " ".join(["flags", str(len(vector.flags)), *vector.flags]) + "\n",
        case_body(vector.case),
    ]
    if vector.refusal is not None:
        return "".join([*lines, f"error {vector.refusal.kind} {vector.refusal.argument}\nend\n"])
    lines += [f"output {array_text(array)}" for array in vector.outputs]
    return "".join([*lines, *(_stage(expected) for expected in vector.expected), "end\n"])


def _origin(vector: Vector) -> str:
    """Return the line that says where a case comes from; on a lattice sums are exact in any order."""
    source, case = vector.source, vector.case
    kept, sums = "cut" if source.cut else "whole", "lattice" if case.lattice else "bounded"
    return f"source {source.family} {source.seed} {source.index} {kept} {sums} {case.term or '-'}\n"


def file_text(vectors: Iterable[Vector]) -> str:
    """Return the text of a file: vectors with an empty line between them."""
    return "\n".join(vector_text(vector) for vector in vectors)


def _stage(expected: Expected) -> str:
    unit, lo, hi = expected.unit, expected.allowed.lo, expected.allowed.hi
    head = ["stage", expected.stage, expected.clause, expected.level, unit.output, unit.kind, unit.of, lo.size,
            "exactly" if expected.exactly else "between"]  # fmt: skip
    ends = [lo] if expected.exactly else [lo, hi]
    return " ".join(map(str, head)) + "\n" + "".join(words_text(unit.words(e)) + _numbers(e) for e in ends if e.size)


def _numbers(ordinals: Array) -> str:
    items = list(map(str, ordinals.tolist()))
    lines = [items[i : i + WORDS_ON_A_LINE] for i in range(0, len(items), WORDS_ON_A_LINE)]
    return "".join(" ".join(line) + "\n" for line in lines)
