"""Two 4-bit codes in a byte. Clauses: ``[packing.nibbles]``, ``[packing.storage]``."""

import torch
from torch import Tensor

from qloracle.errors import reject_type, reject_value
from qloracle_gpu.torch.compiling import compiles_as_operator
from qloracle_gpu.torch.formats import require_dtype, require_tensor
from qloracle_gpu.torch.pieces import piece_size, spans, work_through

STORAGES = {
    "uint8": torch.uint8,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}


@compiles_as_operator
def pack_4bit(codes: Tensor, pad_code: int = 0) -> Tensor:
    """Pack 4-bit codes, the first of each pair in the high nibble.

    byte_i = code_{2i} · 16 + code_{2i+1}; an odd length ends with `pad_code` in the low nibble.

    Parameters
    ----------
    codes : tensor of uint8, any shape
        Codes 0 to 15, packed in row-major order.
    pad_code : int
        The code of zero of the codebook that the codes belong to (7 for NF4).

    Returns
    -------
    tensor of uint8, shape (⌈codes.numel() / 2⌉,)

    Raises
    ------
    ArgumentTypeError
        If `codes` is not uint8.
    ArgumentValueError
        If a code, or `pad_code`, exceeds 15.

    Notes
    -----
    Clause ``[packing.nibbles]``. No arithmetic. Looks at the codes, which waits for the device; quantizers, whose codes
    are known, do not.

    Examples
    --------
    >>> pack_4bit(torch.tensor([0, 15, 7], dtype=torch.uint8), 7)
    tensor([ 15, 119], dtype=torch.uint8)
    """
    flat = require_dtype("codes", codes, torch.uint8).reshape(-1)
    if not 0 <= pad_code <= 15:
        reject_value("pad_code", "a code from 0 to 15", pad_code)
    if flat.numel() and int(flat.max()) > 15:
        reject_value("codes", "codes from 0 to 15", int(flat.max()))
    return pack_valid_codes(flat, pad_code)


def pack_valid_codes(codes: Tensor, pad_code: int) -> Tensor:
    """Pack a 1-d tensor of codes that are known to be at most 15."""
    pairs = codes.numel() // 2
    packed = torch.empty((codes.numel() + 1) // 2, dtype=torch.uint8, device=codes.device)
    first, second = codes[: 2 * pairs : 2], codes[1::2]

    def pack_piece(span: slice) -> None:
        torch.add(second[span], first[span], alpha=16, out=packed[span])

    work_through(spans(pairs, piece_size(codes.device)), pack_piece, codes)
    if codes.numel() % 2:
        packed[-1:] = codes[-1:] * 16 + pad_code
    return packed


@compiles_as_operator
def unpack_4bit(packed: Tensor, size: int) -> Tensor:
    """Return the first `size` codes of packed bytes; the low nibble after an odd length is ignored.

    Parameters
    ----------
    packed : tensor of uint8
        Bytes in any shape, read in row-major order.
    size : int
        Number of codes; needs exactly ⌈size / 2⌉ bytes.

    Returns
    -------
    tensor of uint8, shape (size,)

    Raises
    ------
    ArgumentTypeError
        If `packed` is not uint8.
    ArgumentValueError
        If `size` is negative, or the number of bytes does not fit it.

    Notes
    -----
    Clause ``[packing.nibbles]``.

    Examples
    --------
    >>> unpack_4bit(torch.tensor([0x0F, 0x77], dtype=torch.uint8), 3)
    tensor([ 0, 15,  7], dtype=torch.uint8)
    """
    flat = require_dtype("packed", packed, torch.uint8).reshape(-1)
    require_packed(flat, size)
    codes = torch.empty(size, dtype=torch.uint8, device=flat.device)
    codes[0::2] = flat >> 4
    codes[1::2] = flat[: size // 2] & 15
    return codes


def require_packed(packed: Tensor, size: int) -> None:
    """Raise unless there are as many bytes as `size` codes need."""
    if size < 0:
        reject_value("size", "a number of codes, 0 or more", size)
    if packed.numel() != (size + 1) // 2:
        reject_value("packed", f"{(size + 1) // 2} bytes for {size} codes", f"{packed.numel()} bytes")


def storage_view(packed: Tensor, storage: str) -> Tensor:
    """Return the same bytes as items of another width; never a cast of values.

    Parameters
    ----------
    packed : tensor of uint8, any shape
        Packed bytes, in row-major order.
    storage : {"uint8", "float16", "bfloat16", "float32"}
        Item type.

    Returns
    -------
    tensor, 1-d
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

    Examples
    --------
    >>> storage_view(torch.tensor([0x80, 0x3F], dtype=torch.uint8), "bfloat16")
    tensor([1.], dtype=torch.bfloat16)
    """
    flat = require_dtype("packed", packed, torch.uint8).reshape(-1).contiguous()
    if storage not in STORAGES:
        reject_value("storage", f"one of {', '.join(STORAGES)}", repr(storage))
    width = STORAGES[storage].itemsize
    if flat.numel() % width:
        reject_value("packed", f"a multiple of {width} bytes for {storage} storage", f"{flat.numel()} bytes")
    aligned = flat if flat.storage_offset() % width == 0 else flat.clone()
    return aligned.view(STORAGES[storage])


def storage_bytes(stored: Tensor) -> Tensor:
    """Return the packed bytes of a storage view: the inverse of `storage_view`.

    Parameters
    ----------
    stored : tensor of uint8, float16, bfloat16 or float32, any shape

    Returns
    -------
    tensor of uint8, 1-d
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
    >>> storage_bytes(torch.tensor([1.0], dtype=torch.bfloat16))
    tensor([128,  63], dtype=torch.uint8)
    """
    tensor = require_tensor("stored", stored)
    if tensor.dtype not in STORAGES.values():
        reject_type("stored", "a tensor of uint8, float16, bfloat16 or float32", tensor.dtype)
    return tensor.reshape(-1).contiguous().view(torch.uint8)
