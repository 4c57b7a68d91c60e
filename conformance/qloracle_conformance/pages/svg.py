"""From figures of matplotlib to SVG that stands inside a page: the page's colours, ids of its own, nothing random."""

import io
import re
from contextlib import AbstractContextManager
from html import escape
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Placeholders that become variables of the style sheet, which has two sets of colours, for light and for dark.
INK, QUIET, RIGHT, WRONG, LINE, PAPER = (f"#01020{n}" for n in range(3, 9))
_VARIABLES = {INK: "ink", QUIET: "quiet", RIGHT: "right", WRONG: "wrong", LINE: "line", PAPER: "plot"}
_SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "qloracle",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.parse_math": False,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.facecolor": PAPER,
    "figure.facecolor": "none",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 2,
    "ytick.major.size": 2,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
}
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_ID = re.compile(r'\bid="([^"]+)"')
_REFERENCE = re.compile(r'(url\(#|href="#)([^)"]+)')


def settings() -> AbstractContextManager[None]:
    """Return the settings under which figures are drawn and written, as a context."""
    return rc_context(_SETTINGS)


def inline(figure: Figure, name: str, label: str) -> Markup:
    """Return a figure as an element of a page.

    Parameters
    ----------
    figure : Figure
    name : str
        Unique on the page; ids begin with it.
    label : str
        What the figure shows, for those who cannot see it.
    """
    written = io.StringIO()
    FigureCanvasSVG(figure)
    figure.savefig(written, format="svg", metadata=_NO_METADATA)
    text = written.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = _ID.sub(rf'id="{name}-\1"', text)
    text = _REFERENCE.sub(rf"\g<1>{name}-\2", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    width = figure.get_figwidth()
    attributes = f'role="img" aria-label="{escape(label)}" style="max-width: {width:g}in"'
    text = text.replace("<svg", f"<svg {attributes}", 1)
    return Markup(re.sub(r"\n\s*", "\n", text))  # noqa: S704  # its only foreign text is the label, escaped above
