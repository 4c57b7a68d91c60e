"""A limit on the common norm of gradients. Clause: ``[clip.norm]``."""

from collections.abc import Sequence

import numpy as np

from qloracle.errors import reject_type, reject_value, require_number
from qloracle.formats import Format
from qloracle_gpu.cupy.arrays import carrier, flat_words
from qloracle_gpu.cupy.launcher import Array, Operation, operation
from qloracle_gpu.cupy.norms import SUMMED_PART, limit_factor, sum_squares
from qloracle_gpu.cupy.operands import require_operand
from qloracle_gpu.cupy.vectors import ITEMS


def clip_by_norm(values: Sequence[Array], max_norm: float, *, fmt: str | None = None) -> list[Array]:
    """Scale tensors down together until their common norm is at most `max_norm`.

    values ← RN(c·values), with c = min(1, max_norm/‖values‖) and ‖values‖ = √Σ values_i² over all elements of all
    tensors.

    Parameters
    ----------
    values : sequence of arrays of float32, float16 or bfloat16
    max_norm : float
        Positive and finite.
    fmt : str, optional
        Format of arrays that are given as bit patterns.

    Returns
    -------
    list of arrays, each in the shape and the format of its tensor; bfloat16 as uint16 words
        New ones. Nothing waits for the device: the norm and the factor stay there.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `values` is no sequence of tensors, or `max_norm` no positive finite number.

    Notes
    -----
    Clause ``[clip.norm]``. If an element is not finite nothing is scaled. Norm and factor are computed in float64; the
    product is rounded to float32, then to the format of the tensor.
    """
    if not isinstance(values, list | tuple):
        reject_type("values", "a list or tuple of arrays", type(values).__name__)
    max_norm = require_number("max_norm", max_norm)
    if not 0 < max_norm < np.inf:
        reject_value("max_norm", "positive and finite", max_norm)
    tensors = [require_operand("values", tensor, fmt) for tensor in values]
    with operation("clip_by_norm", **{f"values[{i}]": tensor for i, (tensor, _) in enumerate(tensors)}) as run:
        given = [(flat_words(run, tensor), named) for tensor, named in tensors]
        factor = limit_factor(run, _squares(run, given), max_norm)
        scaled = [_scaled(run, words, named, factor) for words, named in given]
        return [made.reshape(tensor.shape) for made, (tensor, _) in zip(scaled, tensors, strict=True)]


def _squares(run: Operation, tensors: list[tuple[Array, Format]]) -> Array:
    """Return the partial sums of the squares of all tensors."""
    counts = [-(-words.size // SUMMED_PART) for words, _ in tensors]
    parts, first = run.empty(sum(counts), "float64"), 0
    for (words, named), count in zip(tensors, counts, strict=True):
        sum_squares(run, words, named, parts[first : first + count])
        first += count
    return parts


def _scaled(run: Operation, words: Array, named: Format, factor: Array) -> Array:
    out = run.empty(words.size, carrier(named))
    arguments = (words, np.int64(words.size), factor, out)
    run.launch("gradients", f"scale_by_{named.name}", -(-words.size // ITEMS), arguments)
    return out
