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

from qloracle_gpu.cupy.accumulate import accumulate_gradients, accumulated_step
from qloracle_gpu.cupy.adamw import AdamwState, adamw_init, adamw_step
from qloracle_gpu.cupy.adamw8bit import (
    Adamw8bitState,
    adamw8bit_init,
    adamw8bit_step,
    dequantize_moments,
    quantize_moments,
)
from qloracle_gpu.cupy.adamw_options import AdamwOptions
from qloracle_gpu.cupy.adamw_rule import adamw_moments, adamw_parameter
from qloracle_gpu.cupy.affine import QuantizedAffine, dequantize_affine, quantize_affine
from qloracle_gpu.cupy.affine_scale import affine_parameters
from qloracle_gpu.cupy.blocks import block_absmax
from qloracle_gpu.cupy.blockwise import QuantizedBlocks, dequantize_blockwise, quantize_blockwise
from qloracle_gpu.cupy.clipping import clip_by_norm
from qloracle_gpu.cupy.combining import LoraAdapter, combine_adapters, concatenate_adapters
from qloracle_gpu.cupy.decomposition import Decomposed, decompose, outlier_columns
from qloracle_gpu.cupy.dora import DoraGradients, dora_backward, dora_forward, dora_norm
from qloracle_gpu.cupy.dora_merging import MergedDora, dora_merge, dora_unmerge
from qloracle_gpu.cupy.double_quant import (
    DoubleQuantized,
    QuantizedAbsmax,
    dequantize_absmax,
    dequantize_double,
    quantize_absmax,
    quantize_double,
)
from qloracle_gpu.cupy.embedding_lora import EmbeddingGradients, embedding_lora_backward, embedding_lora_forward
from qloracle_gpu.cupy.errors import (
    DeviceMemoryError,
    KernelCompileError,
    KernelLaunchError,
    MatmulPrecisionError,
    NoDeviceError,
)
from qloracle_gpu.cupy.fake_quant import fake_quantize, fake_quantize_backward
from qloracle_gpu.cupy.initialization import AdapterMatrices, embedding_init, lora_init
from qloracle_gpu.cupy.int8 import QuantizedInt8, dequantize_int8, quantize_int8
from qloracle_gpu.cupy.int8_linear import (
    LinearGradients,
    int8_linear_forward,
    weight_only_backward,
    weight_only_forward,
    weight_values,
)
from qloracle_gpu.cupy.llm_int8 import llm_int8_backward, llm_int8_forward
from qloracle_gpu.cupy.lora import LoraGradients, lora_backward, lora_forward
from qloracle_gpu.cupy.matmul import int8_matmul, scale_int8_matmul
from qloracle_gpu.cupy.merging import lora_merge, lora_unmerge, merge_bias
from qloracle_gpu.cupy.observers import minmax_range
from qloracle_gpu.cupy.packing import pack_4bit, storage_bytes, storage_view, unpack_4bit
from qloracle_gpu.cupy.paged import PagedStates, fetch_state, page_states, store_state
from qloracle_gpu.cupy.paging import PagePlan, page_in, page_plan
from qloracle_gpu.cupy.percentiles import moving_range, percentile_range
from qloracle_gpu.cupy.qdora import qdora_backward, qdora_forward
from qloracle_gpu.cupy.qlora import qlora_backward, qlora_forward
from qloracle_gpu.cupy.quantized_product import quantized_matmul
from qloracle_gpu.cupy.quantizing_like import quantize_like
from qloracle_gpu.cupy.requantizing import merge_into_original, merge_requantize
from qloracle_gpu.cupy.rounding import decode, encode, round_to
from qloracle_gpu.cupy.state import state_arrays, state_from_arrays
from qloracle_gpu.cupy.symmetric import quantize_symmetric, symmetric_scale

__all__ = [
    "Adamw8bitState",
    "AdamwOptions",
    "AdamwState",
    "AdapterMatrices",
    "Decomposed",
    "DeviceMemoryError",
    "DoraGradients",
    "DoubleQuantized",
    "EmbeddingGradients",
    "KernelCompileError",
    "KernelLaunchError",
    "LinearGradients",
    "LoraAdapter",
    "LoraGradients",
    "MatmulPrecisionError",
    "MergedDora",
    "NoDeviceError",
    "PagePlan",
    "PagedStates",
    "QuantizedAbsmax",
    "QuantizedAffine",
    "QuantizedBlocks",
    "QuantizedInt8",
    "accumulate_gradients",
    "accumulated_step",
    "adamw8bit_init",
    "adamw8bit_step",
    "adamw_init",
    "adamw_moments",
    "adamw_parameter",
    "adamw_step",
    "affine_parameters",
    "block_absmax",
    "clip_by_norm",
    "combine_adapters",
    "concatenate_adapters",
    "decode",
    "decompose",
    "dequantize_absmax",
    "dequantize_affine",
    "dequantize_blockwise",
    "dequantize_double",
    "dequantize_int8",
    "dequantize_moments",
    "dora_backward",
    "dora_forward",
    "dora_merge",
    "dora_norm",
    "dora_unmerge",
    "embedding_init",
    "embedding_lora_backward",
    "embedding_lora_forward",
    "encode",
    "fake_quantize",
    "fake_quantize_backward",
    "fetch_state",
    "int8_linear_forward",
    "int8_matmul",
    "llm_int8_backward",
    "llm_int8_forward",
    "lora_backward",
    "lora_forward",
    "lora_init",
    "lora_merge",
    "lora_unmerge",
    "merge_bias",
    "merge_into_original",
    "merge_requantize",
    "minmax_range",
    "moving_range",
    "outlier_columns",
    "pack_4bit",
    "page_in",
    "page_plan",
    "page_states",
    "percentile_range",
    "qdora_backward",
    "qdora_forward",
    "qlora_backward",
    "qlora_forward",
    "quantize_absmax",
    "quantize_affine",
    "quantize_blockwise",
    "quantize_double",
    "quantize_int8",
    "quantize_like",
    "quantize_moments",
    "quantize_symmetric",
    "quantized_matmul",
    "round_to",
    "scale_int8_matmul",
    "state_arrays",
    "state_from_arrays",
    "storage_bytes",
    "storage_view",
    "store_state",
    "symmetric_scale",
    "unpack_4bit",
    "weight_only_backward",
    "weight_only_forward",
    "weight_values",
]
