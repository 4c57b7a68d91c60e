"""Operands of linear layers: checked at the door, then float32 matrices.

Arrays of float32 and float16, and of the dtype bfloat16 where ml_dtypes is installed, tell their format themselves;
`fmt` names that of operands given as bit patterns.
"""

from dataclasses import dataclass
from math import isfinite, prod, sqrt

import numpy as np

from qloracle.errors import (
    reject_value,
    require_dtype,
    require_flag,
    require_number,
    require_one_of,
    require_positive_integer,
)
from qloracle.formats import FLOAT32, FORMATS, TENSOR_FORMATS, Format, format_named
from qloracle_gpu.cupy.arrays import carrier, require_tensor
from qloracle_gpu.cupy.launcher import Array, Operation, require_array
from qloracle_gpu.cupy.rounding import widened


def require_operand(argument: str, value: object, fmt: str | None) -> tuple[Array, Format]:
    """Return weights or activations and their format; `fmt` is that of arrays whose dtype tells none."""
    own = require_array(argument, value).dtype.name in FORMATS
    return require_tensor(argument, value, None if own else fmt)


def require_vector_operand(argument: str, value: object, length: int, fmt: str | None) -> tuple[Array, Format]:
    """Return a vector with one number for each output and its format, after checking its shape."""
    vector = require_operand(argument, value, fmt)
    if vector[0].shape != (length,):
        reject_value(argument, f"of shape ({length},)", vector[0].shape)
    return vector


def optional_vector(argument: str, value: object, length: int, fmt: str | None) -> tuple[Array, Format] | None:
    """Return None for None, else as `require_vector_operand`."""
    return None if value is None else require_vector_operand(argument, value, length, fmt)


def require_matrix_operand(argument: str, value: object, fmt: str | None) -> tuple[Array, Format]:
    """Return a 2-d operand and its format, else raise."""
    operand = require_operand(argument, value, fmt)
    if operand[0].ndim != 2:
        reject_value(argument, "2-d", f"{operand[0].ndim}-d")
    return operand


def require_rows(argument: str, value: object, fmt: str | None) -> tuple[Array, Format]:
    """Return activations of at least one axis and their format, else raise."""
    operand = require_operand(argument, value, fmt)
    if operand[0].ndim < 1:
        reject_value(argument, "at least 1-d", "0-d")
    return operand


def require_gradient(dy: object, expected: tuple[int, ...], fmt: str | None) -> tuple[Array, Format]:
    """Return the gradient of an output and its format, after checking its shape."""
    gradient = require_operand("dy", dy, fmt)
    if gradient[0].shape != expected:
        reject_value("dy", f"of shape {expected}", gradient[0].shape)
    return gradient


def output_format(out_dtype: object, own: Format) -> Format:
    """Return the format of a result: that of an operand, or the one asked for."""
    return own if out_dtype is None else format_named(require_one_of("out_dtype", out_dtype, TENSOR_FORMATS))


