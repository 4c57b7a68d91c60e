"""One step of the torch optimizers held against the reference: moments and parameter in their bounds, states exactly.

Nothing is cascaded: the parameter is judged given the moments that came with it, 8-bit states given the moments of the
step in 32 bits from the restored states.
"""

from dataclasses import fields

import numpy as np
import torch

import qloracle
import qloracle_gpu.torch as backend
from qloracle.bounds.adamw import adamw_moments_bound
from qloracle.bounds.adamw_parameter import adamw_parameter_bound
from qloracle.formats import Array
from qloracle.tracking.interval import Interval

FORMATS = ("float32", "float16", "bfloat16")
WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def host(tensor: torch.Tensor) -> Array:
    """A tensor as the reference takes it: bfloat16 as its words."""
    found: Array = tensor.contiguous().view(torch.int16).numpy().view(np.uint16) if _is_bf16(tensor) else tensor.numpy()
    return found


def native(values: Array, fmt: str) -> torch.Tensor:
    """Numbers rounded once to a format, as a tensor."""
    bits = qloracle.encode(values, fmt)
    return torch.from_numpy(bits.view(f"i{bits.itemsize}")).view(getattr(torch, fmt))


def reference_options(options: backend.AdamwOptions) -> qloracle.AdamwOptions:
    return qloracle.AdamwOptions(**{field.name: getattr(options, field.name) for field in fields(options)})


def require_same_bits(got: torch.Tensor, expected: torch.Tensor, rule: str) -> None:
    """Fail unless two tensors hold the same bits; any NaN equals any NaN."""
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape), f"{rule}: {got.dtype} {tuple(got.shape)}"
    wrong = got.contiguous().view(WORDS[got.itemsize]) != expected.contiguous().view(WORDS[got.itemsize])
    if got.is_floating_point():
        wrong &= ~(got.isnan() & expected.isnan())
    if wrong.any():
        first = int(wrong.reshape(-1).to(torch.uint8).argmax())
        here, there = got.reshape(-1)[first].item(), expected.reshape(-1)[first].item()
        raise AssertionError(f"{rule}: {int(wrong.sum())} of {wrong.numel()} differ, first {first}: {here} not {there}")


def require_inside(got: torch.Tensor, allowed: Interval, rule: str, random_bits: Array | None = None) -> int:
    """Fail where a number is outside the rounded ends of its interval; return how many were judged."""
    fmt = str(got.dtype).removeprefix("torch.")
    how = {} if random_bits is None else {"rounding": "stochastic", "random_bits": random_bits}
    lo, hi = (qloracle.decode(qloracle.encode(end, fmt, **how), fmt) for end in (allowed.lo, allowed.hi))
    real = got.to(torch.float64).numpy()
    ok = ((lo <= real) & (real <= hi)) | (np.isnan(lo) & np.isnan(real)) | ~allowed.judged
    if not ok.all():
        first = np.unravel_index(np.argmin(ok), ok.shape)
        where = f"{real[first]!r} not in {lo[first]!r} … {hi[first]!r}"
        raise AssertionError(
            f"{rule}: {np.count_nonzero(~ok)} of {ok.size} outside their bound, first {first}: {where}"
        )
    return int(np.count_nonzero(allowed.judged))


def judged_step(
    p: torch.Tensor, gradient: torch.Tensor, state: backend.AdamwState, options: backend.AdamwOptions,
    random_bits: Array | None = None,
) -> tuple[torch.Tensor, backend.AdamwState, int]:  # fmt: skip
    """Make a step and judge it; return what it gives, and how many parameters were judged."""
    chosen, fmt = reference_options(options), str(p.dtype).removeprefix("torch.")
    bits = None if random_bits is None else torch.from_numpy(random_bits)
    given = [tensor.clone() for tensor in (p, gradient, state.m, state.v)]
    new, after = backend.adamw_step(p, gradient, state, options, random_bits=bits)
    for tensor, before in zip((p, gradient, state.m, state.v), given, strict=True):
        require_same_bits(tensor, before, "an input after the step")
    m, v = host(state.m), host(state.v)
    bounds = adamw_moments_bound(host(gradient), m, v, chosen, fmt=fmt)
    for name, got, allowed in zip("mv", (after.m, after.v), bounds, strict=True):
        require_inside(got, allowed, f"{name} of {fmt}, step {after.step}, {options}")
    allowed = adamw_parameter_bound(host(p), host(after.m), host(after.v), chosen, step=after.step, fmt=fmt)
    if options.nonfinite != "propagate":
        kept = ~np.isfinite(gradient.float().numpy())
        old = p.double().numpy()
        lo, hi = (np.where(kept, old, end) for end in (allowed.lo, allowed.hi))
        allowed = Interval(lo, hi, allowed.judged | kept)
    return new, after, require_inside(new, allowed, f"p of {fmt}, step {after.step}, {options}", random_bits)


def judged_step_8bit(
    p: torch.Tensor, gradient: torch.Tensor, state: backend.Adamw8bitState, options: backend.AdamwOptions,
    random_bits: Array | None = None,
) -> tuple[torch.Tensor, backend.Adamw8bitState, int]:  # fmt: skip
    """Make a step with states in 8 bits and judge it; return what it gives, and how many parameters were judged."""
    restored = qloracle.dequantize_moments(
        qloracle.Adamw8bitState(*(host(part) for part in state.tensors), state.step, state.block_size), tuple(p.shape)
    )
    mine = backend.dequantize_moments(state, tuple(p.shape))
    plain = backend.AdamwState(torch.from_numpy(restored.m), torch.from_numpy(restored.v), state.step)
    require_same_bits(mine.m, plain.m, "restored m")
    require_same_bits(mine.v, plain.v, "restored v")
    expected, moments, judged = judged_step(p, gradient, plain, options, random_bits)
    bits = None if random_bits is None else torch.from_numpy(random_bits)
    given = [tensor.clone() for tensor in state.tensors]
    new, after = backend.adamw8bit_step(p, gradient, state, options, random_bits=bits)
    for tensor, before in zip(state.tensors, given, strict=True):
        require_same_bits(tensor, before, "the state after the step")
    case = f"{p.dtype}, step {after.step}, blocks of {state.block_size}, {options}"
    require_same_bits(new, expected, f"p of {case}")
    wanted = qloracle.quantize_moments(
        qloracle.AdamwState(host(moments.m), host(moments.v), moments.step), block_size=state.block_size
    )
    for name in ("codes_m", "absmax_m", "codes_v", "absmax_v"):
        require_same_bits(getattr(after, name), torch.from_numpy(getattr(wanted, name)), f"{name} of {case}")
    assert (after.step, after.block_size) == (state.step + 1, state.block_size)
    return new, after, judged


def _is_bf16(tensor: torch.Tensor) -> bool:
    return tensor.dtype is torch.bfloat16
