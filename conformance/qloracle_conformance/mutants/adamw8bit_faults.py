"""Faults of 8-bit optimizer states: maps, blocks, absmax, and which moments the parameter is computed from."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from qloracle.blocks import block_absmax, block_count
from qloracle.codebooks import Codebook
from qloracle.dynamic_map import DYNAMIC_SIGNED, DYNAMIC_UNSIGNED
from qloracle.formats import Array
from qloracle.linear_map import LINEAR_SIGNED, LINEAR_UNSIGNED
from qloracle.optim.adamw8bit import CODEBOOKS_OF_MOMENTS
from qloracle.rounding import decode, encode
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.adamw_kernel import Kernel, Storage, adamw8bit_with
from qloracle_conformance.mutants.mutant import Mutant

STATES = ("absmax_m", "codes_m", "absmax_v", "codes_v")
PLAIN = Storage()


def _books(**changed: Codebook) -> Storage:
    return Storage(books=lambda name: changed.get(name, CODEBOOKS_OF_MOMENTS[name]))


def _floored(table: Codebook, position: int) -> Codebook:
    """Return a table whose smallest entries but 0 are all one: a map that starts higher."""
    entries = table.entries.copy()
    low = (entries > 0) & (entries < entries[position])
    entries[low] = entries[position]
    return Codebook(f"{table.name}_floored", entries)


def _absmax_of(pick: Callable[[Array], Array]) -> Callable[[Array, Array, int], Array]:
    """Return an absmax of what is picked from every block."""

    def absmax(moment: Array, old: Array, size: int) -> Array:
        flat = moment.reshape(-1)
        parts = [pick(np.abs(flat[i * size : (i + 1) * size])) for i in range(block_count(flat.size, size))]
        return np.array([part.max() if part.size else 0 for part in parts], np.float32)

    return absmax


def _running(moment: Array, old: Array, size: int) -> Array:
    return np.maximum(block_absmax(moment, size), old)


def _rounded(moment: Array, old: Array, size: int) -> Array:
    single: Array = decode(encode(block_absmax(moment, size), "bfloat16"), "bfloat16").astype(np.float32)
    return single


def _tensor_wide(moment: Array, old: Array, size: int) -> Array:
    absmax = block_absmax(moment, size)
    return np.full_like(absmax, absmax.max(initial=0))


def _without_nan(moment: Array, old: Array, size: int) -> Array:
    return block_absmax(np.nan_to_num(moment, nan=0.0, posinf=0.0, neginf=0.0), size)


def _states_swapped(**arguments: Any) -> tuple[HostArray, ...]:
    """Write the absmax of one moment where the other's belongs."""
    p, codes_m, absmax_m, codes_v, absmax_v = adamw8bit_with(PLAIN)(**arguments)
    return p, codes_m, absmax_v, codes_v, absmax_m


def _codes_rounded_down(**arguments: Any) -> tuple[HostArray, ...]:
    """Search the entry below instead of the nearest one, for the second moment."""
    p, codes_m, absmax_m, _, absmax_v = adamw8bit_with(PLAIN)(**arguments)
    exact = _second_moment(arguments)
    scale = np.repeat(absmax_v.items, arguments["block_size"])[: exact.size]
    with np.errstate(all="ignore"):
        quotient = np.where(scale > 0, exact / scale, 0.0)
    found = np.searchsorted(DYNAMIC_UNSIGNED.entries, np.nan_to_num(quotient), side="right") - 1
    return p, codes_m, absmax_m, host(np.clip(found, 0, 255).astype(np.uint8)), absmax_v


def _second_moment(arguments: dict[str, Any]) -> Array:
    """Return v' of a step as float32, flat, by asking for it with blocks of one element."""
    size, block = arguments["gradient"].items.size, arguments["block_size"]
    codes, absmax = arguments["codes_v"].items, np.repeat(arguments["absmax_v"].items, block)[:size]
    old = (DYNAMIC_UNSIGNED.entries[codes] * absmax).astype(np.float64)
    g = arguments["gradient"].real().reshape(-1)
    with np.errstate(all="ignore"):
        return np.asarray(arguments["beta2"] * old + (1 - arguments["beta2"]) * g * g).astype(np.float32)


def _ties_up(**arguments: Any) -> tuple[HostArray, ...]:
    """Send exact midpoints of the first moment to the upper entry."""
    p, _, absmax_m, codes_v, absmax_v = adamw8bit_with(PLAIN)(**arguments)
    size, block = arguments["gradient"].items.size, arguments["block_size"]
    old = DYNAMIC_SIGNED.entries[arguments["codes_m"].items] * np.repeat(arguments["absmax_m"].items, block)[:size]
    g = arguments["gradient"].real().reshape(-1)
    with np.errstate(all="ignore"):
        new = (arguments["beta1"] * old.astype(np.float64) + (1 - arguments["beta1"]) * g).astype(np.float32)
        scale = np.repeat(absmax_m.items, block)[:size].astype(np.float64)
        quotient = np.nan_to_num(np.where(scale > 0, new / scale, 0.0))
    codes = np.searchsorted(DYNAMIC_SIGNED.midpoints, quotient, side="right").astype(np.uint8)
    return p, host(codes), absmax_m, codes_v, absmax_v


