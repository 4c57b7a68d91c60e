"""The page of differences of other libraries: the Markdown that is made of the committed comparison, as reST."""

import json
from pathlib import Path

from qloracle_conformance.differences.page import render
from qloracle_conformance.files import FileError, read_text
from qloracle_conformance.spec.docstrings import paragraphs
from qloracle_conformance.spec.markup import Links, html_table, raw, title

DIFFERENCES = Path("reports/differences.json")


def differences_page(links: Links, root: Path) -> list[str]:
    """Return where other libraries differ from the reference; a note where no comparison is recorded.

    Raises
    ------
    FileError
        If the file is no comparison.
    """
    lines = [":hide-toc:", "", ".. _page-differences:", "", *title("Differences of other libraries")]
    path = root / DIFFERENCES
    if not path.exists():
        return [*lines, "No comparison is recorded: **not yet run**.", ""]
    try:
        text = render(json.loads(read_text(path)))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FileError(f"{path} is no comparison: {type(error).__name__}: {error}") from error
    return [*lines, *markdown(text, links)]


def markdown(text: str, links: Links) -> list[str]:
    """Return Markdown of second headings, paragraphs, lists and tables as reST; the first heading is the page's own."""
    lines: list[str] = []
    for part in paragraphs(text):
        head, _, rest = part.partition("\n")
        if head.startswith("## "):
            lines += title(links.inline(head.removeprefix("## ")), "-")
            lines += links.body(rest)
        elif head.startswith("# "):
            lines += links.body(rest)
        elif head.startswith("|"):
            names, _, *rows = (_cells(row) for row in part.splitlines())
            lines += raw(html_table(names, rows, "differences"))
        else:
            lines += links.body(part)
    return lines


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]
