"""`qloracle explain CLAUSE --input ...`: what a user types becomes a case, and every intermediate is printed."""

from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from qloracle_conformance.arrays import host
from qloracle_conformance.examples import EXAMPLES
from qloracle_conformance.explain import explain_clause, explain_inputs, rule_of
from qloracle_conformance.generators.case import Case
from qloracle_conformance.given import given_case, parse_values
from qloracle_conformance.plan import UsageError
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.spec.clauses import clauses
from qloracle_conformance.spec.one_line import RULES
from qloracle_conformance.worked import example_case, operations_of, run_reference, sessions

from .commands import qloracle, refused

TEMPLATE = Case(
    "nf4.quantize",
    {"x": host(np.zeros(2, np.float32)), "bias": None, "offset": host(np.zeros((), np.float32))},
    {"block_size": 4, "codebook": "nf4"},
)


def explained(name: str, *inputs: str, options: tuple[str, ...] = (), dtype: str | None = None) -> str:
    out = StringIO()
    explain_inputs(Console(file=out, width=300, highlight=False), name, inputs, options, dtype)
    return out.getvalue()


def words(text: str, dtype: str = "float32") -> list[str]:
    return [
        f"{int(w):x}" for w in parse_values("x", text.split(), dtype).view(f"u{np.dtype(dtype_of(dtype)).itemsize}")
    ]


def dtype_of(dtype: str) -> str:
    return {"bfloat16": "u2"}.get(dtype, dtype)


@pytest.mark.parametrize(
    ("text", "dtype", "expected"),
    [
        ("1.2 -0.5 -0 inf -inf", "float32", ["3f99999a", "bf000000", "80000000", "7f800000", "ff800000"]),
        ("0x3f800001 0x1.8p+1", "float32", ["3f800001", "40400000"]),
        ("1.00390625 1.2", "bfloat16", ["3f80", "3f9a"]),
        # Just above the tie of 1 and 1 + 2^-7, by less than float64 can tell: one rounding gives the upper neighbour.
        ("1.003906250000000000000000000000001", "bfloat16", ["3f81"]),
        ("1/3", "float32", ["3eaaaaab"]),
        ("65504 65520", "float16", ["7bff", "7c00"]),
    ],
)
def test_numbers_are_rounded_once_and_words_taken_as_they_are(text: str, dtype: str, expected: list[str]) -> None:
    assert words(text, dtype) == expected


def test_nan_is_read_as_nan() -> None:
    assert np.isnan(parse_values("x", ["nan"], "float32")).all()


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ("abc", "float32"), ("0x1ffffffff", "float32"), ("0x12345", "bfloat16"), ("300", "uint8"), ("-1", "uint8"),
        ("1.5", "int8"), ("2", "bool"), ("1/0", "float32"), ("", "float32"),
    ],
)  # fmt: skip
def test_a_text_that_is_no_number_of_the_type_is_refused(text: str, dtype: str) -> None:
    with pytest.raises(UsageError, match=f"input x: not {dtype}"):
        parse_values("x", [text], dtype)


