"""Explaining a clause or an operation with a worked example, or a witness, with every intermediate."""

import re
from collections.abc import Sequence
from difflib import get_close_matches

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qloracle.errors import QloracleError
from qloracle_conformance.examples.example import input_name
from qloracle_conformance.files import FileError
from qloracle_conformance.generators.case import Case
from qloracle_conformance.given import given_case
from qloracle_conformance.intermediates import print_intermediates, shown
from qloracle_conformance.operations.operation import level_of
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.sequences.explaining import print_sequence
from qloracle_conformance.spec.clauses import carrier, carriers_of, clauses, signature_of
from qloracle_conformance.spec.docstrings import cleaned, parse
from qloracle_conformance.spec.one_line import RULES
from qloracle_conformance.usage import UsageError
from qloracle_conformance.witness import Witness
from qloracle_conformance.worked import bounds_of, example_of, operations_of, run_reference, sessions, vocabulary

_MOST_ROWS = 64
_EXAMPLE_ROWS = 16
_MATRIX = 2  # axes
_SENTENCE_END = re.compile(r"(?<=[\w)])[.:](?=\s|$)")


def explain_clause(console: Console, name: str) -> None:
    """Print the rule of a clause, or of every stage of an operation, with a worked example.

    Raises
    ------
    UsageError
        If there is no clause or operation of that name.
    """
    operation = require_name(name)
    labels = [name] if name in clauses() else []
    if name in OPERATIONS:  # some clauses are called as the operation is
        console.print(f"[bold]{name}[/]: function {OPERATIONS[name].function}, judged stage by stage")
        for stage, clause in OPERATIONS[name].stages.items():
            console.print(f"  {stage:<14} by clause {escape(f'[{clause}]')}")
        labels += OPERATIONS[name].stages.values()
    for clause in dict.fromkeys(labels):
        _print_clause(console, clause)
    case = example_of(name)
    if case:
        explain_case(console, case, _EXAMPLE_ROWS)
        others = [o for o in operations_of(name) if o != operation]
        if others:
            console.print(f"[dim]the clause also judges {', '.join(others)}[/]", soft_wrap=True)
    for session in [] if operation else sessions(name):
        console.print(f"\n[bold]worked example[/], run now: {session.carrier}")
        console.print(escape("\n".join(session.lines)), soft_wrap=True)


