"""The changelog of the specification, clause by clause."""

from importlib.resources import files

from qloracle_conformance.spec.clauses import carrier, carriers_of, clauses
from qloracle_conformance.spec.docstrings import parse
from qloracle_conformance.spec.markup import Links, table, title
from qloracle_conformance.usage import UsageError

KINDS = ("added", "changed", "removed")


def changes() -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Return the versions, the latest first, each with its changes: kind, clause, what and why.

    Raises
    ------
    UsageError
        If a line of the file is neither ``version NAME`` nor ``KIND CLAUSE: TEXT``.
    """
    text = files("qloracle_conformance.spec").joinpath("changelog.txt").read_text(encoding="utf-8")
    found: list[tuple[str, list[tuple[str, str, str]]]] = []
    for line in (row for row in text.splitlines() if row and not row.startswith("#")):
        head, _, said = line.partition(": ")
        kind, _, label = head.partition(" ")
        if kind == "version":
            found.append((label, []))
        elif kind in KINDS and label and found:
            found[-1][1].append((kind, label, said))
        else:
            raise UsageError(
                f"a line of the changelog must be KIND CLAUSE: TEXT with a kind of {', '.join(KINDS)}: {line}"
            )
    return found


def recorded() -> dict[str, str]:
    """Return the clauses that exist according to the changelog, and the version that added each."""
    known: dict[str, str] = {}
    for version, listed in reversed(changes()):
        for kind, label, _ in listed:
            if kind == "added":
                known[label] = version
            elif kind == "removed":
                known.pop(label)
    return known


def _rule(label: str) -> str:
    """Return the rule of a clause in a line."""
    return parse(carrier(carriers_of(label)[0]).__doc__).summary if label in clauses() else ""


def changelog_page(links: Links) -> list[str]:
    """Return the page of changes."""
    lines = [".. _page-changelog:", "", *title("Changes, by clause")]
    for version, listed in changes():
        lines += title(f"Version {version}", "-")
        rows = [
            [kind, links.clause(label) if label in clauses() else f"``{label}``", links.inline(said or _rule(label))]
            for kind, label, said in listed
        ]
        lines += table(["", "clause", "what"], rows)
    return lines
