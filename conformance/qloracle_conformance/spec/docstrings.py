"""The docstrings of the reference, taken apart: summary, rule, sections, and the entries of a section.

They are numpydoc: one line, the rule in plain Unicode, then sections whose titles are underlined with hyphens.
"""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass

_TITLE = re.compile(r"^(\w[\w ]*)\n-{3,}$", re.MULTILINE)


@dataclass(frozen=True)
class Docstring:
    """A docstring in its parts."""

    summary: str
    rule: str  # the paragraphs between the summary and the first section
    sections: Mapping[str, str]  # by title, in order


@dataclass(frozen=True)
class Entry:
    """One parameter, returned value or error of a section."""

    name: str  # "" for a returned value
    kind: str  # type and shape, or the error's name
    text: str


def cleaned(text: str | None) -> str:
    """Return a docstring without its indentation."""
    return inspect.cleandoc(text or "")


def parse(text: str | None) -> Docstring:
    """Take a docstring apart."""
    clean = cleaned(text)
    titles = list(_TITLE.finditer(clean))
    ends = [*(t.start() for t in titles[1:]), len(clean)][: len(titles)]
    sections = {t[1]: clean[t.end() : end].strip("\n") for t, end in zip(titles, ends, strict=True)}
    head = clean[: titles[0].start()] if titles else clean
    summary, _, rule = head.strip().partition("\n\n")
    return Docstring(" ".join(summary.split()), rule.strip("\n"), sections)


def entries(section: str) -> list[Entry]:
    """Return the entries of a section of parameters, returned values or errors."""
    found: list[tuple[str, list[str]]] = []
    for line in section.splitlines():
        if line.strip() and not line.startswith(" "):
            found.append((line, []))
        elif found:
            found[-1][1].append(line)
    made = []
    for head, body in found:
        name, colon, kind = head.partition(" : ")
        made.append(Entry(*((name, kind) if colon else ("", head)), inspect.cleandoc("\n".join(body))))
    return made


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a text, indentation kept."""
    return [part.strip("\n") for part in re.split(r"\n[ \t]*\n", text) if part.strip()]
