"""Records: a case as a program reads it, and an answer as it writes one.

A case::

    case ID OPERATION FUNCTION
    option NAME KIND VALUE
    input NAME TYPE NDIM DIM …
    words
    input NAME none
    end

An answer gives the same ID, in the same order, and one array for each output, in the order of the function's
signature; or ``error`` and a reason, where the program cannot do what the case asks::

    answer ID
    output TYPE NDIM DIM …
    words
    end

The end of an ID is a digest of the case, so that no answer can be taken for that of another case.
"""

from dataclasses import dataclass, replace
from hashlib import sha256

from qloracle_conformance.arrays import HostArray
from qloracle_conformance.exchange.options import option_text, option_value
from qloracle_conformance.exchange.reading import TokenLines
from qloracle_conformance.exchange.words import TextError, array_text
from qloracle_conformance.generators.case import Case
from qloracle_conformance.registry import OPERATIONS

DIGITS = 8  # of the digest in an id


def case_body(case: Case) -> str:
    """Return the lines of a case between its first and its last one."""
    options = [f"option {name} {option_text(value)}\n" for name, value in case.options.items()]
    inputs = [
        f"input {name} none\n" if array is None else f"input {name} {array_text(array)}"
        for name, array in case.inputs.items()
    ]
    return "".join(options + inputs)


def case_id(source: str, body: str) -> str:
    """Return the id of a case: where it comes from, and a digest of what it holds."""
    return f"{source}-{sha256(body.encode()).hexdigest()[:DIGITS]}"


def head_of(ident: str, operation: str) -> str:
    """Return the first line of a case."""
    return f"case {ident} {operation} {OPERATIONS[operation].function}\n"


@dataclass(frozen=True)
class Answer:
    """What a program answered to a case."""

    id: str
    line: int  # where the answer begins
    outputs: tuple[HostArray, ...] = ()
    error: str = ""  # the reason that the program gives for having none


def read_answer(lines: TokenLines) -> Answer | None:
    """Return the next answer, None at the end of the text.

    Raises
    ------
    FileError
        If it is malformed: the message names the line and the rule.
    CutShortError
        If the text ends inside an answer.
    """
    tokens = lines.next()
    if tokens is None:
        return None
    if tokens[0] != "answer" or len(tokens) != 2:
        lines.reject(f"an answer begins with a line 'answer ID', got {_shown(tokens)}")
    answer = Answer(tokens[1], lines.number)
    while (tokens := lines.following())[0] != "end" or len(tokens) > 1:
        if tokens[0] == "output":
            answer = replace(answer, outputs=(*answer.outputs, lines.array(tokens[1:])))
        elif tokens[0] == "error":
            answer = replace(answer, error=" ".join(tokens[1:]) or "no reason given")
        else:
            lines.reject(f"'output TYPE NDIM DIM …', 'error REASON' or 'end' must follow here, got {_shown(tokens)}")
    return answer


def read_case(lines: TokenLines, operation: str) -> tuple[Case, list[str]]:
    """Return the options and inputs of a case whose first line was read, and the tokens of the line after them.

    Raises
    ------
    FileError
        If they are malformed.
    CutShortError
        If the text ends before that line.
    """
    case = Case(operation, {}, {})
    while (tokens := lines.following())[0] in ("option", "input"):
        if len(tokens) < 3:
            lines.reject(f"{tokens[0]} must be followed by a name and a value, got {_shown(tokens)}")
        kind, name, *rest = tokens
        if name in (case.options if kind == "option" else case.inputs):
            lines.reject(f"{kind} {name} must stand once")
        if kind == "option":
            case = replace(case, options={**case.options, name: _option(lines, rest)})
        else:
            case = replace(case, inputs={**case.inputs, name: None if rest == ["none"] else lines.array(rest)})
    return case, tokens


def _option(lines: TokenLines, tokens: list[str]) -> object:
    try:
        return option_value(tokens)
    except TextError as error:
        lines.reject(str(error))


def _shown(tokens: list[str]) -> str:
    text = " ".join(tokens)
    return repr(text if len(text) <= 60 else text[:57] + "...")
