"""The kill matrix under many seeds: it goes on where it was, says the same however it was run, and can fail."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from qloracle.errors import QloracleError
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants import explore as exploring
from qloracle_conformance.mutants import matrix
from qloracle_conformance.mutants.explore import Exploration, Stopped, explore
from qloracle_conformance.mutants.explored import ROOT, _imported, suite_digest
from qloracle_conformance.mutants.mutant import Mutant, Rewrite


def unpadded(codes: HostArray, *, pad_code: int) -> HostArray:
    packed: HostArray = OPS["pack_4bit"](codes, pad_code=0)
    return packed


def swapped(codes: HostArray, *, pad_code: int) -> HostArray:
    packed = OPS["pack_4bit"](codes, pad_code=pad_code).items
    return host((packed << 4) | (packed >> 4))


def right(codes: HostArray, *, pad_code: int) -> HostArray:
    packed: HostArray = OPS["pack_4bit"](codes, pad_code=pad_code)
    return packed


def mutant(name: str, op: Any) -> Mutant:
    return Mutant(name, "a fault", {"pack_4bit": op}, ("packed",))


MUTANTS = [mutant("unpadded", unpadded), mutant("swapped", swapped)]
REWRITES = [Rewrite("plain", "byte by byte", {"pack_4bit": right}, {})]


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> list[Mutant | Rewrite]:
    """A small catalogue, which a test may extend before it runs."""
    members: list[Mutant | Rewrite] = [*MUTANTS, *REWRITES]
    monkeypatch.setattr(matrix, "catalogue", lambda: [m for m in members if isinstance(m, Mutant)])
    monkeypatch.setattr(matrix, "rewrites", lambda: [m for m in members if isinstance(m, Rewrite)])
    matrix._shipped.cache_clear()
    return members


@pytest.fixture(autouse=True)
def forget() -> Any:
    yield
    matrix._shipped.cache_clear()


def run(folder: Path, name: str = "a", **changed: Any) -> tuple[int, str, str]:
    """Run and return the exit code, what was printed, and the matrix."""
    asked = {"only": None, "first": 0, "seeds": 3, "jobs": 1, "state": folder / f"{name}.state", "resume": None,
             "json": folder / f"{name}.json", **changed}  # fmt: skip
    out = StringIO()
    code = explore(Exploration(**asked), Console(file=out, width=200), Console(file=StringIO()))
    path = asked["json"]
    return code, out.getvalue(), path.read_text() if path else ""


def test_every_seed_of_every_mutant_and_rewrite_stands_in_the_matrix(tmp_path: Path, shipped: Any) -> None:
    code, text, written = run(tmp_path)
    assert code == 0, text
    assert "2 of 2 caught at the right stage under 3 of 3 seeds, 0 of 1 rewrites accused" in text
    content = json.loads(written)
    assert content["seeds"] == [0, 1, 2]
    for row in content["mutants"]:
        seeds = [seed for by in row["by"].values() for seed in by["cases"]]
        assert sorted(seeds) == ["0", "1", "2"], row
        assert all(name.startswith("packing.pack.packed.") for name in row["by"])
        assert all(count >= 1 for by in row["by"].values() for count in by["cases"].values())
    assert content["rewrites"] == [{"rewrite": "plain", "seeds": [0, 1, 2], "accused": {}}]


@pytest.mark.parametrize("stop_after", [0, 1, 4, 8])
def test_what_was_stopped_goes_on_and_ends_with_the_same_matrix(
    tmp_path: Path, shipped: Any, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    _, _, whole = run(tmp_path, "whole")
    real, done = exploring.result_of, []

    def stopping(unit: Any) -> Any:
        if len(done) == stop_after:
            raise KeyboardInterrupt
        done.append(unit)
        return real(unit)

    monkeypatch.setattr(exploring, "result_of", stopping)
    with pytest.raises(Stopped) as stopped:
        run(tmp_path, "part")
    assert f"{stop_after} of 9 results kept in {tmp_path / 'part.state'}; the same command goes on" in str(
        stopped.value
    )
    first = list(done)
    monkeypatch.setattr(exploring, "result_of", lambda unit: done.append(unit) or real(unit))
    code, _, written = run(tmp_path, "part")
    assert code == 0
    assert written == whole
    assert len(done) == len(set(done)) == 9, "no result was computed twice"
    assert done[: len(first)] == first


def test_more_seeds_keep_those_that_are_done(tmp_path: Path, shipped: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, seeds=2)
    real, done = exploring.result_of, []
    monkeypatch.setattr(exploring, "result_of", lambda unit: done.append(unit) or real(unit))
    assert run(tmp_path, seeds=3)[0] == 0
    assert {seed for _, _, seed in done} == {2}


def test_fresh_begins_anew_and_resume_requires_a_state(tmp_path: Path, shipped: Any) -> None:
    with pytest.raises(QloracleError, match="--resume: there is no state"):
        run(tmp_path, resume=True)
    run(tmp_path)
    (tmp_path / "a.state").write_text("not JSON")
    with pytest.raises(QloracleError, match=r"a\.state is no state of .* it holds no JSON"):
        run(tmp_path)
    assert run(tmp_path, resume=False)[0] == 0
    assert run(tmp_path, resume=True)[0] == 0


def test_a_state_of_other_sources_is_refused(tmp_path: Path, shipped: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path)
    monkeypatch.setattr(exploring, "suite_digest", lambda: "other")
    with pytest.raises(QloracleError, match="of another catalogue or suite: its sources have changed"):
        run(tmp_path)


def test_the_digest_is_of_the_catalogue_the_suite_and_the_reference_and_of_no_page_or_report() -> None:
    names = _imported(ROOT, set())
    needed = {"qloracle.nearest", "qloracle.bounds.lora", "qloracle_conformance.mutants.path_block_faults",
              "qloracle_conformance.mutants.kernel_rewrites", "qloracle_conformance.generators.extents",
              "qloracle_conformance.operations.quantize", "qloracle_conformance.judge"}  # fmt: skip
    assert needed <= names, sorted(needed - names)
    assert not {name for name in names if ".spec.site" in name or ".commands" in name or name.endswith(".table")}
    assert suite_digest() == suite_digest()


def test_a_survivor_under_one_seed_fails_the_run_and_is_named(tmp_path: Path, shipped: list[Any]) -> None:
    shipped.append(mutant("equal", right))
    code, text, written = run(tmp_path, seeds=2)
    assert code == 1
    assert "equal under seed 1: survived" in text
    assert "2 of 3 caught at the right stage under 2 of 2 seeds" in text
    (row,) = [row for row in json.loads(written)["mutants"] if row["mutant"] == "equal"]
    assert [miss["seed"] for miss in row["missed"]] == [0, 1]


def test_an_accused_rewrite_fails_the_run_and_is_named(tmp_path: Path, shipped: list[Any]) -> None:
    shipped.append(Rewrite("careless", "no padding", {"pack_4bit": unpadded}, {}))
    code, text, written = run(tmp_path, seeds=1)
    assert code == 1
    assert "right rewrite careless under seed 0: accused by packing.pack.packed." in text
    (row,) = [row for row in json.loads(written)["rewrites"] if row["rewrite"] == "careless"]
    assert list(row["accused"]) == ["0"]


def test_processes_change_nothing(tmp_path: Path) -> None:
    arguments = {"only": "pack-*", "seeds": 2}
    alone, shared = run(tmp_path, "alone", **arguments), run(tmp_path, "shared", jobs=2, **arguments)
    assert alone == shared
    assert alone[0] == 0, alone[1]


def test_a_mutant_that_keeps_something_between_calls_begins_anew_with_every_seed() -> None:
    names = ("stale-absmax", "workspace-returned", "quantize-race", "absmax-race", "qlora-stale-weight")
    for name in names:
        first = matrix.result_of(name, True, 0)
        matrix.result_of(name, True, 1)
        assert matrix.result_of(name, True, 0) == first, name


def test_no_name_matches(tmp_path: Path, shipped: Any) -> None:
    with pytest.raises(QloracleError, match="no mutant or rewrite matches --only nonesuch"):
        run(tmp_path, only="nonesuch")


def test_the_matrix_has_one_line_for_each_mutant(tmp_path: Path, shipped: Any) -> None:
    _, _, written = run(tmp_path, seeds=1)
    assert len([line for line in written.splitlines() if '"mutant"' in line]) == len(MUTANTS)
