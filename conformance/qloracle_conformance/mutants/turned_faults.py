"""Layers that read a weight, or its scales, the other way round."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.mutants.adapter_operands import Single, forward_as
from qloracle_conformance.mutants.dora_faults import output
from qloracle_conformance.mutants.dora_gradient_faults import gain_of, merged
from qloracle_conformance.mutants.linear_kernels import groups_in_rows, transposed_scales
from qloracle_conformance.mutants.lora_faults import STORED_TERMS
from qloracle_conformance.mutants.mutant import Mutant, Op

DORA_TERMS = ("norm", "base", "adapter", "dropout", "bias", "whole")
STORED = ("qlora_int8", "qlora_affine")
SCALES: tuple[tuple[str, str, Callable[[str], Op]], ...] = (
    ("rows-as-columns", "the scales of the rows of a square weight are those of its columns", transposed_scales),
    ("columns-as-rows", "the scales of the columns of a square weight are those of its rows",
     partial(transposed_scales, granularity="column")),
    ("groups-in-rows", "every row starts a new group", groups_in_rows),
)  # fmt: skip


def _never_turned(function: str) -> Callable[..., Any]:
    """Ignore that a square weight is stored transposed; others do not fit and are turned."""

    def layer(**arguments: Any) -> Any:
        turned = arguments.pop("fan_in_fan_out", False)
        weight: HostArray = arguments["weight"]
        if turned and weight.shape[0] != weight.shape[1]:
            arguments["weight"] = HostArray(np.ascontiguousarray(weight.items.T), weight.dtype)
        return OPS[function](**arguments)

    return layer


def _never_turned_while_fresh(**arguments: Any) -> Any:
    """Ignore it while B is zero, as a path does that leaves such an adapter out."""
    never, right = _never_turned("lora_forward"), OPS["lora_forward"]
    return (right if np.any(arguments["lora_b"].real()) else never)(**arguments)


def _always_turned(**arguments: Any) -> Any:
    """Turn every square weight, as a layer that reads shapes and no flags does."""
    weight = arguments["weight"]
    square = weight.shape[0] == weight.shape[1]
    return OPS["lora_forward"](**{**arguments, "fan_in_fan_out": square or arguments.get("fan_in_fan_out", False)})


def _gained_by_columns(o: Single) -> Array:
    v = merged(o)
    return output(o, gain_of(o, np.asarray(np.sqrt(np.sum(v * v, axis=0)))))


def _norm_as_stored(**arguments: Any) -> Any:
    """Take the norms over the rows of a square weight as it is stored."""
    rows, columns = arguments["weight"].shape
    wrong = arguments.get("fan_in_fan_out") and rows == columns
    return (forward_as(_gained_by_columns, "exact") if wrong else OPS["dora_forward"])(**arguments)


def turned_faults() -> list[Mutant]:
    """Return the mutants."""
    scaled = [
        Mutant(f"{kind}-{way}-{name}", fault, {f"{kind}_{way}": change(f"{kind}_{way}")}, stages)
        for kind in STORED
        for way, stages in (("forward", STORED_TERMS), ("backward", ("x",)))
        for name, fault, change in SCALES
    ]
    return [
        *scaled,
        Mutant("fan-in-ignored-if-square", "a square weight that is stored transposed is read as it is",
               {"lora_forward": _never_turned("lora_forward")}, ("fan_in_fan_out", "whole")),
        Mutant("fan-in-ignored-while-fresh", "a square transposed weight is read as it is while B is zero",
               {"lora_forward": _never_turned_while_fresh}, ("fan_in_fan_out",)),
        Mutant("fan-in-ignored-backward", "the gradient of x reads a square transposed weight as it is",
               {"lora_backward": _never_turned("lora_backward")}, ("x",)),
        Mutant("square-always-turned", "every square weight is turned", {"lora_forward": _always_turned},
               ("base", "whole", "fan_in_fan_out")),
        Mutant("dora-fan-in-ignored", "a square weight that is stored transposed is read as it is",
               {"dora_forward": _never_turned("dora_forward")}, DORA_TERMS),
        Mutant("dora-fan-in-ignored-backward", "the gradients read a square transposed weight as it is",
               {"dora_backward": _never_turned("dora_backward")}, ("x", "magnitude")),
        Mutant("dora-norm-as-stored", "the norms are those of the rows of what is stored",
               {"dora_forward": _norm_as_stored}, DORA_TERMS),
    ]  # fmt: skip