def test_rows_types_shapes_scalars_and_left_out_inputs_are_understood() -> None:
    case = given_case(TEMPLATE, ["x:bfloat16=1,2;3,4", "bias[1,2]=5,6", "offset=7"], ["block_size=8"])
    assert (case.array("x").dtype, case.array("x").shape) == ("bfloat16", (2, 2))
    assert (case.array("bias").dtype, case.array("bias").shape) == ("float32", (1, 2))
    assert case.array("offset").shape == (), "a single value is 0-d where one is expected"
    assert case.options == {"block_size": 8, "codebook": "nf4"}
    assert given_case(case, ["bias=none"]).inputs["bias"] is None
    assert given_case(TEMPLATE, ["x="]).array("x").shape == (0,)
    assert given_case(TEMPLATE, ["x=1"], dtype="float16").array("x").dtype == "float16"


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (["y=1"], [], "no input 'y' here, only x, bias, offset"),
        (["bais=1"], [], "did you mean bias?"),
        (["x"], [], "--input must be NAME=VALUE, got 'x'"),
        (["x:complex64=1"], [], "type of input x must be one of"),
        (["x[3]=1,2"], [], "input x must have 3 values for shape (3,), got 2"),
        (["x=1,2;3"], [], "rows of input x must have the same length, got [2, 1]"),
        (["x y=3"], [], "--input must begin with NAME"),
        ([], ["blocksize=4"], "did you mean block_size?"),
        ([], ["block_size"], "--option must be NAME=VALUE"),
        (["x=@absent.npy"], [], "cannot read absent.npy"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_name(inputs: list[str], options: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        given_case(TEMPLATE, inputs, options)
    assert message in str(caught.value)


def test_a_file_keeps_its_bits(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.array([[0x3F80, 0x7FC1]], ">u2"))
    x = given_case(TEMPLATE, [f"x:bfloat16=@{path}"]).array("x")
    assert x.dtype == "bfloat16"
    assert x.words().tolist() == [[0x3F80, 0x7FC1]]
    np.save(path, np.array([1.5, 2], np.float16))
    assert given_case(TEMPLATE, [f"x=@{path}"]).array("x").dtype == "float16", "nothing is cast"


def test_every_intermediate_of_the_design_s_int8_example_is_printed() -> None:
    text = explained("int8_tensor.quantize", "x=1.2,-0.5,-4.3,1.2,-3.1,0.8,2.4,5.4")
    rows = text.partition("element ")[2].partition("result")[0].splitlines()[1:]
    assert [row.split()[-1] for row in rows if row.strip()] == ["28", "-12", "-101", "28", "-73", "19", "56", "127"]
    assert "0x40accccd (5.4000001)" in text
    assert "result 0: int8 (8,), 28  -12  -101" in text


def test_options_and_types_change_the_result() -> None:
    text = explained("blockwise.quantize", "x=1.2,-0.5,-4.3", options=("block_size=2",), dtype="bfloat16")
    assert "input x: bfloat16 (3,), contiguous, 0x3f9a (1.203125)  0xbf00 (-0.5)  0xc08a (-4.3125)" in text
    assert "result 1: float32 (2,), 0x3f9a0000 (1.203125)  0x408a0000 (4.3125)" in text


def test_inputs_that_do_not_fit_are_refused_with_what_was_assumed() -> None:
    with pytest.raises(
        UsageError, match=r"weight must be .*; not given, and so from the worked example: weight, lora_a"
    ):
        explained("lora.forward", "x=1,2,3")
    with pytest.raises(UsageError, match="block_size must be a positive integer, got 0"):
        explained("nf4.quantize", "x=1", options=("block_size=0",))
    with pytest.raises(UsageError, match="float64"):
        explained("nf4.quantize", "x:float64=1")


@pytest.mark.parametrize("clause", clauses())
def test_every_clause_explains_itself_with_a_worked_example(clause: str) -> None:
    out = StringIO()
    explain_clause(Console(file=out, width=300, highlight=False), clause)
    head, _, example = out.getvalue().partition("worked example")
    assert f"[{clause}]" in head
    assert len(example.strip().splitlines()) > 1, f"{clause} has no worked example: no operation, and no Examples"
    assert "Traceback" not in example
    assert ("result 0: " in example) == bool(operations_of(clause))


def test_an_example_of_a_docstring_is_run_and_not_quoted() -> None:
    (session,) = [s for s in sessions("lora.scale") if s.carrier.endswith("lora_scale")]
    assert session.lines == (">>> lora_scale(16, 8), lora_scale(16, 16, rank_stabilized=True)", "(2.0, 4.0)")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_example_of_every_operation_is_small_and_accepted_by_the_reference(operation: str) -> None:
    case = example_case(operation)
    outcome = run_reference(case)
    assert outcome.failure == "", f"{operation}: {outcome.message}"
    assert max((a.items.size for a in case.inputs.values() if a is not None), default=0) <= 300, operation
    OPERATIONS[operation].intermediates(case)


def test_every_literal_example_belongs_to_an_operation() -> None:
    assert set(EXAMPLES) <= set(OPERATIONS)


def test_the_command_prints_the_intermediates_of_given_inputs(tmp_path: Path) -> None:
    ended = qloracle(tmp_path, "explain", "blockwise.quantize", "--input", "x=1,-0.5", "--option", "block_size=2")
    assert ended.code == 0, str(ended)
    assert "midpoint below" in ended.out, str(ended)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["blockwise.quantise", "--input", "x=1"], "did you mean blockwise.quantize"),
        (["blockwise.quantize", "--input", "q=1"], "no input 'q' here, only x"),
        (["--input", "x=1"], "go with the name of a clause or operation"),
        (["errors.none"], "no clause, operation or file 'errors.none'"),
    ],
)
def test_wrong_usage_of_the_command_exits_with_2(tmp_path: Path, arguments: list[str], message: str) -> None:
    ended = refused(tmp_path, "explain", *arguments)
    assert ended.code == 2, str(ended)
    assert message in ended.err, str(ended)