def _rows_as_blocks(**arguments: Any) -> tuple[HostArray, ...]:
    """Begin a block at every row, where rows fill the same number of blocks."""
    p, size = arguments["p"], arguments["block_size"]
    width = p.shape[-1] if p.shape else 1
    if (
        not p.shape
        or p.items.size == 0
        or width % size == 0
        or -(-width // size) * (p.items.size // width) != len(arguments["absmax_m"].items)
    ):
        return adamw8bit_with(Storage(block=lambda b: width if 0 < width < b else b))(**arguments)  # type: ignore[no-any-return]
    return adamw8bit_with(Storage(block=lambda b: width))(**arguments)  # type: ignore[no-any-return]


def _storages() -> dict[str, tuple[str, Storage, tuple[str, ...]]]:
    floor = _floored(DYNAMIC_UNSIGNED, 60)
    half, least = np.float32(2.0**-24), np.float32(1e-12)
    return {
        "square-in-signed-map": ("the second moment uses the signed map", _books(v=DYNAMIC_SIGNED), (*STATES, "p")),
        "mean-in-unsigned-map": ("the first moment uses the unsigned map", _books(m=DYNAMIC_UNSIGNED), (*STATES, "p")),
        "square-map-floored": ("the unsigned map lacks its small entries", _books(v=floor), (*STATES, "p")),
        "mean-linear": ("the first moment uses a linear map", _books(m=LINEAR_SIGNED), (*STATES, "p")),
        "square-linear": ("the second moment uses a linear map", _books(v=LINEAR_UNSIGNED), (*STATES, "p")),
        "block-2048": ("blocks of 2048 elements whatever was asked", Storage(block=lambda size: 2048), STATES),
        "block-doubled": ("two blocks share an absmax", Storage(block=lambda size: 2 * size), STATES),
        "absmax-of-half": ("the absmax covers the first half of the block",
                           Storage(absmax=_absmax_of(lambda part: part[: (part.size + 1) // 2])), STATES),
        "absmax-without-last": ("the absmax misses the last element of the block",
                                Storage(absmax=_absmax_of(lambda part: part[: max(1, part.size - 1)])), STATES),
        "absmax-never-falls": ("the absmax is a running maximum", Storage(absmax=_running), STATES),
        "absmax-in-bfloat16": ("the absmax is stored in bfloat16", Storage(absmax=_rounded), STATES),
        "absmax-of-tensor": ("all blocks share the largest absmax", Storage(absmax=_tensor_wide), STATES),
        "absmax-old": ("the absmax is that before the step", Storage(absmax=lambda m, old, size: old), STATES),
        "absmax-floored": ("an absmax is at least 1e-12",
                           Storage(absmax=lambda m, old, size: np.maximum(block_absmax(m, size), least)), STATES),
        "codes-by-old-absmax": ("codes are made with the absmax before the step",
                                Storage(scale=lambda new, old: np.where(old > 0, old, new)), STATES),
        "codes-by-absmax-and-eps": ("codes are made with absmax + 2^-24",
                                    Storage(scale=lambda new, old: new + half), STATES),
        "poison-dropped": ("moments that are not finite do not reach the absmax",
                           Storage(absmax=_without_nan), STATES),
        "parameter-late": ("the parameter is computed from the stored moments", Storage(late=True), ("p",)),
        "read-by-127": ("restored moments are scaled by 127/128",
                        Storage(read=lambda absmax: absmax * np.float32(127 / 128)), (*STATES, "p")),
        "read-in-half": ("restored moments are scaled by a float16 absmax",
                         Storage(read=lambda absmax: absmax.astype(np.float16).astype(np.float32)), (*STATES, "p")),
    }  # fmt: skip


def adamw8bit_faults() -> list[Mutant]:
    """Return the faults of 8-bit states."""

    def mutant(name: str, fault: str, op: Callable[..., Any], stages: tuple[str, ...]) -> Mutant:
        return Mutant(f"adamw8bit-{name}", fault, {"adamw8bit_step": op}, stages)

    uncoupled = Kernel(prepare=lambda x: replace(x, g=x.g + x.o.weight_decay * x.p))
    after = Kernel(combined=lambda x, u: (x.p - x.o.lr * u) * (1 - x.o.lr * x.o.weight_decay))
    bare = Kernel(denominator=lambda x: np.sqrt(x.v / (1 - x.o.beta2**x.step)))
    return [
        *(mutant(name, fault, adamw8bit_with(storage), stages)
          for name, (fault, storage, stages) in _storages().items()),
        mutant("absmax-swapped", "the two absmax arrays are exchanged", _states_swapped, STATES),
        mutant("codes-below", "codes of the second moment are rounded down", _codes_rounded_down, ("codes_v",)),
        mutant("midpoints-up", "an exact midpoint goes to the upper entry", _ties_up, ("codes_m",)),
        mutant("rows-as-blocks", "every row starts a new block", _rows_as_blocks, STATES),
        mutant("decay-coupled", "the decay is added to the gradient", adamw8bit_with(PLAIN, uncoupled), STATES),
        mutant("decay-after-update", "the decay multiplies the new parameter", adamw8bit_with(PLAIN, after), ("p",)),
        mutant("zero-over-zero", "nothing is added to the root", adamw8bit_with(PLAIN, bare), ("p",)),
    ]  # fmt: skip
