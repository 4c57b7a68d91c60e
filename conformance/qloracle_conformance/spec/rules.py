"""The pages of rules: every function and record of the reference with its docstring, clause and worked example."""

import ast
import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from qloracle_conformance.examples import CLAUSE_EXAMPLES
from qloracle_conformance.generators.case import Case
from qloracle_conformance.intermediates import by_size, cell, shown
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.spec.clauses import carriers_of, clauses, members, signature_of
from qloracle_conformance.spec.contents import Page, modules_of
from qloracle_conformance.spec.coverage import Coverage
from qloracle_conformance.spec.data import constants, fields
from qloracle_conformance.spec.docstrings import Docstring, entries, parse
from qloracle_conformance.spec.markup import Links, code, folded, html_table, indented, raw, title
from qloracle_conformance.worked import bounds_of, example_of, run_reference

_LISTED = ("Parameters", "Returns", "Yields", "Raises", "Attributes")
_ROWS = 8  # of a worked example


def rules_page(page: Page, links: Links, covered: Mapping[str, Coverage]) -> list[str]:
    """Return the reST of a page."""
    lines = [f".. _page-{page.name}:", "", *title(page.title)]
    for name in modules_of(page):
        module = importlib.import_module(f"qloracle.{name}")
        described = parse(module.__doc__)
        lines += [f".. _module-{name}:", "", *title(name, "-")]
        lines += [".. rst-class:: lead", "", *links.body(described.summary), *links.body(described.rule)]
        lines += constants(module, links)
        for label in (c for c in clauses() if carriers_of(c)[0] == module.__name__):
            lines += [*_anchor(label), *_standing(label, links, covered[label])]
        for member, thing in members(module).items():
            full = f"qloracle.{name}.{member}"
            if not member.startswith("_") or any(carriers_of(label)[0] == full for label in clauses()):
                lines += _member(full, thing, links, covered)
    return lines


def _anchor(label: str) -> list[str]:
    """Return the target of a clause: docutils turns the dot of its label into a hyphen, the span keeps it."""
    span = raw(f'<span id="clause-{label}"></span>')
    return [f".. _clause-{label}:", "", ".. container:: clause-anchor", "", *indented(span), ""]


def _member(name: str, thing: Any, links: Links, covered: Mapping[str, Coverage]) -> list[str]:
    """Return a function or record: signature, rule, sections, source, and the clauses whose home it is."""
    homes = [label for label in clauses() if carriers_of(label)[0] == name]
    described = parse(thing.__doc__)
    record = inspect.isclass(thing)
    signature = "" if record else signature_of(thing)
    body = [*links.body(described.summary)]
    for label in homes:
        body += _standing(label, links, covered[label])
    for part in links_of_rule(described, links):
        body += part
    for heading, text in described.sections.items():
        body += _section(heading, text, links)
    if record:
        body += fields(thing, links)
    for name_shown, case in _examples(homes):
        body += folded(f"Worked example: <code>{escape(name_shown)}</code>", _worked(case))
    body += folded("Source", code(without_docstring(inspect.getsource(thing)), "python"))
    anchors = [line for label in homes for line in _anchor(label)]
    return [*anchors, f".. py:{'class' if record else 'function'}:: {name}{signature}", "", *indented(body), ""]


def without_docstring(source: str) -> list[str]:
    """Return the lines of a function or class but for its docstring: the page shows that already."""
    lines = source.splitlines()
    body = getattr(ast.parse(source).body[0], "body", [])
    if len(body) > 1 and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        lines[body[0].lineno - 1 : body[0].end_lineno] = []
    return lines


def links_of_rule(described: Docstring, links: Links) -> Iterator[list[str]]:
    """Yield the rule of a docstring, set apart from what surrounds it."""
    if described.rule:
        yield [".. container:: rule", "", *indented(links.body(described.rule)), ""]


def _section(heading: str, text: str, links: Links) -> list[str]:
    lines = [f".. rubric:: {heading}", ""]
    if heading not in _LISTED:
        return [*lines, *links.body(text)]
    for entry in entries(text):
        kind = links.inline(entry.kind)
        lines += [f"**{entry.name}** : *{_plain(kind)}*" if entry.name else f"*{_plain(kind)}*"]
        lines += [*indented(links.body(entry.text) or ["\\ ", ""])]
    return lines


def _plain(text: str) -> str:
    """Return inline reST that may stand inside emphasis: no roles, no code."""
    return text.replace("\\ ``", "").replace("``\\ ", "")


def _standing(label: str, links: Links, covered: Coverage) -> list[str]:
    """Return what stands behind a clause, in a line."""
    parts = [f"{covered.properties:,} properties"]
    parts += [f"{len(covered.mutants)} mutants die by it"] if covered.mutants else []
    parts += [f"proved by {', '.join(covered.derivations)}"] if covered.derivations else []
    said = links.inline("; ".join(parts))
    return [".. container:: standing", "", f"   {links.clause(label)} {said}.", ""]


def _examples(labels: Sequence[str]) -> Iterator[tuple[str, Case]]:
    """Yield the worked examples of clauses: under the clause's name where it has its own, else its operation's once."""
    seen = set[int]()
    for label in labels:
        case = example_of(label)
        if case is not None and id(case) not in seen:  # examples are made once and kept
            seen.add(id(case))
            yield (f"[{label}] {case.operation}" if label in CLAUSE_EXAMPLES else case.operation), case


def _worked(case: Case) -> list[str]:
    """Return the inputs, every intermediate, the bounds and the result of a case, in tables."""
    outcome = run_reference(case)
    rows = [
        (f"input {name}", *((f"{array.dtype} {array.shape}", shown(array)) if array is not None else ("left out", "")))
        for name, array in case.inputs.items()
    ]
    rows += [(f"option {name}", "", repr(value)) for name, value in case.options.items()]
    rows += [(f"result {i}", f"{o.dtype} {o.shape}", shown(o)) for i, o in enumerate(outcome.outputs)]
    lines = [*raw(html_table(["", "type and shape", "values"], rows, "worked"))]
    for columns in by_size({**OPERATIONS[case.operation].intermediates(case), **bounds_of(case, outcome)}):
        flat = {name: np.asarray(v).reshape(-1)[:_ROWS] for name, v in columns.items()}
        cells = [[cell(v[i], name) for name, v in flat.items()] for i in range(len(next(iter(flat.values()))))]
        lines += raw(html_table(list(flat), cells, "worked"))
    return lines
