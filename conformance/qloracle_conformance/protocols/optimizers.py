"""Signatures of optimizers: AdamW with float32, 8-bit and paged states, limits on norms, gradient accumulation.

`step` is the number of the step that is made, from 1; hyperparameters are Python floats.
"""

from typing import Any, Protocol

Native = Any


class AdamwStep(Protocol):
    """``adamw_step``: operations adamw.step, adamw.nonfinite, adamw.stochastic and adamw.limited."""

    def __call__(
        self, p: Native, gradient: Native, m: Native, v: Native, random_bits: Native | None, *, step: int, lr: float,
        beta1: float, beta2: float, eps: float, weight_decay: float, nonfinite: str, max_update_norm: float | None,
    ) -> tuple[Native, Native, Native]:  # fmt: skip
        """Return p' in the format of p and the new moments in float32; arguments are passed by name.

        `random_bits` (uint32, the shape of p) asks for stochastic rounding of p'.
        """
        ...


class Adamw8bitStep(Protocol):
    """``adamw8bit_step``: operation adamw8bit.step."""

    def __call__(
        self, p: Native, gradient: Native, codes_m: Native, absmax_m: Native, codes_v: Native, absmax_v: Native, *,
        step: int, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, nonfinite: str,
        block_size: int,
    ) -> tuple[Native, Native, Native, Native, Native]:  # fmt: skip
        """Return p', codes of m' (uint8, 1-d), absmax of m' (float32, one a block), and both of v'."""
        ...


class ClipByNorm(Protocol):
    """``clip_by_norm``: operation gradient.clip, two tensors with one norm. Clause [clip.norm]."""

    def __call__(self, first: Native, second: Native, *, max_norm: float) -> tuple[Native, Native]:
        """Return both tensors, scaled by the same factor, in their format."""
        ...


class AccumulateGradients(Protocol):
    """``accumulate_gradients``: operation gradient.accumulate. Clause [accumulate.mean]."""

    def __call__(self, gradients: Native, counts: Native, *, reduction: str) -> Native:
        """Return one gradient in the format of `gradients` (N, ...); `counts` is int64 of shape (N,)."""
        ...


class AccumulatedStep(Protocol):
    """``accumulated_step``: operation accumulate.step, N micro-batches and one step of AdamW."""

    def __call__(
        self, p: Native, gradients: Native, counts: Native, m: Native, v: Native, *, reduction: str, step: int,
        lr: float, beta1: float, beta2: float, eps: float, weight_decay: float,
    ) -> tuple[Native, Native, Native, Native]:  # fmt: skip
        """Return the accumulated gradient and p' in the format of p, and the new moments in float32."""
        ...


class PageIn(Protocol):
    """``page_in``: operation paged.plan. Clause [paged.plan]."""

    def __call__(self, sizes: Native, accesses: Native, *, budget: int) -> Native:
        """Return which states are on the device after each access: bool of shape (accesses, states).

        `sizes` (int64) are bytes; `accesses` (int64) are indices of states, fetched in turn from an empty device.
        """
        ...


class AdamwPaged(Protocol):
    """``adamw_paged``: operation adamw.paged, one trajectory twice: under a budget, and with all states in place."""

    def __call__(
        self, p: Native, gradients: Native, *, sizes: tuple[int, ...], budget: int, state_bits: int, lr: float,
        beta1: float, beta2: float, eps: float, weight_decay: float,
    ) -> tuple[Native, Native, Native, Native, Native, Native]:  # fmt: skip
        """Return p, m and v after all steps with paged states, then the same three with states that stay in place.

        p (1-d) holds tensors of `sizes` elements in a row; `gradients` is (steps, p.size); states begin at 0; states of
        at most `budget` elements fit the device. m and v are float32, dequantized where `state_bits` is 8.
        """
        ...


class AdamwResumed(Protocol):
    """``adamw_resumed``: operation adamw.resume, one trajectory twice: saved and loaded on the way, and in one go."""

    def __call__(
        self, p: Native, gradients: Native, *, split: int, state_bits: int, lr: float, beta1: float, beta2: float,
        eps: float, weight_decay: float,
    ) -> tuple[Native, Native, Native, Native, Native, Native]:  # fmt: skip
        """Return p, m and v after all steps with save and load after `split` of them, then the same without."""
        ...


PROTOCOLS: dict[str, type] = {
    "adamw_step": AdamwStep,
    "adamw8bit_step": Adamw8bitStep,
    "clip_by_norm": ClipByNorm,
    "accumulate_gradients": AccumulateGradients,
    "accumulated_step": AccumulatedStep,
    "page_in": PageIn,
    "adamw_paged": AdamwPaged,
    "adamw_resumed": AdamwResumed,
}
