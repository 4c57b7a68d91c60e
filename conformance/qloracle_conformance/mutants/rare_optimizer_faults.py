"""Optimizers that are wrong for what is rarely given: late steps, zeros, many tokens, long states, large gradients."""

from dataclasses import replace
from typing import Any

import numpy as np

from qloracle.formats import FLOAT32, Array
from qloracle.rounding import encode
from qloracle_conformance.adapters.reference.optimizers import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.adamw_kernel import Kernel, Values, adamw_with
from qloracle_conformance.mutants.mutant import Mutant
from qloracle_conformance.mutants.two_paths import Arguments, with_changed, with_items

KERNEL = Kernel()
PAGE = 4096  # bytes
_OUT_OF_RANGE = 2.0**64  # its square is no float32 number


def _sixteen_bits(step: int, arguments: Arguments) -> int:
    return max(1, step & 0xFFFF)


def _at_most_1024(step: int, arguments: Arguments) -> int:
    return min(step, 1024)


def _default_if_zero(lr: float, arguments: Arguments) -> float:
    """Take a rate of 0 for one that was not given."""
    return lr or 1e-3


def _clamped(gradient: HostArray, arguments: Arguments) -> HostArray:
    """Keep finite gradients where their squares are finite."""
    real = gradient.real()
    beyond = np.isfinite(real) & (np.abs(real) > _OUT_OF_RANGE)
    limit = np.copysign(np.float32(_OUT_OF_RANGE), real)
    return gradient if gradient.dtype != "float32" else with_items(gradient, np.where(beyond, limit, gradient.items))


def _nan_reset(**arguments: Any) -> Any:
    """Replace parameters that are NaN by 0."""
    p = arguments["p"]
    kept = with_items(p, np.where(np.isnan(p.real()), np.zeros((), p.items.dtype), p.items))
    return OPS["adamw_step"](**{**arguments, "p": kept})


def _without_limit_of_zeros(**arguments: Any) -> Any:
    """Limit no update of a parameter of zeros, whose norm gives no scale."""
    limit = arguments["max_update_norm"] if np.any(arguments["p"].real()) else None
    return OPS["adamw_step"](**{**arguments, "max_update_norm": limit})


def _flushed(absmax: HostArray, arguments: Arguments) -> HostArray:
    small = np.abs(absmax.items) < 2.0**FLOAT32.minimum_exponent
    return host(np.where(small, np.float32(0), absmax.items))


def _stored_flushed(**arguments: Any) -> Any:
    """Store a subnormal absmax of either moment as 0."""
    p, codes_m, absmax_m, codes_v, absmax_v = OPS["adamw8bit_step"](**arguments)
    return p, codes_m, _flushed(absmax_m, arguments), codes_v, _flushed(absmax_v, arguments)


def _zero_by_zero(*, first: HostArray, second: HostArray, max_norm: float) -> tuple[HostArray, ...]:
    """Divide a limit by a norm of 0 where both are multiplied in."""
    norm = np.sqrt(sum(np.sum(np.square(t.real())) for t in (first, second)))
    clipped = OPS["clip_by_norm"](first=first, second=second, max_norm=max_norm)
    if norm:
        return tuple(clipped)
    return tuple(host(np.asarray(encode(np.full(t.shape, np.nan), t.dtype)), t.dtype) for t in clipped)


def _in_32_bits(counts: HostArray, arguments: Arguments) -> HostArray:
    """Count tokens in 32 bits."""
    whole = counts.items.astype(np.int64)
    return host(whole & 0xFFFFFFFF)


def _at_least_one(counts: HostArray, arguments: Arguments) -> HostArray:
    return host(np.maximum(counts.items, 1))


