"""A limit on the norm of gradients, before the step. Clause: ``[clip.norm]``."""

from collections.abc import Sequence
from math import inf

import torch
from torch import Tensor

from qloracle.errors import reject_type, reject_value, require_number
from qloracle_gpu.torch.formats import float64_device, require_tensor_format
from qloracle_gpu.torch.optim.update import factor_to, sum_of_squares
from qloracle_gpu.torch.pieces import piece_size, spans, work_through


def clip_by_norm(values: Sequence[Tensor], max_norm: float) -> list[Tensor]:
    """Scale tensors down together until their common norm is at most `max_norm`.

    values ← c·values, with c = min(1, max_norm/‖values‖) and ‖values‖ = √Σ values_i² over all elements of all tensors.

    Parameters
    ----------
    values : sequence of tensors of float32, float16 or bfloat16
        Each on any device.
    max_norm : float
        Positive and finite.

    Returns
    -------
    list of tensors of the formats of `values`
        New ones, each on the device of its own.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `values` is no sequence of tensors, or `max_norm` no positive finite number.

    Notes
    -----
    Clause ``[clip.norm]``. Nothing is added to the norm, so that a norm of exactly `max_norm` changes nothing. If an
    element is not finite nothing is scaled: what becomes of it is the optimizer's own rule. Squares, their sum and the
    root are float64, which no float32 number overflows; nothing waits for the device. Rounding points: c to float32;
    the product to float32; that to the format.

    Examples
    --------
    >>> clip_by_norm([torch.tensor([3.0]), torch.tensor([[4.0]])], 2.5)
    [tensor([1.5000]), tensor([[2.]])]
    """
    if not isinstance(values, list | tuple):
        reject_type("values", "a list or tuple of tensors", type(values).__name__)
    max_norm = require_number("max_norm", max_norm)
    if not 0 < max_norm < inf:
        reject_value("max_norm", "positive and finite", max_norm)
    given = [require_tensor_format("values", tensor) for tensor in values]
    if not given:
        return []
    home = float64_device(given[0].device)
    norm = torch.stack([sum_of_all(tensor).to(home) for tensor in given]).sum().sqrt()
    factor = factor_to(norm, torch.full_like(norm, max_norm))
    return [(tensor.to(torch.float32) * factor.to(tensor.device)).to(tensor.dtype) for tensor in given]


def sum_of_all(tensor: Tensor) -> Tensor:
    """Return Σ values² of a large tensor, piece by piece in an order that is always the same."""
    flat = tensor.reshape(-1)
    pieces = spans(flat.numel(), piece_size(flat.device))
    sums = [sum_of_squares(flat[:0])] * max(len(pieces), 1)

    def measure(index: int) -> None:
        sums[index] = sum_of_squares(flat[pieces[index]])

    work_through(range(len(pieces)), measure, flat)
    return torch.stack(sums).sum()
