"""Which layers get an adapter, by their names.

Names are those of modules, joined by dots: ``model.layers.3.self_attn.q_proj``. Clause: ``[adapters.targets]``.
Source: the ``target_modules``, ``exclude_modules``, ``layers_to_transform`` and ``layers_pattern`` of the PEFT library.
"""

import re
from collections.abc import Sequence

import numpy as np

from qloracle.errors import reject_value, require_integer, require_items
from qloracle.formats import Array
from qloracle.module_names import bools, compiled, component_starts, strings

ALL_LINEAR = "all-linear"


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
    the first one that follows a component of the pattern and is itself followed by something: in
    layers.10.experts.3.q_proj the layer is 10, and 3 the expert. Rounding points: none.

    Examples
    --------
    >>> names = ["h.0.attn.q_proj", "h.1.attn.q_proj", "h.1.mlp.xq_proj", "q_proj_norm"]
    >>> select_targets(names, ["q_proj"])
    array([ True,  True, False, False])
    >>> select_targets(names, r".*q_proj"), select_targets(names, ["q_proj"], exclude=["h.0.attn.q_proj"])
    (array([ True,  True,  True, False]), array([False,  True, False, False]))
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
        chosen &= np.array(inside, np.bool_)
    selected: Array = chosen & ~_matches("exclude", names, exclude)
    if not selected.any():
        reject_value("targets", "such that at least one name is selected", repr(targets))
    return selected


def _matches(argument: str, names: Sequence[str], wanted: str | Sequence[str]) -> Array:
    if isinstance(wanted, str):
        pattern = compiled(argument, wanted)
        return np.array([pattern.fullmatch(name) is not None for name in names], np.bool_)
    listed = strings(argument, wanted)
    found = [any(name == t or name.endswith(f".{t}") for t in listed) for name in names]
    return np.array(found, np.bool_)


def _layer_number(name: str, before: str | None) -> int | None:
    pattern = compiled("layers_pattern", r"[^.]*" if before is None else before)
    for number in re.finditer(r"\.([0-9]+)(?=\.)", name):
        if any(pattern.fullmatch(name, s, number.start()) for s in component_starts(name) if s <= number.start()):
            return int(number[1])
    return None
