"""Quantizing a tensor as another one was quantized, whatever the quantizer. Clause: ``[merge.requantize]``."""

from dataclasses import replace

from qloracle.errors import reject_value, require_one_of
from qloracle.formats import Format
from qloracle_gpu.cupy.affine import QuantizedAffine, codes_given, quantize_affine, require_affine
from qloracle_gpu.cupy.arrays import flat_items, flat_words, require_tensor
from qloracle_gpu.cupy.blockwise import QuantizedBlocks, codes_given_absmax, quantize_blockwise, require_blocks
from qloracle_gpu.cupy.double_quant import DoubleQuantized, quantize_double, restore_absmax
from qloracle_gpu.cupy.groups import group_runs
from qloracle_gpu.cupy.int8 import QuantizedInt8, quantize_int8, require_int8
from qloracle_gpu.cupy.int8 import codes_given_absmax as int8_codes_given_absmax
from qloracle_gpu.cupy.launcher import Array, operation
from qloracle_gpu.cupy.qlora import QuantizedWeight, shape_of

SCALES = ("fresh", "kept")


def quantize_like(x: Array, like: QuantizedWeight, *, scales: str = "fresh", fmt: str | None = None) -> QuantizedWeight:
    """Quantize a tensor with the quantizer of a record, and with its scales if they are kept.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, the shape of what `like` holds
    like : QuantizedBlocks, DoubleQuantized, QuantizedInt8 or QuantizedAffine
    scales : {"fresh", "kept"}
    fmt : str, optional
        Format of `x` where it is given as bit patterns.

    Returns
    -------
    record of the type of `like`

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `like` is no such record, the shape differs, `scales` is unknown, or as the quantizer itself.

    Notes
    -----
    Clause ``[merge.requantize]``. With kept scales the codes of doubly quantized blocks are those of the restored
    absmax; with fresh ones, as ever, those of the exact one.
    """
    require_one_of("scales", scales, SCALES)
    array, named = require_tensor("x", x, fmt)
    if array.shape != shape_of(like):
        reject_value("x", f"of shape {shape_of(like)}", array.shape)
    return _fresh(array, like, named.name) if scales == "fresh" else _kept(array, like, named)


def _fresh(x: Array, like: QuantizedWeight, fmt: str) -> QuantizedWeight:
    match like:
        case QuantizedBlocks():
            return quantize_blockwise(x, codebook=like.codebook, block_size=like.block_size, fmt=fmt)
        case DoubleQuantized():
            nested = like.nested_codebook
            return quantize_double(
                x, codebook=like.codebook, block_size=like.block_size, nested_codebook=nested, fmt=fmt
            )
        case QuantizedInt8():
            return quantize_int8(x, granularity=like.granularity, block_size=like.block_size, fmt=fmt)
        case QuantizedAffine():
            return quantize_affine(
                x, qmin=like.qmin, qmax=like.qmax, granularity=like.granularity, group_size=like.group_size, fmt=fmt
            )


def _kept(x: Array, like: QuantizedWeight, named: Format) -> QuantizedWeight:
    match like:
        case QuantizedInt8():
            codes = _int8_codes(x, like, named)
            return replace(like, codes=codes, dtype=named.name)
        case QuantizedAffine():
            _, scale, zero_point, coding = require_affine(like)
            with operation("quantize_like", x=x, scale=scale, zero_point=zero_point) as run:
                codes = codes_given(run, flat_words(run, x), named, x.shape, scale, zero_point, coding)
            return replace(like, codes=codes, dtype=named.name)
    plain = restore_absmax(like) if isinstance(like, DoubleQuantized) else like
    table, _, absmax, _ = require_blocks(plain)
    with operation("quantize_like", x=x, absmax=absmax) as run:
        scales = flat_items(run, absmax)
        data = codes_given_absmax(run, flat_words(run, x), named, scales, table, plain.block_size)
    return replace(like, data=data, shape=tuple(x.shape), dtype=named.name)


def _int8_codes(x: Array, like: QuantizedInt8, named: Format) -> Array:
    _, absmax = require_int8(like)
    runs = group_runs(x.shape, like.granularity, like.block_size)
    with operation("quantize_like", x=x, absmax=absmax) as run:
        codes = int8_codes_given_absmax(run, flat_words(run, x), named, flat_items(run, absmax), *runs)
        return codes.reshape(x.shape)
