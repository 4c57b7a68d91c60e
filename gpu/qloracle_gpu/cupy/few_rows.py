"""Products with a weight that is stored quantized: from its codes where x has few rows, else dequantized first.

Clauses: ``[quantized.matmul]``, ``[weight_only.forward]``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from qloracle.codebooks import Codebook
from qloracle.formats import TENSOR_FORMATS
from qloracle_gpu.cupy.affine import QuantizedAffine, require_affine
from qloracle_gpu.cupy.arrays import flat_items
from qloracle_gpu.cupy.blockwise import QuantizedBlocks, require_blocks
from qloracle_gpu.cupy.codebooks import entries_of
from qloracle_gpu.cupy.double_quant import DoubleQuantized, restore_absmax
from qloracle_gpu.cupy.groups import group_runs
from qloracle_gpu.cupy.int8 import QuantizedInt8, require_int8
from qloracle_gpu.cupy.launcher import Array, Operation
from qloracle_gpu.cupy.lora import product
from qloracle_gpu.cupy.qlora import QuantizedWeight, qlora_weight
from qloracle_gpu.cupy.vectors import LANES

MOST_CODEBOOK_ROWS = 4  # rows of x up to which codes of a codebook are read in the product itself
INTEGER_ROWS = (1, 4, 16)  # likewise INT8 and affine codes: there is a kernel for up to each of these


@dataclass(frozen=True)
class StoredProduct:
    """How a float32 matrix of shape (rows, d_in) becomes x Wᵀ, float32 of shape (rows, d_out)."""

    arrays: Mapping[str, Array]  # what it reads of the weight, by the names that an error message gives
    of: Callable[[Operation, Array], Array]  # accumulates in float32


def stored_product(weight: QuantizedWeight, weight_rounding: str, rows: int) -> StoredProduct:
    """Return what multiplies a float32 matrix of some rows with a stored weight; the weight is checked here.

    Parameters
    ----------
    weight : QuantizedBlocks, DoubleQuantized, QuantizedInt8 or QuantizedAffine, of a 2-d tensor
    weight_rounding : {"float32", "float16", "bfloat16"}
        What the dequantized weight is rounded to before the product.
    rows : int
        Of the matrix.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If the parts of the weight do not belong together.
    """
    rounding = np.int32(TENSOR_FORMATS.index(weight_rounding))
    match weight:
        case QuantizedBlocks() | DoubleQuantized() if rows <= MOST_CODEBOOK_ROWS:
            blocks = restore_absmax(weight) if isinstance(weight, DoubleQuantized) else weight
            table, data, absmax, size = require_blocks(blocks)
            layout = (np.int64(min(blocks.block_size, max(size, 1))), weight.shape[0])
            arrays = {"data": data, "absmax": absmax}
            return StoredProduct(arrays, partial(_by_codebook, arrays, table, *layout, rounding))
        case QuantizedInt8() if rows <= INTEGER_ROWS[-1]:
            codes, absmax = require_int8(weight)
            runs = group_runs(codes.shape, weight.granularity, weight.block_size)
            arrays = {"codes": codes, "absmax": absmax}
            return StoredProduct(arrays, partial(_by_integers, "int8", arrays, runs, (rounding,)))
        case QuantizedAffine() if rows <= INTEGER_ROWS[-1]:
            codes, scale, zero_point, coding = require_affine(weight)
            runs = group_runs(codes.shape, coding.granularity, coding.group_size)
            arrays = {"codes": codes, "scale": scale, "zero_point": zero_point}
            numbers = (np.int32(coding.qmin < 0), rounding)
            return StoredProduct(arrays, partial(_by_integers, "affine", arrays, runs, numbers))
    dequantized = qlora_weight(weight, weight_rounding=weight_rounding)
    return StoredProduct({"weight": dequantized}, lambda run, x: product(run, x, dequantized.T))


def _by_codebook(
    arrays: Mapping[str, Array], table: Codebook, block_size: np.int64, columns: int, rounding: np.int32,
    run: Operation, x: Array,
) -> Array:  # fmt: skip
    stored = (*(flat_items(run, array) for array in arrays.values()), block_size)
    entries = (entries_of(run, table), np.int32(table.entries.size))
    return _launched(run, "gemv", f"gemv_{table.code_bits}bit", x, columns, (*stored, *entries, rounding))


def _by_integers(
    kind: str, arrays: Mapping[str, Array], runs: tuple[int, bool], numbers: tuple[np.int32, ...], run: Operation,
    x: Array,
) -> Array:  # fmt: skip
    codes, *scales = (flat_items(run, array) for array in arrays.values())
    weight = (codes, np.int64(runs[0]), np.int32(runs[1]), *scales, *numbers)
    rows = next(most for most in INTEGER_ROWS if len(x) <= most)
    return _launched(run, "integer_gemv", f"gemv_{kind}_{rows}rows", x, len(arrays["codes"]), weight)


def _launched(run: Operation, module: str, kernel: str, x: Array, columns: int, weight: tuple[object, ...]) -> Array:
    """Launch a kernel with a warp for every row of the weight."""
    out = run.empty((len(x), columns), "float32")
    if x.size == 0 or columns == 0:
        out[...] = 0
        return out
    sizes = (len(x), columns, x.shape[1])
    run.launch(module, kernel, LANES * columns, (x, *map(np.int64, sizes), *weight, out))
    return out
