"""How many parameters train, and how many there are.

Clauses: ``[adapters.count]``, ``[adapters.biases]``.
Source: Hu et al. 2021, "LoRA", section 4.2; the ``bias`` option and ``print_trainable_parameters`` of the PEFT library.
"""

from dataclasses import dataclass

import numpy as np

from qloracle.errors import reject_type, reject_value, require_one_of
from qloracle.formats import Array

BIAS_MODES = ("none", "all", "lora_only")


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of several layers; Python integers cannot overflow."""

    base: Array  # int64, of each layer: weight and bias
    adapter: Array  # int64, of each layer: A, B, magnitude, the adapter's bias
    bias: Array  # int64, of each layer: its own bias, where that trains

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
    shapes: Array,
    ranks: Array,
    *,
    biases: Array | None = None,
    bias: str = "none",
    dora: bool = False,
    lora_bias: bool = False,
) -> ParameterCounts:
    """Count the parameters of layers, some of which have an adapter.

    adapter = r·(d_out + d_in), + d_out for DoRA's magnitude, + d_out for the adapter's own bias; 0 for r = 0.

    Parameters
    ----------
    shapes : array of int64, shape (n, 2)
        (d_out, d_in) of each layer; an embedding counts as (dim, num_embeddings), a weight that is stored transposed as
        what it computes.
    ranks : array of int64, shape (n,)
        Rank of each layer's adapter, 0 for layers without one. rsLoRA changes a scale and no count.
    biases : array of bool, shape (n,), optional
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
        If an array is not of the dtype or shape named, a size is negative, a rank larger than its matrix, a count
        beyond int64, or the mode unknown.

    Notes
    -----
    Clause ``[adapters.count]``. Integers only.

    Examples
    --------
    >>> layer = np.array([[400000, 100000]])
    >>> found = count_parameters(layer, np.array([10]))
    >>> found.trainable, sum(found.base.tolist()), found.fewer_percent
    (5000000, 40000000000, 99.9875)
    """
    d_out, d_in = _sizes(shapes)
    rank = _of_layers("ranks", ranks, len(d_out))
    smaller = np.minimum(d_out, d_in)
    if np.any((rank < 0) | (rank > smaller)):
        wrong = int(np.flatnonzero((rank < 0) | (rank > smaller))[0])
        reject_value("rank", f"from 0 to {smaller[wrong]}, the smaller side of matrix {wrong}", int(rank[wrong]))
    has = np.zeros(len(rank), np.bool_) if biases is None else np.asarray(biases)
    trains = trainable_biases(has, rank > 0, bias)
    adapted, extra = rank > 0, int(bool(dora)) + int(bool(lora_bias))
    return ParameterCounts(
        base=d_out * d_in + d_out * has,
        adapter=(rank * (d_out + d_in) + extra * d_out) * adapted,
        bias=d_out * trains,
    )


def trainable_biases(biases: Array, adapted: Array, bias: str = "none") -> Array:
    """Return which layers' own biases train.

    none: no bias; all: every bias there is; lora_only: those of layers with an adapter.

    Parameters
    ----------
    biases, adapted : array of bool, shape (n,)
        Which layers have a bias, and which an adapter.
    bias : {"none", "all", "lora_only"}

    Returns
    -------
    array of bool, shape (n,)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If an array is not of bool, their shapes differ, or the mode is unknown.

    Notes
    -----
    Clause ``[adapters.biases]``. A bias that trains is the base's own: with "all" and "lora_only" switching adapters
    off no longer gives the base's output, and unmerging does not bring the old bias back. The bias of an adapter (b_B)
    is another thing, see `merging.merge_bias`. Rounding points: none.

    Examples
    --------
    >>> trainable_biases(np.array([True, True, False]), np.array([True, False, True]), "lora_only")
    array([ True, False, False])
    """
    for argument, array in (("biases", biases), ("adapted", adapted)):
        if getattr(array, "dtype", None) != np.bool_ or array.ndim != 1:
            reject_type(argument, "a 1-d array of bool", getattr(array, "dtype", type(array).__name__))
    if biases.shape != adapted.shape:
        reject_value("adapted", f"of shape {biases.shape}", adapted.shape)
    require_one_of("bias", bias, BIAS_MODES)
    return {"none": np.zeros(biases.shape, np.bool_), "all": biases.copy(), "lora_only": biases & adapted}[bias]


def _total(counts: Array) -> int:
    return sum(int(count) for count in counts)


def _sizes(shapes: Array) -> tuple[Array, Array]:
    _require_integers("shapes", shapes)
    if shapes.ndim != 2 or shapes.shape[1] != 2:
        reject_value("shapes", "of shape (n, 2)", shapes.shape)
    for d_out, d_in in shapes.tolist():
        if min(d_out, d_in) < 0 or 2 * (d_out + 1) * (d_in + 2) >= 2**63:
            reject_value("shapes", "sizes of 0 or more whose counts fit int64", (d_out, d_in))
    whole = shapes.astype(np.int64)
    return whole[:, 0], whole[:, 1]


def _of_layers(argument: str, values: Array, count: int) -> Array:
    _require_integers(argument, values)
    if values.shape != (count,):
        reject_value(argument, f"of shape ({count},), one for each layer", values.shape)
    return values.astype(np.int64)


def _require_integers(argument: str, values: object) -> None:
    got = getattr(values, "dtype", type(values).__name__)
    if getattr(got, "kind", "") not in ("i", "u"):
        reject_type(argument, "an array of integers", got)
