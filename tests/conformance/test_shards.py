"""Parts of a run: shards, processes and a time limit give the verdicts of the whole run, or say that they do not."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from qloracle_conformance.comparing import compare
from qloracle_conformance.files import FileError
from qloracle_conformance.merging import merge
from qloracle_conformance.plan import UsageError
from qloracle_conformance.reading import read_run
from qloracle_conformance.report_schema import ADDED_IN_2
from qloracle_conformance.shards import Shard, parse_shard

from .commands import qloracle, write_module
from .test_reports import FAULTY, without_times

ARGUMENTS = ("check", "--backend", "faulty:backend", "--profile", "smoke", "--seed", "3")


def quiet() -> Console:
    return Console(file=StringIO(), width=160)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reports of a whole run, of one on two processes, and of three shards."""
    made = tmp_path_factory.mktemp("shards")
    write_module(made, "faulty", FAULTY)
    runs = {"whole": (), "jobs": ("-j", "2"), **{f"s{i}": ("--shard", f"{i}/3") for i in (1, 2, 3)}}
    for name, more in runs.items():
        ended = qloracle(made, *ARGUMENTS, *more, "--report", f"{name}.jsonl")
        assert ended.code in (0, 1), str(ended)
    return made


def lines(path: Path) -> list[str]:
    return [without_times(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_write_the_report_of_one(folder: Path) -> None:
    assert lines(folder / "jobs.jsonl") == lines(folder / "whole.jsonl")


@pytest.mark.slow
def test_merged_shards_are_the_report_of_the_whole_run(folder: Path) -> None:
    code = merge([folder / f"s{i}.jsonl" for i in (3, 1, 2)], folder / "merged.jsonl", quiet())
    assert code == 1
    assert lines(folder / "merged.jsonl") == lines(folder / "whole.jsonl")


def test_every_shard_has_a_part_and_no_two_have_the_same() -> None:
    members = list(range(10))
    parts = [Shard(i, 3).of(members) for i in (1, 2, 3)]
    assert sorted(member for part in parts for member in part) == members
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3", "", "1/3/5"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="shard must be i/n"):
        parse_shard(text)


@pytest.mark.slow
def test_a_missing_shard_is_named(folder: Path) -> None:
    with pytest.raises(FileError, match=r"missing: 2/3"):
        merge([folder / "s1.jsonl", folder / "s3.jsonl"], None, quiet())


@pytest.mark.slow
def test_a_shard_twice_is_named(folder: Path) -> None:
    with pytest.raises(FileError, match=r"shard 1/3 is that of .*s1.jsonl too"):
        merge([folder / "s1.jsonl", folder / "s1.jsonl"], None, quiet())


@pytest.mark.slow
def test_shards_of_other_settings_are_refused(folder: Path) -> None:
    changed = (folder / "s2.jsonl").read_text().replace('"seed": 3', '"seed": 4', 1)
    (folder / "other.jsonl").write_text(changed)
    with pytest.raises(FileError, match=r"other.jsonl, line 1: settings must be those of"):
        merge([folder / "s1.jsonl", folder / "other.jsonl", folder / "s3.jsonl"], None, quiet())


@pytest.mark.slow
def test_a_run_that_time_cut_short_has_no_verdict(folder: Path) -> None:
    ended = qloracle(folder, *ARGUMENTS, "--max-time", "0.1", "--report", "late.jsonl")
    assert ended.code == 2, str(ended)
    assert "no verdict on the whole" in ended.out
    statuses = {line["status"] for line in read_run(folder / "late.jsonl").properties}
    assert "not-judged" in statuses


@pytest.mark.slow
def test_a_comparison_shows_what_broke_and_what_did_not_change(folder: Path) -> None:
    content = (folder / "whole.jsonl").read_text().splitlines()
    broken = next(i for i, line in enumerate(content) if '"status": "pass"' in line)
    content[broken] = content[broken].replace('"status": "pass"', '"status": "fail"')
    (folder / "worse.jsonl").write_text("\n".join(content) + "\n")
    out = StringIO()
    console = Console(file=out, width=200)
    assert compare(folder / "whole.jsonl", folder / "worse.jsonl", console) == 1
    assert json.loads(content[broken])["id"] in out.getvalue()
    assert "1 of" in out.getvalue()
    assert compare(folder / "worse.jsonl", folder / "whole.jsonl", quiet()) == 0
    assert compare(folder / "whole.jsonl", folder / "jobs.jsonl", quiet()) == 0


def twice(text: str) -> str:
    lines = text.splitlines()
    return "\n".join([lines[0], lines[1], lines[1], *lines[3:]]) + "\n"


def as_format_1(text: str) -> str:
    """What an earlier version wrote: no distributions."""
    content = [json.loads(line) for line in text.splitlines()]
    content[0]["format"] = 1
    kept = [{k: v for k, v in line.items() if k not in ADDED_IN_2} for line in content]
    return "".join(json.dumps(line) + "\n" for line in kept)


@pytest.mark.slow
def test_a_report_of_format_1_is_read_and_compared_but_not_merged(folder: Path) -> None:
    for name in ("whole", "s1", "s2", "s3"):
        (folder / f"old-{name}.jsonl").write_text(as_format_1((folder / f"{name}.jsonl").read_text()))
    run = read_run(folder / "old-whole.jsonl")
    assert all((line["ordinal_errors"], line["places"]) == ({}, None) for line in run.properties)
    assert compare(run.path, folder / "whole.jsonl", quiet()) == 0
    with pytest.raises(FileError, match=r"old-s1.jsonl, line 1: to be merged, format must be 2, got 1"):
        merge([folder / f"old-s{i}.jsonl" for i in (1, 2, 3)], None, quiet())


CORRUPT = {
    "no header": (lambda text: text.partition("\n")[2], "begins with its header"),
    "no footer": (lambda text: text.rstrip("\n").rpartition("\n")[0], "no footer"),
    "half a line": (lambda text: text[:-20], "no JSON"),
    "a newer specification": (lambda text: text.replace('"specification": "0.', '"specification": "99.', 1), "newer"),
    "another format": (lambda text: text.replace('"format": 2', '"format": 7', 1), "format must be one of 1, 2, got 7"),
    "an unknown status": (lambda text: text.replace('"status": "pass"', '"status": "fine"', 1), "'status' as one of"),
    "a word where counts are due": (
        lambda text: text.replace('"bound_parts": []', '"bound_parts": ["x"]', 1),
        "'bound_parts' as int, got 'x'",
    ),
    "a number that JSON lacks": (lambda text: text.replace('"window": 0.0', '"window": NaN', 1), "JSON has no NaN"),
    "no name of the backend": (lambda text: text.replace('"name": ', '"named": ', 1), "needs the key 'backend.name'"),
    "a property twice": (twice, "is on line 2 already"),
    "an unknown line": (lambda text: text.replace('"type": "property"', '"type": "proper"', 1), "type must be one of"),
    "a key of another type": (
        lambda text: text.replace('"cases": ', '"cases": null, "x": ', 1),
        "needs the key 'cases'",
    ),
    "a lost line": (lambda text: "\n".join(x for i, x in enumerate(text.splitlines()) if i != 2), "counts"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CORRUPT)
def test_a_corrupt_report_is_refused_with_file_line_and_rule(folder: Path, name: str) -> None:
    change, rule = CORRUPT[name]
    path = folder / "corrupt.jsonl"
    path.write_text(change((folder / "whole.jsonl").read_text()))
    with pytest.raises(FileError, match=r"corrupt.jsonl, line \d+: ") as caught:
        read_run(path)
    assert rule in str(caught.value), str(caught.value)
