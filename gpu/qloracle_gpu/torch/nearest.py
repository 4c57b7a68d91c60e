"""The nearest code, exactly, at the speed of a table: guess in float32, decide in float64 only near a boundary.

So it is on a CPU; where no kernel takes a tensor of another device, every element is decided in float64.

Codes depend on q = x/absmax alone, and |q| ≤ 1. The interval [−1, 1] is cut into cells, even in sign(q)·√|q| because
8-bit maps crowd around zero. A cell that no boundary comes near holds the code of all its numbers; every other one
holds `UNDECIDED`, and the elements that land there (about 0.03 % for NF4) are decided from x and absmax themselves.

Why a guess is never wrong. With q the real quotient and p = 2^15·√|q| its distance from the middle in cells: a float32
quotient within 8 half-units of q gives a root within 2^−22·√|q|, the root's own rounding adds at most as much, and
placing it in [0, 2^16 + 3] adds two roundings of 2^−8, which makes at most 2^−6 + 2^−7 cells. A quotient that
underflows is off by less than 2^−126, its root by less than 2^−63. Both are below `MARGIN`. Nothing here needs a
correctly rounded quotient or root, but subnormal absmax must be told from zero, which a device that flushes them
(Apple's) does not do.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from qloracle_gpu.torch.formats import NAMES, float64_device
from qloracle_gpu.torch.kernels.compiled_loops import broadcast_steps, count_by_loop, loops_take
from qloracle_gpu.torch.pieces import LOOP_PIECE, shared_by, tiles, work_through

CELLS = 1 << 15  # on either side of zero
MARGIN = 1 / 16  # of a cell
UNDECIDED = torch.iinfo(torch.int16).min


@dataclass(frozen=True)
class NearestRule:
    """What decides a code."""

    cells: Tensor  # int16, the code of each cell or UNDECIDED, on the device of the data
    exact: Callable[[Tensor, Tensor], Tensor]  # codes (int16) of x given absmax, both float64, decided exactly


def cell_table(boundaries: Tensor, codes: Tensor) -> Tensor:
    """Return the code of every cell.

    Parameters
    ----------
    boundaries : tensor of float64, ascending, within [−1, 1]
        Where the code changes.
    codes : tensor of int16, one longer than `boundaries`
        The codes between them, in ascending order of value.

    Returns
    -------
    tensor of int16, shape (2·CELLS + 3,)
        One cell more at each end, for quotients that a division inexactly rounds beyond ±1.
    """
    roots = boundaries.abs().sqrt().copysign(boundaries)
    cell = torch.arange(2 * CELLS + 3, dtype=torch.float64, device=boundaries.device) - (CELLS + 1)
    first = torch.bucketize((cell - MARGIN) / CELLS, roots)
    last = torch.bucketize((cell + 1 + MARGIN) / CELLS, roots, right=True)
    return torch.where(first == last, codes[first], UNDECIDED)


def write_nearest_codes(x: Tensor, absmax: Tensor, rule: NearestRule, out: Tensor) -> None:
    """Write the code of every element of a matrix.

    Parameters
    ----------
    x : tensor of float32, float16 or bfloat16, 2-d
    absmax : tensor of float32 that broadcasts to `x`, at least max |x| of what shares it
        Where it is 0 or NaN, the code is that of a zero.
    rule : NearestRule
    out : tensor of uint8 or int8, the shape of `x`
        Written.
    """

    def write_piece(tile: tuple[slice, slice]) -> None:
        part, scale = x[tile], shared_by(tile, absmax)
        divisor = torch.where(scale.isfinite() & (scale != 0), scale, torch.inf)
        found = _looked_up(part, divisor, rule) if x.device.type == "cpu" else _decide(part, divisor, rule)
        out[tile] = found

    work_through(tiles(x, LOOP_PIECE if loops_take(x) else None), write_piece, x)


def _looked_up(part: Tensor, divisor: Tensor, rule: NearestRule) -> Tensor:
    """Return the codes of a matrix by the table, and by the rule where that leaves them open.

    How many these are has to be looked at, which on another device than a CPU would wait for it.
    """
    codes, positions = (_guessed_by_loop if loops_take(part) else _guessed)(part, divisor, rule.cells)
    if positions.numel():
        rows, columns = positions // part.shape[1], positions % part.shape[1]
        exact = _decide(part[rows, columns], divisor.expand_as(part)[rows, columns], rule)
        codes[positions] = exact.to(codes.dtype)
    return codes.view_as(part)


def _guessed_by_loop(part: Tensor, divisor: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Return as `_guessed` does, the codes as uint8: of a negative one, its last eight bits."""
    codes = torch.empty(part.numel(), dtype=torch.uint8)
    undecided = torch.empty(part.numel() + 1, dtype=torch.int64)
    found = count_by_loop(
        f"guess_{NAMES[part.dtype]}", part.contiguous(), divisor, *broadcast_steps(divisor), cells, CELLS, *part.shape,
        codes, undecided,
    )  # fmt: skip
    return codes, undecided[:found]


def _guessed(part: Tensor, divisor: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Return the codes of a matrix as a 1-d tensor, and the positions of those that the table leaves open."""
    codes = _guess(part.to(torch.float32) / divisor, cells)
    return codes, (codes == UNDECIDED).nonzero().squeeze(1)


def _guess(quotient: Tensor, cells: Tensor) -> Tensor:
    """Return the code or `UNDECIDED` for every quotient, as a 1-d tensor; NaN, from ±inf/inf, counts as zero."""
    quotient.nan_to_num_(0.0)
    place = quotient.abs().sqrt_().copysign_(quotient).mul_(CELLS).add_(CELLS + 1)
    return torch.index_select(cells, 0, place.to(torch.int32).reshape(-1))


def _decide(x: Tensor, divisor: Tensor, rule: NearestRule) -> Tensor:
    """Return the codes of elements from the rule itself."""
    capable = float64_device(x.device)
    codes = rule.exact(x.to(capable).to(torch.float64), divisor.to(capable).to(torch.float64))
    return codes.to(x.device)
