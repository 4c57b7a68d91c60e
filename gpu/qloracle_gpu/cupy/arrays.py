"""Arrays and their formats: a dtype tells the format by name, or `fmt` names that of bit patterns.

CuPy has float16, float32 and float64; every other format crosses as unsigned bit patterns together with its name, and
as the dtype of that name where ml_dtypes is installed.
"""

from typing import Any

import numpy as np

from qloracle.errors import reject_type, reject_value
from qloracle.formats import FORMATS, TENSOR_FORMATS, Format, format_named
from qloracle_gpu.cupy.launcher import Array, Operation, require_array

OWN = ("float64", "float32", "float16")  # formats that NumPy and CuPy have
_ANY_RULE = f"an array of {', '.join(FORMATS)}, or bit patterns with fmt="


def format_of(array: Array, fmt: str | None, argument: str, rule: str = _ANY_RULE) -> Format:
    """Return the format of an array: its dtype's own, or `fmt` for bit patterns.

    Raises
    ------
    ArgumentTypeError
        If the dtype is neither a float nor the unsigned word of `fmt`.
    """
    own = FORMATS.get(array.dtype.name)
    if own is not None and fmt in (None, own.name):
        return own
    if fmt is None:
        reject_type(argument, rule, array.dtype)
    named = format_named(fmt)
    if array.dtype != named.word:
        reject_type(argument, f"{fmt} as bit patterns of dtype {named.word}", array.dtype)
    return named


def require_tensor(argument: str, value: object, fmt: str | None = None) -> tuple[Array, Format]:
    """Return weights or activations and their format: float32, float16 or bfloat16, else raise `ArgumentTypeError`."""
    array = require_array(argument, value)
    rule = "float32, float16 or bfloat16"
    named = format_of(array, fmt, argument, f"{rule}, or bit patterns with fmt=")
    if named.name not in TENSOR_FORMATS:
        reject_type(argument, rule, named.name)
    return array, named


def require_dtype(argument: str, value: object, dtype: str) -> Array:
    """Return `value` if it is an array of `dtype`, else raise `ArgumentTypeError`."""
    array = require_array(argument, value)
    if array.dtype != np.dtype(dtype):
        reject_type(argument, dtype, array.dtype)
    return array


def require_vector(argument: str, value: object, length: int) -> Array:
    """Return `value` if it is float32 of shape (length,), else raise."""
    vector = require_dtype(argument, value, "float32")
    if vector.shape != (length,):
        reject_value(argument, f"of shape ({length},)", vector.shape)
    return vector


def flat_words(run: Operation, array: Array) -> Array:
    """Return the items in row-major order as a contiguous 1-d array of unsigned words; no copy where they lie so."""
    return run.contiguous(array.view(f"u{array.dtype.itemsize}")).reshape(-1)


def flat_items(run: Operation, array: Array) -> Array:
    """Return the items in row-major order as a contiguous 1-d array; no copy where they lie so."""
    return run.contiguous(array).reshape(-1)


def copied(run: Operation, array: Array) -> Array:
    """Return a copy of an array."""
    made = run.empty(tuple(array.shape), array.dtype)
    made[...] = array
    return made


def carrier(named: Format) -> np.dtype[Any]:
    """Return the dtype that arrays of a format have when an operation returns them."""
    return np.dtype(named.name) if named.name in OWN else named.word


def checked_words(run: Operation, array: Array, named: Format, argument: str) -> Array:
    """Return the words of an array, 1-d, or raise if a bit is set that the format keeps 0 (waits for the device)."""
    words = flat_words(run, array)
    if named.filled_bits != np.iinfo(named.word).max and words.size:
        excess = words & named.word.type(~named.filled_bits & np.iinfo(named.word).max)
        if int(excess.max()):
            first = int(words[int((excess != 0).argmax())])
            rule = f"{named.name} words, whose other bits than {named.filled_bits:#x} are 0"
            reject_value(argument, rule, hex(first))
    return words


def holds_nan(words: Array, named: Format) -> bool:
    """Whether any word is NaN; waits for the device."""
    kind: Any = named.word.type
    if not named.has_nan or not words.size:
        return False
    if named.top_nans == 0:
        return bool((words == kind(named.sign_bit)).any())
    magnitudes = words & kind(named.largest_magnitude << named.padding)
    return int(magnitudes.max()) > (named.largest_magnitude - named.top_nans) << named.padding
