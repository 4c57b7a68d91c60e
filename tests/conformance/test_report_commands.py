"""The commands on reports and adapters, as a user calls them."""

from pathlib import Path

import pytest

from .commands import qloracle, refused, require_one_message, write_module
from .test_reports import FAULTY

RUN = ("check", "--backend", "faulty:backend", "--profile", "smoke", "--only", "packing.*")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the reports of two shards of a run."""
    made = tmp_path_factory.mktemp("commands")
    write_module(made, "faulty", FAULTY)
    for i in (1, 2):
        ended = qloracle(made, *RUN, "--shard", f"{i}/2", "--report", f"{i}.jsonl")
        assert ended.code in (0, 1), str(ended)
    return made


def test_merge_prints_the_tables_and_ends_with_the_code_of_the_run(folder: Path) -> None:
    ended = qloracle(folder, "merge", "1.jsonl", "2.jsonl", "-o", "whole.jsonl")
    assert ended.code == 1, str(ended)
    assert "packing.pack" in ended.out
    assert (folder / "whole.jsonl").is_file()


def test_export_writes_what_was_asked_for(folder: Path) -> None:
    assert qloracle(folder, "merge", "1.jsonl", "2.jsonl", "-o", "whole.jsonl").code == 1
    ended = qloracle(folder, "export", "whole.jsonl", "--junit", "j.xml", "--badge", "b.svg", "--annotate")
    assert ended.code == 0, str(ended)
    assert ended.out.startswith("::error title=qloracle")
    assert (folder / "j.xml").read_text().startswith("<?xml")
    assert (folder / "b.svg").read_text().startswith("<svg")


WRONG = {
    "a shard alone": (("merge", "1.jsonl"), "missing: 2/2"),
    "no report": (("compare", "1.jsonl", "nowhere.jsonl"), "cannot read nowhere.jsonl"),
    "nothing to write": (("export", "1.jsonl"), "nothing to write"),
    "a bad shard": ((*RUN, "--shard", "3/2"), "shard must be i/n"),
    "unknown arrays": (("new-adapter", "x.py", "--arrays", "abacus"), "arrays must be one of numpy, torch"),
    "no module": (("new-adapter", "my-adapter.py"), "name is a module's"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_usage_is_one_line_and_exit_code_2(name: str, folder: Path) -> None:
    arguments, message = WRONG[name]
    require_one_message(refused(folder, *arguments), 2, message)


def test_a_new_adapter_is_announced_with_the_command_that_judges_it(tmp_path: Path) -> None:
    ended = qloracle(tmp_path, "new-adapter", "mine.py")
    assert ended.code == 0, str(ended)
    assert "qloracle check --backend mine:backend" in ended.out
    require_one_message(refused(tmp_path, "new-adapter", "mine.py"), 2, "exists")
