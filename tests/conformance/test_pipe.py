"""Judging through a pipe: a right C program passes, wrong ones fail at their stage, and broken streams never pass."""

import subprocess
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from qloracle_conformance.exchange.reading import TokenLines
from qloracle_conformance.exchange.records import read_case
from qloracle_conformance.exchange.words import array_text
from qloracle_conformance.files import FileError
from qloracle_conformance.pipe.gen import generate_cases
from qloracle_conformance.pipe.selection import Selection
from qloracle_conformance.pipe.verdict import Program, judge_answers
from qloracle_conformance.reading import read_run
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.usage import UsageError
from qloracle_conformance.vectors.locating import reference_outputs

from .c_programs import FAULTS, compiled
from .commands import PROGRAM, environment, qloracle, refused, require_one_message

SMALL = {"dtypes": ("float32",), "out_dtypes": ("float32",), "count": 6}


def selection(operation: str, **changes: object) -> Selection:
    families = {"nf4.quantize": ("boundaries", "specials", "shapes", "ramps"), "bfloat16.encode": ("ties", "specials"),
                "nf4.dequantize": ("table", "specials", "shapes")}  # fmt: skip
    return Selection(operation, **{**SMALL, "families": families.get(operation, ()), **changes})  # type: ignore[arg-type]


def cases(chosen: Selection) -> str:
    out = StringIO()
    assert generate_cases(chosen, out) == 0
    return out.getvalue()


def answered(program: Path, text: str) -> str:
    done = subprocess.run([program, "pipe"], input=text, check=True, capture_output=True, text=True, timeout=180)
    return done.stdout


def judged(chosen: Selection, answers: str, report: Path | None = None) -> tuple[int, str]:
    out = Console(file=StringIO(), width=160, highlight=False, color_system=None)
    code = judge_answers(chosen, Program("mine", answers.splitlines()), report, out, Console(file=StringIO()))
    return code, out.file.getvalue()  # type: ignore[attr-defined]


def statuses(report: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for line in read_run(report).properties:
        found.setdefault(line["stage"], set()).add(line["status"])
    return found


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("right"))


@pytest.fixture(scope="module")
def good(right: Path) -> str:
    """The right answers to a few cases."""
    return answered(right, cases(selection("nf4.quantize", count=2, families=("shapes",))))


FEW = selection("nf4.quantize", count=2, families=("shapes",))


@pytest.mark.parametrize("operation", ["nf4.quantize", "nf4.dequantize", "bfloat16.encode"])
def test_the_right_program_passes_at_every_stage(operation: str, right: Path, tmp_path: Path) -> None:
    chosen = selection(operation)
    code, printed = judged(chosen, answered(right, cases(chosen)), tmp_path / "report.jsonl")
    assert code == 0, printed
    assert {s for found in statuses(tmp_path / "report.jsonl").values() for s in found} == {"pass"}
    assert "memory layouts are not judged" in printed


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_program_fails_at_the_stage_that_is_wrong(fault: str, tmp_path: Path) -> None:
    operation, stage = FAULTS[fault]
    chosen = selection(operation)
    code, printed = judged(chosen, answered(compiled(tmp_path, fault), cases(chosen)), tmp_path / "report.jsonl")
    assert code == 1, printed
    found = statuses(tmp_path / "report.jsonl")
    assert {name for name, seen in found.items() if "fail" in seen} == {stage}, printed
    assert f"qloracle gen {operation} --family " in printed, printed


def test_the_command_that_is_printed_shows_the_failure_again(tmp_path: Path) -> None:
    program = compiled(tmp_path, "FAULT_TIE")
    _, printed = judged(selection("nf4.quantize"), answered(program, cases(selection("nf4.quantize"))))
    words = next(line for line in printed.splitlines() if "YOUR_PROGRAM" in line).partition("|")[0].split()
    family, index = words[words.index("--family") + 1], int(words[words.index("--case") + 1])
    alone = selection("nf4.quantize", families=(family,), index=index)
    code, again = judged(alone, answered(program, cases(alone)))
    assert (code, "1 answers" in again) == (1, True), again


def test_a_reciprocal_keeps_level_tie_where_its_reciprocal_is_normal(tmp_path: Path) -> None:
    program = compiled(tmp_path, "FAULT_RECIPROCAL")
    chosen = selection("nf4.quantize", families=("ramps", "shapes"), count=20)
    assert judged(selection("nf4.quantize", level="exact"), answered(program, cases(selection("nf4.quantize"))))[0] == 1
    code, printed = judged(selection("nf4.quantize", level="tie", families=chosen.families, count=20),
                           answered(program, cases(chosen)))  # fmt: skip
    assert code == 0, printed


def test_cases_are_the_same_every_time_and_others_with_another_seed() -> None:
    assert cases(FEW) == cases(FEW)
    assert cases(FEW) != cases(selection("nf4.quantize", count=2, families=("shapes",), seed=1))


def test_a_stream_through_three_processes_has_the_exit_code_of_the_verdict(right: Path, tmp_path: Path) -> None:
    options = "nf4.quantize --dtype float32 --family shapes --count 3"
    own = " ".join(f"'{word}'" for word in (*PROGRAM, ""))[:-3]
    script = f"{own} gen {options} | {right} pipe | {own} judge {options} --report r.jsonl"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script], cwd=tmp_path, env=environment(), check=False, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_run(tmp_path / "r.jsonl").footer["exit_code"] == 0


