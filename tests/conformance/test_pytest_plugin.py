"""One line in a conftest.py: an item for each property, in a pytest run of its own."""

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from textwrap import dedent
from xml.etree import ElementTree as ET

import pytest

from .commands import Ended, environment

pytestmark = pytest.mark.slow

LINE = 'pytest_plugins = ["qloracle_conformance.pytest_plugin"]\n'
BACKEND = """
    from dataclasses import replace
    import numpy as np
    from qloracle_conformance.adapters.reference import OPS, backend as reference
    from qloracle_conformance.arrays import host

    def pack(codes, *, pad_code):
        packed = OPS["pack_4bit"](codes, pad_code=pad_code)
        return host(((packed.items << 4) | (packed.items >> 4)).astype(np.uint8))

    def unpack(packed, *, size):
        return OPS["unpack_4bit"](packed, size=size)

    def backend(device="cpu"):
        right = reference()
        mine = [c for c in right.claims if c.operation in ("packing.pack", "packing.unpack")]
        claims = tuple(replace(c, features=(), basis="promised", source="my notes") for c in mine)
        return replace(right, name="mine", version="1.0", ops={"pack_4bit": pack, "unpack_4bit": unpack}, claims=claims)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose tests have that one line, and a backend with a fault."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "conftest.py").write_text(LINE)
    (tmp_path / "tests" / "test_mine.py").write_text("def test_mine():\n    pass\n")
    (tmp_path / "mine.py").write_text(dedent(BACKEND))
    return tmp_path


def run(project: Path, *arguments: str) -> Ended:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rA", *arguments]
    own = {name: value for name, value in environment(project).items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=project, env=own, check=False, capture_output=True, text=True,
                          timeout=120)  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr)


def lines(ended: Ended, outcome: str) -> set[str]:
    found = {line.split()[1] for line in ended.out.splitlines() if line.startswith(f"{outcome} ")}
    return {name.rpartition("::")[2] for name in found}


SMOKE = ("--qloracle-backend=mine:backend", "--qloracle-profile=smoke")


def test_every_property_is_an_item_and_the_failure_is_the_finding_of_the_report(project: Path) -> None:
    ended = run(project, "tests", *SMOKE)
    assert ended.code == 1, ended
    assert "test_mine" in lines(ended, "PASSED")
    assert {"packing.unpack.codes.shapes", "packing.pack.inputs.memory"} <= lines(ended, "PASSED")
    assert {"packing.pack.packed.shapes", "packing.pack.packed.memory"} <= lines(ended, "FAILED")
    assert "packing.pack.packed.shapes: fail, 1 of 1 properties" in ended.out
    assert "clause   packing.nibbles" in ended.out
    assert "replay   qloracle replay witnesses/mine_backend.packing.pack.packed.shapes.json" in ended.out
    assert (project / "witnesses" / "mine_backend.packing.pack.packed.shapes.json").is_file()
    assert "Traceback" not in ended.out


@pytest.mark.exhaustive
def test_the_backend_may_stand_in_the_configuration(project: Path) -> None:
    (project / "pytest.ini").write_text(
        "[pytest]\nqloracle_backend = mine:backend\nqloracle_profile = smoke\nqloracle_only = packing.unpack.*\n"
    )
    ended = run(project, "tests")
    assert ended.code == 0, ended
    assert "packing.unpack.codes.shapes" in lines(ended, "PASSED")


def test_without_a_backend_nothing_is_collected(project: Path) -> None:
    ended = run(project, "tests")
    assert (ended.code, lines(ended, "PASSED")) == (0, {"test_mine"}), ended


def test_k_selects_by_property_and_x_stops_at_the_first_failure(project: Path) -> None:
    ended = run(project, "tests", *SMOKE, "-k", "unpack and shapes")
    assert (ended.code, lines(ended, "PASSED")) == (
        0, {"packing.unpack.codes.shapes", "packing.unpack.inputs.shapes"}
    ), ended  # fmt: skip
    ended = run(project, "tests", *SMOKE, "-x", "-k", "pack")
    assert "1 failed" in ended.out, ended


@pytest.mark.exhaustive
def test_a_file_of_ones_own_leaves_the_properties_out_and_a_node_id_names_one(project: Path) -> None:
    ended = run(project, "tests/test_mine.py", *SMOKE)
    assert (ended.code, lines(ended, "PASSED")) == (0, {"test_mine"}), ended
    ended = run(project, "tests/conftest.py::packing.unpack.codes.shapes", *SMOKE)
    assert (ended.code, lines(ended, "PASSED")) == (0, {"packing.unpack.codes.shapes"}), ended


def test_workers_of_xdist_judge_the_same_and_junit_names_every_property(project: Path) -> None:
    alone = run(project, "tests", *SMOKE)
    ended = run(project, "tests", *SMOKE, "-n", "2", "--junitxml=found.xml")
    assert ended.code == 1, ended
    for outcome in ("PASSED", "FAILED"):
        assert lines(ended, outcome) == lines(alone, outcome)
    cases = {case.get("name"): case for case in ET.parse(project / "found.xml").iter("testcase")}  # noqa: S314
    assert set(cases) == lines(alone, "PASSED") | lines(alone, "FAILED")
    failure = cases["packing.pack.packed.shapes"].find("failure")
    assert failure is not None
    assert "packing.nibbles" in str(failure.text)


@pytest.mark.exhaustive
def test_what_is_known_to_fail_is_expected_to_and_a_fixed_deviation_fails(project: Path) -> None:
    run(project, "tests", *SMOKE)
    entry = """
        backend = "mine"
        [[deviation]]
        properties = ["packing.pack.packed.*"]
        witness = "witnesses/mine_backend.packing.pack.packed.shapes.json"
        reason = "nibbles are swapped"
        versions = ">=1.0"
    """
    (project / "known.toml").write_text(dedent(entry))
    ended = run(project, "tests", *SMOKE, "--qloracle-deviations=known.toml", "-k", "packing.pack.packed")
    assert ended.code == 0, ended
    assert "packing.pack.packed.shapes" in lines(ended, "XFAIL")
    source = (project / "mine.py").read_text()
    (project / "mine.py").write_text(source.replace("(packed.items << 4) | (packed.items >> 4)", "packed.items"))
    ended = run(project, "tests", *SMOKE, "--qloracle-deviations=known.toml", "-k", "packing.pack.packed")
    assert ended.code == 1, ended
    assert "delete the entry" in ended.out


@pytest.mark.exhaustive
def test_what_is_claimed_and_not_there_fails(project: Path) -> None:
    source = (project / "mine.py").read_text()
    (project / "mine.py").write_text(source.replace(', "unpack_4bit": unpack', ""))
    ended = run(project, "tests", *SMOKE, "-k", "unpack")
    assert lines(ended, "FAILED") == {"packing.unpack.claim.absent"}, ended


@pytest.mark.exhaustive
def test_a_feature_that_is_not_claimed_is_skipped_with_its_status(project: Path) -> None:
    source = (project / "mine.py").read_text()
    source = source.replace('("packing.pack", "packing.unpack")', '("lora.forward",)').replace(
        'ops={"pack_4bit": pack, "unpack_4bit": unpack}', "ops=right.ops"
    )
    (project / "mine.py").write_text(source)
    ended = run(project, "tests", *SMOKE, "-k", "lora_bias or test_mine")
    assert ended.code == 0, ended
    assert "not-claimed: the claim does not list the feature lora_bias" in ended.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--qloracle-backend=nowhere:backend",), "nowhere"),
        pytest.param(
            ("--qloracle-backend=mine:backend", "--qloracle-only=nf9.*"),
            "no property matches --only nf9.*",
            marks=pytest.mark.exhaustive,
        ),
        pytest.param(
            ("--qloracle-backend=mine:backend", "--qloracle-seed=many"),
            "seed must be a number, got 'many'",
            marks=pytest.mark.exhaustive,
        ),
        pytest.param(
            ("--qloracle-backend=mine:backend", "--qloracle-deviations=none.toml"),
            "none.toml",
            marks=pytest.mark.exhaustive,
        ),
    ],
)
def test_what_makes_no_run_is_one_message_and_exit_code_2(
    project: Path, arguments: tuple[str, ...], message: str
) -> None:
    ended = run(project, "tests", *arguments)
    assert ended.code in (2, 4), ended
    assert message in ended.out + ended.err, ended
    assert "Traceback" not in ended.out + ended.err, ended


def test_nothing_is_loaded_in_anybodys_environment(project: Path) -> None:
    ours = [e for e in entry_points(group="pytest11") if "qloracle" in e.value or "qloracle" in e.name]
    assert ours == []
    (project / "tests" / "conftest.py").write_text("")
    (project / "tests" / "test_mine.py").write_text(
        "import sys\n\ndef test_mine():\n    assert not [name for name in sys.modules if name.startswith('qloracle')]\n"
    )
    ended = run(project, "tests")
    assert (ended.code, lines(ended, "PASSED")) == (0, {"test_mine"}), ended
    assert "unrecognized arguments" in run(project, "tests", "--qloracle-backend=mine:backend").err
