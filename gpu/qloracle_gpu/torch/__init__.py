"""The PyTorch backend: Triton kernels on GPUs, C loops on a CPU, and eager code for any device that torch runs on.

Names, arguments and records are those of `qloracle`; two things differ. There is no ``fmt=``, since a tensor's dtype
tells its format, and results are tensors of native dtypes. Sums take `out_dtype`, the format of the one rounding that
ends them.

Inputs are never modified, and may have any strides; results are new and contiguous, without gradient history. Torch
must keep subnormals (it does unless `torch.set_flush_denormal(True)` was called) and, for products of float32
matrices, their full precision: otherwise they raise `MatmulPrecisionError`.

Layers are in `modules`, optimizers in `optim`.
"""

from qloracle_gpu.torch import library as _library  # noqa: F401 - registers torch.ops.qloracle
from qloracle_gpu.torch.affine import QuantizedAffine, dequantize_affine, quantize_affine
from qloracle_gpu.torch.affine_scale import affine_parameters
from qloracle_gpu.torch.blocks import block_absmax
from qloracle_gpu.torch.blockwise import QuantizedBlocks, dequantize_blockwise, quantize_blockwise
from qloracle_gpu.torch.combining import LoraAdapter, combine_adapters, concatenate_adapters
from qloracle_gpu.torch.counting import ParameterCounts, count_parameters, trainable_biases
from qloracle_gpu.torch.decomposition import Decomposed, decompose, outlier_columns
from qloracle_gpu.torch.dora import DoraGradients, dora_backward, dora_forward, dora_norm
from qloracle_gpu.torch.dora_merging import MergedDora, dora_merge, dora_unmerge
from qloracle_gpu.torch.double_quant import DoubleQuantized, dequantize_double, quantize_double
from qloracle_gpu.torch.embedding_lora import EmbeddingGradients, embedding_lora_backward, embedding_lora_forward
from qloracle_gpu.torch.fake_quant import fake_quantize, fake_quantize_backward
from qloracle_gpu.torch.initialization import AdapterMatrices, embedding_init, lora_init
from qloracle_gpu.torch.int8 import QuantizedInt8, dequantize_int8, quantize_int8
from qloracle_gpu.torch.int8_linear import (
    LinearGradients,
    int8_linear_forward,
    weight_only_backward,
    weight_only_forward,
    weight_values,
)
from qloracle_gpu.torch.int8_scale import scale_int8_matmul
from qloracle_gpu.torch.llm_int8 import llm_int8_backward, llm_int8_forward
from qloracle_gpu.torch.lora import LoraGradients, lora_backward, lora_forward
from qloracle_gpu.torch.matmul import MatmulPrecisionError, int8_matmul
from qloracle_gpu.torch.merging import lora_merge, lora_unmerge, merge_bias
from qloracle_gpu.torch.nested_absmax import QuantizedAbsmax, dequantize_absmax, quantize_absmax
from qloracle_gpu.torch.observers import minmax_range
from qloracle_gpu.torch.optim.accumulate import accumulate_gradients, accumulated_step
from qloracle_gpu.torch.optim.adamw import AdamwState, adamw_init, adamw_moments, adamw_parameter, adamw_step
from qloracle_gpu.torch.optim.adamw8bit import adamw8bit_step
from qloracle_gpu.torch.optim.clipping import clip_by_norm
from qloracle_gpu.torch.optim.options import AdamwOptions
from qloracle_gpu.torch.optim.paged import PagedStates, fetch_state, page_states, store_state
from qloracle_gpu.torch.optim.paging import PagePlan, page_in, page_plan
from qloracle_gpu.torch.optim.quantized_moments import (
    Adamw8bitState,
    adamw8bit_init,
    dequantize_moments,
    quantize_moments,
)
from qloracle_gpu.torch.optim.state import state_arrays, state_bytes, state_from_arrays
from qloracle_gpu.torch.packing import pack_4bit, storage_bytes, storage_view, unpack_4bit
from qloracle_gpu.torch.percentiles import moving_range, percentile_range
from qloracle_gpu.torch.qdora import qdora_backward, qdora_forward
from qloracle_gpu.torch.qlora import qlora_backward, qlora_forward
from qloracle_gpu.torch.quantized_product import quantized_matmul
from qloracle_gpu.torch.quantizing_like import quantize_like
from qloracle_gpu.torch.requantizing import merge_into_original, merge_requantize
from qloracle_gpu.torch.rounding import decode, encode, round_to
from qloracle_gpu.torch.symmetric import quantize_symmetric, symmetric_scale
from qloracle_gpu.torch.targets import AdapterSettings, adapter_settings, select_targets

__all__ = [
    "Adamw8bitState",
    "AdamwOptions",
    "AdamwState",
    "AdapterMatrices",
    "AdapterSettings",
    "Decomposed",
    "DoraGradients",
    "DoubleQuantized",
    "EmbeddingGradients",
    "LinearGradients",
    "LoraAdapter",
    "LoraGradients",
    "MatmulPrecisionError",
    "MergedDora",
    "PagePlan",
    "PagedStates",
    "ParameterCounts",
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
    "adapter_settings",
    "affine_parameters",
    "block_absmax",
    "clip_by_norm",
    "combine_adapters",
    "concatenate_adapters",
    "count_parameters",
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
    "select_targets",
    "state_arrays",
    "state_bytes",
    "state_from_arrays",
    "storage_bytes",
    "storage_view",
    "store_state",
    "symmetric_scale",
    "trainable_biases",
    "unpack_4bit",
    "weight_only_backward",
    "weight_only_forward",
    "weight_values",
]
