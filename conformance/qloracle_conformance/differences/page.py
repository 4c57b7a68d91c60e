"""The page that shows the differences: Markdown, made from the data, and marked where a measurement is older."""

from collections.abc import Iterable, Sequence
from typing import Any

import qloracle
from qloracle_conformance.differences.causes import CAUSES

HEAD = """# Where other libraries differ from the reference

Made by `make differences` from `reports/differences.json`; not edited by hand. Every NaN counts as equal to every NaN
in the tables of conversions; the bits of NaN have a table of their own. Policies are matched by name: a library that
saturates is compared with the reference's `saturate`.
"""


def render(data: dict[str, Any]) -> str:
    """Return the page."""
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items())
    same = [each for each in data["sweeps"] if is_current(each, data)]
    parts = [
        HEAD,
        f"Specification {_marked(data['specification'])} against {versions}; all float32 inputs as their table says.\n",
        _complete(data["sweeps"]),
        *_causes([*same, *data["conversions"]]),
        _defaults(data["defaults"]),
        _nan_bits(data["nan_bits"]),
        _decoding(data["decoding"]),
        _stochastic(data["stochastic"]),
        _agreeing(data["conversions"]),
    ]
    return "\n".join(parts)


def is_current(sweep: dict[str, Any], data: dict[str, Any]) -> bool:
    """Return whether a record of all inputs is of the specification and the library that the rest of the data is of."""
    return (sweep["specification"], sweep["version"]) == (data["specification"], data["versions"].get(sweep["library"]))


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)]) + "\n"


def _number(value: int) -> str:
    return f"{value:,}"


def _marked(specification: str) -> str:
    """Return a version of the specification, marked where it is not the current one."""
    current = qloracle.SPECIFICATION_VERSION
    return specification if specification == current else f"{specification} (older: now {current})"


def _complete(sweeps: list[dict[str, Any]]) -> str:
    rows = [
        (f"{each['library']} {each['version']}", f"float32 → {each['to']}", f"{each['rounding']}, {each['overflow']}",
         _marked(each["specification"]), _number(each["inputs"]), _number(each["mismatches"]))
        for each in sweeps
    ]  # fmt: skip
    head = ("library", "conversion", "policies", "specification", "inputs", "mismatches")
    return "## All float32 inputs\n\n" + _table(head, rows)


def _causes(records: list[dict[str, Any]]) -> list[str]:
    """Return a section for each cause: the argument, and who differs where."""
    swept = {each["id"] for each in records if each["inputs"] == 1 << 32}
    counted = [each for each in records if each["inputs"] == 1 << 32 or each["id"] not in swept]
    made = []
    for name, cause in CAUSES.items():
        rows = [
            (each["library"], f"{each['source']} → {each['to']}", f"{each['rounding']}, {each['overflow']}",
             f"{_number(group['count'])} of {_number(each['inputs'])}", *_cells(group["examples"][0]))
            for each in _of_first_policy(counted, name)
            for group in each["groups"] if group["cause"] == name
        ]  # fmt: skip
        if rows:
            head = ("library", "conversion", "policies", "inputs that differ", "input", "reference", "library's answer")
            text = f"{cause.argument[:1].upper()}{cause.argument[1:]}. Source: {cause.source}."
            made.append(f"## {cause.title[:1].upper()}{cause.title[1:]}\n\n{text}\n\n{_table(head, rows)}")
    return made


def _of_first_policy(records: list[dict[str, Any]], cause: str) -> list[dict[str, Any]]:
    """Return one record for each library and conversion: that of the first policies under which the cause shows."""
    first: dict[tuple[str, str, str], dict[str, Any]] = {}
    for each in records:
        if any(group["cause"] == cause for group in each["groups"]):
            first.setdefault((each["library"], each["source"], each["to"]), each)
    return list(first.values())


def _cells(example: dict[str, str]) -> tuple[str, str, str]:
    return example["input"], example["reference"], example["library"]


def _defaults(records: list[dict[str, Any]]) -> str:
    rows = [
        (each["library"], each["to"], each["reference_default"], each["library_default"], *_cells(example))
        for each in records if each["reference_default"] != each["library_default"] for example in each["examples"]
    ]  # fmt: skip
    text = """## Policies that nobody named

What becomes of a value beyond the largest one where the caller does not say. The reference answers as IEEE 754-2019,
section 7.4, and the OCP 8-bit Floating Point Specification 1.0, section 5.2.1, do without saturation: infinity, or NaN
in a format without infinities. Saturation hides an overflow, so it has to be asked for.
"""
    head = ("library", "format", "reference", "library", "input", "reference's answer", "library's answer")
    return f"{text}\n{_table(head, rows)}"


def _nan_bits(records: list[dict[str, Any]]) -> str:
    rows = [
        (each["library"], each["to"], ", ".join(each["follows"]) or "none of them",
         *(_cells(each["examples"][0]) if each["examples"] else ("", "", "")))
        for each in records
    ]  # fmt: skip
    text = """## Bits of NaN

The rule is the class alone: a NaN stays a NaN. IEEE 754-2019, section 6.2.3, only recommends that a payload is kept, so
the bits are named variants; the default, `payload`, keeps sign and leading payload and sets the quiet bit (section
6.2.1: a conversion delivers a quiet NaN). The examples are the first NaN at which a library differs from it.
"""
    head = ("library", "format", "variants that it follows", "input", "reference (payload)", "library's answer")
    return f"{text}\n{_table(head, rows)}"


def _decoding(records: list[dict[str, Any]]) -> str:
    wrong = [each for each in records if each["mismatches"]]
    words = sum(each["words"] for each in records)
    text = (
        f"## Decoding\n\nAll {words:,} words of {len(records)} formats: {len(records) - len(wrong)} agree completely.\n"
    )
    if not wrong:
        return text
    rows = [(each["library"], each["from"], each["mismatches"], *each["examples"][0].values()) for each in wrong]
    return f"{text}\n{_table(('library', 'format', 'mismatches', 'word', 'reference', 'library'), rows)}"


def _stochastic(records: list[dict[str, Any]]) -> str:
    rows = [
        (each["mode"], each["to"], f"{_number(each['mismatches'])} of {_number(each['inputs'])}",
         *(_cells(each["examples"][0]) if each["examples"] else ("", "", "")))
        for each in records
    ]  # fmt: skip
    text = """## Stochastic rounding of gfloat

With 32 random bits R for the reference and 2^32 − 1 − R for gfloat, whose comparison is the mirrored one, at the bits
where a number just goes up, just stays, and one beside. They differ where the fraction has more than 32 bits: the
reference compares R with the exact fraction, so that anything above 0 can go up; gfloat first rounds the fraction to 32
bits (to even, to odd), or compares in floating point. Source: [format.stochastic] and gfloat's documentation of
`RoundMode`, which names the bias of the two fast modes.
"""
    head = ("mode", "format", "inputs that differ", "input", "reference", "gfloat's answer")
    return f"{text}\n{_table(head, rows)}"


def _agreeing(records: list[dict[str, Any]]) -> str:
    names: dict[str, list[str]] = {}
    for each in records:
        if not each["mismatches"]:
            name = f"{each['source']} → {each['to']}"
            names.setdefault(each["library"], [])
            if name not in names[each["library"]]:
                names[each["library"]].append(name)
    lines = [f"- {library}: {', '.join(found)}" for library, found in names.items()]
    return (
        "## Conversions without a difference\n\nOn the quick domains, under at least one policy:\n\n"
        + "\n".join(lines)
        + "\n"
    )