@dataclass(frozen=True)
class LoraOperands:
    """The four operands of a layer with an adapter, checked; not widened yet."""

    x: tuple[Array, Format]
    weight: tuple[Array, Format]
    lora_a: tuple[Array, Format]
    lora_b: tuple[Array, Format]
    fan_in_fan_out: bool

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Rows of x, d_in, d_out and the rank."""
        x, b = self.x[0], self.lora_b[0]
        return prod(x.shape[:-1]), x.shape[-1], b.shape[0], b.shape[1]


def lora_operands(
    x: object, weight: object, lora_a: object, lora_b: object, fan_in_fan_out: bool, fmt: str | None
) -> LoraOperands:
    """Return the four operands after checking that their shapes belong together."""
    named = (("x", x), ("weight", weight), ("lora_a", lora_a), ("lora_b", lora_b))
    rows, w, a, b = (require_operand(argument, array, fmt) for argument, array in named)
    require_flag("fan_in_fan_out", fan_in_fan_out)
    if rows[0].ndim < 1:
        reject_value("x", "at least 1-d", "0-d")
    for argument, (array, _) in (("weight", w), ("lora_a", a), ("lora_b", b)):
        if array.ndim != 2:
            reject_value(argument, "2-d", f"{array.ndim}-d")
    d_in, rank = rows[0].shape[-1], len(a[0])
    d_out = w[0].shape[1] if fan_in_fan_out else len(w[0])
    stored = (d_in, d_out) if fan_in_fan_out else (d_out, d_in)
    for argument, array, shape in (("weight", w[0], stored), ("lora_a", a[0], (rank, d_in))):
        if array.shape != shape:
            reject_value(argument, f"of shape {shape} for x of shape {rows[0].shape}", array.shape)
    if b[0].shape != (d_out, rank):
        reject_value("lora_b", f"of shape {(d_out, rank)}", b[0].shape)
    return LoraOperands(rows, w, a, b, fan_in_fan_out)


def lora_scale(alpha: float, rank: int, *, rank_stabilized: bool = False) -> np.float32:
    """Return s = alpha/rank, or alpha/√rank for rsLoRA, rounded to float32.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `rank` is no positive integer, `alpha` no finite number, s is beyond the largest finite float32 number, or
        `rank_stabilized` no bool.

    Notes
    -----
    Clause ``[lora.scale]``.
    """
    rank, alpha = require_positive_integer("rank", rank), require_number("alpha", alpha)
    if not isfinite(alpha):
        reject_value("alpha", "finite", alpha)
    scale = alpha / (sqrt(rank) if require_flag("rank_stabilized", rank_stabilized) else rank)
    if abs(scale) > FLOAT32.largest_finite:
        reject_value("alpha", f"such that the scale is at most {FLOAT32.largest_finite!r}, for rank {rank}", alpha)
    return np.float32(scale)


@dataclass(frozen=True)
class Dropout:
    """The mask of a dropout and the factor of what it keeps."""

    mask: Array | None  # bool, contiguous, 1-d; None: nothing is dropped
    factor: np.float32
    everything: bool  # p = 1: what is dropped is 0, be it NaN


def require_dropout(mask: object, dropout: float, shape: tuple[int, ...]) -> Dropout:
    """Return 1/(1 − p), 0 for p = 1, and the mask.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If p is outside [0, 1] or positive without a mask, or the mask is not bool of the shape of x.
    """
    dropout = require_number("dropout", dropout)
    if not 0 <= dropout <= 1:
        reject_value("dropout", "a probability from 0 to 1", dropout)
    if mask is None:
        if dropout > 0:
            reject_value("mask", "given when dropout is positive", None)
        return Dropout(None, np.float32(1), everything=False)
    kept = require_array("mask", mask)
    require_dtype("mask", kept, "bool")
    if kept.shape != shape:
        reject_value("mask", f"of the shape of x {shape}", kept.shape)
    return Dropout(kept, np.float32(0 if dropout == 1 else 1 / (1 - dropout)), everything=dropout == 1)


def matrix(run: Operation, operand: tuple[Array, Format], rows: int, columns: int) -> Array:
    """Return an operand as a float32 matrix."""
    return widened(run, *operand).reshape(rows, columns)


def zeros(run: Operation, shape: int | tuple[int, ...]) -> Array:
    """Return float32 zeros."""
    made = run.empty(shape, "float32")
    made[...] = 0
    return made


def dropped(run: Operation, x: Array, dropout: Dropout) -> Array:
    """Return x·mask/(1 − p) of a float32 matrix."""
    if dropout.everything:
        return zeros(run, x.shape)
    if dropout.mask is None:
        return x
    out = run.empty(x.shape, "float32")
    arguments = (x, run.contiguous(dropout.mask), np.int64(x.size), dropout.factor, out)
    run.launch("layers", "drop", x.size, arguments)
    return out


def scaled(run: Operation, x: Array, scale: np.float32, dtype: Format) -> Array:
    """Return RN_dtype(fl32(x·scale)) of a float32 array."""
    out = run.empty(x.shape, carrier(dtype))
    flat = run.contiguous(x)
    run.launch("layers", f"scaled_{dtype.name}", x.size, (flat, np.int64(x.size), scale, out))
    return out


def summed_rows(run: Operation, x: Array) -> Array:
    """Return the sums of the columns of a float32 matrix, over all rows."""
    rows, columns = x.shape
    total = zeros(run, columns)
    name = "float32"
    while rows:
        runs = -(-rows // 256)
        partial = run.empty((runs, columns), "float64")
        arguments = (x, np.int64(rows), np.int64(columns), partial, total)
        run.launch("layers", f"sum_rows_{name}", runs * columns, arguments)
        x, rows, name = partial, runs if runs > 1 else 0, "float64"
    return total
