"""The smallest failing input of a property, from its witness file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from qloracle.errors import QloracleError
from qloracle.formats import FORMATS
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.generators.case import Case
from qloracle_conformance.intermediates import by_size, cell
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.sequences.explaining import print_sequence
from qloracle_conformance.witness import Witness, read_witness

_ROWS = 17  # of a table, around the failing element
_ITEMS = 32  # of an input


@dataclass(frozen=True)
class Input:
    """One input array."""

    name: str
    kind: str  # type, shape and memory layout
    hexadecimal: str
    decimal: str
    left_out: int  # items that are not shown


@dataclass(frozen=True)
class Table:
    """Intermediates of one size, side by side."""

    names: Sequence[str]
    rows: Sequence[tuple[int, Sequence[str]]]  # element, its numbers
    size: int
    element: int  # that fails, −1 where the elements are not those of the output


@dataclass(frozen=True)
class Smallest:
    """The smallest failing input, or why it cannot be shown."""

    inputs: Sequence[Input] = ()
    options: Sequence[tuple[str, str]] = ()
    tables: Sequence[Table] = ()
    steps: str = ""  # of a sequence of calls
    why_not: str = ""


def smallest_of(line: Mapping[str, Any], report: Path, folder: Path | None) -> Smallest:
    """Return the smallest failing input of a property line.

    The witness is looked for in `folder` if there is one; else where the report says, which is relative to the folder
    that `check` ran in: this one, or the report's.
    """
    recorded = Path(line["witness"])
    places = [folder / recorded.name] if folder else [recorded, report.parent / recorded]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return Smallest(why_not=f"The witness file {recorded.name} is not at hand: name its folder with --witnesses.")
    try:
        witness = read_witness(path)
        return _shown(witness, line)
    except QloracleError as error:
        return Smallest(why_not=f"The witness file cannot be shown: {error}")


def _shown(witness: Witness, line: Mapping[str, Any]) -> Smallest:
    finding = line["finding"]
    if witness.operation != line["operation"] or (finding is not None and witness.finding != finding):
        return Smallest(why_not=f"The witness file at hand is of another run or version: it shows {witness.property}.")
    case = witness.case
    if witness.operation not in OPERATIONS:  # a sequence of calls: steps instead of intermediates
        return Smallest([_input(n, a, case, -1, 0) for n, a in case.inputs.items()], steps=_steps(case))
    with np.errstate(all="ignore"):
        values = OPERATIONS[witness.operation].intermediates(case)
    # What a finding's context names has one value for each element of the output.
    outputs = {np.asarray(values[name]).size for name in (finding or {}).get("context", ()) if name in values}
    element, size = (finding["element"], outputs.pop()) if outputs else (-1, 0)
    inputs = [_input(name, array, case, element, size) for name, array in case.inputs.items()]
    options = [(name, str(value)) for name, value in case.options.items()]
    tables = [_table(columns, element, size) for columns in by_size(values)]
    return Smallest(inputs, options, [t for t in tables if t.size])


def _steps(case: Case) -> str:
    """Return the steps of a sequence with what the reference makes of each, as `explain` prints them."""
    written = StringIO()
    print_sequence(Console(file=written, width=160, highlight=False, color_system=None), case)
    return written.getvalue()


def _input(name: str, array: HostArray | None, case: Case, element: int, output_size: int) -> Input:
    if array is None:
        return Input(name, "left out", "", "", 0)
    size = array.items.size
    start = _start(size, element, _ITEMS) if size == output_size else 0
    words, reals = (a.reshape(-1)[start : start + _ITEMS] for a in (array.words(), array.real()))
    width = 2 * words.dtype.itemsize
    decimals = [f"{float(r):.9g}" if array.dtype in FORMATS else str(int(r)) for r in reals]
    kind = f"{array.dtype} {array.shape}, {case.layouts.get(name, 'contiguous')}"
    kind += f", from element {start}" if start else ""
    return Input(name, kind, " ".join(f"{int(w):0{width}x}" for w in words), " ".join(decimals), size - len(words))


def _table(columns: Mapping[str, Any], element: int, output_size: int) -> Table:
    flat = {name: np.asarray(v).reshape(-1) for name, v in columns.items()}
    size = len(next(iter(flat.values())))
    marked = element if size == output_size else -1
    start = _start(size, marked, _ROWS)
    shown = range(start, min(size, start + _ROWS))
    return Table(list(flat), [(i, [cell(v[i], name) for name, v in flat.items()]) for i in shown], size, marked)


def _start(size: int, element: int, count: int) -> int:
    return max(0, min(element - count // 2, size - count)) if 0 <= element < size else 0
