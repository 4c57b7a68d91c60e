"""Known deviations: replayed first; still failing is known, passing is fixed, and a bad file is one message."""

from pathlib import Path

import pytest

from qloracle_conformance.deviations import read_deviations
from qloracle_conformance.files import FileError

from .commands import Ended, qloracle, require_one_message, write_module

SWAPPED = """
    from dataclasses import replace
    from qloracle_conformance.adapters.reference import OPS, backend as reference
    from qloracle_conformance.arrays import host
    def quantize(x, **options):
        data, absmax = OPS["quantize_blockwise"](x, **options)
        return host((data.items << 4) | (data.items >> 4)), absmax
    base = reference()
    claims = tuple(replace(c, features=()) for c in base.claims if c.operation == "nf4.quantize")
    backend = replace(base, name="swapped", version="1.4.2", ops={"quantize_blockwise": quantize}, claims=claims)
"""
RIGHT = SWAPPED.replace('ops={"quantize_blockwise": quantize}', 'ops={"quantize_blockwise": OPS["quantize_blockwise"]}')
PROPERTY = "nf4.quantize.packing.boundaries"
ENTRY = """
backend = "swapped"
[[deviation]]
properties = ["nf4.quantize.packing.*"]
witness = "WITNESS"
reason = "the first code goes to the low nibble"
versions = ">=1.4,<2"
"""


def check(folder: Path, name: str, *more: str) -> Ended:
    arguments = ("--backend", name, "--only", "nf4.quantize", "--profile", "smoke", *more)
    return qloracle(folder, "check", *arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a backend that swaps nibbles, one that does not, a witness and a file of deviations."""
    made = tmp_path_factory.mktemp("deviations")
    write_module(made, "wrong", SWAPPED)
    write_module(made, "right", RIGHT)
    ended = check(made, "wrong:backend")
    assert ended.code == 1, str(ended)
    witness = made / "witnesses" / f"wrong_backend.{PROPERTY}.json"
    assert witness.is_file()
    (made / "known.toml").write_text(ENTRY.replace("WITNESS", str(witness.relative_to(made))))
    return made


def test_a_deviation_that_still_fails_is_known_and_does_not_fail_the_run(folder: Path) -> None:
    ended = check(folder, "wrong:backend", "--deviations", "known.toml")
    assert ended.code == 0, str(ended)
    assert "known: the first code goes to the low nibble" in ended.out
    assert " fail," not in ended.out


def test_a_deviation_that_is_fixed_fails_the_run_until_its_entry_is_deleted(folder: Path) -> None:
    ended = check(folder, "right:backend", "--deviations", "known.toml")
    assert ended.code == 1, str(ended)
    assert "fixed" in ended.out
    assert "delete the entry" in ended.out
    assert check(folder, "right:backend").code == 0


def test_another_version_is_not_excused(folder: Path) -> None:
    (folder / "old.toml").write_text((folder / "known.toml").read_text().replace(">=1.4,<2", "<1.4"))
    assert check(folder, "wrong:backend", "--deviations", "old.toml").code == 1


def test_a_fault_at_another_stage_is_not_excused(folder: Path) -> None:
    write_module(folder, "worse", SWAPPED.replace(", absmax\n", ", host(absmax.items * absmax.items.dtype.type(2))\n"))
    ended = check(folder, "worse:backend", "--deviations", "known.toml")
    assert ended.code == 1, str(ended)


BAD = {
    "no TOML": ("backend = ", "no TOML"),
    "another backend": (ENTRY.replace('"swapped"', '"torch"'), "backend must be 'swapped'"),
    "an unknown property": (ENTRY.replace("packing.*", "wrapping.*"), "no property is called"),
    "no reason": (ENTRY.replace('reason = "the first code goes to the low nibble"', ""), "reason must be given"),
    "an unknown key": (ENTRY.replace("reason =", "raison = 'x'\nreason ="), "unknown key 'raison'"),
    "a bad range": (ENTRY.replace(">=1.4,<2", "newer"), "versions must be a range"),
    "two stages": (ENTRY.replace("packing.*", "*.boundaries"), "of one operation and stage"),
    "a missing witness": (ENTRY.replace("WITNESS", "nowhere.json"), "cannot read"),
    "a top-level key": ("speed = 3\n" + ENTRY, "beside backend there are only"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_file_entry_and_rule(folder: Path, name: str) -> None:
    text, rule = BAD[name]
    witness = f"witnesses/wrong_backend.{PROPERTY}.json"
    path = folder / "bad.toml"
    path.write_text(text.replace("WITNESS", witness))
    with pytest.raises(FileError, match=r"\.(toml|json)") as caught:
        read_deviations(path, "swapped")
    assert rule in str(caught.value), str(caught.value)


def test_the_command_line_says_in_one_line_what_is_wrong_with_the_file(folder: Path) -> None:
    (folder / "bad.toml").write_text('backend = "torch"\n')
    require_one_message(check(folder, "wrong:backend", "--deviations", "bad.toml"), 2, "bad.toml")
