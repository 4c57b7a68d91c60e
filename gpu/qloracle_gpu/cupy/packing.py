"""Two 4-bit codes in a byte. Clauses: ``[packing.nibbles]``, ``[packing.storage]``."""

import numpy as np

from qloracle.errors import reject_type, reject_value, require_integer, require_one_of
from qloracle_gpu.cupy.arrays import copied, flat_items, require_dtype
from qloracle_gpu.cupy.launcher import Array, operation, require_array
from qloracle_gpu.cupy.vectors import ITEMS

STORAGE_ITEMS = {"uint8": "u1", "float16": "f2", "bfloat16": "u2", "float32": "f4"}  # bfloat16 as bit patterns


def pack_4bit(codes: Array, pad_code: int = 0) -> Array:
    """Pack 4-bit codes, the first of each pair in the high nibble.

    byte_i = code_{2i} · 16 + code_{2i+1}; an odd length ends with `pad_code` in the low nibble.

    Parameters
    ----------
    codes : array of uint8, any shape
        Codes 0 to 15, packed in row-major order. Looking at them waits for the device.
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
    Clause ``[packing.nibbles]``. No arithmetic.
    """
    array = require_dtype("codes", codes, "uint8")
    pad_code = require_integer("pad_code", pad_code, "a code from 0 to 15")
    if not 0 <= pad_code <= 15:
        reject_value("pad_code", "a code from 0 to 15", pad_code)
    with operation("pack_4bit", codes=array) as run:
        if array.size and (largest := int(array.max())) > 15:
            reject_value("codes", "codes from 0 to 15", largest)
        flat = flat_items(run, array)
        packed = run.empty((flat.size + 1) // 2, "uint8")
        arguments = (flat, np.int64(flat.size), np.int32(pad_code), packed)
        run.launch("packing", "pack_4bit", -(-packed.size // ITEMS), arguments)
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
    """
    array = require_dtype("packed", packed, "uint8")
    size = require_integer("size", size, "a number of codes, 0 or more")
    require_packed(array, size)
    with operation("unpack_4bit", packed=array) as run:
        codes = run.empty(size, "uint8")
        arguments = (flat_items(run, array), np.int64(size), codes)
        run.launch("packing", "unpack_4bit", -(-array.size // ITEMS), arguments)
        return codes


def require_packed(packed: Array, size: int) -> None:
    """Raise unless there are as many bytes as `size` codes need."""
    if size < 0:
        reject_value("size", "a number of codes, 0 or more", size)
    if packed.size != (size + 1) // 2:
        reject_value("packed", f"{(size + 1) // 2} bytes for {size} codes", f"{packed.size} bytes")


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
        A view of the same memory where `packed` is contiguous and its first byte is aligned to an item.

    Raises
    ------
    ArgumentTypeError
        If `packed` is not uint8.
    ArgumentValueError
        If the storage is unknown, or the bytes do not fill whole items.

    Notes
    -----
    Clause ``[packing.storage]``. No arithmetic.
    """
    array = require_dtype("packed", packed, "uint8")
    require_one_of("storage", storage, STORAGE_ITEMS)
    item = np.dtype(STORAGE_ITEMS[storage])
    with operation("storage_view", packed=array) as run:
        flat = flat_items(run, array)
        if flat.nbytes % item.itemsize:
            reject_value("packed", f"a multiple of {item.itemsize} bytes for {storage} storage", f"{flat.nbytes} bytes")
        return (flat if run.launcher.address(flat) % item.itemsize == 0 else copied(run, flat)).view(item)


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
    """
    array = require_array("stored", stored)
    if array.dtype.name not in ("uint8", "float16", "float32", "uint16", "bfloat16"):
        reject_type("stored", "an array of uint8, float16, float32, or bfloat16 as uint16 words", array.dtype)
    with operation("storage_bytes", stored=array) as run:
        return flat_items(run, array).view("uint8")
