"""Training steps of a sequence, with states of 32 and 8 bits that go from step to step."""

from collections.abc import Callable

import numpy as np

from qloracle_conformance.arrays import host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.adamw import drawn_options
from qloracle_conformance.generators.adamw8bit import fresh as fresh_8bit
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.values import normal
from qloracle_conformance.sequences.bench import RANKS, Bench, Slot, choice
from qloracle_conformance.sequences.weights import Weights

BLOCK_SIZES = (256, 64, 128, 32, 16, 100)  # of states, the usual one first


def train(bench: Bench, draw: Draw, operation: str, weights: Weights) -> None:
    """Make a step of AdamW, where they are there with the gradient of a layer and the state of an earlier step."""
    claim = bench.claims[operation]
    target, state = _trained(bench, draw, claim, "state")
    step = state.options["step"] + 1
    options = {**drawn_options(draw, step), "max_update_norm": None}
    given: dict[str, str | None] = {**target.names, "m": state.names["m"], "v": state.names["v"], "random_bits": None}
    p, m, v = bench.call("train", operation, given, options, ("p", "m", "v"))
    bench.slots.append(Slot("state", {"m": m, "v": v}, state.shape, options={"step": step}))
    _updated(bench, target, p)


def train_8bit(bench: Bench, draw: Draw, operation: str, weights: Weights) -> None:
    """Make a step of AdamW with 8-bit states."""
    claim = bench.claims[operation]
    target, state = _trained(bench, draw, claim, "state8")
    step, roles = state.options["step"] + 1, ("codes_m", "absmax_m", "codes_v", "absmax_v")
    options = {n: value for n, value in drawn_options(draw, step).items() if n != "max_update_norm"}
    options["block_size"] = state.options["block_size"]
    given = {**target.names, **{role: state.names[role] for role in roles}}
    p, *rest = bench.call("train_8bit", operation, given, options, ("p", *roles))
    kept = {"step": step, "block_size": state.options["block_size"]}
    bench.slots.append(Slot("state8", dict(zip(roles, rest, strict=True)), state.shape, options=kept))
    _updated(bench, target, p)


def _trained(bench: Bench, draw: Draw, claim: Claim, kind: str) -> tuple[Slot, Slot]:
    """Return a parameter with its gradient, and a state of the same shape."""

    def parameter() -> Slot:
        shape, dtype, random = bench.matrix_shape(draw), bench.usual(draw, "dtype", claim.dtypes), draw.random()
        rank = bench.usual(draw, "rank", RANKS)
        arrays = {role: normal(random, (rank, shape[1]), dtype) for role in ("p", "gradient")}
        return bench.fresh("gradients", arrays, shape=shape, dtype=dtype, options={"rank": rank})

    target = bench.pick(draw, "gradients", parameter, lambda s: s.dtype in claim.dtypes and 2 in claim.ndims)
    shape = (target.options["rank"], target.shape[1])
    sizes = [size for size in BLOCK_SIZES if size in claim.block_sizes] or list(claim.block_sizes)

    def fresh() -> Slot:
        if kind == "state":
            zeros = {role: host(np.zeros(shape, np.float32)) for role in ("m", "v")}
            return bench.fresh("state", zeros, shape=shape, options={"step": 0})
        size = bench.usual(draw, "state block size", tuple(sizes))
        arrays = {role: host(array) for role, array in vars(fresh_8bit(shape[0] * shape[1], size)).items()}
        return bench.fresh("state8", arrays, shape=shape, options={"step": 0, "block_size": size})

    def fits(slot: Slot) -> bool:
        return slot.shape == shape and slot.options.get("block_size", sizes[0]) in sizes

    return target, _second(bench, draw, kind, fresh, fits) or bench.pick(draw, kind, fresh, fits)


def _second(
    bench: Bench, draw: Draw, kind: str, fresh: Callable[[], Slot], fits: Callable[[Slot], bool]
) -> Slot | None:
    """In half of the cases return a state as far as the last one but not it, or begin one where there is but that.

    What a backend keeps of the last step is wrong for the next step of another parameter, which no count tells apart.
    """
    begun = [slot for slot in bench.slots if slot.kind == kind and fits(slot) and slot.options["step"]]
    if not begun or not draw.integer(0, 1):
        return None
    as_far = [slot for slot in begun[:-1] if slot.options["step"] == begun[-1].options["step"]]
    return choice(draw, as_far) if as_far else fresh() if len(begun) == 1 else None


def _updated(bench: Bench, target: Slot, p: str) -> None:
    """Let layers use the parameter after the step, where it is an adapter's."""
    for slot in bench.slots[::-1]:
        if slot.kind == "adapter" and slot.names["lora_a"] == target.names["p"]:
            bench.slots.append(
                Slot("adapter", {**slot.names, "lora_a": p}, slot.shape, slot.dtype, options=slot.options)
            )
            return
