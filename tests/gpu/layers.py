"""Operands of layers: small integers, whose sums are exact in any order; and comparisons with the reference."""

from dataclasses import fields
from typing import Any

import numpy as np
import torch

import qloracle
import qloracle_gpu.torch as backend
from qloracle.formats import Array
from qloracle.tracking.interval import Interval

from .words import require_same

FORMATS = ("float32", "float16", "bfloat16")
ROWS, D_IN, D_OUT, RANK = (2, 3), 5, 7, 4
SHAPES = {
    "x": (*ROWS, D_IN),
    "weight": (D_OUT, D_IN),
    "lora_a": (RANK, D_IN),
    "lora_b": (D_OUT, RANK),
    "bias": (D_OUT,),
}


def small_integers(seed: int, *shape: int) -> Array:
    """Numbers from −2 to 2: every partial sum is exact in float32, whatever its order."""
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(np.float32)


def lattice(*names: str) -> dict[str, Array]:
    """Operands of small integers."""
    return {name: small_integers(seed, *SHAPES[name]) for seed, name in enumerate(SHAPES) if name in (names or SHAPES)}


def dora_lattice() -> dict[str, Array]:
    """Operands of a DoRA layer whose merged rows have one number each, a power of two: norms and gains are exact."""
    operands = lattice("x", "weight", "lora_a", "lora_b")
    merged = np.zeros((D_OUT, D_IN), np.float32)
    merged[np.arange(D_OUT), np.arange(D_OUT) % D_IN] = [1, -2, 4, 0, -1, 2, 8]
    operands["weight"] = merged - 2 * operands["lora_b"] @ operands["lora_a"]  # alpha 8, rank 4
    return operands | {"magnitude": np.array([2, 2, -4, 8, 3, 0, 4], np.float32)}


def random_operands(seed: int, **shapes: tuple[int, ...]) -> dict[str, Array]:
    """Standard normal numbers of named shapes."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def as_tensors(arrays: dict[str, Array], dtype: str = "float32") -> dict[str, torch.Tensor]:
    """The same numbers as tensors of a format."""
    return {name: torch.from_numpy(array).to(getattr(torch, dtype)) for name, array in arrays.items()}


def as_array(tensor: torch.Tensor) -> Array:
    """A tensor as the reference takes it, bfloat16 as words."""
    tensor = tensor.detach()
    return tensor.view(torch.uint16).numpy() if tensor.dtype is torch.bfloat16 else tensor.numpy()


def native(options: dict[str, Any]) -> dict[str, Any]:
    """Options with arrays as tensors."""
    return {name: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for name, v in options.items()}


def require_number(got: torch.Tensor, real: Array, dtype: str, rule: str) -> None:
    """Compare with the real numbers rounded to a format; the sign of a zero sum is left open."""
    require_same(got.detach() + 0.0, qloracle.encode(real + 0.0, dtype), dtype, rule)


def require_inside(got: torch.Tensor, allowed: Interval, rule: str) -> None:
    """Fail where a result is outside of what a bound allows, whose ends are rounded to the format of the result."""
    y, name = got.detach().to(torch.float64).numpy(), str(got.dtype).removeprefix("torch.")
    lo, hi = (qloracle.decode(qloracle.encode(end, name), name) for end in (allowed.lo, allowed.hi))
    inside = (lo <= y) & (y <= hi)
    assert inside.all(), f"{rule}: {np.count_nonzero(~inside)} of {y.size} outside the bound"


RECORDS = ("QuantizedBlocks", "DoubleQuantized", "QuantizedInt8", "QuantizedAbsmax")


def reference_record(record: Any) -> Any:
    """A record of this backend as the reference's record of the same name."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    made = {
        name: reference_record(value) if type(value).__name__ in RECORDS
        else value.numpy() if isinstance(value, torch.Tensor) else value
        for name, value in values.items()
    }  # fmt: skip
    if "offset" in made:
        made["offset"] = np.float32(made["offset"])
    return getattr(qloracle, type(record).__name__)(**made)


def require_same_record(got: Any, expected: Any, rule: str) -> None:
    """Compare two records field by field, to the last bit."""
    for field in fields(expected):
        mine, theirs = getattr(got, field.name), getattr(expected, field.name)
        if isinstance(mine, torch.Tensor):
            require_same(mine, np.asarray(theirs), "float32" if mine.dtype is torch.float32 else None, rule)
        elif type(mine).__name__ in RECORDS:
            require_same_record(mine, theirs, f"{rule}, {field.name}")
        else:
            assert mine == theirs, f"{rule}: {field.name} is {mine!r}, expected {theirs!r}"


def quantizers() -> dict[str, Any]:
    """Quantizers of a weight by name."""
    return {
        "NF4": lambda w: backend.quantize_blockwise(w, codebook="nf4", block_size=8),
        "FP4, block 6": lambda w: backend.quantize_blockwise(w, codebook="fp4", block_size=6),
        "8-bit blocks": lambda w: backend.quantize_blockwise(w, codebook="dynamic_signed", block_size=8),
        "doubly quantized NF4": lambda w: backend.quantize_double(w, codebook="nf4", block_size=8),
        "INT8 by row": lambda w: backend.quantize_int8(w, granularity="row"),
        "INT8 by column": lambda w: backend.quantize_int8(w, granularity="column"),
        "INT8": backend.quantize_int8,
        "INT8 by block": lambda w: backend.quantize_int8(w, granularity="block", block_size=8),
        "affine by column": lambda w: backend.quantize_affine(w, granularity="column"),
        "affine 4 bits by group": lambda w: backend.quantize_affine(
            w, qmin=0, qmax=15, granularity="group", group_size=8
        ),
    }