def test_the_command_without_a_name_lists_every_clause_and_operation(tmp_path: Path) -> None:
    ended = qloracle(tmp_path, "explain")
    assert ended.code == 0, str(ended)
    assert not [name for name in (*clauses(), *OPERATIONS) if f"{name} " not in ended.out]


def test_a_number_beyond_float64_overflows_and_float64_is_rounded_to_nearest() -> None:
    assert words("1e400 -1e400", "float32") == ["7f800000", "ff800000"]
    assert words("0.1 1e400", "float64") == ["3fb999999999999a", "7ff0000000000000"]


def test_an_unmerge_is_explained_with_its_own_difference() -> None:
    assert "W - s B A" in explained("lora.unmerge", "weight=1,0.5;-1,2;0,1")
    text = explained("dora.unmerge", "norms=4,3,0.5")
    assert "norm/magnitude" in text
    assert "W + s B A" not in text
    assert "unmerged 2" in explained("lora.merge_cycles", "weight=1,0.5;-1,2;0,1")


@pytest.mark.parametrize(
    ("clause", "part"),
    [
        ("format.stochastic", "random_bits: uint32"),
        ("format.rounding", "'rounding': 'toward_zero'"),
        ("format.nan", "0x7fa10000"),
        ("format.overflow", "0x7c00 (inf)"),
        ("lora.fan_in_fan_out", "'fan_in_fan_out': True"),
        ("lora.bias", "input lora_bias: float32"),
        ("clip.update", "norm of the update"),
        ("bounds.matmul", "highest y as float32"),
    ],
)
def test_the_example_of_a_clause_shows_the_clause_at_work(clause: str, part: str) -> None:
    out = StringIO()
    explain_clause(Console(file=out, width=300, highlight=False), clause)
    assert part in out.getvalue().partition("worked example")[2]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_number_is_cut_off_in_a_narrow_terminal(width: int) -> None:
    out = StringIO()
    explain_clause(Console(file=out, width=width, highlight=False), "adamw8bit.quantize")
    example = out.getvalue().partition("worked example")[2]
    assert "0.26315789473684215" in example
    assert "…" not in example


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("nf4.table", "x=1", "no input 'x' here, this operation has no array inputs"),
        ("nf4.quantize", "x=abc", "input x: not float32: 'abc' is no number"),
        ("lora.forward", "lora_a=1,2", r"--input lora_a\[1,2\]=\.\.\."),
    ],
)
def test_an_input_that_cannot_be_taken_is_answered_with_what_to_type(name: str, given: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        explained(name, given)


def test_the_list_of_clauses_gives_the_rule_of_each_and_not_of_its_neighbour() -> None:
    assert set(RULES) <= set(clauses())
    assert rule_of("format.overflow") == "A value is rounded as if the exponent range had no end."
    assert rule_of("lora.bias") != rule_of("lora.forward")
