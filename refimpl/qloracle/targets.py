"""Which layers get an adapter, by their names, and which rank and alpha each of them gets.

Names are those of modules, joined by dots: ``model.layers.3.self_attn.q_proj``.
Clauses: ``[adapters.targets]``, ``[adapters.patterns]``.
Source: the ``target_modules``, ``exclude_modules``, ``layers_to_transform``, ``layers_pattern``, ``rank_pattern`` and
``alpha_pattern`` of the PEFT library.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qloracle.errors import (
    reject_type,
    reject_value,
    require_integer,
    require_items,
    require_mapping,
    require_number,
    require_positive_integer,
)
from qloracle.formats import Array
from qloracle.lora import lora_scale

ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class AdapterSettings:
    """What each of several layers gets."""

    rank: Array  # int64
    alpha: Array  # float64
    scale: Array  # float64: alpha/r, or alpha/√r


def select_targets(
    names: Sequence[str],
    targets: str | Sequence[str],
    *,
    linear: Sequence[bool] | Array | None = None,
    exclude: str | Sequence[str] = (),
    layers: Sequence[int] | None = None,
    layers_pattern: str | None = None,
) -> Array:
    r"""Return which layers get an adapter.

    A string is a regular expression that must match the whole name; a sequence lists names: of the whole module, or of
    its last components.

    Parameters
    ----------
    names : sequence of str
        Full names of all modules.
    targets : str or sequence of str
        "all-linear" stands for every name that `linear` marks.
    linear : sequence or array of bool, optional
        For "all-linear": which modules are linear layers, the output layer left out.
    exclude : str or sequence of str
        Matched like `targets`; what it names gets no adapter.
    layers : sequence of int, optional
        Only layers of these numbers, for a list of `targets`; names that are listed in full are always taken. A name
        without a number is left out.
    layers_pattern : str, optional
        Regular expression of the component before the number, for example "h" or "layers"; by default any.

    Returns
    -------
    array of bool, one for each name

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If names are no strings, a regular expression is malformed, `linear` does not go with `targets`, `layers` goes
        with a regular expression, or no name is selected.

    Notes
    -----
    Clause ``[adapters.targets]``. "v" does not select "conv": components are compared in full. The number of a layer is
    the last one that follows a component of the pattern and is itself followed by something. Rounding points: none.

    Examples
    --------
    >>> names = ["h.0.attn.q_proj", "h.1.attn.q_proj", "h.1.mlp.xq_proj", "q_proj_norm"]
    >>> select_targets(names, ["q_proj"])
    array([ True,  True, False, False])
    >>> select_targets(names, r".*q_proj"), select_targets(names, ["q_proj"], exclude=["h.0.attn.q_proj"])
    (array([ True,  True,  True, False]), array([False,  True, False, False]))
    """
    names = _strings("names", names)
    whole_model = isinstance(targets, str) and targets == ALL_LINEAR
    if layers is not None and isinstance(targets, str):
        reject_value("layers", "None where targets is a regular expression or all-linear", repr(layers))
    if layers_pattern is not None and layers is None:
        reject_value("layers_pattern", "None without layers", repr(layers_pattern))
    if (linear is None) == whole_model:
        reject_value("linear", "given for targets 'all-linear', and only then", linear)
    chosen = _matches("targets", names, targets) if linear is None else _bools("linear", linear, len(names))
    if layers is not None:
        rule = "a sequence of integers"
        numbers = {require_integer("layers", number, rule) for number in require_items("layers", layers, rule)}
        inside = [_layer_number(name, layers_pattern) in numbers or name in targets for name in names]
        chosen &= np.array(inside, np.bool_)
    selected: Array = chosen & ~_matches("exclude", names, exclude)
    if not selected.any():
        reject_value("targets", "such that at least one name is selected", repr(targets))
    return selected


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
    names = _strings("names", names)
    chosen = np.ones(len(names), np.bool_) if selected is None else _bools("selected", selected, len(names))
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


def _matches(argument: str, names: Sequence[str], wanted: str | Sequence[str]) -> Array:
    if isinstance(wanted, str):
        pattern = _compiled(argument, wanted)
        return np.array([pattern.fullmatch(name) is not None for name in names], np.bool_)
    listed = _strings(argument, wanted)
    found = [any(name == t or name.endswith(f".{t}") for t in listed) for name in names]
    return np.array(found, np.bool_)


def _layer_number(name: str, before: str | None) -> int | None:
    pattern = _compiled("layers_pattern", r"[^.]*" if before is None else before)
    for number in reversed(list(re.finditer(r"\.([0-9]+)(?=\.)", name))):
        if any(pattern.fullmatch(name, s, number.start()) for s in _component_starts(name) if s <= number.start()):
            return int(number[1])
    return None


def _of_pattern(argument: str, patterns: Mapping[str, float] | None, name: str, default: float) -> float:
    rule = "a mapping of regular expressions"
    known: Mapping[str, float] = {} if patterns is None else require_mapping(argument, patterns, rule)
    for pattern, value in known.items():
        compiled = _compiled(argument, pattern)
        if any(compiled.fullmatch(name, start) for start in _component_starts(name)):
            return value
    return default


def _component_starts(name: str) -> list[int]:
    """Return where the components of a name begin; a pattern that is matched from there still knows what is before."""
    return [0, *(dot.end() for dot in re.finditer(r"\.", name))]


def _compiled(argument: str, pattern: str) -> re.Pattern[str]:
    if not isinstance(pattern, str):
        reject_type(argument, "a regular expression", repr(pattern))
    try:
        return re.compile(pattern)
    except re.error as error:
        reject_value(argument, f"a regular expression ({error})", repr(pattern))


def _strings(argument: str, values: Sequence[str]) -> list[str]:
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray):
        reject_type(argument, "a sequence of strings", type(values).__name__)
    for value in require_items(argument, values, "a sequence of names"):
        if not isinstance(value, str):
            reject_type(argument, "a sequence of strings", repr(value))
    return list(values)


def _bools(argument: str, values: Sequence[bool] | Array, length: int) -> Array:
    array = np.asarray(values)
    if array.dtype != np.bool_ or array.shape != (length,):
        reject_type(argument, f"{length} bools, one for each name", f"{array.dtype} of shape {array.shape}")
    return array.copy()
