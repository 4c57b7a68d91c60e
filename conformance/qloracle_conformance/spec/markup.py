"""From the plain text of docstrings to reStructuredText: escaped, with clauses and names of the reference as links."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from qloracle_conformance.spec.clauses import LABEL
from qloracle_conformance.spec.docstrings import paragraphs

_TOKEN = re.compile(r"``(?P<double>[^`]+)``|`(?P<single>[^`\n]+)`|(?P<label>\[[a-z][a-z0-9_]*\.[a-z0-9_]+\])")
_SPECIAL = re.compile(r"([\\*`|_])")
_ITEM = re.compile(r"(?:[-*]|\d+\.) ")


@dataclass(frozen=True)
class Links:
    """What a text may link to."""

    clauses: frozenset[str]
    names: Mapping[str, str]  # short or dotted name of a function, record or module → its reST role

    def inline(self, text: str) -> str:
        """Return a paragraph's text as reST on one line."""
        made, end = [], 0
        flat = " ".join(text.split())
        for token in _TOKEN.finditer(flat):
            made += [escaped(flat[end : token.start()]), self._token(token)]
            end = token.end()
        return "".join([*made, escaped(flat[end:])])

    def _token(self, token: re.Match[str]) -> str:
        if token["single"]:
            role = self.names.get(token["single"].removesuffix("()"))
            return f"\\ {role}\\ " if role else literal(token["single"])
        text = token["double"] or token["label"]
        label = LABEL.fullmatch(text)
        if label and label[1] in self.clauses:
            return f"\\ {self.clause(label[1])}\\ "
        return literal(text) if token["double"] else escaped(text)

    def clause(self, label: str) -> str:
        """Return a link to a clause."""
        return f":ref:`[{label}] <clause-{label}>`" if label in self.clauses else literal(label)

    def body(self, text: str) -> list[str]:
        """Return the lines of a text of several paragraphs: formulas, lists and examples kept as they stand."""
        lines: list[str] = []
        for paragraph in paragraphs(text):
            lines += [*self._paragraph(paragraph), ""]
        return lines

    def _paragraph(self, paragraph: str) -> list[str]:
        rows = paragraph.splitlines()
        if rows[0].lstrip().startswith(">>>"):
            return code(rows, "pycon")
        if all(row.startswith("  ") for row in rows) or _is_formulas(rows):
            return code(rows, "text")
        if _ITEM.match(rows[0]):
            return [f"- {self.inline(item)}" for item in _items(rows)]
        return [f"\\ {self.inline(paragraph)}"]


def escaped(text: str) -> str:
    """Return text in which nothing is markup."""
    return _SPECIAL.sub(r"\\\1", text).replace("::", ":\\:")


def literal(text: str) -> str:
    """Return text as inline code, whatever stands beside it."""
    return f"\\ ``{text.strip()}``\\ "


def code(rows: Sequence[str], language: str) -> list[str]:
    """Return a block of code."""
    margin = min((len(row) - len(row.lstrip()) for row in rows if row.strip()), default=0)
    return [f".. code-block:: {language}", "", *indented(row[margin:] for row in rows)]


def _is_formulas(rows: Sequence[str]) -> bool:
    """Whether every line is a formula of its own."""
    return len(rows) > 1 and all(" = " in row[:40] and len(row) < 100 and not row.endswith(",") for row in rows)


def _items(rows: Iterable[str]) -> list[str]:
    items: list[str] = []
    for row in rows:
        if _ITEM.match(row):
            items.append(_ITEM.sub("", row, count=1))
        else:
            items[-1] += f" {row.strip()}"
    return items


def indented(rows: Iterable[str], by: int = 3) -> list[str]:
    """Return lines, indented."""
    return [f"{' ' * by}{row}" if row else "" for row in rows]


def title(text: str, underline: str = "=") -> list[str]:
    """Return a heading."""
    return [text, underline * (len(text) + 2), ""]


def raw(html: str) -> list[str]:
    """Return HTML as it stands."""
    return [".. raw:: html", "", *indented(html.splitlines()), ""]


def folded(summary: str, inside: Sequence[str]) -> list[str]:
    """Return content behind a line that opens it."""
    return [*raw(f"<details><summary>{summary}</summary>"), *inside, "", *raw("</details>")]


def table(head: Sequence[str], rows: Iterable[Sequence[str]], classes: str = "") -> list[str]:
    """Return a table; cells are reST on one line, or several lines."""
    lines = [".. list-table::", "   :header-rows: 1", *([f"   :class: {classes}"] if classes else []), ""]
    for row in (head, *rows):
        for position, cell in enumerate(row):
            first, *more = cell.splitlines() or [""]
            lines += [f"   {'*' if position == 0 else ' '} - {first}", *indented(more, 7)]
    return [*lines, ""]


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]], classes: str) -> str:
    """Return a table of plain text as HTML that scrolls on its own: hundreds of them as reST would take minutes."""
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = (
        "<tr>" + "".join(f"<td>{cell if isinstance(cell, Html) else escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide"><table class="{classes}"><thead><tr>{names}</tr></thead>\n<tbody>\n'
        + "\n".join(lines)
        + "\n</tbody></table></div>"
    )
