"""Groups of parameters with hyperparameters of their own, and what of them is checked before anything moves."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from qloracle.errors import (
    reject_type,
    reject_value,
    require_flag,
    require_integer,
    require_items,
    require_pair,
    require_positive_integer,
)
from qloracle.formats import TENSOR_FORMATS
from qloracle_gpu.torch.formats import NAMES
from qloracle_gpu.torch.optim.capturing import lr_on_device, number_on_device, require_capturable
from qloracle_gpu.torch.optim.operands import require_same_format
from qloracle_gpu.torch.optim.options import AdamwOptions

Group = dict[str, Any]
OPTIONS_8BIT = ("min_8bit_size", "block_size")


@dataclass(frozen=True)
class Moving:
    """A parameter that a step moves."""

    index: int  # among all parameters of the optimizer, as in its `state_dict`
    p: Tensor
    gradient: Tensor
    group: Group
    options: AdamwOptions


def options_of(group: Mapping[str, Any]) -> AdamwOptions:
    """Return the hyperparameters of a group, or raise if one of them is missing or out of its range."""
    try:
        beta1, beta2 = require_pair("betas", group["betas"])
        require_flag("stochastic_rounding", group["stochastic_rounding"])
        require_integer("seed", group["seed"], "an integer")
        if "min_8bit_size" in group:
            least = require_integer("min_8bit_size", group["min_8bit_size"], "a number of elements, 0 or more")
            if least < 0:
                reject_value("min_8bit_size", "a number of elements, 0 or more", least)
            require_positive_integer("block_size", group["block_size"])
        named = {name: group[name] for name in ("lr", "eps", "weight_decay", "nonfinite", "max_update_norm")}
    except KeyError as error:
        reject_value("param group", f"one with {error.args[0]!r}", ", ".join(map(str, group)))
    if lr_on_device(group):
        named["lr"] = 0.0  # its place is taken where the constants of a step are made
    options = AdamwOptions(beta1=beta1, beta2=beta2, **named)
    require_capturable(group, options)
    return options


def block_size_of(p: Tensor, group: Mapping[str, Any]) -> int | None:
    """Return the block size of a parameter's 8-bit state, or None for a state in 32 bits."""
    if "min_8bit_size" not in group or p.numel() < group["min_8bit_size"]:
        return None
    return int(group["block_size"])


def listed_parameters(param_group: object) -> list[Tensor]:
    """Return the tensors of a new group, which lists them from then on, or raise unless a step takes each of them."""
    if not isinstance(param_group, dict) or "params" not in param_group:
        reject_type("param_group", "a dictionary with params", type(param_group).__name__)
    given = param_group["params"]
    if isinstance(given, set):
        reject_type("params", "in an order that is always the same", "a set")
    items = [given] if isinstance(given, Tensor) else require_items("params", given, "tensors in order")
    param_group["params"], found = items, []
    for index, item in enumerate(items):
        p = item[1] if isinstance(item, tuple) and len(item) == 2 else item
        argument = f"parameter {index} of the group"
        if not isinstance(p, Tensor):
            reject_type(argument, "a tensor", type(p).__name__)
        if NAMES.get(p.dtype) not in TENSOR_FORMATS or p.layout is not torch.strided:
            got = p.dtype if p.layout is torch.strided else p.layout
            reject_type(argument, "dense, of float32, float16 or bfloat16", got)
        found.append(p)
    return found


def fitted_group(saved: Group, group: Group) -> Group:
    """Return a saved group for the place of `group`: with the options of 8-bit states if and only if that has them.

    Whether its steps may be captured is what `group` says.
    """
    own = {name: group[name] for name in (*OPTIONS_8BIT, "capturable") if name in group}
    others = {n: v for n, v in saved.items() if n != "capturable" and (n not in OPTIONS_8BIT or n in group)}
    return {**own, **others}


def numbered(groups: list[Group]) -> Iterator[tuple[int, Tensor, Group]]:
    """Yield every parameter with its index and its group."""
    index = 0
    for group in groups:
        for p in group["params"]:
            yield index, p, group
            index += 1


def moving_parameters(groups: list[Group]) -> list[Moving]:
    """Return the parameters that have a gradient, or raise if any gradient or hyperparameter does not fit."""
    found = []
    options = {id(group): options_of(group) for group in groups}
    for index, p, group in numbered(groups):
        if p.grad is None:
            continue
        try:
            _, gradient = require_same_format(p, p.grad)
            if lr_on_device(group):
                number_on_device("lr", group["lr"], p.device)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{error} (parameter {index})") from None
        found.append(Moving(index, p, gradient, group, options[id(group)]))
    return found


def random_bits_of(moving: Moving, step: int) -> Tensor | None:
    """Return the random bits of a step of a 16-bit parameter that is rounded stochastically, else None.

    They depend on the seed, the parameter's index and the number of the step alone: a run that goes on from a
    checkpoint draws the same ones.
    """
    p = moving.p
    if not moving.group["stochastic_rounding"] or p.dtype is torch.float32:
        return None
    text = f"{moving.group['seed']} {moving.index} {step}".encode()
    generator = torch.Generator(p.device).manual_seed(int.from_bytes(sha256(text).digest()[:8], "big"))
    low, high = -(2**31), 2**31
    drawn = torch.randint(low, high, (p.numel(),), dtype=torch.int32, device=p.device, generator=generator)
    return drawn.view(torch.uint32)
