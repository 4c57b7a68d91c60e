"""Two 4-bit codes in a byte. Clauses: ``[packing.nibbles]``, ``[packing.storage]``."""

import numpy as np

from qloracle.errors import reject_type, reject_value, require_dtype, require_integer, require_one_of
from qloracle.formats import Array


def pack_4bit(codes: Array, pad_code: int = 0) -> Array:
    """Pack 4-bit codes, the first of each pair in the high nibble.

    byte_i = code_{2i} · 16 + code_{2i+1}; an odd length ends with `pad_code` in the low nibble.

    Parameters
    ----------
    codes : array of uint8, any shape
        Codes 0 to 15, packed in row-major order.
    pad_code : int
        The code of zero of the codebook that the codes belong to (7 for NF4).

    Returns
    -------
    array of uint8, shape (⌈codes.size / 2⌉,)

    Raises
    ------
    ArgumentTypeError
        If `codes` is not uint8, or `pad_code` no integer.
    ArgumentValueError
        If a code, or `pad_code`, exceeds 15.

    Notes
    -----
    Clause ``[packing.nibbles]``. No arithmetic. Source: the storage of bitsandbytes' ``quantize_4bit``.

    Examples
    --------
    >>> pack_4bit(np.array([0, 15, 7], np.uint8), 7)
    array([ 15, 119], dtype=uint8)
    """
    require_dtype("codes", codes, "uint8")
    pad_code = require_integer("pad_code", pad_code, "a code from 0 to 15")
    if not 0 <= pad_code <= 15:
        reject_value("pad_code", "a code from 0 to 15", pad_code)
    if codes.size and codes.max() > 15:
        reject_value("codes", "codes from 0 to 15", int(codes.max()))
    flat = codes.reshape(-1)
    packed = np.empty((flat.size + 1) // 2, np.uint8)
    packed[...] = flat[0::2] << 4
    packed[: flat.size // 2] |= flat[1::2]
    if flat.size % 2:
        packed[-1] |= pad_code
    return packed


def unpack_4bit(packed: Array, size: int) -> Array:
    """Return the first `size` codes of packed bytes; the low nibble after an odd length is ignored.

    Parameters
    ----------
    packed : array of uint8
        Bytes in any shape, read in row-major order.
    size : int
        Number of codes; needs exactly ⌈size / 2⌉ bytes.

    Returns
    -------
    array of uint8, shape (size,)

    Raises
    ------
    ArgumentTypeError
        If `packed` is not uint8, or `size` no integer.
    ArgumentValueError
        If `size` is negative, or the number of bytes does not fit it.

    Notes
    -----
    Clause ``[packing.nibbles]``.

    Examples
    --------
    >>> unpack_4bit(np.array([0x0F, 0x77], np.uint8), 3)
    array([ 0, 15,  7], dtype=uint8)
    """
    require_dtype("packed", packed, "uint8")
    size = require_integer("size", size, "a number of codes, 0 or more")
    if size < 0:
        reject_value("size", "a number of codes, 0 or more", size)
    flat = packed.reshape(-1)
    if flat.size != (size + 1) // 2:
        reject_value("packed", f"{(size + 1) // 2} bytes for {size} codes", f"{flat.size} bytes")
    codes = np.empty(2 * flat.size, np.uint8)
    codes[0::2] = flat >> 4
    codes[1::2] = flat & 15
    return codes[:size]


STORAGE_ITEMS = {"uint8": "u1", "float16": "f2", "bfloat16": "u2", "float32": "f4"}  # bfloat16 as bit patterns


def storage_view(packed: Array, storage: str) -> Array:
    """Return the same bytes as items of another width; never a cast of values.

    Parameters
    ----------
    packed : array of uint8, any shape
        Packed bytes, in row-major order.
    storage : {"uint8", "float16", "bfloat16", "float32"}
        Item type; bfloat16 items come back as uint16 words.

    Returns
    -------
    array, 1-d
        A view of the same memory where `packed` is contiguous, in the machine's byte order.

    Raises
    ------
    ArgumentTypeError
        If `packed` is not uint8.
    ArgumentValueError
        If the storage is unknown, or the bytes do not fill whole items.

    Notes
    -----
    Clause ``[packing.storage]``. No arithmetic: an item that happens to be a NaN keeps its payload.
    Source: ``quant_storage`` of bitsandbytes' 4-bit parameters, which sharded training needs.

    Examples
    --------
    >>> storage_view(np.array([0x80, 0x3F, 0x81, 0x7F], np.uint8), "bfloat16")
    array([16256, 32641], dtype=uint16)
    """
    require_dtype("packed", packed, "uint8")
    require_one_of("storage", storage, STORAGE_ITEMS)
    flat = np.ascontiguousarray(packed.reshape(-1))
    width = np.dtype(STORAGE_ITEMS[storage]).itemsize
    if flat.nbytes % width:
        reject_value("packed", f"a multiple of {width} bytes for {storage} storage", f"{flat.nbytes} bytes")
    return flat.view(STORAGE_ITEMS[storage])


def storage_bytes(stored: Array) -> Array:
    """Return the packed bytes of a storage view: the inverse of `storage_view`.

    Parameters
    ----------
    stored : array of uint8, float16, float32, or uint16 (words of bfloat16), any shape
        An array of the ``ml_dtypes`` type bfloat16 is accepted too.

    Returns
    -------
    array of uint8, 1-d
        The bytes as they lie in memory, items in row-major order; a view of the same memory where it is contiguous.

    Raises
    ------
    ArgumentTypeError
        If the items are of no storage type.

    Notes
    -----
    Clause ``[packing.storage]``. No arithmetic.

    Examples
    --------
    >>> storage_bytes(storage_view(np.array([1, 2, 3, 4], np.uint8), "float32"))
    array([1, 2, 3, 4], dtype=uint8)
    """
    dtype = getattr(stored, "dtype", None)
    known = [*(np.dtype(item) for item in STORAGE_ITEMS.values()), "bfloat16"]
    if dtype is None or dtype not in known:
        reject_type("stored", "an array of uint8, float16, float32, or bfloat16 as uint16 words", dtype or type(stored))
    return np.ascontiguousarray(stored.reshape(-1)).view(np.uint8)
