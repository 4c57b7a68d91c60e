"""Which weights of a model get adapters, and of which shapes. Clause: ``[footprint.adapters]``."""

from collections.abc import Sequence

from qloracle.errors import reject_value, require_positive_integer
from qloracle.footprint.model import SKIPPED, quantized_tensors, require_tensors
from qloracle.footprint.tensors import ModelTensor
from qloracle.targets import ALL_LINEAR, select_targets


def adapter_shapes(
    tensors: Sequence[ModelTensor], rank: int, targets: Sequence[str] | str = ALL_LINEAR
) -> tuple[tuple[int, int], ...]:
    """Return the shapes of A and B of every adapted weight, one after the other.

    A is (r, d_in) and B (d_out, r): r·(d_in + d_out) trained numbers for a weight of d_in·d_out.

    Parameters
    ----------
    tensors : sequence of ModelTensor
    rank : int
        At most the smaller side of every adapted weight.
    targets : str or sequence of str
        Names of linear or embedding modules as in `targets.select_targets`: in full or their last components, or a
        regular expression. "all-linear" adapts every linear layer but the language-model head.

    Returns
    -------
    tuple of shapes

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If the rank is no positive integer or too large, or no linear or embedding layer is selected.

    Notes
    -----
    Clause ``[footprint.adapters]``. Source: Hu et al. 2021, "LoRA", section 4.1. Integers only.

    Examples
    --------
    >>> from qloracle.footprint.tensors import named_tensors
    >>> shapes = adapter_shapes(named_tensors([("big.weight", (100_000, 400_000))]), 10, ["big"])
    >>> shapes, sum(rows * columns for rows, columns in shapes)
    (((10, 400000), (100000, 10)), 5000000)
    """
    rank = require_positive_integer("rank", rank)
    layers = [t for t in require_tensors(tensors) if t.kind in ("linear", "embedding")]
    modules = [t.name.removesuffix(".weight") for t in layers]
    linear = quantized_tensors(layers, skip=SKIPPED) if isinstance(targets, str) and targets == ALL_LINEAR else None
    shapes: list[tuple[int, int]] = []
    for tensor, chosen in zip(layers, select_targets(modules, targets, linear=linear), strict=True):
        d_out, d_in = tensor.matrix
        if chosen and rank > min(d_out, d_in):
            reject_value("rank", f"at most {min(d_out, d_in)}, the smaller side of {tensor.name}", rank)
        shapes += [(rank, d_in), (d_out, rank)] if chosen else []
    return tuple(shapes)
