"""What an optimizer keeps for one parameter: a dictionary of plain tensors and numbers, as its `state_dict` holds it.

The names are those of `state.state_arrays`: m, v and step of a state in 32 bits; codes, absmax, step and block size of
one in 8 bits. Numbers are Python's, but for the step of a state whose steps may be captured. Clause: ``[optim.state]``.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from qloracle.errors import reject_type, reject_value, require_mapping, require_positive_integer
from qloracle_gpu.torch.blocks import block_count
from qloracle_gpu.torch.optim.adamw8bit import step_8bit_in_place
from qloracle_gpu.torch.optim.operands import require_steps
from qloracle_gpu.torch.optim.options import StepConstants
from qloracle_gpu.torch.optim.quantized_moments import Adamw8bitState, adamw8bit_init
from qloracle_gpu.torch.optim.update import FlatStep, step_in_place

State = dict[str, Any]
NAMES_32BIT = ("m", "v", "step")
NAMES_8BIT = ("codes_m", "absmax_m", "codes_v", "absmax_v", "step", "block_size")


def initial_state(p: Tensor, block_size: int | None, device: torch.device) -> State:
    """Return the state of a parameter before its first step, in 8 bits if there is a block size."""
    if block_size is None:
        m, v = (torch.zeros(p.shape, dtype=torch.float32, device=device) for _ in range(2))
        return {"m": m, "v": v, "step": 0}
    with device:
        return dict(vars(adamw8bit_init(tuple(p.shape), block_size=block_size)))


def size_of_state(p: Tensor, block_size: int | None) -> int:
    """Return the bytes of a parameter's state."""
    return 8 * p.numel() if block_size is None else 2 * (p.numel() + 4 * block_count(p.numel(), block_size))


def make_step(given: FlatStep, state: State, constants: StepConstants) -> None:
    """Make a step with a state of either kind, over the old one; its number is counted elsewhere."""
    if "m" in state:
        step_in_place(given, state["m"].view(-1), state["v"].view(-1), constants)
    else:
        step_8bit_in_place(given, Adamw8bitState(**state), constants)


def steps_done(step: Any) -> int:
    """Return a number of steps done, on the host; one that lies on a device is waited for."""
    if isinstance(step, Tensor):
        if step.dtype is not torch.int64 or step.shape != ():
            reject_type("step", "an integer, or a tensor of one int64", f"{step.dtype} of shape {tuple(step.shape)}")
        step = step.item()
    return require_steps(step)


def step_number(done: int, device: torch.device | None) -> int | Tensor:
    """Return a number of steps as a state holds it: on a device where steps may be captured."""
    return done if device is None else torch.tensor(done, dtype=torch.int64, device=device)


def loaded_state(saved: object, p: Tensor, kinds: tuple[tuple[str, ...], ...], name: str) -> State:
    """Return a copy of a saved state on the device of its parameter; nothing is cast.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If it is no state of one of the kinds, or not of this parameter's shape.
    """
    given = require_mapping(f"state of {name}", saved, "a mapping of names to tensors and numbers")
    if not any(set(given) == set(kind) for kind in kinds):
        known = "; or ".join(", ".join(kind) for kind in kinds)
        reject_value(f"state of {name}", f"named {known}", ", ".join(map(str, given)) or "empty")
    numbers = {"step": steps_done(given["step"])}
    if "block_size" in given:
        numbers["block_size"] = require_positive_integer("block_size", given["block_size"])
    arrays = {
        key: _loaded(given, key, expected, p.device, name)
        for key, expected in _expected(p, numbers.get("block_size")).items()
    }
    return {**arrays, **numbers}


def _expected(p: Tensor, block_size: int | None) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    if block_size is None:
        return dict.fromkeys(("m", "v"), (torch.float32, tuple(p.shape)))
    codes = (torch.uint8, (p.numel(),))
    absmax = (torch.float32, (block_count(p.numel(), block_size),))
    return {"codes_m": codes, "absmax_m": absmax, "codes_v": codes, "absmax_v": absmax}


def _loaded(
    given: Mapping[str, Any], key: str, expected: tuple[torch.dtype, tuple[int, ...]], device: torch.device, name: str
) -> Tensor:
    value, (dtype, shape) = given[key], expected
    if not isinstance(value, Tensor) or value.dtype != dtype:
        got = getattr(value, "dtype", type(value).__name__)
        reject_type(f"{key} of {name}", f"a tensor of {str(dtype).removeprefix('torch.')}", got)
    if value.shape != shape:
        reject_value(f"{key} of {name}", f"of shape {shape}", tuple(value.shape))
    return value.detach().to(device, copy=True, memory_format=torch.contiguous_format)
