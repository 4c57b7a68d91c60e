"""Names of modules, joined by dots, and the regular expressions that select among them."""

import re
from collections.abc import Sequence

import numpy as np

from qloracle.errors import reject_type, reject_value, require_items
from qloracle.formats import Array


def component_starts(name: str) -> list[int]:
    """Return where the components of a name begin; a pattern that is matched from there still knows what is before."""
    return [0, *(dot.end() for dot in re.finditer(r"\.", name))]


def compiled(argument: str, pattern: str) -> re.Pattern[str]:
    """Return a regular expression; refuse one that is malformed."""
    if not isinstance(pattern, str):
        reject_type(argument, "a regular expression", repr(pattern))
    try:
        return re.compile(pattern)
    except re.error as error:
        reject_value(argument, f"a regular expression ({error})", repr(pattern))


def strings(argument: str, values: Sequence[str]) -> list[str]:
    """Return names as a list; refuse what is no sequence of strings."""
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray):
        reject_type(argument, "a sequence of strings", type(values).__name__)
    for value in require_items(argument, values, "a sequence of names"):
        if not isinstance(value, str):
            reject_type(argument, "a sequence of strings", repr(value))
    return list(values)


def bools(argument: str, values: Sequence[bool] | Array, length: int) -> Array:
    """Return a copy of one bool for each name; refuse anything else."""
    array = np.asarray(values)
    if array.dtype != np.bool_ or array.shape != (length,):
        reject_type(argument, f"{length} bools, one for each name", f"{array.dtype} of shape {array.shape}")
    return array.copy()
