"""How many parameters train, and how many there are. Clauses: ``[adapters.count]``, ``[adapters.biases]``."""

from dataclasses import dataclass

import torch
from torch import Tensor

from qloracle.errors import reject_type, reject_value, require_flag, require_one_of
from qloracle_gpu.torch.formats import require_tensor

BIAS_MODES = ("none", "all", "lora_only")
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of several layers; the totals are Python integers, which cannot overflow."""

    base: Tensor  # int64, of each layer: weight and bias
    adapter: Tensor  # int64, of each layer: A, B, magnitude, the adapter's bias
    bias: Tensor  # int64, of each layer: its own bias, where that trains

    @property
    def trainable(self) -> int:
        """Trained parameters of all layers."""
        return _total(self.adapter) + _total(self.bias)

    @property
    def total(self) -> int:
        """All parameters, those of the adapters included."""
        return _total(self.base) + _total(self.adapter)

    @property
    def fewer_percent(self) -> float:
        """By how many percent fewer parameters train than in full fine-tuning of the base."""
        base = _total(self.base)
        return 100 * (base - self.trainable) / base if base else 0.0


def count_parameters(
    shapes: Tensor,
    ranks: Tensor,
    *,
    biases: Tensor | None = None,
    bias: str = "none",
    dora: bool = False,
    lora_bias: bool = False,
) -> ParameterCounts:
    """Count the parameters of layers, some of which have an adapter.

    adapter = r·(d_out + d_in), + d_out for DoRA's magnitude, + d_out for the adapter's own bias; 0 for r = 0.

    Parameters
    ----------
    shapes : tensor of integers, shape (n, 2)
        (d_out, d_in) of each layer; an embedding counts as (dim, num_embeddings), a weight that is stored transposed as
        what it computes.
    ranks : tensor of integers, shape (n,)
        Rank of each layer's adapter, 0 for layers without one. rsLoRA changes a scale and no count.
    biases : tensor of bool, shape (n,), optional
        Which layers have a bias; by default none.
    bias : {"none", "all", "lora_only"}
        Which of those biases train, see `trainable_biases`.
    dora, lora_bias : bool
        Whether each adapter has a magnitude, or a bias of its own.

    Returns
    -------
    ParameterCounts

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a tensor is not of the dtype or shape named, a size is negative, a rank larger than its matrix, a count
        beyond int64, or the mode unknown.

    Notes
    -----
    Clause ``[adapters.count]``. Integers only. Looking at the sizes waits for the device.

    Examples
    --------
    >>> found = count_parameters(torch.tensor([[400000, 100000]]), torch.tensor([10]))
    >>> found.trainable, found.base.tolist(), found.fewer_percent
    (5000000, [40000000000], 99.9875)
    """
    d_out, d_in = _sizes(shapes)
    rank = _of_layers("ranks", ranks, len(d_out))
    smaller = torch.minimum(d_out, d_in)
    wrong = ((rank < 0) | (rank > smaller)).nonzero().flatten().tolist()
    if wrong:
        first = wrong[0]
        rule = f"from 0 to {int(smaller[first])}, the smaller side of matrix {first}"
        reject_value("rank", rule, int(rank[first]))
    has = torch.zeros_like(rank, dtype=torch.bool) if biases is None else biases
    adapted, extra = rank > 0, int(require_flag("dora", dora)) + int(require_flag("lora_bias", lora_bias))
    trains = trainable_biases(has, adapted, bias)
    return ParameterCounts(
        base=d_out * d_in + d_out * has,
        adapter=(rank * (d_out + d_in) + extra * d_out) * adapted,
        bias=d_out * trains,
    )


def trainable_biases(biases: Tensor, adapted: Tensor, bias: str = "none") -> Tensor:
    """Return which layers' own biases train.

    none: no bias; all: every bias there is; lora_only: those of layers with an adapter.

    Parameters
    ----------
    biases, adapted : tensor of bool, shape (n,)
        Which layers have a bias, and which an adapter.
    bias : {"none", "all", "lora_only"}

    Returns
    -------
    tensor of bool, shape (n,)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a tensor is not of bool, their shapes differ, or the mode is unknown.

    Notes
    -----
    Clause ``[adapters.biases]``. A bias that trains is the base's own: with "all" and "lora_only" switching adapters
    off no longer gives the base's output, and unmerging does not bring the old bias back. The bias of an adapter (b_B)
    is another thing, see `merge_bias`. Rounding points: none.

    Examples
    --------
    >>> trainable_biases(torch.tensor([True, True, False]), torch.tensor([True, False, True]), "lora_only")
    tensor([ True, False, False])
    """
    for argument, tensor in (("biases", biases), ("adapted", adapted)):
        if require_tensor(argument, tensor).dtype != torch.bool or tensor.ndim != 1:
            reject_type(argument, "a 1-d tensor of bool", f"{tensor.dtype}, {tensor.ndim}-d")
    if biases.shape != adapted.shape:
        reject_value("adapted", f"of shape {tuple(biases.shape)}", tuple(adapted.shape))
    require_one_of("bias", bias, BIAS_MODES)
    return {"none": torch.zeros_like(biases), "all": biases.clone(), "lora_only": biases & adapted}[bias]


def _total(counts: Tensor) -> int:
    return sum(counts.tolist())


def _sizes(shapes: Tensor) -> tuple[Tensor, Tensor]:
    whole = _integers("shapes", shapes)
    if whole.ndim != 2 or whole.shape[1] != 2:
        reject_value("shapes", "of shape (n, 2)", tuple(whole.shape))
    for d_out, d_in in whole.tolist():
        if min(d_out, d_in) < 0 or 2 * (d_out + 1) * (d_in + 2) >= 2**63:
            reject_value("shapes", "sizes of 0 or more whose counts fit int64", (d_out, d_in))
    return whole[:, 0], whole[:, 1]


def _of_layers(argument: str, values: Tensor, count: int) -> Tensor:
    whole = _integers(argument, values)
    if whole.shape != (count,):
        reject_value(argument, f"of shape ({count},), one for each layer", tuple(whole.shape))
    return whole


def _integers(argument: str, values: Tensor) -> Tensor:
    tensor = require_tensor(argument, values)
    if tensor.dtype not in INTEGERS:
        reject_type(argument, "a tensor of integers", tensor.dtype)
    return tensor.to(torch.int64)
