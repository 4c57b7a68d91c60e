"""Conversions between formats: exact where they widen, rounded once where they narrow.

Torch narrows float64 and 64-bit integers to 16-bit formats by way of float32, which rounds twice. Here the step in
between is rounded *to odd* (the last bit is set whenever anything was cut off), after which a rounding to at least two
bits fewer equals the direct one (Boldo and Melquiond 2008, "Emulation of FMA and Correctly Rounded Sums").

Torch computes with subnormals as they are unless `torch.set_flush_denormal(True)` was called in the thread, which
breaks the rules of this package; Apple's GPUs flush them always.
Clauses: ``[format.decode]``, ``[format.encode]``.
"""

import torch
from torch import Tensor

from qloracle.errors import reject_type, reject_value
from qloracle_gpu.torch.formats import DTYPES, NAMES, float64_device, require_tensor, require_tensor_format

ROUNDINGS = ("ties_to_even",)
OVERFLOWS = (None, "ieee")  # the default is the one that formats with infinities have
SMALL_INTEGERS = (torch.int8, torch.int16, torch.int32, torch.uint8, torch.uint16, torch.uint32)
LARGE_INTEGERS = (torch.int64, torch.uint64)


def decode(bits: Tensor) -> Tensor:
    """Return the exact value of every element, as float32.

    Parameters
    ----------
    bits : tensor of bfloat16, float16 or float32, any shape

    Returns
    -------
    tensor of float32, the shape of `bits`
        A new tensor; no rounding happens. Every NaN gives a NaN.

    Raises
    ------
    ArgumentTypeError
        For another dtype.

    Notes
    -----
    Clause ``[format.decode]``. Rounding points: none.

    Examples
    --------
    >>> decode(torch.tensor([0x3F80, 0x0001], dtype=torch.int16).view(torch.bfloat16))
    tensor([1.0000e+00, 9.1835e-41])
    """
    return require_tensor_format("bits", bits).to(torch.float32, copy=True, memory_format=torch.contiguous_format)


def encode(
    values: Tensor, fmt: str, *, rounding: str = "ties_to_even", overflow: str | None = None, nan: str | None = None,
    random_bits: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Round every value once to a format.

    result = RN_fmt(value), ties to the even bit pattern; beyond the largest finite number infinity.

    Parameters
    ----------
    values : tensor of float64, float32, float16, bfloat16 or any integer dtype, any shape
    fmt : {"float64", "float32", "float16", "bfloat16"}
        Name of the target format.
    rounding : {"ties_to_even"}
    overflow : {"ieee"}, optional
    nan, random_bits : None
        The reference's other variants are not offered here.

    Returns
    -------
    tensor of the format's own dtype, the shape of `values`
        A new tensor. Signs of zero are kept, subnormals are not flushed, NaN gives NaN.

    Raises
    ------
    ArgumentTypeError
        If `values` is neither a float nor an integer tensor.
    ArgumentValueError
        If the format, the rounding, the overflow rule or a variant is not one of these.

    Notes
    -----
    Clause ``[format.encode]``. Rounding points: one, to `fmt`.

    Examples
    --------
    >>> encode(torch.tensor([1 + 2**-8 + 2**-40, 1 + 2**-8], dtype=torch.float64), "bfloat16").view(torch.int16)
    tensor([16257, 16256], dtype=torch.int16)
    """
    if fmt not in DTYPES:
        reject_value("fmt", f"one of {', '.join(DTYPES)}", repr(fmt))
    if rounding not in ROUNDINGS:
        reject_value("rounding", f"one of {', '.join(ROUNDINGS)}", repr(rounding))
    if overflow not in OVERFLOWS:
        reject_value("overflow", "ieee", repr(overflow))
    for argument, value in (("nan", nan), ("random_bits", random_bits)):
        if value is not None:
            reject_value(argument, "None", "an argument")
    target, source = DTYPES[fmt], require_tensor("values", values)
    home = source.device
    if source.dtype in SMALL_INTEGERS:
        source = source.to(float64_device(home)).to(torch.float64)
    elif source.dtype in LARGE_INTEGERS:
        source = source.to(float64_device(home))
        source = source.to(torch.float64) if target is torch.float64 else _to_odd_float64(source)
    elif source.dtype not in NAMES:
        reject_type("values", f"a tensor of {', '.join(NAMES.values())} or integers", source.dtype)
    if source.dtype is torch.float64 and target not in (torch.float64, torch.float32):
        source = _to_odd_float32(source)
    return source.to(target, copy=True, memory_format=torch.contiguous_format).to(home)


def _to_odd_float64(integers: Tensor) -> Tensor:
    """Return 64-bit integers as float64: exact below 2^53, else rounded to an odd multiple of 2^11."""
    words = integers.view(torch.int64)
    high = words >> 11
    if integers.dtype is torch.uint64:
        high = high & ((1 << 53) - 1)
    exact = (high >= -(1 << 42)) & (high < 1 << 42)
    # In two's complement the floor with its last bit set is the odd neighbour for either sign.
    odd = high | ((words & 0x7FF) != 0)
    return torch.where(exact, words.to(torch.float64), odd.to(torch.float64) * 2048)


def _to_odd_float32(values: Tensor) -> Tensor:
    """Return float64 rounded to odd in float32: the nearest, moved towards the value where that was cut to even."""
    nearest = values.to(torch.float32)
    back = nearest.to(torch.float64)
    words = nearest.view(torch.int32)
    inexact = (back < values) | (back > values)
    inward = torch.where(back.abs() > values.abs(), -1, 1).to(torch.int32)
    return torch.where(inexact & ((words & 1) == 0), words + inward, words).view(torch.float32)