def list_names(console: Console) -> None:
    """Print every clause with its rule in a line, and every operation with its clauses."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("clause", "rule"):
        table.add_column(head, no_wrap=head == "clause")
    for label in clauses():
        table.add_row(label, escape(rule_of(label)))
    console.print(table)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("operation", "clauses"):
        table.add_column(head, no_wrap=head == "operation")
    for name, operation in OPERATIONS.items():
        table.add_row(name, ", ".join(dict.fromkeys(operation.stages.values())))
    console.print()
    console.print(table)


def rule_of(label: str) -> str:
    """Return the rule of a clause in a line: the sentence after its label in a docstring, or a summary."""
    if label in RULES:
        return RULES[label]
    texts = [cleaned(carrier(name).__doc__) for name in carriers_of(label)]
    start = re.compile(
        rf"(?:^|\n)(?:``\[{re.escape(label)}\]`` (?=[A-Z])|Clauses? (?:``\[[\w.]+\]``,\s)*``\[{re.escape(label)}\]``: )"
    )
    for text in texts:
        found = start.search(text)
        if found:
            paragraph = " ".join(text[found.end() :].partition("\n\n")[0].split())
            sentence = _SENTENCE_END.split(paragraph, maxsplit=1)[0].rstrip(":.").replace("``", "") + "."
            return sentence[0].upper() + sentence[1:] if sentence[:2].isalpha() else sentence
    return parse(texts[0]).summary


def require_name(name: str) -> str:
    """Return the operation of the example of a clause or operation, or "" if no operation shows it.

    Raises
    ------
    UsageError
        If there is no clause or operation of that name.
    """
    known = [*clauses(), *OPERATIONS]
    if name not in known:
        close = get_close_matches(name, known, n=3)
        hint = f"; did you mean {' or '.join(dict.fromkeys(close))}?" if close else ";"
        raise UsageError(f"no clause, operation or file {name!r}{hint} `qloracle explain` alone lists all names")
    case = example_of(name)
    return case.operation if case else ""


def explain_inputs(
    console: Console, name: str, inputs: Sequence[str], options: Sequence[str], dtype: str | None
) -> None:
    """Print every intermediate of a clause or operation for the inputs that a user typed.

    Raises
    ------
    UsageError
        If no operation shows the clause at work, a name is unknown, or the inputs do not fit together.
    """
    operation, example = require_name(name), example_of(name)
    if not example:
        raise UsageError(f"clause {name!r} has no operation that takes inputs; explain it without --input")
    case = given_case(example, inputs, options, dtype, vocabulary(operation))
    given = {input_name(text) for text in inputs}
    flat = [n for n in given if _axes(case, n) == 1 and _axes(example, n) == _MATRIX]  # as typed, and as in the example
    explain_case(console, case, _MOST_ROWS, [n for n in case.inputs if n not in given], flat)


def _axes(case: Case, name: str) -> int:
    array = case.inputs.get(name)
    return 0 if array is None else len(array.shape)


def explain_case(
    console: Console, case: Case, rows: int, assumed: Sequence[str] = (), flat: Sequence[str] = ()
) -> None:
    """Print the inputs, every intermediate and the result of a case.

    `assumed` inputs are the example's; `flat` ones have one axis where those of the example have two.
    """
    outcome = run_reference(case)
    hint = f"; not given, and so from the worked example: {', '.join(assumed)}" if assumed else ""
    for name in flat:
        count = case.array(name).items.size
        hint += f"; {name} was read as 1-d, a matrix of one row is --input {name}[1,{count}]=..."
    if outcome.failure:
        raise UsageError(f"{re.sub('^Argument(Type|Value)Error: ', '', outcome.message)}{hint}")
    try:
        values = OPERATIONS[case.operation].intermediates(case)
    except QloracleError as error:
        raise UsageError(f"{error}{hint}") from error
    except (IndexError, TypeError, ValueError) as error:
        raise UsageError(f"the inputs do not fit together: {error}{hint}") from error
    console.print(f"\n[bold]worked example[/]: {case.operation}")
    print_inputs(console, case)
    print_intermediates(console, {**values, **bounds_of(case, outcome)}, rows)
    for position, output in enumerate(outcome.outputs):
        console.print(f"result {position}: {output.dtype} {output.shape}, {escape(shown(output))}", soft_wrap=True)


def print_inputs(console: Console, case: Case) -> None:
    """Print type, shape, layout and first elements of every input, and the options."""
    for name, array in case.inputs.items():
        if array is None:
            console.print(f"input {name}: left out")
            continue
        layout = case.layouts.get(name, "contiguous")
        console.print(f"input {name}: {array.dtype} {array.shape}, {layout}, {escape(shown(array))}", soft_wrap=True)
    console.print(f"options: {escape(str(dict(case.options)))}", soft_wrap=True)


def _print_clause(console: Console, label: str) -> None:
    console.print(f"\n[bold]{escape(f'[{label}]')}[/]")
    for name in carriers_of(label):
        thing = carrier(name)
        signature = signature_of(thing) if callable(thing) else ""
        console.print(f"\n[cyan]{name}[/]{escape(signature)}", soft_wrap=True)
        console.print(escape(cleaned(thing.__doc__)), soft_wrap=True)


def explain_witness(console: Console, witness: Witness) -> None:
    """Print what a witness shows: the claim, the finding, the inputs, and every intermediate of the reference.

    Raises
    ------
    FileError
        If its case is none that the operation takes.
    """
    try:
        _explain_witness(console, witness)
    except Exception as error:
        raise FileError(
            f"{witness.path}: its case is none that {witness.operation} takes: {type(error).__name__}: {error}"
        ) from error


def _explain_witness(console: Console, witness: Witness) -> None:
    found = witness.finding
    told = f"{witness.property} by clause [{witness.clause}], backend {witness.backend}"
    console.print(f"[bold]{escape(told)}[/]")
    console.print(
        f"claimed {level_of(witness.claim, witness.stage)} ({witness.claim.basis} {escape(witness.claim.source)})"
    )
    for key in ("pattern", "error", "cause", "got", "allowed"):
        if found.get(key):
            console.print(f"  {key:<8} {escape(str(found[key]))}", soft_wrap=True)
    if "steps" in witness.case.options:
        print_sequence(console, witness.case)
        return
    print_inputs(console, witness.case)
    values = OPERATIONS[witness.operation].intermediates(witness.case)
    print_intermediates(console, values, _MOST_ROWS, found.get("element", -1))
