"""Which layers get an adapter, and which rank, alpha and scale each, by their names.

Names are those of modules, joined by dots: ``model.layers.3.self_attn.q_proj``. Results are tensors on the CPU.
Clauses: ``[adapters.targets]``, ``[adapters.patterns]``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qloracle.errors import reject_value, require_number, require_positive_integer
from qloracle_gpu.torch.lora import lora_scale
from qloracle_gpu.torch.module_names import bools, of_pattern, selected_names, strings


@dataclass(frozen=True)
class AdapterSettings:
    """What each of several layers gets."""

    rank: Tensor  # int64
    alpha: Tensor  # float64
    scale: Tensor  # float64: alpha/r, or alpha/√r


def select_targets(
    names: Sequence[str],
    targets: str | Sequence[str],
    *,
    linear: Sequence[bool] | Tensor | None = None,
    exclude: str | Sequence[str] = (),
    layers: Sequence[int] | None = None,
    layers_pattern: str | None = None,
) -> Tensor:
    r"""Return which layers get an adapter.

    A string is a regular expression that must match the whole name; a sequence lists names: of the whole module, or of
    its last components.

    Parameters
    ----------
    names : sequence of str
        Full names of all modules.
    targets : str or sequence of str
        "all-linear" stands for every name that `linear` marks.
    linear : sequence or tensor of bool, optional
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
    tensor of bool, one for each name

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
    >>> select_targets(["h.0.attn.q_proj", "h.1.mlp.xq_proj", "q_proj_norm"], ["q_proj"])
    tensor([ True, False, False])
    >>> select_targets(["h.0.attn.q_proj", "h.1.mlp.xq_proj", "q_proj_norm"], r".*q_proj", exclude=["attn.q_proj"])
    tensor([False,  True, False])
    """
    found = selected_names(names, targets, linear=linear, exclude=exclude, layers=layers, layers_pattern=layers_pattern)
    return torch.tensor(found, dtype=torch.bool)


def adapter_settings(
    names: Sequence[str],
    *,
    rank: int,
    alpha: float,
    selected: Sequence[bool] | Tensor | None = None,
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
    selected : sequence or tensor of bool, optional
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
    points: none but that of the float64 quotient.

    Examples
    --------
    >>> found = adapter_settings(["h.0.q", "h.1.q"], rank=8, alpha=16, rank_pattern={r"1\.q": 4})
    >>> found.rank, found.scale
    (tensor([8, 4]), tensor([2., 4.], dtype=torch.float64))
    """
    names = strings("names", names)
    chosen = [True] * len(names) if selected is None else bools("selected", selected, len(names))
    ranks = [of_pattern("rank_pattern", rank_pattern, name, rank) for name in names]
    alphas = [of_pattern("alpha_pattern", alpha_pattern, name, alpha) for name in names]
    whole = [require_positive_integer("rank", r) for r in (rank, *ranks)][1:]
    if any(r >= 2**63 for r in whole):
        reject_value("rank", "below 2^63", max(whole))
    scales = [lora_scale(a, r, rank_stabilized=rank_stabilized) for a, r in zip(alphas, whole, strict=True)]
    numbers = [require_number("alpha", a) for a in alphas]

    def column(values: Sequence[float], dtype: torch.dtype) -> Tensor:
        return torch.tensor([v if taken else 0 for v, taken in zip(values, chosen, strict=True)], dtype=dtype)

    return AdapterSettings(column(whole, torch.int64), column(numbers, torch.float64), column(scales, torch.float64))
