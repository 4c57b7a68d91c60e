"""The pages that show all clauses side by side: the index, the rounding points, what stands behind each."""

from collections.abc import Sequence

from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.spec.clauses import carrier, carriers_of, clauses
from qloracle_conformance.spec.contents import FURTHER, PAGES, Page, page_of
from qloracle_conformance.spec.coverage import Coverage
from qloracle_conformance.spec.docstrings import parse
from qloracle_conformance.spec.markup import Html, Links, folded, html_table, raw, table, title
from qloracle_conformance.spec.rounding_points import rounding_points


def home_page(label: str) -> Page:
    """Return the page on which a clause stands."""
    return page_of(carriers_of(label)[0].split(".")[1])


def in_reading_order() -> list[tuple[Page, list[str]]]:
    """Return the pages that carry clauses, each with its clauses."""
    pages = [(page, [label for label in clauses() if home_page(label) == page]) for page in (*PAGES, FURTHER)]
    return [(page, labels) for page, labels in pages if labels]


def index_page(links: Links) -> list[str]:
    """Return the index of clauses, in reading order."""
    lines = [".. _page-clauses:", "", *title("Clauses")]
    for page, labels in in_reading_order():
        lines += [*title(page.title, "-")]
        rows = [
            [links.clause(label), links.inline(parse(carrier(carriers_of(label)[0]).__doc__).summary)]
            for label in labels
        ]
        lines += table(["clause", "rule"], rows, "overview")
    return lines


def rounding_page(links: Links) -> list[str]:
    """Return the rounding points of every clause, then those of every operation, stage by stage."""
    lines = [".. _page-rounding-points:", "", *title("Rounding points")]
    lines += ["\\ " + links.inline(
        "A result is defined in exact real arithmetic and rounded only where its rule says so. This page lists every"
        " place where one does, in order. It is made from the docstrings; a test fails where one says nothing."
    ), ""]  # fmt: skip
    for page, labels in in_reading_order():
        lines += title(page.title, "-")
        lines += table(
            ["clause", "roundings, in order", "remark"], [_rounding_row(label, links) for label in labels], "thirds"
        )
    lines += [*title("By operation", "-")]
    rows = [
        [name, stage, Html(f'<a href="{home_page(label).name}.html#clause-{label}">[{label}]</a>'), _plain_steps(label)]
        for name, operation in OPERATIONS.items()
        for stage, label in operation.stages.items()
    ]
    shown = raw(html_table(["operation", "stage", "clause", "roundings, in order"], rows, "operations"))
    return [*lines, *folded(f"All {len(OPERATIONS)} operations, stage by stage", shown)]


def _rounding_row(label: str, links: Links) -> list[str]:
    stated = rounding_points(label)
    return [links.clause(label), _steps(label, links), links.inline(stated[0].remark) if stated else ""]


_WHOSE = {"rule": "", "implementation": "An implementation's: ", "bound": "On a path: "}


def _steps(label: str, links: Links) -> str:
    stated = rounding_points(label)
    if not stated:
        return "not stated"
    if not stated[0].steps:
        return "none"
    if stated[0].whose != "rule":
        return f"{_WHOSE[stated[0].whose]}{links.inline('; '.join(stated[0].steps))}"
    return "\n".join(f"#. {links.inline(step)}" for step in stated[0].steps)


def _plain_steps(label: str) -> str:
    """Return the roundings of a clause as plain text."""
    stated = rounding_points(label)
    return _WHOSE[stated[0].whose] + ("; ".join(stated[0].steps).replace("`", "") or "none") if stated else "not stated"


def coverage_page(links: Links, covered: Sequence[Coverage]) -> list[str]:
    """Return what stands behind every clause."""
    lines = [":hide-toc:", "", ".. _page-coverage:", "", *title("Coverage")]
    lines += ["\\ " + links.inline(
        "Where every clause stands, how many properties of the conformance suite name it, which deliberately wrong"
        " backends die by one of them, and the independent derivations that prove the reference. A clause counts as"
        " covered only if a mutant dies by it and two derivations that share no code agree with it."
    ), ""]  # fmt: skip
    rows = [
        [links.clause(c.clause), "\n\n".join(_name(name, links) for name in c.carriers), f"{c.properties:,}",
         _list(c.mutants), "\n".join(f"- {links.inline(by)}" for by in c.derivations) or "–"]
        for c in covered
    ]  # fmt: skip
    return [*lines, *table(["clause", "stands in", "properties", "mutants that die by it", "proved by"], rows, "sides")]


def _name(name: str, links: Links) -> str:
    role = links.names.get(name)
    short = name.removeprefix("qloracle.")
    return f":py:obj:`{short} <{name}>`" if role else f"``{short}``"


def _list(names: Sequence[str]) -> str:
    if not names:
        return "–"
    shown = ", ".join(f"``{name}``" for name in names[:3])
    return f"{len(names)}: {shown}{' …' if len(names) > 3 else ''}"
