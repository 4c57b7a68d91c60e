"""Compare conversions with the reference under every rule; print what converted, and how many words were compared.

Run in a process of its own: with TRITON_INTERPRET=1 the kernels convert, else the eager code.
"""

from itertools import product

import numpy as np
import torch

import qloracle
import qloracle_gpu.torch as backend
from qloracle.formats import FLOAT32, FORMATS, Array
from qloracle_gpu.torch.kernels.availability import kernels_of
from qloracle_gpu.torch.rounding import NAN_BITS, NARROW, OVERFLOWS, ROUNDINGS

EVERY_HALF = np.arange(2**16, dtype=np.uint16)


def float32_around(fmt: str) -> Array:
    """Numbers of a format, ties between them, and one float32 on either side of each; specials and random words."""
    named = FORMATS[fmt]
    reals = qloracle.decode(np.arange(1 << named.code_bits).astype(named.word), fmt)
    reals = np.unique(reals[np.isfinite(reals)])
    near = np.concatenate([reals, (reals[:-1] + reals[1:]) / 2]).astype(np.float32).view(np.uint32)
    rng = np.random.default_rng(3)
    near = near if near.size < 2**13 else rng.choice(near, 2**13, replace=False)
    specials = [0, 1, 0x7FFFFF, 0x800000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC12345, 0x47800000, 0x43E80000]
    words = np.concatenate([near - 1, near, near + 1, np.array(specials, np.uint32)])
    return np.concatenate([words, words | 0x80000000, rng.integers(0, 2**32, 2**12, dtype=np.uint32)]).astype(np.uint32)


def compared(words: Array, source: str, target: str, rounding: str, overflow: str, nan: str) -> int:
    """Compare one rule on many words, bit for bit."""
    random = np.random.default_rng(4).integers(0, 2**32, words.size, dtype=np.uint32)
    random[::7], random[3::7] = 0, 2**32 - 1
    stochastic = rounding == "stochastic"
    expected = qloracle.encode(
        words, target, rounding=rounding, overflow=overflow, nan=nan, random_bits=random if stochastic else None,
        source=source,
    )  # fmt: skip
    values = torch.from_numpy(words.view(f"i{words.itemsize}")).view(getattr(torch, source))
    bits = torch.from_numpy(random.view(np.int32)).view(torch.uint32) if stochastic else None
    got = backend.encode(values, target, rounding=rounding, overflow=overflow, nan=nan, random_bits=bits)
    mine = got.view({1: torch.uint8, 2: torch.int16}[got.itemsize]).numpy().view(expected.dtype)
    if (wrong := mine != expected).any():
        first = int(np.argmax(wrong))
        raise AssertionError(
            f"{source} {int(words[first]):#x} to {target}, {rounding}, {overflow}, {nan}: "
            f"got {int(mine[first]):#x}, expected {int(expected[first]):#x}"
        )
    return words.size


def decoded(fmt: str) -> int:
    """Compare the decoding of every word of eight bits."""
    words = np.arange(256, dtype=np.uint8)
    expected = qloracle.encode(qloracle.decode(words, fmt), "float32").view(np.uint32)
    mine = backend.decode(torch.from_numpy(words).view(getattr(torch, fmt))).numpy().view(np.uint32)
    nan = (expected & 0x7FFFFFFF) > FLOAT32.infinity_bits
    if ((mine != expected) & ~(nan & ((mine & 0x7FFFFFFF) > FLOAT32.infinity_bits))).any():
        raise AssertionError(f"decode {fmt}")
    return words.size


def main() -> None:
    count = sum(decoded(fmt) for fmt in NARROW if FORMATS[fmt].code_bits == 8)
    for target, rounding, overflow in product(NARROW, ROUNDINGS, OVERFLOWS):
        for source, words in (("float32", float32_around(target)), ("float16", EVERY_HALF), ("bfloat16", EVERY_HALF)):
            for nan in NAN_BITS if rounding == "toward_zero" else NAN_BITS[:1]:
                count += compared(words, source, target, rounding, overflow, nan)
    print(kernels_of("cpu").split()[0], count)  # noqa: T201


if __name__ == "__main__":
    main()
