"""The kill matrix: what is wrong is caught at its stage, what is right is not accused, and the check can fail."""

from collections.abc import Callable
from io import StringIO
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants import matrix
from qloracle_conformance.mutants.catalogue import catalogue
from qloracle_conformance.mutants.mutant import Mutant, Rewrite
from qloracle_conformance.mutants.rewrites import rewrites
from qloracle_conformance.operations.operation import CONDUCT
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.sequences.walks import SEQUENCES


def run(only: str | None = None, seed: int = 0) -> tuple[int, str]:
    out = StringIO()
    code = matrix.run_mutants(only, seed, Console(file=out, width=250, highlight=False), Console(file=StringIO()))
    return code, out.getvalue()


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace the catalogue and the rewrites; run them with a pattern, for they cover no clauses."""

    def replaced(*members: Mutant | Rewrite) -> None:
        monkeypatch.setattr(matrix, "catalogue", lambda: [m for m in members if isinstance(m, Mutant)])
        monkeypatch.setattr(matrix, "rewrites", lambda: [m for m in members if isinstance(m, Rewrite)])

    return replaced


@pytest.mark.parametrize("pattern", ["nibbles*", "bfloat16*", "alpha-*"])
def test_mutants_are_caught_and_each_kill_is_printed(pattern: str) -> None:
    code, text = run(pattern)
    assert code == 0, text
    names = [m.name for m in catalogue() if m.name.startswith(pattern[:-1])]
    assert names
    for name in names:
        (row,) = [line for line in text.splitlines() if line.split()[0] == name]
        assert any(operation in row for operation in OPERATIONS), f"no property is named in {row!r}"
    assert f"{len(names)} of {len(names)} caught at the right stage" in text


@pytest.mark.parametrize("name", ["operands-bfloat16", "operands-tf32", "last-k-dropped"])
def test_narrow_operands_and_a_dropped_last_element_are_caught_at_each_length(name: str) -> None:
    code, text = run(name)
    assert code == 0, text
    for length in (64, 1024, 11008):
        (row,) = [line for line in text.splitlines() if line.startswith(name) and f"at K = {length} " in line]
        assert ".wide_lattice" in row, row
    assert "3 of 3 caught at the right stage" in text


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", [0, 1])
def test_all_mutants_are_caught_and_no_rewrite_is_accused(seed: int) -> None:
    code, text = run(seed=seed)
    assert code == 0, text


def test_there_are_at_least_twelve_mutants_of_which_each_names_a_stage_that_exists() -> None:
    mutants = catalogue()
    assert len(mutants) >= 12
    assert len({m.name for m in mutants}) == len(mutants)
    for mutant in mutants:
        read = [op for op in OPERATIONS.values() if op.function in mutant.ops and op.name.startswith(mutant.operations)]
        read += [sequence for name, sequence in SEQUENCES.items() if name == mutant.operations]
        assert read, f"{mutant.name}: no operation reads what it changes"
        stages = {stage for op in read for stage in (*op.stages, *CONDUCT)}
        assert set(mutant.stages) <= stages, f"{mutant.name} names the stages {set(mutant.stages) - stages}"


def test_a_mutant_that_equals_the_reference_survives_and_fails_the_run(only: Callable[..., None]) -> None:
    only(Mutant("equal", "nothing is wrong", {"pack_4bit": OPS["pack_4bit"]}, ("packed",)))
    code, text = run("*")
    assert code == 1, text
    assert "survived" in text
    assert "0 of 1 caught at the right stage" in text


def unpadded(codes: HostArray, *, pad_code: int) -> HostArray:
    packed: HostArray = OPS["pack_4bit"](codes, pad_code=0)
    return packed


def test_a_mutant_that_is_caught_at_another_stage_than_its_own_fails_the_run(only: Callable[..., None]) -> None:
    only(Mutant("elsewhere", "the padding is ignored", {"pack_4bit": unpadded}, ("inputs",)))
    code, text = run("*")
    assert code == 1, text
    assert "packing.pack.packed.shapes: wrong stage" in text


def test_a_mutant_that_raises_is_not_caught_at_its_stage(only: Callable[..., None]) -> None:
    def raises(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("no kernel")

    only(Mutant("raising", "it raises", {"pack_4bit": raises}, ("packed",)))
    code, text = run("*")
    assert code == 1, text


def test_a_wrong_rewrite_is_accused_and_fails_the_run(only: Callable[..., None]) -> None:
    only(Rewrite("careless", "the padding is ignored", {"pack_4bit": unpadded}, {}))
    code, text = run("*")
    assert code == 1, text
    assert "right rewrite careless: accused by packing.pack.packed.shapes at case" in text
    assert "1 of 1 rewrites accused" in text


def test_a_right_rewrite_is_not_accused(only: Callable[..., None]) -> None:
    def packed(codes: HostArray, *, pad_code: int) -> HostArray:
        flat = codes.items.reshape(-1).tolist()
        flat += [pad_code] * (len(flat) % 2)
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return host(np.array([16 * high + low for high, low in pairs], np.uint8))

    only(Rewrite("plain", "byte by byte", {"pack_4bit": packed}, {}))
    code, text = run("*")
    assert code == 0, text
    assert "right rewrite plain: not accused" in text


# Beginnings of the names of rewrites in plain Python loops, or of many large cases.
SLOW = {
    "adapters",
    "matmul-by",
    "forward", "blocks-backwards", "adamw-moments", "adamw-reciprocal", "adamw-folded", "adamw8bit-", "paged-by-dict",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", [r.name for r in rewrites() if not r.name.startswith(tuple(SLOW))])
def test_other_arithmetic_that_keeps_its_claims_is_not_accused(name: str) -> None:
    code, text = run(name)
    assert code == 0, text
    assert f"right rewrite {name}: not accused" in text
