"""The committed kill matrix: it is of these mutants and clauses, and it leaves none of them out."""

import json
from pathlib import Path

from qloracle import SPECIFICATION_VERSION
from qloracle_conformance.explain import clauses
from qloracle_conformance.mutants.catalogue import catalogue
from qloracle_conformance.mutants.kills import Kill, covered
from qloracle_conformance.mutants.rewrites import rewrites
from qloracle_conformance.registry import properties

REPORTS = Path(__file__).parents[2] / "reports"
MATRIX = json.loads((REPORTS / "mutants.json").read_text(encoding="utf-8"))
EXPLORED = json.loads((REPORTS / "mutants-20-seeds.json").read_text(encoding="utf-8"))
KILLS = [Kill(**kill) for kill in MATRIX["kills"]]
ANEW = "make reports makes the matrix anew"


def test_it_is_of_this_specification() -> None:
    assert MATRIX["specification"] == SPECIFICATION_VERSION, ANEW


def test_it_holds_every_mutant_and_every_rewrite_and_no_other() -> None:
    assert {k.mutant for k in KILLS} == {m.name for m in catalogue()}, ANEW
    assert set(MATRIX["rewrites"]) == {r.name for r in rewrites()}, ANEW


def test_every_mutant_died_at_its_own_stage_by_a_property_that_exists() -> None:
    assert [k.mutant for k in KILLS if not k.right_stage] == []
    assert {k.property for k in KILLS} <= set(properties()), ANEW


def test_no_right_rewrite_was_accused() -> None:
    assert {name: found for name, found in MATRIX["rewrites"].items() if found} == {}


def test_every_clause_is_covered_by_a_mutant_that_died_by_a_property_of_the_clause() -> None:
    assert sorted(set(clauses()) - covered(KILLS)) == []


def test_the_matrix_of_many_seeds_is_of_the_same_mutants_and_rewrites() -> None:
    assert EXPLORED["specification"] == SPECIFICATION_VERSION
    assert EXPLORED["seeds"] == list(range(20))
    assert {(row["mutant"], row["length"]) for row in EXPLORED["mutants"]} == {(k.mutant, k.length) for k in KILLS}
    assert {row["rewrite"] for row in EXPLORED["rewrites"]} == set(MATRIX["rewrites"])


def test_under_many_seeds_every_mutant_died_and_no_rewrite_was_accused() -> None:
    for row in EXPLORED["mutants"]:
        died = sorted(int(seed) for by in row["by"].values() for seed in by["cases"])
        assert (died, row["missed"]) == (EXPLORED["seeds"], []), row["mutant"]
    assert [row for row in EXPLORED["rewrites"] if row["accused"]] == []
