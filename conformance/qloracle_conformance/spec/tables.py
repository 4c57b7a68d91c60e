"""The pages of tables: formats with their fields and limits, codebooks in hex and decimal with their step functions."""

import numpy as np

from qloracle.codebooks import Codebook
from qloracle.formats import FORMATS, Format
from qloracle.tables import CODEBOOKS
from qloracle_conformance.spec.clauses import reference_modules
from qloracle_conformance.spec.markup import Links, folded, html_table, raw, title
from qloracle_conformance.spec.plots import step_function

_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def codebooks() -> dict[str, Codebook]:
    """Return every codebook of the reference, by name, in the order of the modules that hold them."""
    found: dict[str, Codebook] = {}
    for module in reference_modules():
        for thing in vars(module).values():
            if isinstance(thing, Codebook):
                found.setdefault(thing.name, thing)
    return {name: found[name] for name in [*CODEBOOKS, *(n for n in found if n not in CODEBOOKS)]}


def formats_page(links: Links) -> list[str]:
    """Return the table of all formats."""
    head = ["format", "bits", "fields", "bias", "largest finite", "smallest normal", "smallest subnormal",
            "unit roundoff", "special values"]  # fmt: skip
    said = (
        "Fields are sign, exponent and mantissa bits, and bits that are always 0. Powers of two stand as such; of other"
        " long decimals nine digits are shown. The rules: `decode` and `encode`."
    )
    lines = [":hide-toc:", "", ".. _table-formats:", "", *title("Table of formats"), f"\\ {links.inline(said)}", ""]
    return [*lines, *raw(html_table(head, [_format_row(fmt) for fmt in FORMATS.values()], "words"))]


def _format_row(fmt: Format) -> list[str]:
    padding = f" + {fmt.padding}" if fmt.padding else ""
    specials = {"∞": fmt.infinities, "NaN": fmt.has_nan, "−0": fmt.negative_zero}
    smallest = 2.0 ** (fmt.minimum_exponent - fmt.mantissa_bits)
    return [
        fmt.name, str(8 * fmt.word.itemsize if fmt.code_bits > 8 else fmt.code_bits),
        f"{int(fmt.signed)} · {fmt.exponent_bits} · {fmt.mantissa_bits}{padding}", str(fmt.bias),
        _number(fmt.largest_finite), _number(2.0**fmt.minimum_exponent), _number(smallest) if fmt.subnormals else "–",
        _number(fmt.unit_roundoff), ", ".join(name for name, there in specials.items() if there) or "none",
    ]  # fmt: skip


def _number(value: float) -> str:
    """Return a number in decimal, powers of two as such where the decimal is long."""
    mantissa, exponent = np.frexp(value)
    short = f"{value:.10g}"
    if float(short) == value and len(short) <= 7:
        return short
    return f"2{str(int(exponent) - 1).translate(_RAISED)}" if mantissa == 0.5 else f"{value:.9g}"


def codebooks_page(links: Links) -> list[str]:
    """Return the words, decimals and step function of every codebook."""
    lines = [".. _table-codebooks:", "", *title("Tables of codebooks")]
    lines += ["\\ " + links.inline(
        "Every entry as its float32 word and in decimal, in code order. A number goes to the nearest entry; exactly"
        " between two, to the lower one."
    ), ""]  # fmt: skip
    for table in codebooks().values():
        lines += [f".. _codebook-{table.name}:", "", *title(table.name, "-"), *raw(step_function(table))]
        whole = raw(html_table(["code", "bits", "word", "value", "midpoint above"], _rows(table), "words"))
        plain = "  ".join(f"{int(w):08x}" for w in table.entries.view(np.uint32))
        lines += whole if table.entries.size <= 16 else folded(f"All {table.entries.size} entries", whole)
        lines += folded("Words alone", raw(f"<pre class='hex'>{plain}</pre>"))
    return lines


def _rows(table: Codebook) -> list[list[str]]:
    edges = [*table.midpoints.tolist(), np.nan, np.nan]  # above the largest entry, and for codes that are NaN
    above = [edges[position] for position in table.position.tolist()]
    return [
        [str(code), f"{code:0{table.code_bits}b}", f"{word:08x}", f"{entry:.9g}", f"{edge:.17g}".replace("nan", "–")]
        for code, (word, entry, edge) in enumerate(
            zip(table.entries.view(np.uint32).tolist(), table.entries.tolist(), above, strict=True)
        )
    ]
