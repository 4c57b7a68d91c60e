"""Operations of optimizers."""

from functools import partial

from qloracle.optim.accumulate import REDUCTIONS
from qloracle.optim.options import NONFINITE
from qloracle_conformance.generators import adamw, adamw8bit, adamw_limits, gradients, trajectories
from qloracle_conformance.operations import adamw as judges
from qloracle_conformance.operations import adamw8bit as judges_8bit
from qloracle_conformance.operations import gradients as gradient_judges
from qloracle_conformance.operations import trajectories as trajectory_judges
from qloracle_conformance.operations.operation import Operation

MOMENTS = {"m": "adamw.moments", "v": "adamw.moments"}
SPECIAL = ("gradients", "states")
STATE_BITS = (32, 8)


def operations() -> list[Operation]:
    """Return the operations."""
    return [*_steps(), *_gradients(), *_trajectories()]


def _steps() -> list[Operation]:
    policies = {"nonfinite": NONFINITE}
    states = {
        "absmax_m": "adamw8bit.quantize", "codes_m": "adamw8bit.quantize", "absmax_v": "adamw8bit.quantize",
        "codes_v": "adamw8bit.quantize", "p": "adamw8bit.dequantize",
    }  # fmt: skip
    special = {name: partial(adamw.special_family, family=name) for name in SPECIAL}
    return [
        Operation("adamw.step", "adamw_step", 3, {**MOMENTS, "p": "adamw.parameter"}, judges.judge_step,
                  adamw.families("adamw.step"), judges.step_intermediates, strictest="bound", bound="bounds.adamw"),
        Operation("adamw.nonfinite", "adamw_step", 3, dict.fromkeys("mvp", "adamw.nonfinite"), judges.judge_step,
                  special, judges.step_intermediates, strictest="bound", options=policies),
        Operation("adamw.stochastic", "adamw_step", 3, {**MOMENTS, "p": "adamw.stochastic"}, judges.judge_step,
                  adamw_limits.stochastic_families(), judges.step_intermediates, strictest="bound",
                  options=policies, dtypes=adamw_limits.ROUNDED_FORMATS),
        Operation("adamw.limited", "adamw_step", 3, {**MOMENTS, "p": "clip.update"}, judges.judge_step,
                  adamw_limits.limited_families(), judges.step_intermediates, strictest="bound", bound="bounds.adamw"),
        Operation("adamw8bit.step", "adamw8bit_step", 5, states, judges_8bit.judge_step_8bit, adamw8bit.families(),
                  judges_8bit.step_8bit_intermediates, strictest="bound", bound="bounds.adamw", options=policies),
    ]  # fmt: skip


def _gradients() -> list[Operation]:
    reductions = {"reduction": REDUCTIONS}
    after = dict.fromkeys("mvp", "accumulate.step")
    return [
        Operation("gradient.clip", "clip_by_norm", 2, dict.fromkeys(gradient_judges.TENSORS, "clip.norm"),
                  gradient_judges.judge_clip, gradients.clip_families(), gradient_judges.clip_intermediates,
                  strictest="bound", bound="bounds.clip"),
        Operation("gradient.accumulate", "accumulate_gradients", 1, {"gradient": "accumulate.mean"},
                  gradient_judges.judge_accumulate, gradients.accumulate_families(),
                  gradient_judges.accumulate_intermediates, strictest="bound", bound="bounds.accumulate",
                  options=reductions),
        Operation("accumulate.step", "accumulated_step", 4, {"gradient": "accumulate.mean", **after},
                  gradient_judges.judge_accumulated_step, gradients.accumulated_families(),
                  gradient_judges.accumulate_intermediates, strictest="bound", bound="bounds.accumulate",
                  options=reductions),
    ]  # fmt: skip


def _trajectories() -> list[Operation]:
    bits = {"state_bits": STATE_BITS}
    twice, shown = trajectory_judges.judge_twice, trajectory_judges.trajectory_intermediates
    return [
        Operation("paged.plan", "page_in", 1, {"resident": "paged.plan"}, trajectory_judges.judge_page_in,
                  trajectories.plan_families(), trajectory_judges.plan_intermediates),
        Operation("adamw.paged", "adamw_paged", 6, dict.fromkeys("pmv", "paged.states"), twice,
                  trajectories.trajectory_families("adamw.paged"), shown, options=bits),
        Operation("adamw.resume", "adamw_resumed", 6, dict.fromkeys("pmv", "optim.state"), twice,
                  trajectories.trajectory_families("adamw.resume"), shown, options=bits),
    ]  # fmt: skip
