"""What the page of a property says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import log2
from pathlib import Path
from typing import Any

from markupsafe import Markup

from qloracle_conformance.pages.figures import errors_figure, parts_figure, places_figure
from qloracle_conformance.pages.overview import replay_command
from qloracle_conformance.pages.rule import Rule, rule
from qloracle_conformance.pages.smallest import Smallest, smallest_of
from qloracle_conformance.pages.step_figure import steps_figure, steps_of
from qloracle_conformance.pages.svg import inline
from qloracle_conformance.reading import Run

_SHOWN = ("pass", "not-claimed")  # statuses without a finding


@dataclass(frozen=True)
class Plot:
    """A plot with what it shows in words."""

    title: str
    svg: Markup
    text: str


@dataclass(frozen=True)
class Detail:
    """A property and everything that is known about it."""

    line: Mapping[str, Any]
    holds: bool
    claim: Mapping[str, Any] | None
    rule: Rule | None
    smallest: Smallest | None
    plots: Sequence[Plot]
    replay: str


def detail(run: Run, line: Mapping[str, Any], name: str, witnesses: Path | None) -> Detail:
    """Return what the page of a property says; `name` is unique on its page, for the ids in plots."""
    claim = next((c for c in run.header["claims"] if c["operation"] == line["operation"]), None)
    return Detail(
        line=line,
        holds=line["status"] in _SHOWN,
        claim=claim,
        rule=rule(line["clause"]) if line["clause"] else None,
        smallest=smallest_of(line, run.path, witnesses) if line["witness"] else None,
        plots=_plots(line, name),
        replay=replay_command(line),
    )


def _plots(line: Mapping[str, Any], name: str) -> list[Plot]:
    found = []
    if line["steps"]:
        figure = steps_figure(line["steps"])
        if figure is not None:
            text = steps_text(line["steps"])
            found.append(Plot("Failing points on the step function", inline(figure, f"{name}-steps", text), text))
    if line["places"]:
        text = places_text(line["places"])
        figure = places_figure(line["places"])
        found.append(Plot("Where failing elements lie", inline(figure, f"{name}-places", text), text))
    if set(line["ordinal_errors"]) - {"0"}:
        text = errors_text(line["ordinal_errors"])
        items = tuple(line["ordinal_errors"].items())
        found.append(Plot("Ordinal errors", _named(_errors_svg(items), name, "errors", text), text))
    if line["bound_parts"]:
        text = parts_text(line["bound_parts"], line["bound_used"])
        svg = _named(_parts_svg(tuple(line["bound_parts"])), name, "parts", text)
        found.append(Plot("Used part of the bound", svg, text))
    return found


# Hundreds of properties share a distribution, and a plot takes longer than the rest of its page.
@cache
def _errors_svg(items: tuple[tuple[str, int], ...]) -> Markup:
    return inline(errors_figure(dict(items)), "@name", "@label")


@cache
def _parts_svg(parts: tuple[int, ...]) -> Markup:
    return inline(parts_figure(parts), "@name", "@label")


def _named(svg: Markup, name: str, what: str, label: str) -> Markup:
    return Markup(str(svg).replace("@name", f"{name}-{what}").replace("@label", str(Markup.escape(label))))  # noqa: S704


def errors_text(errors: Mapping[str, int]) -> str:
    """Return a distribution of ordinal errors in words."""
    total = sum(errors.values())
    wrong = [int(key) for key in errors if key not in ("0", "nan")]
    parts = [f"{errors.get('0', 0):,} of {total:,} elements are the rule's own number"]
    if wrong:
        above, below = (sum(errors[str(k)] for k in wrong if (k > 0) == up) for up in (True, False))
        most = max(abs(k) for k in wrong)
        size = "1 ordinal" if most == 1 else f"{most:,} to {2 * most - 1:,} ordinals"
        parts.append(f"{above:,} lie above it and {below:,} below, the farthest by {size}")
    if errors.get("nan"):
        parts.append(f"{errors['nan']:,} are NaN, or no word of the format, against a number, or the converse")
    return "; ".join(parts) + "."


def parts_text(parts: Sequence[int], used: float) -> str:
    """Return the used part of a bound, and the headroom, in words."""
    total, outside = sum(parts), parts[-1]
    if outside:
        return f"{outside:,} of {total:,} elements lie outside their bound, the farthest by {used:.4g} times its width."
    if used <= 0:
        return f"All {total:,} elements are the exact sum, rounded once: nothing of the bound is used."
    headroom = f"headroom {1 - used:.1%}, or {log2(1 / used):.1f} bits"
    return f"At most {used:.1%} of the bound is used by any of {total:,} elements: {headroom}."


def steps_text(steps: Mapping[str, Any]) -> str:
    """Return in words where codes are wrong."""
    right, given, count, least, greatest = max(steps["pairs"], key=lambda pair: pair[2])
    total = sum(pair[2] for pair in steps["pairs"])
    return (
        f"{total:,} elements have a wrong code, in {len(steps['pairs'])} ways. Most often, {count:,} times, position"
        f" {given} is given where {right} is due (positions in value order of {steps['codebook'] or 'the codebook'}),"
        f" between {least:.9g} and {greatest:.9g}.{_moved(steps, right, given, least, greatest)}"
    )


def _moved(steps: Mapping[str, Any], right: int, given: int, least: float, greatest: float) -> str:
    """Return what neighbouring positions say about the boundary between them."""
    function = steps_of(steps["codebook"], steps["pairs"])
    if function is None or abs(right - given) != 1:
        return ""
    far = greatest if given < right else least
    return (
        f" The boundary between the two is {function.boundary(right, given):.9g}; here it lies at or beyond {far:.9g}."
    )


def places_text(places: Mapping[str, Any]) -> str:
    """Return in words where failing elements lie."""
    rows = f", rows of {places['row_length']:,}" if places["row_length"] else ""
    blocks = f", blocks of {places['block_size']:,}" if places["block_size"] else ""
    return (
        f"The case with most failing elements: {places['failing']:,} of {places['size']:,}{rows}{blocks};"
        f" {places['pattern']}. Bars: failing share of each part; dashed: of the whole output."
    )
