"""How many bytes a quantized tensor takes: of all its arrays, scales included."""

from qloracle.blockwise import QuantizedBlocks
from qloracle.double_quant import DoubleQuantized
from qloracle.errors import reject_type
from qloracle.nested_absmax import QuantizedAbsmax


def stored_bytes(quantized: QuantizedBlocks | DoubleQuantized) -> int:
    """Count the bytes of a quantized tensor: codes, absmax, and with double quantization nested absmax and offset.

    With n elements in b = ⌈n / block_size⌉ blocks: ⌈n·bits/8⌉ + 4b, or ⌈n·bits/8⌉ + b + 4·⌈b/256⌉ + 4.

    Parameters
    ----------
    quantized : QuantizedBlocks or DoubleQuantized

    Returns
    -------
    int
        Without the table of the codebook, which all tensors share.

    Raises
    ------
    ArgumentTypeError
        If `quantized` is neither.

    References
    ----------
    Dettmers et al. 2023, "QLoRA", section 3: 0.5 bits a parameter of scales become 0.127.

    Examples
    --------
    >>> import numpy as np
    >>> from qloracle import quantize_blockwise, quantize_double
    >>> x = np.ones((1024, 1024), np.float32)
    >>> stored_bytes(quantize_blockwise(x)) * 8 / x.size
    4.5
    >>> round(stored_bytes(quantize_double(x)) * 8 / x.size, 3)
    4.127
    """
    if not isinstance(quantized, QuantizedBlocks | DoubleQuantized):
        reject_type("quantized", "QuantizedBlocks or DoubleQuantized", type(quantized).__name__)
    absmax = quantized.absmax
    scales = [absmax.codes, absmax.absmax, absmax.offset] if isinstance(absmax, QuantizedAbsmax) else [absmax]
    return int(quantized.data.nbytes + sum(part.nbytes for part in scales))
