"""`qloracle footprint`: the numbers of GPT-2, JSON, errors in one line, and no need of the conformance extra."""

import json
import struct
from pathlib import Path

import pytest

from qloracle_conformance.footprints import read_header

from .commands import Ended, qloracle, refused, require_one_message

MATRIX = {"dtype": "F32", "shape": [40, 30], "data_offsets": [0, 4800]}
FILE_HEADER = {"__metadata__": {"format": "pt"}, "fc.weight": MATRIX}


def config(folder: Path, **settings: object) -> str:
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", **settings}), encoding="utf-8")
    return "config.json"


def stored(folder: Path) -> str:
    text = json.dumps(FILE_HEADER).encode()
    (folder / "m.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(4800))
    return "m.safetensors"


def test_the_table_shows_the_four_numbers_of_gpt_2_and_the_honest_totals(tmp_path: Path) -> None:
    ended = qloracle(tmp_path, "footprint", config(tmp_path))
    assert ended.code == 0, str(ended)
    for number in ("510,342,192", "261,462,552", "176,527,896", "134,060,568", "135,409,688", "84,934,656"):
        assert number in ended.out, f"{number} is missing\n{ended}"


def test_json_holds_what_the_table_shows(tmp_path: Path) -> None:
    arguments = ("--scheme", "nf4", "--block-size", "32", "--rank", "4", "--target", "c_attn", "--json")
    ended = qloracle(tmp_path, "footprint", config(tmp_path), *arguments)
    found = json.loads(ended.out)
    (line,) = found["weights"]
    assert (line["scheme"], line["block_size"], line["bits_per_weight"]) == ("nf4", 32, 5.0)
    assert line["scales"] == 4 * 84_934_656 // 32
    assert [m["trainable_parameters"] for m in found["methods"]] == [124_439_808, 147_456, 147_456]


def test_a_safetensors_file_is_read_by_its_header_alone(tmp_path: Path) -> None:
    name = stored(tmp_path)
    assert set(read_header(tmp_path / name)) == set(FILE_HEADER)
    ended = qloracle(tmp_path, "footprint", name, "--scheme", "nf4", "--rank", "2", "--json")
    (line,) = json.loads(ended.out)["weights"]
    assert (line["codes"], line["scales"], line["total"]) == (600, 4 * 19, 600 + 76 + 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.json",), "no such file: nowhere.json"),
        ((".",), ". is a directory"),
        ((), "give a file (or package:NAME), or --shape"),
        (("--shape", "fc.weight=8*8"), "--shape must be NAME=768x768, got 'fc.weight=8*8'"),
        (("package:no-such-package",), "package 'no-such-package' is not installed"),
        (("list.json",), "list.json must hold a JSON object, or a list of [name, shape], got []"),
        (("cut.safetensors",), "cut.safetensors is no safetensors file and no config.json"),
        (("config.json", "--scheme", "nf5"), "scheme must be one of float32, float16, bfloat16"),
        (("config.json", "--scheme", "float32", "--block-size", "64"), "block_size must be None for scheme float32"),
        (("config.json", "--block-size", "0"), "block_size must be a positive integer, got 0"),
        (("config.json", "--other", "int8"), "other must be one of float32, float16, bfloat16, got 'int8'"),
        (("config.json", "--tables", "none"), "tables must be one of shared, per_tensor"),
        (("config.json", "--rank", "5000"), "rank must be at most 768"),
        (
            ("config.json", "--target", "q_proj"),
            "--target q_proj names no layer; the model has wte, wpe, c_attn, c_proj, c_fc",
        ),
        (("config.json", "--optimizer", "sgd"), "optimizer must be one of adamw_32bit"),
        (("config.json", "--optimizer", "paged_adamw_32bit", "--device-budget", "393215"), "at least the 393216 bytes"),
        (("other.json",), "model_type must be one of gpt2, llama"),
    ],
)
def test_what_cannot_be_counted_is_said_in_one_line(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    config(tmp_path)
    (tmp_path / "list.json").write_text("[]", encoding="utf-8")
    (tmp_path / "other.json").write_text('{"model_type": "t5"}', encoding="utf-8")
    (tmp_path / "cut.safetensors").write_bytes(struct.pack("<Q", 1000) + b"{")
    require_one_message(refused(tmp_path, "footprint", *arguments), 2, message)


def test_shapes_on_the_command_line_and_in_a_list_are_counted_alike(tmp_path: Path) -> None:
    (tmp_path / "shapes.json").write_text('[["fc.weight", [40, 30]], ["lm_head.weight", [7, 30]]]', encoding="utf-8")
    rest = ("--scheme", "nf4", "--rank", "2", "--json")
    given = qloracle(tmp_path, "footprint", "--shape", "fc.weight=40x30", "--shape", "lm_head.weight=7x30", *rest)
    listed = qloracle(tmp_path, "footprint", "shapes.json", *rest)
    assert given.code == listed.code == 0, f"{given}\n{listed}"
    assert json.loads(given.out)["weights"] == json.loads(listed.out)["weights"]
    (line,) = json.loads(given.out)["weights"]
    assert (line["codes"], line["scales"], line["unquantized"]) == (600, 4 * 19, 2 * 7 * 30)


def test_a_budget_below_one_state_leaves_a_method_out_and_the_table_shows_the_host(tmp_path: Path) -> None:
    arguments = ("--rank", "4", "--optimizer", "paged_adamw_32bit", "--device-budget", "98304")
    ended = qloracle(tmp_path, "footprint", config(tmp_path), *arguments)
    assert ended.code == 0, str(ended)
    assert "full is left out: budget must be at least the 308779008 bytes" in " ".join(ended.out.split()), str(ended)
    assert f"{8 * 589_824 - 98_304:,}" in ended.out, str(ended)  # host
    assert "the module lm_head (--skip)" in ended.out, str(ended)


def test_the_help_lists_schemes_and_optimizers(tmp_path: Path) -> None:
    text = "".join(qloracle(tmp_path, "footprint", "--help").out.replace("│", "").split())
    for name in ("nf4_double", "int8_block", "paged_adamw_8bit"):
        assert name in text, text


BLOCKING = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("hypothesis", "pytest", "xdist", "threadpoolctl", "torch", "ml_dtypes", "gfloat"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def test_it_needs_nothing_but_the_base_packages(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCKING, encoding="utf-8")
    ended: Ended = qloracle(tmp_path, "footprint", config(tmp_path), first=(tmp_path,))
    assert ended.code == 0, str(ended)
    assert "134,060,568" in ended.out
    blocked = qloracle(tmp_path, "check", "--backend", "reference", first=(tmp_path,))
    require_one_message(blocked, 2, "this command needs the module")  # so the blocker does block
