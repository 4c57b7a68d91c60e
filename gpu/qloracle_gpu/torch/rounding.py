"""Conversions between formats: exact where they widen, rounded once where they narrow.

Torch's casts round to nearest (`casts`); every other rule is computed in integers, by kernels or by `rounding_rules`.
Torch computes with subnormals as they are unless `torch.set_flush_denormal(True)` was called in the thread, which
breaks the rules of this package; Apple's GPUs flush them always.
Clauses: ``[format.decode]``, ``[format.encode]``.
"""

import torch
from torch import Tensor

from qloracle.errors import reject_type, reject_value
from qloracle.formats import FORMATS, TENSOR_FORMATS
from qloracle_gpu.torch.casts import LARGE_INTEGERS, as_float64, nearest_cast, on_capable_device
from qloracle_gpu.torch.compiling import compiles_as_operator
from qloracle_gpu.torch.float8_table import LARGEST_MANTISSA, write_float8
from qloracle_gpu.torch.formats import DTYPES, FLOAT8, FLOAT8_NAMES, NAMES, require_dtype, require_tensor
from qloracle_gpu.torch.kernels.availability import kernels_run_on
from qloracle_gpu.torch.pieces import piece_size, spans, work_through
from qloracle_gpu.torch.rounding_rules import rounded_words

ROUNDINGS = ("ties_to_even", "ties_to_away", "toward_zero", "toward_positive", "toward_negative", "stochastic")
OVERFLOWS = ("ieee", "saturate")
NAN_BITS = ("payload", "sign", "canonical")
TARGETS = {**DTYPES, **FLOAT8}
NARROW = ("float16", "bfloat16", *FLOAT8)  # what kernels convert to
SMALL_INTEGERS = (torch.int8, torch.int16, torch.int32, torch.uint8, torch.uint16, torch.uint32)
WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


@compiles_as_operator
def decode(bits: Tensor) -> Tensor:
    """Return the exact value of every element, as float32.

    Parameters
    ----------
    bits : tensor of float8_e4m3fn, float8_e5m2, bfloat16, float16 or float32, any shape

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
    source = require_tensor("bits", bits)
    fmt = {**FLOAT8_NAMES, **NAMES}.get(source.dtype)
    if fmt not in (*TENSOR_FORMATS, *FLOAT8):
        reject_type("bits", "float32, float16 or bfloat16, or float8_e4m3fn or float8_e5m2", source.dtype)
    if fmt in FLOAT8 and kernels_run_on(source.device.type):
        from qloracle_gpu.torch.kernels.conversions import decode_flat

        values = torch.empty(source.shape, dtype=torch.float32, device=source.device)
        decode_flat(source.contiguous(), values, fmt)
        return values
    return source.to(torch.float32, copy=True, memory_format=torch.contiguous_format)


@compiles_as_operator
def encode(
    values: Tensor, fmt: str, *, rounding: str = "ties_to_even", overflow: str | None = None, nan: str | None = None,
    random_bits: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Round every value once to a format.

    result = the number of `fmt` that `rounding` picks for the exact value; to nearest, a tie goes to the even bit
    pattern.

    Parameters
    ----------
    values : tensor of float64, float32, float16, bfloat16, float8_e4m3fn, float8_e5m2 or any integer dtype, any shape
    fmt : {"float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"}
        Name of the target format; float64 knows the defaults alone.
    rounding : {"ties_to_even", "ties_to_away", "toward_zero", "toward_positive", "toward_negative", "stochastic"}
        Stochastic rounding takes no 64-bit integers to float32.
    overflow : {"ieee", "saturate"}, optional
        What becomes of values beyond the largest finite one: by default "ieee", infinity, or NaN in float8_e4m3fn.
    nan : {"payload", "sign", "canonical"}, optional
        Which bits a NaN gets; if None, those that are fastest.
    random_bits : tensor of uint32, the shape of `values`
        The random bits of stochastic rounding, and only of it.

    Returns
    -------
    tensor of the format's own dtype, the shape of `values`
        A new tensor. Signs of zero are kept, subnormals are not flushed, NaN gives NaN.

    Raises
    ------
    ArgumentTypeError
        If `values` is neither a float nor an integer tensor, or `random_bits` is no uint32 tensor.
    ArgumentValueError
        If the format, the rounding, the overflow rule or that of NaN is not one of these, or `random_bits` is missing,
        superfluous, of another shape or on another device.

    Notes
    -----
    Clause ``[format.encode]``. Rounding points: one, to `fmt`.

    Examples
    --------
    >>> encode(torch.tensor([1 + 2**-8 + 2**-40, 1 + 2**-8], dtype=torch.float64), "bfloat16").view(torch.int16)
    tensor([16257, 16256], dtype=torch.int16)
    >>> encode(torch.tensor([464, 464.001, -1e30]), "float8_e4m3fn", overflow="saturate").view(torch.uint8)
    tensor([126, 126, 254], dtype=torch.uint8)
    """
    if fmt not in TARGETS:
        reject_value("fmt", f"one of {', '.join(TARGETS)}", repr(fmt))
    for argument, value, known in (
        ("rounding", rounding, ROUNDINGS), ("overflow", overflow, (None, *OVERFLOWS)), ("nan", nan, (None, *NAN_BITS))
    ):  # fmt: skip
        if value not in known:
            reject_value(argument, f"one of {', '.join(filter(None, known))}", repr(value))
    source = require_tensor("values", values)
    random = _random_bits(random_bits, rounding, source)
    if source.dtype in FLOAT8_NAMES:
        source = decode(source)
    elif source.dtype not in (*NAMES, *SMALL_INTEGERS, *LARGE_INTEGERS):
        reject_type("values", f"a tensor of {', '.join([*NAMES.values(), *FLOAT8])} or integers", source.dtype)
    default = rounding == "ties_to_even" and overflow in (None, "ieee") and nan is None
    if default and fmt in DTYPES:
        return nearest_cast(source, DTYPES[fmt])
    if fmt == "float64":
        reject_value("rounding", "ties_to_even, with the default rules, for float64", repr(rounding))
    if fmt == "float32" and rounding == "stochastic" and source.dtype in LARGE_INTEGERS:
        reject_value("rounding", "another one than stochastic for 64-bit integers to float32", repr(rounding))
    return _ruled(source, fmt, rounding, overflow or "ieee", nan or "payload", random)