def _first_page(**arguments: Any) -> Any:
    """Bring back only the first page of each moment of a state that waited on the host."""
    found, sizes = list(OPS["adamw_paged"](**arguments)), arguments["sizes"]
    if arguments["budget"] < sum(sizes):
        place = np.concatenate([np.arange(size) for size in sizes]) * (arguments["state_bits"] // 8)
        for moment in (1, 2):
            found[moment] = host(np.where(place >= PAGE, np.float32(0), found[moment].items))
    return tuple(found)


def _bytes_in_32_bits(**arguments: Any) -> Any:
    """Count the bytes of a budget, and those in use, in 32 bits."""
    wrapped = max(int(np.max(arguments["sizes"].items)), arguments["budget"] & 0xFFFFFFFF)
    return OPS["page_in"](**{**arguments, "budget": wrapped})


def _flushed_root(x: Values) -> Array:
    """Take the root of a subnormal second moment for 0, as an approximate root does that flushes."""
    return KERNEL.denominator(replace(x, v=np.where(x.v < 2.0**FLOAT32.minimum_exponent, 0.0, x.v)))


def _policy_forgotten(**arguments: Any) -> Any:
    """Let gradients that are not finite through wherever the parameter is rounded by random bits."""
    policy = "propagate" if arguments["random_bits"] is not None else arguments["nonfinite"]
    return OPS["adamw_step"](**{**arguments, "nonfinite": policy})


def rare_optimizer_faults() -> list[Mutant]:
    """Return the mutants of optimizers, clipping, accumulation and paging."""
    moments = ("m", "v", "p")
    return [
        Mutant("adamw-step-16-bits", "the step is kept in 16 bits",
               {"adamw_step": with_changed("adamw_step", step=_sixteen_bits)}, ("p",)),
        Mutant("adamw-root-flushed", "the root of a subnormal second moment is 0",
               {"adamw_step": adamw_with(Kernel(denominator=_flushed_root))}, ("p",)),
        Mutant("adamw-stochastic-policy-forgotten", "a step with random bits lets every gradient through",
               {"adamw_step": _policy_forgotten}, moments, operations="adamw.stochastic"),
        Mutant("adamw-gradient-clamped", "gradients whose squares overflow are clamped",
               {"adamw_step": with_changed("adamw_step", gradient=_clamped)}, moments),
        Mutant("adamw-nan-parameter-reset", "parameters that are NaN become 0", {"adamw_step": _nan_reset}, ("p",)),
        Mutant("update-limit-of-zeros-missing", "updates of a parameter of zeros have no limit",
               {"adamw_step": _without_limit_of_zeros}, ("p",)),
        Mutant("adamw8bit-step-1024", "steps after the 1024th are corrected like that one",
               {"adamw8bit_step": with_changed("adamw8bit_step", step=_at_most_1024)}, ("p",)),
        Mutant("adamw8bit-rate-default", "a learning rate of 0 is taken for one not given",
               {"adamw8bit_step": with_changed("adamw8bit_step", lr=_default_if_zero)}, ("p",)),
        Mutant("adamw8bit-absmax-flushed", "a subnormal absmax is stored as 0",
               {"adamw8bit_step": _stored_flushed}, ("absmax_m", "absmax_v")),
        Mutant("clip-zero-by-zero", "the limit is divided by a norm of 0", {"clip_by_norm": _zero_by_zero},
               ("first", "second")),
        Mutant("accumulate-counts-32-bits", "tokens are counted in 32 bits",
               {"accumulate_gradients": with_changed("accumulate_gradients", counts=_in_32_bits)}, ("gradient",)),
        Mutant("accumulated-step-empty-counted", "a micro-batch without tokens counts as one token",
               {"accumulated_step": with_changed("accumulated_step", counts=_at_least_one)}, ("gradient",)),
        Mutant("paged-first-page", "only the first page of a moment comes back", {"adamw_paged": _first_page}, moments),
        Mutant("paging-bytes-32-bits", "bytes are counted in 32 bits", {"page_in": _bytes_in_32_bits}, ("resident",)),
    ]  # fmt: skip
