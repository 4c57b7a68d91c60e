"""One step of AdamW on flat tensors, in place: float32 operations, each rounded once, the same ones as the kernel's.

    m' = β₁·m + (1 − β₁)·g        v' = β₂·v + ((1 − β₂)·g)·g
    u = m' / (√v'·(1/√(1 − β₂^t)) + eps)        p' = RN(p·(1 − lr·wd) − u·(lr/(1 − β₁^t))·c)

What stands in brackets without an element is a constant that is rounded once, see `options`. Torch's products, sums and
divisions round correctly on CPUs and GPUs, and nothing here is contracted, so that eager code and kernel give the same
bits. With a limit on the norm of u the factor c comes from norms in float64, in two passes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from qloracle_gpu.torch.casts import on_capable_device
from qloracle_gpu.torch.formats import NAMES
from qloracle_gpu.torch.kernels.availability import kernels_run_on
from qloracle_gpu.torch.optim.options import StepConstants
from qloracle_gpu.torch.pieces import piece_size, spans, work_through
from qloracle_gpu.torch.rounding import encode


@dataclass(frozen=True)
class FlatStep:
    """A parameter and what moves it: contiguous 1-d tensors on one device."""

    p: Tensor  # float32, float16 or bfloat16; written
    gradient: Tensor  # of the format of p
    random_bits: Tensor | None  # uint32: round p' stochastically

    def part(self, span: slice) -> "FlatStep":
        """Return some of the elements."""
        bits = self.random_bits
        return FlatStep(self.p[span], self.gradient[span], None if bits is None else bits[span])


def step_in_place(given: FlatStep, m: Tensor, v: Tensor, constants: StepConstants) -> None:
    """Make a step with moments in float32: write p', m' and v' over p, m and v.

    Parameters
    ----------
    given : FlatStep
    m, v : tensor of float32, 1-d, contiguous
    constants : StepConstants
    """
    if constants.max_update_norm is not None:
        _limited_step(given, m, v, constants)
    elif kernels_run_on(given.p.device.type):
        from qloracle_gpu.torch.kernels.adamw import step_flat

        step_flat(given.p, given.gradient, given.random_bits, m, v, constants, NAMES[given.p.dtype])
    else:
        pieces = spans(given.p.numel(), piece_size(given.p.device))
        work_through(pieces, lambda span: step_piece(given.part(span), m[span], v[span], constants), given.p)


def step_piece(given: FlatStep, m: Tensor, v: Tensor, constants: StepConstants) -> None:
    """Make a step with some elements, without a limit on the norm."""
    _write_moments(given.gradient, m, v, constants)
    _write_parameter(given, m, v, constants, None)


def new_moments(gradient: Tensor, m: Tensor, v: Tensor, constants: StepConstants) -> tuple[Tensor, Tensor]:
    """Return both moments after a step as float32."""
    g = gradient.to(torch.float32)
    new_m, new_v = g * constants.gain1, (g * constants.gain2).mul_(g)
    new_m.add_(m * constants.beta1)
    new_v.add_(v * constants.beta2)
    if constants.nonfinite == "propagate":
        return new_m, new_v
    lost = ~g.isfinite()
    if constants.nonfinite == "skip":
        return torch.where(lost, m, new_m), torch.where(lost, v, new_v)
    return new_m.masked_fill_(lost, 0.0), new_v.masked_fill_(lost, 0.0)


def update_of(m: Tensor, v: Tensor, constants: StepConstants) -> Tensor:
    """Return m'/(√v'/√(1 − β₂^t) + eps), which the learning rate and 1/(1 − β₁^t) still multiply."""
    return m / _root(v).mul_(constants.root).add_(constants.eps)


def new_parameter(p: Tensor, update: Tensor, constants: StepConstants, limit: Tensor | None) -> Tensor:
    """Return p' as float32, before it is rounded to its format; the update is used up."""
    update.mul_(constants.rate)
    if limit is not None:
        update.mul_(limit)
    return (p.to(torch.float32) * constants.decay).sub_(update)


def limit_of(update: Sequence[Tensor], p: Sequence[Tensor], constants: StepConstants) -> Tensor | None:
    """Return the factor that keeps ‖c·û‖ to at most max_update_norm·‖p‖, û = update/(1 − β₁^t), or None without limit.

    Both are given as sums of squares of their parts; the factor stays on the device.
    """
    if constants.max_update_norm is None:
        return None
    norm, size = (torch.stack(list(squares)).sum().sqrt() for squares in (update, p))
    return factor_to(norm * constants.correction, size * constants.max_update_norm)


def factor_to(norm: Tensor, limit: Tensor) -> Tensor:
    """Return c = limit/norm as float32 where norm exceeds limit and both are finite, else 1."""
    active = norm.isfinite() & limit.isfinite() & (norm > limit)
    return torch.where(active, limit / norm, torch.ones_like(norm)).to(torch.float32)


def sum_of_squares(values: Tensor) -> Tensor:
    """Return Σ values² in float64, which no float32 number overflows."""
    return on_capable_device(values).to(torch.float64).square_().sum()


def _root(v: Tensor) -> Tensor:
    """Return RN_float32(√v). Torch's own root on a CPU is off by an ulp for one number in six (MKL's, PyTorch 2.13).

    √v of a float32 is at least 2^−50 of itself away from the middle between two of them, unless it is one itself, and
    a root in float64, even if it is off by an ulp, 2^−52 from √v. So it lies on the same side.
    """
    if v.device.type != "cpu":
        return v.sqrt()
    return v.to(torch.float64).sqrt_().to(torch.float32)


def _write_moments(gradient: Tensor, m: Tensor, v: Tensor, constants: StepConstants) -> None:
    for moment, new in zip((m, v), new_moments(gradient, m, v, constants), strict=True):
        moment.copy_(new)


def _write_parameter(given: FlatStep, m: Tensor, v: Tensor, constants: StepConstants, limit: Tensor | None) -> None:
    new = new_parameter(given.p, update_of(m, v, constants), constants, limit)
    if constants.nonfinite != "propagate":
        new = torch.where(given.gradient.isfinite(), new, given.p.to(torch.float32))
    if given.random_bits is not None:
        new = encode(new, NAMES[given.p.dtype], rounding="stochastic", random_bits=given.random_bits)
    given.p.copy_(new)


def _limited_step(given: FlatStep, m: Tensor, v: Tensor, constants: StepConstants) -> None:
    """Make a step whose update has a limit on its norm, that of all elements: moments first, then the parameter."""
    pieces = spans(given.p.numel(), piece_size(given.p.device))
    if not pieces:
        return
    updates, sizes = [m[:0]] * len(pieces), [m[:0]] * len(pieces)

    def measure(index: int) -> None:
        span = pieces[index]
        _write_moments(given.gradient[span], m[span], v[span], constants)
        updates[index] = sum_of_squares(update_of(m[span], v[span], constants))
        sizes[index] = sum_of_squares(given.p[span])

    work_through(range(len(pieces)), measure, given.p)
    limit = limit_of(updates, sizes, constants)
    write = partial(_write_parameter, constants=constants, limit=None if limit is None else limit.to(m.device))
    work_through(pieces, lambda span: write(given.part(span), m[span], v[span]), given.p)
