"""What stands behind every clause: where it is, the properties that name it, the mutants that die by it, its proofs.

Proofs are found without importing a test: ``@pytest.mark.proof("domain.rule", by="exact rationals")`` must be a literal
call on a test function, or on a class of tests.
"""

import ast
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qloracle_conformance.files import FileError, read_text
from qloracle_conformance.registry import JUDGED, Property, properties
from qloracle_conformance.spec.clauses import carriers_of, clauses
from qloracle_conformance.worked import operations_of

MUTANTS = Path("reports/mutants.json")
PROOFS = Path("tests/refimpl")


@dataclass(frozen=True)
class Proof:
    """One test that derives a clause independently of the reference."""

    clause: str
    by: str
    test: str  # "test_file.py::test_name"


@dataclass(frozen=True)
class Coverage:
    """What stands behind one clause."""

    clause: str
    carriers: tuple[str, ...]  # full names of functions, records or modules
    operations: tuple[str, ...]
    properties: int
    mutants: tuple[str, ...]  # that die by a property of the clause
    proofs: tuple[Proof, ...]

    @property
    def derivations(self) -> tuple[str, ...]:
        """The differently named derivations."""
        return tuple(dict.fromkeys(proof.by for proof in self.proofs))


def proofs_in(source: str, name: str) -> Iterator[Proof]:
    """Yield the proofs of a test file.

    Raises
    ------
    FileError
        If a mark is no literal call, names no clause and derivation, or stands on something that is no test.
    """
    tree = ast.parse(source)
    decorators = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            for mark in (decorator for decorator in node.decorator_list if _names_proof(decorator)):
                decorators.add(mark.func if isinstance(mark, ast.Call) else mark)
                if not node.name.startswith(("test_", "Test")):
                    raise FileError(f"{name}, line {node.lineno}: a proof must be a test, got {node.name}")
                yield Proof(*_literals(mark, name), f"{name}::{node.name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node not in decorators and _names_proof(node):
            raise FileError(f"{name}, line {node.lineno}: a proof must be a decorator of a test")


def _names_proof(node: ast.expr) -> bool:
    """Return whether an expression is ``pytest.mark.proof``, called or not."""
    target = node.func if isinstance(node, ast.Call) else node
    return isinstance(target, ast.Attribute) and ast.unparse(target) == "pytest.mark.proof"


def _literals(mark: ast.expr, name: str) -> tuple[str, str]:
    """Return the clause and the derivation that a mark names."""
    match mark:
        case ast.Call(
            args=[ast.Constant(value=str(clause))], keywords=[ast.keyword(arg="by", value=ast.Constant(value=str(by)))]
        ) if clause and by:
            return clause, by
    raise FileError(f'{name}, line {mark.lineno}: a proof must be proof("CLAUSE", by="DERIVATION") with literal texts')


def proofs(root: Path) -> list[Proof]:
    """Return the proofs of all tests of the reference below the root of the repository."""
    paths = sorted((root / PROOFS).glob("test_*.py"))
    return [proof for path in paths for proof in proofs_in(read_text(path), path.name)]


def deaths(root: Path) -> dict[str, list[str]]:
    """Return the mutants that die by a property of each clause, from the committed kill matrix; none without one.

    Raises
    ------
    FileError
        If the file is no kill matrix.
    """
    if not (root / MUTANTS).exists():
        return {}
    found: dict[str, list[str]] = {}
    try:
        for kill in json.loads(read_text(root / MUTANTS))["kills"]:
            for clause in {kill["clause"], kill["bound"]} - {""} if kill["right_stage"] else ():
                found.setdefault(clause, []).append(kill["mutant"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FileError(f"{root / MUTANTS} is no kill matrix: {type(error).__name__}: {error}") from error
    return found


def clauses_of(prop: Property) -> set[str]:
    """Return the clauses that a property names: its stage's own, and that of the bound; none for inputs unchanged."""
    operation = JUDGED[prop.operation]
    return {operation.stages[prop.stage], operation.bound} - {""} if prop.stage in operation.stages else set()


def coverage(root: Path) -> list[Coverage]:
    """Return what stands behind every clause, in the order of their names."""
    known, killed = proofs(root), deaths(root)
    named = Counter(label for prop in properties().values() for label in clauses_of(prop))
    return [
        Coverage(
            clause=label,
            carriers=tuple(carriers_of(label)),
            operations=tuple(operations_of(label)),
            properties=named[label],
            mutants=tuple(dict.fromkeys(killed.get(label, []))),
            proofs=tuple(proof for proof in known if proof.clause == label),
        )
        for label in clauses()
    ]
