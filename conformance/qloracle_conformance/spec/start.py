"""The first page of the site: what this is, the principle, how to read it, and what there is."""

import importlib
from collections.abc import Sequence

import qloracle
from qloracle_conformance.spec.clauses import clauses
from qloracle_conformance.spec.contents import Page, modules_of
from qloracle_conformance.spec.docstrings import parse
from qloracle_conformance.spec.markup import Links, table, title
from qloracle_conformance.spec.overviews import home_page

OVERVIEWS = {
    "clauses": "Every clause with its rule in a line",
    "rounding_points": "Where every rule rounds, in order",
    "table_formats": "Fields and limits of every floating-point format",
    "table_codebooks": "Every codebook in hex and decimal, and its step function",
    "coverage": "Properties, mutants and proofs of every clause",
    "differences": "Where other libraries answer otherwise, and why",
    "changelog": "What changed, clause by clause",
}
_TEXT = """\
This is the executable specification of quantized fine-tuning: every format, codebook, quantizer, adapter and
optimizer rule that 4-bit and 8-bit fine-tuning rests on, each in one place and exact to the last bit. Specification
version {version}, {clauses} clauses.

Every page is made from the reference, pure functions on NumPy arrays. The text of a rule is the docstring of the
function that computes it, its examples run as tests, and the source is one click away.

.. rubric:: The principle

A result is defined in exact real arithmetic and rounded only where the rule says so. A rule never says "compute in
float32 in this order" unless the order is the rule, so that a verdict does not depend on division against reciprocal,
on fused multiply-adds, on the order of a sum or on the instruction set. A sum of floating-point numbers has a real
value, and a bound that every honest evaluation keeps.

.. rubric:: How to read it

RN\\ :sub:`f`\\ (v) is the real number v rounded once to the format f, ties to even, and fl32 is RN\\ :sub:`float32`.
*Codes* are integers, *values* are reals, *bits* are patterns. A name in brackets, as {example}, is a *clause*: one
rule, which the reports of the conformance suite name too. ``qloracle explain CLAUSE`` prints it in a terminal with a
worked example, and ``qloracle explain CLAUSE --input x=1.2,-0.5`` every intermediate for numbers of your own.
"""


def start_page(links: Links, pages: Sequence[Page]) -> list[str]:
    """Return the first page."""
    example = links.clause("blockwise.quantize")
    text = _TEXT.format(version=qloracle.SPECIFICATION_VERSION, clauses=len(clauses()), example=example)
    lines = [*title("The numerics of quantized fine-tuning"), *text.splitlines(), ""]
    lines += [".. rubric:: Rules, in reading order", "", *table(["page", "what it holds", "clauses"], [
        [f":doc:`{page.title} <{page.name}>`", _holds(page, links), str(sum(home_page(c) == page for c in clauses()))]
        for page in pages
    ], "overview")]  # fmt: skip
    rows = [[f":doc:`{name}`", said] for name, said in OVERVIEWS.items()]
    lines += [".. rubric:: Side by side", "", *table(["page", "what it shows"], rows, "overview")]
    for caption, names in (("Rules", [page.name for page in pages]), ("Side by side", list(OVERVIEWS))):
        lines += [".. toctree::", "   :hidden:", f"   :caption: {caption}", "", *(f"   {name}" for name in names), ""]
    return lines


def _holds(page: Page, links: Links) -> str:
    first = importlib.import_module(f"qloracle.{modules_of(page)[0]}")
    return links.inline(parse(first.__doc__).summary.partition(" Clause")[0])
