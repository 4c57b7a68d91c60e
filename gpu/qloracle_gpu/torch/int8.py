"""Absmax INT8: symmetric codes from −127 to 127.

Clauses: ``[int8.absmax]``, ``[int8.quantize]``, ``[int8.dequantize]``.
"""

from dataclasses import dataclass
from functools import cache
from math import prod

import torch
from torch import Tensor

from qloracle.errors import reject_value
from qloracle_gpu.torch.blocks import (
    absmax_of_columns,
    absmax_of_rows,
    block_absmax,
    block_columns,
    block_matrices,
)
from qloracle_gpu.torch.compiling import compiles_as_operator
from qloracle_gpu.torch.formats import (
    NAMES,
    dtype_named,
    float64_device,
    require_device,
    require_dtype,
    require_tensor_format,
)
from qloracle_gpu.torch.groups import group_shape
from qloracle_gpu.torch.kernels.availability import kernels_run_on
from qloracle_gpu.torch.kernels.compiled_loops import broadcast_steps, loops_take, run_loop
from qloracle_gpu.torch.nearest import NearestRule, cell_table, write_nearest_codes
from qloracle_gpu.torch.pieces import piece_size, shared_by, tiles, work_through

LARGEST_CODE = 127
GRANULARITIES = ("tensor", "row", "column", "block")


@dataclass(frozen=True)
class QuantizedInt8:
    """A tensor as INT8 codes with the absmax of each group that shares a scale."""

    codes: Tensor  # int8, the shape of the original, −127 to 127
    absmax: Tensor  # float32: () for tensor, one a row, one a column, or one a flat block
    granularity: str  # one of GRANULARITIES
    block_size: int | None  # for granularity "block"
    dtype: str  # format name of the original


@compiles_as_operator
def quantize_int8(x: Tensor, *, granularity: str = "tensor", block_size: int | None = None) -> QuantizedInt8:
    """Quantize a tensor to INT8 by absmax.

    q = the integer nearest to the real number 127·x/absmax, ties to even.

    Parameters
    ----------
    x : tensor of float32, float16 or bfloat16, any strides
    granularity : {"tensor", "row", "column", "block"}
        Which elements share an absmax: all, those of one position in all axes but the last, those of one position in
        the last axis, or those of a flat block.
    block_size : int, optional
        Elements in a flat block, for granularity "block".

    Returns
    -------
    QuantizedInt8

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        For another dtype, or a granularity that does not go with the shape or the block size.

    Notes
    -----
    Clauses ``[int8.absmax]``, ``[int8.quantize]``. Rounding points: one, to an integer. A group with any NaN or ±inf
    has absmax NaN and codes 0. The code −128 never occurs.

    Examples
    --------
    >>> q = quantize_int8(torch.tensor([1.2, -0.5, -4.3, 1.2, -3.1, 0.8, 2.4, 5.4]))
    >>> q.codes.tolist(), q.absmax
    ([28, -12, -101, 28, -73, 19, 56, 127], tensor(5.4000))
    """
    values = require_tensor_format("x", x)
    shape = absmax_shape(values.shape, granularity, block_size)
    if _kernels_take(values):
        from qloracle_gpu.torch.kernels.int8_launches import quantized

        codes, absmax = quantized(values, granularity, block_size, NAMES[values.dtype])
        return QuantizedInt8(codes, absmax.view(shape), granularity, block_size, NAMES[values.dtype])
    absmax = _absmax(values, shape, granularity, block_size)
    codes = int8_codes(values, absmax, granularity, block_size)
    return QuantizedInt8(codes, absmax, granularity, block_size, NAMES[values.dtype])


def int8_codes(values: Tensor, absmax: Tensor, granularity: str, block_size: int | None) -> Tensor:
    """Return the code of every element, given the absmax of its group, which none exceeds."""
    if _kernels_take(values):
        from qloracle_gpu.torch.kernels.int8_launches import codes_of

        return codes_of(values, absmax, granularity, block_size, NAMES[values.dtype])
    codes = torch.empty(values.shape, dtype=torch.int8, device=values.device)
    rule = _int8_rule(values.device)
    for part, scale, out in zip(
        _group_matrices(values, granularity, block_size),
        _group_scales(absmax, values.shape, granularity, block_size),
        _group_matrices(codes, granularity, block_size),
        strict=True,
    ):
        write_nearest_codes(part, scale, rule, out)
    return codes


