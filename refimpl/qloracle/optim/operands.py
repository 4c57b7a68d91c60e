"""What an optimizer step is given and gives back: operands that belong together, and the rounding of its results.

Clause: ``[adamw.stochastic]``.
"""

import numpy as np

from qloracle.errors import reject_type, reject_value, require_dtype
from qloracle.formats import Array, format_of, from_bits, tensor_format
from qloracle.operands import real_operand
from qloracle.rounding import encode


def round_parameter(real: Array, fmt: str, random_bits: Array | None) -> Array:
    """Return RN_fmt of real parameters, or with random bits their stochastic rounding.

    Notes
    -----
    Clause ``[adamw.stochastic]``: the magnitude goes up to the next number of `fmt` if and only if R < frac·2^32, where
    frac is the part of the way to it; what `fmt` holds exactly never moves. The expected value is the real p', so small
    updates are not lost as they are with rounding to nearest. Rounding points: one, to `fmt`.
    """
    if random_bits is None:
        return from_bits(encode(real, fmt), fmt)
    return from_bits(encode(real, fmt, rounding="stochastic", random_bits=random_bits), fmt)


def require_random_bits(random_bits: Array | None, fmt: str, shape: tuple[int, ...]) -> None:
    """Raise unless random bits are none, or uint32 of the shape of a 16-bit parameter."""
    if random_bits is None:
        return
    if fmt == "float32":
        reject_value("random_bits", "None for float32 parameters", "bits")
    require_dtype("random_bits", random_bits, "uint32")
    if random_bits.shape != shape:
        reject_value("random_bits", f"of the shape of p {shape}", random_bits.shape)


def require_same_format(p: Array, gradient: Array, fmt: str | None) -> str:
    """Return the common format of parameter and gradient, or raise unless both have the same format and shape."""
    named = tensor_format(p, fmt, "p")
    other = format_of(gradient, fmt, "gradient", f"of the format of p, {named.name}")
    if named is not other:
        reject_type("gradient", f"of the format of p, {named.name}", other.name)
    if gradient.shape != p.shape:
        reject_value("gradient", f"of the shape of p {p.shape}", gradient.shape)
    return named.name


def real_moments(m: Array, v: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Return both moments as float64, after checking them."""
    require_moments(m, v, shape)
    return real_operand(m, "m"), real_operand(v, "v")


def require_moments(m: Array, v: Array, shape: tuple[int, ...]) -> None:
    """Raise unless both moments are float32 of one shape and v has no negative element."""
    for argument, moment in (("m", m), ("v", v)):
        require_dtype(argument, moment, "float32")
        if moment.shape != shape:
            reject_value(argument, f"of shape {shape}", moment.shape)
    if np.any(v < 0):
        reject_value("v", "a mean of squares, nowhere below 0", float(np.min(v)))


def to_single(values: Array) -> Array:
    """Return fl32 of real numbers; beyond the range that is infinity."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(values).astype(np.float32)
