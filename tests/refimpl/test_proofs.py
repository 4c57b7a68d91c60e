"""Every clause is derived at least twice, independently of the reference and of each other."""

from pathlib import Path

import pytest

from qloracle_conformance.files import FileError
from qloracle_conformance.spec.clauses import clauses
from qloracle_conformance.spec.coverage import Proof, proofs, proofs_in

ROOT = Path(__file__).resolve().parent.parent.parent
PROOFS = proofs(ROOT)


@pytest.mark.parametrize("clause", clauses())
def test_every_clause_has_two_differently_named_derivations(clause: str) -> None:
    found = {proof.by for proof in PROOFS if proof.clause == clause}
    assert len(found) >= 2, f"{clause} is derived by {sorted(found) or 'nothing'}: mark tests with pytest.mark.proof"


def test_no_proof_names_a_clause_that_does_not_exist() -> None:
    unknown = [proof for proof in PROOFS if proof.clause not in clauses()]
    assert not unknown, f"proofs of unknown clauses: {unknown}"


MARKED = """
import pytest

@pytest.mark.proof("a.b", by="exact rationals")
@pytest.mark.proof("a.c", by="NumPy")
def test_one() -> None: ...

@pytest.mark.proof("a.d", by="closed form")
class TestMany:
    def test_two(self) -> None: ...
"""


def test_marks_are_found_on_tests_and_classes_of_tests() -> None:
    assert list(proofs_in(MARKED, "t.py")) == [
        Proof("a.b", "exact rationals", "t.py::test_one"),
        Proof("a.c", "NumPy", "t.py::test_one"),
        Proof("a.d", "closed form", "t.py::TestMany"),
    ]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("@pytest.mark.proof('a.b', by='x')\ndef helper(): ...", "a proof must be a test, got helper"),
        ("@pytest.mark.proof(CLAUSE, by='x')\ndef test_x(): ...", "with literal texts"),
        ("@pytest.mark.proof('a.b', by=f'{x}')\ndef test_x(): ...", "with literal texts"),
        ("@pytest.mark.proof('a.b')\ndef test_x(): ...", "with literal texts"),
        ("@pytest.mark.proof('a.b', by='')\ndef test_x(): ...", "with literal texts"),
        ("@pytest.mark.proof\ndef test_x(): ...", "with literal texts"),
        ("pytestmark = pytest.mark.proof('a.b', by='x')", "must be a decorator of a test"),
    ],
)
def test_a_mark_that_proves_nothing_is_refused(source: str, message: str) -> None:
    with pytest.raises(FileError, match=message):
        list(proofs_in(source, "t.py"))
