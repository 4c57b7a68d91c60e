"""Conversions between formats by integers alone: every rounding, both rules of overflow, every rule of NaN.

The positions are those of `qloracle.positions`: a float32 is a significand of 24 bits, of which the target keeps all
but the last d; d is larger below the target's smallest normal number, and beyond 25 nothing but more or less than zero
is left to tell.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from qloracle.formats import FLOAT32, FORMATS, Format
from qloracle_gpu.torch.kernels.availability import OPTIONS, on_device_of, tile_size

TILE = tile_size(2048)  # elements of a program
WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


@triton.jit
def float32_bits(raw, SOURCE: tl.constexpr):
    """Return the bits of the float32 that equals a word of float32, float16 or bfloat16; NaN keeps its payload."""
    if SOURCE == "float32":
        return raw
    elif SOURCE == "bfloat16":
        return raw.to(tl.int32) << 16
    else:
        word = raw.to(tl.int32)
        wide = raw.to(tl.float16, bitcast=True).to(tl.float32).to(tl.int32, bitcast=True)
        nan = ((word >> 15) << 31) | 0x7F800000 | ((word & 0x3FF) << 13)
        return tl.where((word & 0x7FFF) > 0x7C00, nan, wide)


@triton.jit
def raised(below, fraction, dropped, negative, random, ROUNDING: tl.constexpr):
    """Return whether a magnitude goes up: `fraction`, an integer, is that many parts of 2^dropped."""
    short = tl.minimum(dropped, 30)
    half = tl.full(below.shape, 1, tl.int32) << (short - 1)
    if ROUNDING == "ties_to_even":
        return fraction + (below & 1) > half
    elif ROUNDING == "ties_to_away":
        return fraction >= half
    elif ROUNDING == "toward_positive":
        return (fraction > 0) & (negative == 0)
    elif ROUNDING == "toward_negative":
        return (fraction > 0) & (negative != 0)
    elif ROUNDING == "stochastic":
        # The random bits are below fraction · 2^(32 − dropped), that is below the next integer.
        left = tl.maximum(32 - dropped, 0).to(tl.int64)
        right = tl.minimum(tl.maximum(dropped - 32, 0), 40).to(tl.int64)
        wide = fraction.to(tl.int64)
        above = ((wide << left) + (tl.full(below.shape, 1, tl.int64) << right) - 1) >> right
        return (random.to(tl.int64) & 0xFFFFFFFF) < above
    else:
        return fraction < 0


@triton.jit
def leaves(negative, magnitude, ROUNDING: tl.constexpr, SATURATE: tl.constexpr):
    """Return 1 where a number beyond the largest finite one leaves the format, else 0."""
    if SATURATE or ROUNDING == "toward_zero":
        out = negative * 0
    elif ROUNDING == "toward_positive":
        out = 1 - negative
    elif ROUNDING == "toward_negative":
        out = negative
    else:
        out = negative * 0 + 1
    if SATURATE:
        return out
    else:
        return tl.where(magnitude == 0x7F800000, 1, out)  # an infinite value is exact


@triton.jit
def encoded(bits, random, MANTISSA: tl.constexpr, GAP: tl.constexpr, FINITE: tl.constexpr, INFINITY: tl.constexpr,
            QUIET: tl.constexpr, PAYLOAD: tl.constexpr, SIGN: tl.constexpr, NAN_SIGN: tl.constexpr,
            ROUNDING: tl.constexpr, SATURATE: tl.constexpr):  # fmt: skip
    """Return the words of a format for the bits of float32.

    GAP is by how many binades the target's normal numbers begin later than those of float32; INFINITY and QUIET are the
    words of infinity (0 where there is none) and of the NaN without payload; SIGN is the place of the sign.
    """
    magnitude, negative = bits & 0x7FFFFFFF, (bits >> 31) & 1
    field = tl.maximum(magnitude >> 23, 1)
    significand = magnitude - ((field - 1) << 23)
    binade = tl.maximum(field, GAP + 1)
    dropped = binade - field + (23 - MANTISSA)
    short = tl.minimum(dropped, 30)
    below = ((binade - (GAP + 1)) << MANTISSA) + (significand >> short)
    fraction = significand & ((tl.full(bits.shape, 1, tl.int32) << short) - 1)
    found = below + raised(below, fraction, dropped, negative, random, ROUNDING).to(tl.int32)
    outside, lost = found > FINITE, magnitude > 0x7F800000
    leaving = leaves(negative, magnitude, ROUNDING, SATURATE) == 1
    if INFINITY == 0:
        lost = lost | (outside & leaving)
    found = tl.where(outside, tl.where(leaving, FINITE + 1, FINITE), found)
    nan = tl.full(bits.shape, QUIET, tl.int32)
    if PAYLOAD:
        nan = nan | ((magnitude >> (23 - MANTISSA)) & ((1 << MANTISSA) - 1))
    return tl.where(lost, nan, found) | tl.where(lost & (NAN_SIGN == 0), 0, negative << SIGN)


@triton.jit
def encode_kernel(x_ptr, random_ptr, out_ptr, size, TILE: tl.constexpr, SOURCE: tl.constexpr, MANTISSA: tl.constexpr,
                  GAP: tl.constexpr, FINITE: tl.constexpr, INFINITY: tl.constexpr, QUIET: tl.constexpr,
                  PAYLOAD: tl.constexpr, SIGN: tl.constexpr, NAN_SIGN: tl.constexpr, ROUNDING: tl.constexpr,
                  SATURATE: tl.constexpr):  # fmt: skip
    """Round TILE numbers to a format and write its words; the constants are those of `encoded`."""
    start = tl.program_id(0).to(tl.int64) * TILE
    lanes = tl.arange(0, TILE)
    inside = lanes < tl.minimum(size - start, TILE).to(tl.int32)
    bits = float32_bits(tl.load(x_ptr + start + lanes, mask=inside, other=0), SOURCE)
    random = tl.load(random_ptr + start + lanes, mask=inside, other=0) if ROUNDING == "stochastic" else lanes
    word = encoded(bits, random, MANTISSA, GAP, FINITE, INFINITY, QUIET, PAYLOAD, SIGN, NAN_SIGN, ROUNDING, SATURATE)
    tl.store(out_ptr + start + lanes, word.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def decode_kernel(x_ptr, out_ptr, size, TILE: tl.constexpr, MANTISSA: tl.constexpr, BIAS: tl.constexpr,
                  SMALLEST: tl.constexpr, FINITE: tl.constexpr, INFINITY: tl.constexpr):  # fmt: skip
    """Write the float32 that equals each word of a format of eight bits; SMALLEST is its smallest subnormal."""
    start = tl.program_id(0).to(tl.int64) * TILE
    lanes = tl.arange(0, TILE)
    inside = lanes < tl.minimum(size - start, TILE).to(tl.int32)
    word = tl.load(x_ptr + start + lanes, mask=inside, other=0).to(tl.int32)
    magnitude = word & 0x7F
    normal = (magnitude << (23 - MANTISSA)) + ((127 - BIAS) << 23)
    subnormal = (magnitude.to(tl.float32) * SMALLEST).to(tl.int32, bitcast=True)
    bits = tl.where(magnitude >> MANTISSA == 0, subnormal, normal)
    bits = tl.where(magnitude > FINITE, 0x7FC00000 | (magnitude << (23 - MANTISSA)), bits)
    if INFINITY:
        bits = tl.where(magnitude == INFINITY, 0x7F800000, bits)
    bits = bits | ((word >> 7) << 31)
    tl.store(out_ptr + start + lanes, bits.to(tl.float32, bitcast=True), mask=inside)


def encode_constants(target: Format, source: str, rounding: str, overflow: str, nan: str) -> dict[str, object]:
    """Return what `encode_kernel` is compiled for."""
    return {
        "SOURCE": source, "MANTISSA": target.mantissa_bits, "GAP": target.minimum_exponent - FLOAT32.minimum_exponent,
        "FINITE": target.finite_magnitude, "INFINITY": target.infinity_bits if target.infinities else 0,
        "QUIET": target.quiet_nan_bits, "PAYLOAD": nan == "payload" and target.top_nans > 1,
        "SIGN": target.code_bits - 1, "NAN_SIGN": int(nan != "canonical"), "ROUNDING": rounding,
        "SATURATE": overflow == "saturate",
    }  # fmt: skip


def decode_constants(fmt: Format) -> dict[str, object]:
    """Return what `decode_kernel` is compiled for."""
    return {
        "MANTISSA": fmt.mantissa_bits, "BIAS": fmt.bias, "SMALLEST": 2 * fmt.half_smallest_subnormal,
        "FINITE": fmt.finite_magnitude, "INFINITY": fmt.infinity_bits if fmt.infinities else 0,
    }  # fmt: skip


def encode_flat(values: Tensor, out: Tensor, random_bits: Tensor | None, constants: dict[str, object]) -> None:
    """Round a contiguous tensor to a contiguous one of another format."""
    if out.numel():
        random = values if random_bits is None else random_bits.view(torch.int32)  # a pointer that is not read
        words, found = (tensor.view(WORDS[tensor.itemsize]) for tensor in (values, out))
        with on_device_of(out):
            encode_kernel[(triton.cdiv(out.numel(), TILE),)](
                words, random, found, out.numel(), TILE=TILE, **constants, **OPTIONS
            )


def decode_flat(bits: Tensor, out: Tensor, fmt: str) -> None:
    """Write the values of a contiguous tensor of eight-bit words to a contiguous one of float32."""
    if out.numel():
        with on_device_of(out):
            decode_kernel[(triton.cdiv(out.numel(), TILE),)](
                bits.view(torch.uint8), out, out.numel(), TILE=TILE, **decode_constants(FORMATS[fmt]), **OPTIONS
            )
