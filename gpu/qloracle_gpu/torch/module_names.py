"""Which modules get an adapter, and which rank and alpha each, by patterns of their names.

Names are those of `named_modules`, joined by dots: ``model.layers.3.self_attn.q_proj``. The rules of `select_targets`
and `adapter_settings`, on lists instead of tensors. Clauses: ``[adapters.targets]``, ``[adapters.patterns]``.
"""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from qloracle.errors import reject_type, reject_value, require_integer, require_items, require_mapping

ALL_LINEAR = "all-linear"


def selected_names(
    names: Sequence[str],
    targets: str | Sequence[str],
    *,
    linear: Sequence[bool] | Tensor | None = None,
    exclude: str | Sequence[str] = (),
    layers: Sequence[int] | None = None,
    layers_pattern: str | None = None,
) -> list[bool]:
    """Return which modules get an adapter: `select_targets` as a list.

    Examples
    --------
    >>> selected_names(["h.0.attn.q_proj", "h.1.mlp.xq_proj", "q_proj_norm"], ["q_proj"])
    [True, False, False]
    """
    names = strings("names", names)
    whole_model = isinstance(targets, str) and targets == ALL_LINEAR
    if layers is not None and isinstance(targets, str):
        reject_value("layers", "None where targets is a regular expression or all-linear", repr(layers))
    if layers_pattern is not None and layers is None:
        reject_value("layers_pattern", "None without layers", repr(layers_pattern))
    if (linear is None) == whole_model:
        reject_value("linear", "given for targets 'all-linear', and only then", linear)
    chosen = _matches("targets", names, targets) if linear is None else bools("linear", linear, len(names))
    if layers is not None:
        rule = "a sequence of integers"
        numbers = {require_integer("layers", number, rule) for number in require_items("layers", layers, rule)}
        inside = [_layer_number(name, layers_pattern) in numbers or name in targets for name in names]
        chosen = [taken and within for taken, within in zip(chosen, inside, strict=True)]
    excluded = _matches("exclude", names, exclude)
    selected = [taken and not left for taken, left in zip(chosen, excluded, strict=True)]
    if not any(selected):
        reject_value("targets", "such that at least one name is selected", repr(targets))
    return selected


def of_pattern(argument: str, patterns: Mapping[str, float] | None, name: str, default: float) -> float:
    r"""Return the value of the first pattern that matches all of a name, or all of its last components; else `default`.

    Examples
    --------
    >>> of_pattern("rank_pattern", {r"1\.q": 4}, "h.1.q", 8), of_pattern("rank_pattern", {r"1\.q": 4}, "h.0.q", 8)
    (4, 8)
    """
    rule = "a mapping of regular expressions"
    known: Mapping[str, float] = {} if patterns is None else require_mapping(argument, patterns, rule)
    for pattern, value in known.items():
        expression = compiled(argument, pattern)
        if any(expression.fullmatch(name, start) for start in _component_starts(name)):
            return value
    return default


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
    if isinstance(values, str) or not isinstance(values, Sequence):
        reject_type(argument, "a sequence of strings", type(values).__name__)
    for value in values:
        if not isinstance(value, str):
            reject_type(argument, "a sequence of strings", repr(value))
    return list(values)


def bools(argument: str, values: Sequence[bool] | Tensor, length: int) -> list[bool]:
    """Return one bool for each name as a list; refuse anything else."""
    rule = f"{length} bools, one for each name"
    items: object = values.tolist() if isinstance(values, Tensor) else require_items(argument, values, rule)
    if not isinstance(items, list) or len(items) != length or not all(isinstance(item, bool) for item in items):
        reject_type(argument, rule, repr(items))
    return items


def _matches(argument: str, names: Sequence[str], wanted: str | Sequence[str]) -> list[bool]:
    if isinstance(wanted, str):
        pattern = compiled(argument, wanted)
        return [pattern.fullmatch(name) is not None for name in names]
    listed = strings(argument, wanted)
    return [any(name == t or name.endswith(f".{t}") for t in listed) for name in names]


def _component_starts(name: str) -> list[int]:
    return [0, *(dot.end() for dot in re.finditer(r"\.", name))]


def _layer_number(name: str, before: str | None) -> int | None:
    pattern = compiled("layers_pattern", r"[^.]*" if before is None else before)
    for number in re.finditer(r"\.([0-9]+)(?=\.)", name):
        if any(pattern.fullmatch(name, s, number.start()) for s in _component_starts(name) if s <= number.start()):
            return int(number[1])
    return None
