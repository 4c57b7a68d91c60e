"""Reading packed 4-bit codes, and naming the order they are in if it is not the specified one."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qloracle.formats import Array
from qloracle.packing import unpack_4bit
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.judge import StageResult, exactly

TELLING = 4  # fewer distinct codes fit a wrong order by chance


@dataclass(frozen=True)
class Unpacked:
    """Codes read from packed bytes, and the verdict on how they were packed."""

    codes: Array  # uint8, shape (size,)
    stage: StageResult


def unpack_judged(
    stage: str, data: HostArray, size: int, pad_code: int | None, fits: Callable[[Array], Array]
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
        Says for each of `size` codes whether it is an allowed one.
    """
    packed = data.items.reshape(-1)
    codes = unpack_4bit(packed, size)
    cause = ""
    wrong: Array = np.zeros(packed.shape, np.bool_)
    if not np.all(fits(codes)):
        for name, other in _other_orders(packed, size).items():
            if len(np.unique(other)) >= TELLING and np.all(fits(other)):
                cause = f"the bytes are packed with {name}"
                codes, wrong = other, _bytes_of(codes != other)
                break
    padded = np.zeros(packed.shape, np.bool_)
    if size % 2 and pad_code is not None:
        padded[-1] = (packed[-1] & 15) != pad_code
        cause = cause or (f"the low nibble after the last code must be {pad_code}" if padded[-1] else "")
    got = (wrong | padded).astype(np.int64)
    limits = {"exact": exactly(np.zeros_like(got))}
    return Unpacked(codes, StageResult(stage, got, limits, cause=cause, words=packed, dtype="byte order"))


def _bytes_of(differs: Array) -> Array:
    padded = np.zeros((differs.size + 1) // 2 * 2, np.bool_)
    padded[: differs.size] = differs
    return padded[0::2] | padded[1::2]


def _other_orders(packed: Array, size: int) -> dict[str, Array]:
    """Return the codes under the other packings that exist in the field."""
    low, high = packed & 15, packed >> 4
    return {
        "the first code in the low nibble": np.stack([low, high], axis=1).reshape(-1)[:size],
        "the first half of the codes in the high nibbles": np.concatenate([high, low])[:size],
        "the first half of the codes in the low nibbles": np.concatenate([low, high])[:size],
        "codes as two's complement numbers": unpack_4bit(packed, size) ^ 8,
    }