def test_a_program_that_dies_is_an_error_and_no_pass(good: str) -> None:
    for lines in (0, 1, 3, len(good.splitlines()) // 2, len(good.splitlines()) - 1):
        code, printed = judged(FEW, "\n".join(good.splitlines()[:lines]))
        assert code == 1, printed
        assert "error" in printed, printed
        ends = good.splitlines()[lines - 1 : lines] in ([], ["end"])
        assert f"the answers end {'after' if ends else 'inside one, at'} line {lines}" in printed, printed


def test_a_program_that_says_that_it_cannot_is_an_error_with_its_reason(good: str) -> None:
    head = good.splitlines()[0]
    second = good[good.index("\nanswer ", 1) + 1 :]
    code, printed = judged(FEW, f"{head}\nerror no such block size\nend\n{second}")
    assert (code, "line 1: no such block size" in printed) == (1, True), printed


Change = Callable[[str], str]
BROKEN: dict[str, tuple[Change, str]] = {
    "no answer": (lambda t: t.replace("answer ", "reply ", 1), "line 1: an answer begins with"),
    "another case": (lambda t: t[t.index("\nanswer ", 1) + 1 :] + t, "line 1: expected an answer to case"),
    "an answer twice": (lambda t: t[: t.index("\nanswer ", 1) + 1] * 2, "expected an answer to case"),
    "one too many": (lambda t: t + t, "nothing may follow the answer to the last case"),
    "an unknown type": (lambda t: t.replace("output uint8", "output u8", 1), "line 2: type must be one of"),
    "no shape": (lambda t: t.replace("output uint8 1", "output uint8 one", 1), "line 2: a shape is"),
    "a shape too long": (lambda t: t.replace("output uint8 1", "output uint8 2", 1), "line 2: a shape is"),
    "no digits": (lambda t: t.replace(t.splitlines()[2], "zz", 1), "line 3: a word has at most 2 hexadecimal digits"),
    "too many words": (lambda t: t.replace("\noutput float32", " 00 00 00\noutput float32", 1), "beyond them"),
    "another line": (lambda t: t.replace("\nend", "\nfinished", 1), "must follow here"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_malformed_answer_names_its_line_and_the_rule(name: str, good: str) -> None:
    change, message = BROKEN[name]
    with pytest.raises(FileError, match="standard input, line ") as raised:
        judged(FEW, change(good))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new", "stage"),
    [("output float32 1", "output float16 1", "absmax"), ("output uint8 1", "output int8 1", "packing")],
)
def test_a_wrong_type_fails_the_stage_of_that_output(old: str, new: str, stage: str, good: str) -> None:
    lines = good.replace(old, new).splitlines()
    if new.startswith("output float16"):
        lines = [" ".join(w[-4:] for w in x.split()) if x[:6] not in ("answer", "output", "end") else x for x in lines]
    code, printed = judged(FEW, "\n".join(lines))
    assert code == 1, printed
    assert f"{stage} " in printed
    assert "must be" in printed


def test_answers_that_are_no_text_are_one_message_with_the_line(tmp_path: Path) -> None:
    done = subprocess.run([*PROGRAM, "judge", "nf4.quantize"], cwd=tmp_path, env=environment(), check=False,
                          input=b"answer \xff\xfe\n", capture_output=True, timeout=120)  # fmt: skip
    assert done.returncode == 2
    assert b"standard input, line 1: the text must be UTF-8" in done.stderr, done.stderr


def test_memory_families_are_no_part_of_a_pipe() -> None:
    with pytest.raises(UsageError, match="--family must be one of boundaries"):
        cases(selection("nf4.quantize", families=("memory",)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nf5.quantize",), "no operation 'nf5.quantize'"),
        (("nf4.quant",), "there is nf4."),
        (("nf4.quantize", "--family", "none"), "--family must be one of"),
        (("nf4.quantize", "--dtype", "float8"), "dtypes of nf4.quantize must be among"),
        (("nf4.quantize", "--block-size", "0"), "block_sizes of nf4.quantize must be a positive integer"),
        (("nf4.quantize", "--option", "rounding=up"), "--option must be NAME=VALUE"),
        (("bfloat16.encode", "--option", "rounding=up"), "ties_to_even"),
        (("lora.forward", "--rounding", "sum=float16"), "--rounding must be NAME=FORMAT"),
        (("nf4.quantize", "--ndim", "0"), "--ndim must name one of"),
        (("nf4.quantize", "--family", "normal", "--largest", "1"), "no case of nf4.quantize is left"),
    ],
)
def test_what_makes_no_cases_is_one_message(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    require_one_message(refused(tmp_path, "gen", *arguments), 2, message)


def test_the_help_describes_the_lines(tmp_path: Path) -> None:
    for command in ("gen", "judge"):
        shown = " ".join(qloracle(tmp_path, command, "--help").out.split())
        assert "case ID OPERATION FUNCTION" in shown, shown
        assert "answer ID" in shown, shown


@pytest.mark.slow
def test_every_operation_can_be_written_and_answered_by_the_reference() -> None:
    """The reference answers its own cases through the text: what is written is what is judged."""
    # One operation of each function, and of each family one small case: the text, not the rule, is in question.
    names = {operation.function: name for name, operation in OPERATIONS.items()}
    for name in names.values():
        chosen = Selection(name, count=2, largest=300)
        try:
            text = cases(chosen)
        except UsageError:  # no case is that small
            continue
        lines, answers = TokenLines("cases", text.splitlines()), []
        while (head := lines.next()) is not None:
            case, last = read_case(lines, name)
            assert last == ["end"]
            outputs = "".join(f"output {array_text(array)}" for array in reference_outputs(case))
            answers.append(f"answer {head[1]}\n{outputs}end\n")
        code, printed = judged(chosen, "".join(answers))
        assert code == 0, printed
