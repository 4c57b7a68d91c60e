"""The executable specification of quantized fine-tuning numerics, in NumPy.

Every rule stands in one place: formats and rounding in `formats` and `rounding`; blocks, packing and codebooks in
`blocks`, `packing`, `codebooks`, `nf4` and `dynamic_map`; quantizers in `blockwise`, `double_quant` and `int8`;
adapters in `lora` and `qlora`; error bounds of floating-point sums in `tracking` and `bounds`.
"""

from qloracle.blocks import block_absmax
from qloracle.blockwise import QuantizedBlocks, dequantize_blockwise, quantize_blockwise
from qloracle.double_quant import (
    DoubleQuantized,
    QuantizedAbsmax,
    dequantize_absmax,
    dequantize_double,
    quantize_absmax,
    quantize_double,
)
from qloracle.dynamic_map import DYNAMIC_SIGNED
from qloracle.int8 import (
    QuantizedInt8,
    dequantize_int8,
    int8_matmul,
    quantize_int8,
    scale_int8_matmul,
)
from qloracle.lora import LoraGradients, lora_backward, lora_forward
from qloracle.nf4 import NF4
from qloracle.packing import pack_4bit, unpack_4bit
from qloracle.qlora import qlora_backward, qlora_forward
from qloracle.rounding import decode, encode

SPECIFICATION_VERSION = "0.1"

__all__ = [
    "DYNAMIC_SIGNED",
    "NF4",
    "SPECIFICATION_VERSION",
    "DoubleQuantized",
    "LoraGradients",
    "QuantizedAbsmax",
    "QuantizedBlocks",
    "QuantizedInt8",
    "block_absmax",
    "decode",
    "dequantize_absmax",
    "dequantize_blockwise",
    "dequantize_double",
    "dequantize_int8",
    "encode",
    "int8_matmul",
    "lora_backward",
    "lora_forward",
    "pack_4bit",
    "qlora_backward",
    "qlora_forward",
    "quantize_absmax",
    "quantize_blockwise",
    "quantize_double",
    "quantize_int8",
    "scale_int8_matmul",
    "unpack_4bit",
]
