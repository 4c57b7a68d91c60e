"""Which rank, alpha and scale each of several layers gets, by patterns of their names.

Clause: ``[adapters.patterns]``. Source: the ``rank_pattern`` and ``alpha_pattern`` of the PEFT library.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qloracle.errors import reject_value, require_mapping, require_number, require_positive_integer
from qloracle.formats import Array
from qloracle.lora import lora_scale
from qloracle.module_names import bools, compiled, component_starts, strings


@dataclass(frozen=True)
class AdapterSettings:
    """What each of several layers gets."""

    rank: Array  # int64
    alpha: Array  # float64
    scale: Array  # float64: alpha/r, or alpha/√r


def adapter_settings(
    names: Sequence[str],
    *,
    rank: int,
    alpha: float,
    selected: Sequence[bool] | Array | None = None,
    rank_pattern: Mapping[str, int] | None = None,
    alpha_pattern: Mapping[str, float] | None = None,
    rank_stabilized: bool = False,
) -> AdapterSettings:
    r"""Return rank, alpha and scale of each layer.

    rank_i = rank_pattern[p] of the first p that matches all of name i, or all of its last components; else `rank`.

    Parameters
    ----------
    names : sequence of str
        Names of layers.
    rank, alpha : int, float
        What a layer gets that no pattern matches.
    selected : sequence or array of bool, optional
        Which of them get an adapter, see `select_targets`; the others get rank, alpha and scale 0. By default all.
    rank_pattern, alpha_pattern : mapping from str, optional
        Regular expressions, in order.
    rank_stabilized : bool
        Scale by alpha/√rank, each with its own rank.

    Returns
    -------
    AdapterSettings

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a rank is no positive integer, an alpha no finite number, a regular expression malformed, or `selected` not
        one bool for each name.

    Notes
    -----
    Clause ``[adapters.patterns]``. A layer whose rank differs and whose alpha does not has another scale. Rounding
    points: none; the scale is that of `lora.lora_scale`.

    Examples
    --------
    >>> found = adapter_settings(["h.0.q", "h.1.q"], rank=8, alpha=16, rank_pattern={r"1\.q": 4})
    >>> found.rank, found.scale
    (array([8, 4]), array([2., 4.]))
    """
    names = strings("names", names)
    chosen = np.ones(len(names), np.bool_) if selected is None else bools("selected", selected, len(names))
    ranks = [_of_pattern("rank_pattern", rank_pattern, name, rank) for name in names]
    alphas = [_of_pattern("alpha_pattern", alpha_pattern, name, alpha) for name in names]
    whole = [require_positive_integer("rank", r) for r in (rank, *ranks)][1:]
    if any(r >= 2**63 for r in whole):
        reject_value("rank", "below 2^63", max(whole))
    scales = [lora_scale(a, r, rank_stabilized=rank_stabilized) for a, r in zip(alphas, whole, strict=True)]
    numbers = [require_number("alpha", a) for a in alphas]
    return AdapterSettings(
        np.where(chosen, np.array(whole, np.int64), 0),
        np.where(chosen, np.array(numbers, np.float64), 0.0),
        np.where(chosen, np.array(scales, np.float64), 0.0),
    )


def _of_pattern(argument: str, patterns: Mapping[str, float] | None, name: str, default: float) -> float:
    rule = "a mapping of regular expressions"
    known: Mapping[str, float] = {} if patterns is None else require_mapping(argument, patterns, rule)
    for pattern, value in known.items():
        expression = compiled(argument, pattern)
        if any(expression.fullmatch(name, start) for start in component_starts(name)):
            return value
    return default