@compiles_as_operator
def dequantize_int8(quantized: QuantizedInt8, *, dtype: str | None = None) -> Tensor:
    """Restore a tensor from its INT8 codes and absmax.

    value = RN_dtype(fl32(q·absmax/127)), the quotient real; +0 where absmax is 0, NaN where it is NaN.

    Parameters
    ----------
    quantized : QuantizedInt8
    dtype : {"float32", "float16", "bfloat16"}, optional
        Output format; by default that of the original.

    Returns
    -------
    tensor of `dtype`, the shape of the codes

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If codes and absmax are not int8 and float32 of shapes that belong together, or the format is unknown.

    Notes
    -----
    Clause ``[int8.dequantize]``. Rounding points, in order: the quotient to float32; to `dtype`. The quotient is taken
    in float64, piece by piece, which decides the float32 rounding exactly (second lemma of `qloracle.int8`).

    Examples
    --------
    >>> dequantize_int8(quantize_int8(torch.tensor([1.0, -2.0])))
    tensor([ 1.0079, -2.0000])
    """
    target = dtype_named(quantized.dtype if dtype is None else dtype, "dtype")
    codes, absmax = require_int8_parts(quantized)
    granularity, block_size = quantized.granularity, quantized.block_size
    values = torch.empty(codes.shape, dtype=target, device=codes.device)
    if _kernels_take(codes):
        from qloracle_gpu.torch.kernels.int8_launches import write_values

        write_values(codes, absmax, granularity, block_size, values, NAMES[target])
        return values
    for part, scale, out in zip(
        _group_matrices(codes, granularity, block_size),
        _group_scales(absmax, codes.shape, granularity, block_size),
        _group_matrices(values, granularity, block_size),
        strict=True,
    ):
        _write_values(part, scale, out)
    return values


def require_int8_parts(quantized: QuantizedInt8) -> tuple[Tensor, Tensor]:
    """Return codes and absmax if their dtypes, shapes and devices belong together, else raise."""
    codes = require_dtype("codes", quantized.codes, torch.int8)
    absmax = require_dtype("absmax", quantized.absmax, torch.float32)
    expected = absmax_shape(codes.shape, quantized.granularity, quantized.block_size)
    if absmax.shape != expected:
        reject_value("absmax", f"of shape {expected}", tuple(absmax.shape))
    return codes, require_device("absmax", absmax, codes.device)


def _kernels_take(tensor: Tensor) -> bool:
    """Return whether kernels work on a tensor: they have no groups without elements."""
    return kernels_run_on(tensor.device.type) and tensor.numel() > 0


def _write_values(codes: Tensor, absmax: Tensor, out: Tensor) -> None:
    """Write the values of a matrix of codes; `absmax` broadcasts to it."""

    def write_piece(tile: tuple[slice, slice]) -> None:
        part, scale, values = codes[tile], shared_by(tile, absmax), out[tile]
        if loops_take(part, scale) and values.is_contiguous():
            steps = broadcast_steps(scale)
            run_loop(f"dequantize_int8_{NAMES[out.dtype]}", part.contiguous(), scale, *steps, *part.shape, values)
            return
        capable = float64_device(codes.device)
        quotient = (part.to(capable) * scale.to(capable).to(torch.float64)).div_(LARGEST_CODE)
        # −0, from a zero code or a zero absmax, becomes +0; what only float32 rounds to zero keeps its sign.
        values.copy_(quotient.add_(0.0).to(torch.float32))

    work_through(tiles(codes), write_piece, codes)


def absmax_shape(shape: tuple[int, ...], granularity: str, block_size: int | None) -> tuple[int, ...]:
    """Return the shape of the absmax, or raise if the granularity does not go with the shape or the block size."""
    return group_shape(shape, granularity, block_size, GRANULARITIES)


def _absmax(x: Tensor, shape: tuple[int, ...], granularity: str, block_size: int | None) -> Tensor:
    if block_size is not None:
        return block_absmax(x, block_size)
    if granularity == "tensor":
        partial = block_absmax(x, piece_size(x.device))
        return torch.cat([partial.new_zeros(1), partial]).amax()
    (matrix,) = _group_matrices(x, granularity, None)
    return (absmax_of_rows(matrix) if granularity == "row" else absmax_of_columns(matrix)).view(shape)


def _group_matrices(tensor: Tensor, granularity: str, block_size: int | None) -> list[Tensor]:
    """Return the tensor as matrices, views where its strides allow: one, or full blocks and the short last one."""
    if block_size is not None:
        return block_matrices(tensor.reshape(-1), block_size)
    columns = 1 if granularity == "tensor" else tensor.shape[-1]
    rows = tensor.numel() if granularity == "tensor" else prod(tensor.shape[:-1])
    return [tensor.reshape(rows, columns)]


def _group_scales(absmax: Tensor, shape: tuple[int, ...], granularity: str, block_size: int | None) -> list[Tensor]:
    """Return the absmax as matrices that broadcast to those of `_group_matrices`."""
    if block_size is not None:
        return block_columns(absmax, prod(shape), block_size)
    return [absmax.reshape(-1, 1) if granularity == "row" else absmax.reshape(1, -1)]


@cache
def _int8_rule(device: torch.device) -> NearestRule:
    """Return the rule of INT8 codes, its table on a device."""
    codes = torch.arange(-LARGEST_CODE, LARGEST_CODE + 1, dtype=torch.int16, device="cpu")
    boundaries = (codes[:-1].to(torch.float64) + 0.5) / LARGEST_CODE
    return NearestRule(cell_table(boundaries, codes).to(device), _exact_int8_codes)


def _exact_int8_codes(x: Tensor, absmax: Tensor) -> Tensor:
    # 127·x is exact, and a quotient in float64 rounds to the same integer as the real one: lemma in `qloracle.int8`.
    return (x * LARGEST_CODE / absmax).nan_to_num(0.0).round().to(torch.int16)