def round_to(
    values: Tensor, fmt: str, *, rounding: str = "ties_to_even", overflow: str | None = None, nan: str | None = None,
    random_bits: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return `encode` of every value: torch has a dtype for every format that this package encodes to.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `encode`.

    Examples
    --------
    >>> round_to(torch.tensor([1 / 3]), "float16")
    tensor([0.3333], dtype=torch.float16)
    """
    return encode(values, fmt, rounding=rounding, overflow=overflow, nan=nan, random_bits=random_bits)


def _random_bits(random_bits: Tensor | None, rounding: str, values: Tensor) -> Tensor | None:
    """Return the random bits if the rounding takes any, else None; refuse what does not fit."""
    if rounding != "stochastic":
        if random_bits is not None:
            reject_value("random_bits", f"None where rounding is {rounding}", "an argument")
        return None
    if random_bits is None:
        reject_value("random_bits", "given where rounding is stochastic", "None")
    random = require_dtype("random_bits", random_bits, torch.uint32)
    if random.shape != values.shape or random.device != values.device:
        expected = f"of shape {tuple(values.shape)} on {values.device}, as values"
        reject_value("random_bits", expected, f"{tuple(random.shape)} on {random.device}")
    return random


def _ruled(source: Tensor, fmt: str, rounding: str, overflow: str, nan: str, random: Tensor | None) -> Tensor:
    """Return numbers rounded by a rule that torch's casts do not have."""
    named = FORMATS[fmt]
    found = torch.empty(source.shape, dtype=TARGETS[fmt], device=source.device)
    if kernels_run_on(source.device.type) and fmt in NARROW and NAMES.get(source.dtype) in TENSOR_FORMATS:
        from qloracle_gpu.torch.kernels.conversions import encode_constants, encode_flat

        constants = encode_constants(named, NAMES[source.dtype], rounding, overflow, nan)
        encode_flat(source.contiguous(), found, None if random is None else random.contiguous(), constants)
        return found
    flat, words = source.reshape(-1), found.view(-1).view(WORDS[found.itemsize])
    if random is None and named.mantissa_bits <= LARGEST_MANTISSA and NAMES.get(source.dtype) in TENSOR_FORMATS:
        write_float8(flat, fmt, rounding, overflow, nan, words)
        return found
    bits = None if random is None else random.view(torch.int32).reshape(-1)

    def write_piece(span: slice) -> None:
        part = None if bits is None else on_capable_device(bits[span]).to(torch.int64) & 0xFFFFFFFF
        words[span] = rounded_words(as_float64(flat[span]), named, rounding, overflow, nan, part).to(words.dtype)

    work_through(spans(flat.numel(), piece_size(flat.device)), write_piece, flat)
    return found
