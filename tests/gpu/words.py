"""Bit patterns of tensors and of the reference's arrays, and a comparison whose message stands alone."""

import numpy as np
import torch

from qloracle.formats import FORMATS, Array

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def words(values: torch.Tensor | Array | np.generic) -> Array:
    """Bit patterns as unsigned integers."""
    if isinstance(values, torch.Tensor):
        values = values.contiguous().view(INTEGERS[values.element_size()]).numpy()
    array = np.ascontiguousarray(values)
    return array.view(f"u{array.itemsize}").reshape(np.shape(values))


def tensor(hexadecimal: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A tensor from bit patterns in hexadecimal, separated by spaces."""
    size = torch.empty(0, dtype=dtype).element_size()
    patterns = np.array([int(word, 16) for word in hexadecimal.split()], f"u{size}")
    return torch.from_numpy(patterns.view(f"i{size}").copy()).view(dtype)


def hexadecimal(values: torch.Tensor) -> str:
    """Bit patterns in hexadecimal, separated by spaces."""
    patterns = words(values)
    return " ".join(f"{int(word):0{2 * patterns.itemsize}x}" for word in patterns.reshape(-1))


def require_same(got: torch.Tensor, expected: Array | np.generic, fmt: str | None, rule: str) -> None:
    """Fail at the first different bit pattern; with a format, every NaN equals every NaN."""
    assert tuple(got.shape) == np.shape(expected), f"{rule}: shape {tuple(got.shape)}, expected {np.shape(expected)}"
    mine, wanted = words(got).reshape(-1), words(expected).reshape(-1)
    assert mine.dtype == wanted.dtype, f"{rule}: {got.dtype}, expected words of {wanted.dtype}"
    wrong = mine != wanted
    if fmt is not None:
        named = FORMATS[fmt]
        magnitude = mine.dtype.type(named.sign_bit - 1)
        wrong &= ~((mine & magnitude > named.infinity_bits) & (wanted & magnitude > named.infinity_bits))
    if wrong.any():
        first = int(np.argmax(wrong))
        raise AssertionError(
            f"{rule}: {np.count_nonzero(wrong)} of {wrong.size} differ, first at {first}: "
            f"got {int(mine[first]):#x}, expected {int(wanted[first]):#x}"
        )
