"""The CuPy backend: CUDA C++ kernels, compiled by NVRTC, on `cupy.ndarray`.

Names, arguments and records are those of `qloracle`. Results are new arrays on the device of the inputs, made in order
on CuPy's current stream; sums take `out_dtype`, the format of the one rounding that ends them.

Inputs are never modified and may have any strides. Besides CuPy arrays, anything is taken without a copy that offers
`__cuda_array_interface__` or DLPack for the GPU; bfloat16, float8 and narrower formats are unsigned bit patterns
together with the name of their format (`fmt=`), or arrays of the dtype of that name where ml_dtypes is installed.

From PyTorch, on its current stream and without a copy (bfloat16 goes as its bit patterns)::

    import cupy, torch
    import qloracle_gpu.cupy as q

    w = torch.randn(4096, 4096, dtype=torch.bfloat16, device="cuda")
    with cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):
        quantized = q.quantize_blockwise(cupy.from_dlpack(w.view(torch.uint16)), fmt="bfloat16")
        restored = torch.from_dlpack(q.dequantize_blockwise(quantized)).view(torch.bfloat16)

Importing this package loads no CuPy; the first operation does, and raises `NoDeviceError` where CUDA cannot be used.
A kernel is compiled when it is first needed, and kept in `$QLORACLE_KERNEL_CACHE`, else in the user's cache folder.
"""

from qloracle_gpu.cupy.adamw import AdamwState, adamw_init, adamw_step
from qloracle_gpu.cupy.adamw8bit import (
    Adamw8bitState,
    adamw8bit_init,
    adamw8bit_step,
    dequantize_moments,
    quantize_moments,
)
from qloracle_gpu.cupy.adamw_options import AdamwOptions
from qloracle_gpu.cupy.blocks import block_absmax
from qloracle_gpu.cupy.blockwise import QuantizedBlocks, dequantize_blockwise, quantize_blockwise
from qloracle_gpu.cupy.decomposition import Decomposed, decompose, outlier_columns
from qloracle_gpu.cupy.double_quant import (
    DoubleQuantized,
    QuantizedAbsmax,
    dequantize_absmax,
    dequantize_double,
    quantize_absmax,
    quantize_double,
)
from qloracle_gpu.cupy.errors import (
    DeviceMemoryError,
    KernelCompileError,
    KernelLaunchError,
    MatmulPrecisionError,
    NoDeviceError,
)
from qloracle_gpu.cupy.int8 import QuantizedInt8, dequantize_int8, quantize_int8
from qloracle_gpu.cupy.llm_int8 import LinearGradients, llm_int8_backward, llm_int8_forward
from qloracle_gpu.cupy.lora import LoraGradients, lora_backward, lora_forward
from qloracle_gpu.cupy.matmul import int8_matmul, scale_int8_matmul
from qloracle_gpu.cupy.packing import pack_4bit, storage_bytes, storage_view, unpack_4bit
from qloracle_gpu.cupy.qlora import qlora_backward, qlora_forward
from qloracle_gpu.cupy.quantized_product import quantized_matmul
from qloracle_gpu.cupy.rounding import decode, encode, round_to

__all__ = [
    "Adamw8bitState",
    "AdamwOptions",
    "AdamwState",
    "Decomposed",
    "DeviceMemoryError",
    "DoubleQuantized",
    "KernelCompileError",
    "KernelLaunchError",
    "LinearGradients",
    "LoraGradients",
    "MatmulPrecisionError",
    "NoDeviceError",
    "QuantizedAbsmax",
    "QuantizedBlocks",
    "QuantizedInt8",
    "adamw8bit_init",
    "adamw8bit_step",
    "adamw_init",
    "adamw_step",
    "block_absmax",
    "decode",
    "decompose",
    "dequantize_absmax",
    "dequantize_blockwise",
    "dequantize_double",
    "dequantize_int8",
    "dequantize_moments",
    "encode",
    "int8_matmul",
    "llm_int8_backward",
    "llm_int8_forward",
    "lora_backward",
    "lora_forward",
    "outlier_columns",
    "pack_4bit",
    "qlora_backward",
    "qlora_forward",
    "quantize_absmax",
    "quantize_blockwise",
    "quantize_double",
    "quantize_int8",
    "quantize_moments",
    "quantized_matmul",
    "round_to",
    "scale_int8_matmul",
    "storage_bytes",
    "storage_view",
    "unpack_4bit",
]
