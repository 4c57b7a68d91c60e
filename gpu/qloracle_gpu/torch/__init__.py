"""The PyTorch backend: plain eager code for any device that torch runs on.

Names, arguments and records are those of `qloracle`; two things differ. There is no ``fmt=``, since a tensor's dtype
tells its format, and results are tensors of native dtypes. Sums take `out_dtype`, the format of the one rounding that
ends them.

Inputs are never modified, and may have any strides; results are new and contiguous, without gradient history. Torch
must keep subnormals (it does unless `torch.set_flush_denormal(True)` was called) and, for products of float32
matrices, their full precision: otherwise they raise `MatmulPrecisionError`.
"""

from qloracle_gpu.torch.blocks import block_absmax
from qloracle_gpu.torch.blockwise import QuantizedBlocks, dequantize_blockwise, quantize_blockwise
from qloracle_gpu.torch.double_quant import (
    DoubleQuantized,
    QuantizedAbsmax,
    dequantize_absmax,
    dequantize_double,
    quantize_absmax,
    quantize_double,
)
from qloracle_gpu.torch.int8 import QuantizedInt8, dequantize_int8, quantize_int8
from qloracle_gpu.torch.lora import LoraGradients, lora_backward, lora_forward
from qloracle_gpu.torch.matmul import MatmulPrecisionError, int8_matmul, scale_int8_matmul
from qloracle_gpu.torch.packing import pack_4bit, storage_bytes, storage_view, unpack_4bit
from qloracle_gpu.torch.qlora import qlora_backward, qlora_forward
from qloracle_gpu.torch.rounding import decode, encode

__all__ = [
    "DoubleQuantized",
    "LoraGradients",
    "MatmulPrecisionError",
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
    "storage_bytes",
    "storage_view",
    "unpack_4bit",
]
