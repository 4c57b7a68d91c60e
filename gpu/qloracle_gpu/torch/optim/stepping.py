"""What the optimizers of this package share: `torch.optim.Optimizer` around steps in place."""

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from qloracle.errors import reject_value, require_items, require_mapping
from qloracle_gpu.torch.optim.capturing import (
    ConstantsOnDevice,
    is_capturable,
    require_capture_wanted,
    require_not_capturing,
)
from qloracle_gpu.torch.optim.groups import (
    Group,
    Moving,
    block_size_of,
    fitted_group,
    listed_parameters,
    moving_parameters,
    numbered,
    options_of,
    random_bits_of,
)
from qloracle_gpu.torch.optim.operands import flat
from qloracle_gpu.torch.optim.options import step_constants
from qloracle_gpu.torch.optim.pager import Paging, StatePager
from qloracle_gpu.torch.optim.states import (
    NAMES_8BIT,
    NAMES_32BIT,
    State,
    initial_state,
    loaded_state,
    make_step,
    size_of_state,
    step_number,
    steps_done,
)
from qloracle_gpu.torch.optim.update import FlatStep

CPU = torch.device("cpu")


class SteppingOptimizer(Optimizer):
    """An optimizer whose steps are `adamw_step` or `adamw8bit_step`, in place, with states that may be paged."""

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any], paging: Paging | None = None) -> None:
        """Check all groups; nothing is allocated before the first step."""
        self._paging = paging
        self._pager = None if paging is None else StatePager(paging)
        self._constants = ConstantsOnDevice()
        super().__init__(params, defaults)

    def add_param_group(self, param_group: Group) -> None:
        """Add a group, as `torch.optim.Optimizer.add_param_group`.

        Raises
        ------
        ArgumentTypeError, ArgumentValueError
            If a parameter is not dense or of another format than float32, float16 and bfloat16, or a hyperparameter is
            out of its range. Nothing is added then.
        """
        params = listed_parameters(param_group)
        whole = {**self.defaults, **param_group}
        options_of(whole)
        if self._paging is not None:
            for index, p in enumerate(params):
                size = size_of_state(p, block_size_of(p, whole))
                self._paging.require_room(f"parameter {index} of the group", size)
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step with every parameter that has a gradient.

        Parameters
        ----------
        closure : callable, optional
            Computes the gradients anew and returns the loss.

        Returns
        -------
        What the closure returns, or None.

        Raises
        ------
        ArgumentTypeError, ArgumentValueError
            If a gradient is sparse or not of the format, shape and device of its parameter, or a hyperparameter is out
            of its range. No parameter has moved then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        require_capture_wanted(self.param_groups)
        for moving in moving_parameters(self.param_groups):
            self._move(moving)
        return loss

    def _move(self, moving: Moving) -> None:
        state, p = self._state_of(moving), moving.p.detach()
        values, gradient = flat(p), flat(moving.gradient)
        if is_capturable(moving.group):
            constants = self._constants.of(moving.options, moving.group, state["step"])
            make_step(FlatStep(values, gradient, None), state, constants)
            state["step"].add_(1)
        else:
            step = state["step"] + 1
            given = FlatStep(values, gradient, random_bits_of(moving, step))
            make_step(given, state, step_constants(moving.options, step))
            state["step"] = step
        if not p.is_contiguous():
            p.copy_(values.view(p.shape))
        torch.autograd.graph.increment_version(moving.p)  # kernels write without torch's knowledge

    def _state_of(self, moving: Moving) -> State:
        """Return the state of a parameter, on its device, its step number where steps may be captured."""
        state: State = self.state[moving.p]
        capturable = is_capturable(moving.group)
        if not state:
            require_not_capturing("states")
            device = moving.p.device if self._pager is None else CPU
            state.update(initial_state(moving.p, block_size_of(moving.p, moving.group), device))
            if self._pager is not None:
                self._pager.adopt(str(moving.index), state, moving.p.device)
        if self._pager is not None:
            self._pager.fetch(str(moving.index))
        if capturable != isinstance(state["step"], Tensor):
            require_not_capturing("step numbers")
            state["step"] = step_number(steps_done(state["step"]), moving.p.device if capturable else None)
        return state

    def state_dict(self) -> dict[str, Any]:
        """Return all states and groups, as `torch.optim.Optimizer.state_dict`; waits for states that move."""
        if self._pager is not None:
            self._pager.synchronize()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over states and groups; training goes on with the same bits.

        States come to the devices of their parameters, copied and never cast. Which parameters have states in 8 bits,
        and in which blocks, is a matter of the class: a group that was saved by another one says nothing about it.

        Raises
        ------
        ArgumentTypeError, ArgumentValueError
            If groups or states are not those of these parameters. Nothing has changed then.
        """
        states: dict[Tensor, State] = {}

        def take_states(_: Optimizer, given: dict[str, Any]) -> dict[str, Any]:
            states.update(self._loaded(given))
            groups = [fitted_group(*pair) for pair in zip(given["param_groups"], self.param_groups, strict=True)]
            return {**given, "state": {}, "param_groups": groups}  # torch would cast states to the parameters' formats

        def put_states(_: Optimizer) -> None:
            self._put(states)

        hooks = [
            self.register_load_state_dict_pre_hook(take_states),
            self.register_load_state_dict_post_hook(put_states, prepend=True),
        ]
        try:
            super().load_state_dict(require_mapping("state_dict", state_dict, "a dictionary"))  # type: ignore[arg-type]
        finally:
            for hook in hooks:
                hook.remove()

    def _loaded(self, given: dict[str, Any]) -> dict[Tensor, State]:
        """Return the states of a `state_dict` by parameter, or raise if it is not of these parameters."""
        for name in ("state", "param_groups"):
            if name not in given:
                reject_value("state_dict", "with state and param_groups", ", ".join(map(str, given)) or "empty")
        saved = require_items("param_groups", given["param_groups"], "a list of groups")
        sizes, expected = ([len(group["params"]) for group in groups] for groups in (saved, self.param_groups))
        if sizes != expected:
            reject_value("param_groups", f"{len(expected)} groups of {expected} parameters", sizes)
        keys = list(chain.from_iterable(group["params"] for group in saved))
        if unknown := [key for key in given["state"] if key not in keys]:
            reject_value("state", f"of parameters {keys}", unknown)
        for group in saved:
            options_of(group)
        found = {}
        for key, (index, p, group) in zip(keys, numbered(self.param_groups), strict=True):
            if key in given["state"]:
                kinds = (NAMES_32BIT, NAMES_8BIT) if "min_8bit_size" in group else (NAMES_32BIT,)
                found[p] = loaded_state(given["state"][key], p, kinds, f"parameter {index}")
                if self._paging is not None:
                    self._paging.require_room(f"parameter {index}", size_of_state(p, found[p].get("block_size")))
        return found

    def _put(self, states: dict[Tensor, State]) -> None:
        if self._paging is not None:
            self._pager = StatePager(self._paging)
        for index, p, _ in numbered(self.param_groups):
            if p in states:
                self.state[p] = states[p]
                if self._pager is not None:
                    self._pager.adopt(str(index), states[p], p.device)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle holds: states as they are, wherever they wait."""
        if self._pager is not None:
            self._pager.synchronize()
        return {**super().__getstate__(), "_paging": self._paging}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a copy or a pickle; or, as torch does when it loads a `state_dict`, groups alone."""
        super().__setstate__(state)
        if "_paging" in state:
            self._pager, self._constants = None, ConstantsOnDevice()
            self._put({p: dict(kept) for p, kept in self.state.items() if kept})
