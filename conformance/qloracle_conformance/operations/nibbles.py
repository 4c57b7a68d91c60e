"""Reading packed 4-bit codes, and naming the order they are in if it is not the specified one."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qloracle.formats import Array
from qloracle.packing import unpack_4bit
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.judge import StageResult, exactly

# Fewer distinct codes than this fit another order, or another numbering, by chance.
TELLING_ORDER, TELLING_NUMBERING = 2, 4
NUMBERING = "codes as two's complement numbers"


@dataclass(frozen=True)
class Unpacked:
    """Codes read from packed bytes, and the verdict on how they were packed."""

    codes: Array  # uint8, shape (size,)
    stage: StageResult


def unpack_judged(
    stage: str,
    data: HostArray,
    size: int,
    pad_code: int | None,
    fits: Callable[[Array], Array],
    blocked: Array | None = None,
) -> Unpacked:
    """Read packed codes in the specified order, or in a known wrong one if only that explains them.

    Parameters
    ----------
    stage : str
        Name of the stage that the verdict on the order belongs to.
    data : HostArray of uint8
    size : int
        Number of codes.
    pad_code : int
        What the low nibble after an odd length must hold; None where it is an input, which readers ignore.
    fits : function
        Says for each of `size` codes whether it is an allowed one, or cannot be judged.
    blocked : array of bool, shape (size,), optional
        Codes that cannot be judged; a byte with such a code is blocked.
    """
    packed = data.items.reshape(-1)
    codes = unpack_4bit(packed, size)
    cause = ""
    wrong: Array = np.zeros(packed.shape, np.bool_)
    if not np.all(fits(codes)):
        name, other = _explaining(packed, size, pad_code, fits)
        if name:
            cause = f"the bytes are packed with {name}"
            wrong, codes = _bytes_of(codes != other), other
    if size % 2 and pad_code is not None and not cause and (packed[-1] & 15) != pad_code:
        cause = f"the low nibble after the last code must be {pad_code}"
        wrong[-1] = True
    got = wrong.astype(np.int64)
    limits = {"exact": exactly(np.zeros_like(got))}
    unknown = None if blocked is None else _bytes_of(blocked) & ~wrong
    return Unpacked(codes, StageResult(stage, got, limits, unknown, cause=cause, words=packed, dtype="byte order"))


def _explaining(packed: Array, size: int, pad_code: int | None, fits: Callable[[Array], Array]) -> tuple[str, Array]:
    """Return the name of a known order under which every code is allowed and the rest is padding, and the codes."""
    for name, nibbles in _other_orders(packed).items():
        codes, rest = nibbles[:size], nibbles[size:]
        telling = TELLING_NUMBERING if name == NUMBERING else TELLING_ORDER
        if (
            len(np.unique(nibbles)) >= telling
            and np.all(fits(codes))
            and (pad_code is None or np.all(rest == pad_code))
        ):
            return name, codes
    return "", packed


def _bytes_of(differs: Array) -> Array:
    padded = np.zeros((differs.size + 1) // 2 * 2, np.bool_)
    padded[: differs.size] = differs
    return padded[0::2] | padded[1::2]


def _other_orders(packed: Array) -> dict[str, Array]:
    """Return all nibbles under the other packings that exist in the field."""
    low, high = packed & 15, packed >> 4
    return {
        "the first code in the low nibble": np.stack([low, high], axis=1).reshape(-1),
        "the first half of the codes in the high nibbles": np.concatenate([high, low]),
        "the first half of the codes in the low nibbles": np.concatenate([low, high]),
        NUMBERING: np.stack([high, low], axis=1).reshape(-1) ^ 8,
    }
