"""Several steps: under budgets of the device, and with save and load on the way; and plans of what moves when."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from qloracle_conformance.arrays import host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.adamw import HYPERPARAMETERS
from qloracle_conformance.generators.case import Case, each_layout
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.values import rounded

TRAJECTORIES = ("normal", "ramps", "memory")
PLANS = ("random", "cycles", "repeats", "memory")
SIZES: tuple[tuple[int, ...], ...] = (
    (3, 5, 2, 7),
    (64, 1, 33),
    (9,),
    (300, 257, 256),
    (4, 4, 4, 4, 4),
    (1, 520, 6),
    (1100, 7, 1031),
    (3,) * 9,
)  # some states are longer than a page of 4096 bytes
STEPS = (5, 9)


def _options(draw: Draw, claim: Claim) -> dict[str, Any]:
    lr, beta1, beta2, eps, decay = draw.choice(HYPERPARAMETERS)
    bits = draw.choice(claim.options.get("state_bits", (32,)))
    return {"state_bits": bits, "lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": decay}


def trajectory_family(draw: Draw, claim: Claim, *, family: str, operation: str) -> Case:
    """Some tensors, several steps; on ramps every tensor and every step has its own scale."""
    dtype, sizes, random = draw.choice(claim.dtypes), draw.choice(SIZES), draw.random()
    total, steps = sum(sizes), draw.choice(STEPS)
    tensor = np.repeat(np.arange(len(sizes)), sizes)
    scale = 2.0 ** (tensor % 5 - np.arange(steps)[:, np.newaxis]) if family == "ramps" else 1.0
    inputs = {
        "p": rounded(random.standard_normal(total), dtype),
        "gradients": rounded(random.standard_normal((steps, total)) * scale, dtype),
    }
    options = _options(draw, claim)
    if operation == "adamw.paged":
        least = max(sizes)
        budget = draw.choice((least, total, least + min(sizes), (least + total) // 2, 2 * least))
        options |= {"sizes": sizes, "budget": budget}
    else:
        options |= {"split": draw.choice((1, 2, 3, 4))}
    memory = family == "memory"
    return Case(operation, inputs, options, each_layout(draw, claim, inputs) if memory else {}, repeat=memory)


def plan_family(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Accesses at random, in cycles that are one state too long, and again and again to the oldest one."""
    random, count = draw.random(), draw.integer(1, 9)
    sizes = random.integers(1, 20, count) if draw.choice((True, False)) else np.full(count, 4)
    length = 40
    accesses = random.integers(0, count, length)
    if family == "cycles":
        accesses = np.arange(length) % count
    elif family == "repeats":
        accesses = np.where(np.arange(length) % 2 == 0, 0, accesses)
    least, total = int(sizes.max()), int(sizes.sum())
    budget = draw.choice((least, total, total - 1, (least + total) // 2, least + 1))
    unit = draw.choice((1, 1 << 28))  # bytes that 32 bits do not count
    inputs = {"sizes": host(sizes.astype(np.int64) * unit), "accesses": host(accesses.astype(np.int64))}
    memory = family == "memory"
    layouts = each_layout(draw, claim, inputs) if memory else {}
    return Case("paged.plan", inputs, {"budget": max(budget, least) * unit}, layouts, repeat=memory)


def trajectory_families(operation: str) -> dict[str, Callable[[Draw, Claim], Case]]:
    """Return the families of a trajectory."""
    return {name: partial(trajectory_family, family=name, operation=operation) for name in TRAJECTORIES}


def plan_families() -> dict[str, Callable[[Draw, Claim], Case]]:
    """Return the families of paged.plan."""
    return {name: partial(plan_family, family=name) for name in PLANS}
