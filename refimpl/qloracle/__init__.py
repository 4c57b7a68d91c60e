"""The executable specification of quantized fine-tuning numerics, in NumPy.

Every rule stands in one place: formats and rounding in `formats` and `rounding`; blocks, packing and codebooks in
`blocks`, `packing`, `codebooks`, `nf4` and `dynamic_map`; quantizers in `blockwise`, `double_quant` and `int8`;
adapters in `lora` and `qlora`; error bounds of floating-point sums in `tracking` and `bounds`.
"""

from qloracle.adapter_patterns import AdapterSettings, adapter_settings
from qloracle.affine import QuantizedAffine, dequantize_affine, quantize_affine
from qloracle.affine_scale import affine_parameters
from qloracle.blocks import block_absmax
from qloracle.blockwise import QuantizedBlocks, dequantize_blockwise, quantize_blockwise
from qloracle.codebooks import Codebook
from qloracle.combining import LoraAdapter, combine_adapters, concatenate_adapters
from qloracle.conditional_means import conditional_means, relative_error
from qloracle.counting import ParameterCounts, count_parameters, trainable_biases
from qloracle.decomposition import Decomposed, decompose, outlier_columns
from qloracle.dora import DoraGradients, dora_backward, dora_forward, dora_norm
from qloracle.dora_merging import MergedDora, dora_merge, dora_unmerge
from qloracle.double_quant import DoubleQuantized, dequantize_double, quantize_double
from qloracle.dynamic_map import DYNAMIC_SIGNED, DYNAMIC_UNSIGNED
from qloracle.embedding_lora import EmbeddingGradients, embedding_lora_backward, embedding_lora_forward
from qloracle.fake_quant import fake_quantize, fake_quantize_backward
from qloracle.float8_map import FLOAT8
from qloracle.footprint.adapters import adapter_shapes
from qloracle.footprint.configs import config_tensors
from qloracle.footprint.model import Footprint, model_footprint, quantized_tensors
from qloracle.footprint.schemes import Scheme, scheme_named
from qloracle.footprint.storage import TensorBytes, bits_per_weight, table_bytes, tensor_bytes
from qloracle.footprint.stored_bytes import stored_bytes
from qloracle.footprint.tensors import ModelTensor, header_tensors, named_tensors
from qloracle.footprint.training import TrainingMemory, state_bytes, training_memory
from qloracle.fp4 import FP4
from qloracle.initialization import AdapterMatrices, embedding_init, lora_init
from qloracle.int8 import (
    QuantizedInt8,
    dequantize_int8,
    quantize_int8,
)
from qloracle.int8_linear import (
    LinearGradients,
    int8_linear_forward,
    weight_only_backward,
    weight_only_forward,
    weight_values,
)
from qloracle.int8_product import int8_matmul, scale_int8_matmul
from qloracle.linear_map import LINEAR_SIGNED, LINEAR_SIGNED_4BIT, LINEAR_UNSIGNED, LINEAR_UNSIGNED_4BIT
from qloracle.llm_int8 import llm_int8_backward, llm_int8_forward
from qloracle.lora import LoraGradients, lora_backward, lora_forward
from qloracle.merging import lora_merge, lora_unmerge, merge_bias
from qloracle.nested_absmax import QuantizedAbsmax, dequantize_absmax, quantize_absmax
from qloracle.nf4 import NF4
from qloracle.observers import minmax_range, moving_range, percentile_range
from qloracle.optim.accumulate import accumulate_gradients, accumulated_step
from qloracle.optim.adamw import AdamwState, adamw_init, adamw_moments, adamw_parameter, adamw_step
from qloracle.optim.adamw8bit import (
    Adamw8bitState,
    adamw8bit_init,
    adamw8bit_step,
    dequantize_moments,
    quantize_moments,
)
from qloracle.optim.clipping import clip_by_norm
from qloracle.optim.options import AdamwOptions
from qloracle.optim.paged import PagedStates, fetch_state, page_states, store_state
from qloracle.optim.paging import PagePlan, page_in, page_plan
from qloracle.optim.state import state_arrays, state_from_arrays
from qloracle.packing import pack_4bit, storage_bytes, storage_view, unpack_4bit
from qloracle.qdora import qdora_backward, qdora_forward
from qloracle.qlora import qlora_backward, qlora_forward
from qloracle.quantized_product import quantized_matmul
from qloracle.quantizing_like import quantize_like
from qloracle.requantizing import merge_into_original, merge_requantize
from qloracle.rounding import decode, encode, format_table, round_to
from qloracle.symmetric import quantize_symmetric, symmetric_scale
from qloracle.tables import CODEBOOKS
from qloracle.targets import select_targets

SPECIFICATION_VERSION = "0.2"

__all__ = [
    "CODEBOOKS",
    "DYNAMIC_SIGNED",
    "DYNAMIC_UNSIGNED",
    "FLOAT8",
    "FP4",
    "LINEAR_SIGNED",
    "LINEAR_SIGNED_4BIT",
    "LINEAR_UNSIGNED",
    "LINEAR_UNSIGNED_4BIT",
    "NF4",
    "SPECIFICATION_VERSION",
    "Adamw8bitState",
    "AdamwOptions",
    "AdamwState",
    "AdapterMatrices",
    "AdapterSettings",
    "Codebook",
    "Decomposed",
    "DoraGradients",
    "DoubleQuantized",
    "EmbeddingGradients",
    "Footprint",
    "LinearGradients",
    "LoraAdapter",
    "LoraGradients",
    "MergedDora",
    "ModelTensor",
    "PagePlan",
    "PagedStates",
    "ParameterCounts",
    "QuantizedAbsmax",
    "QuantizedAffine",
    "QuantizedBlocks",
    "QuantizedInt8",
    "Scheme",
    "TensorBytes",
    "TrainingMemory",
    "accumulate_gradients",
    "accumulated_step",
    "adamw8bit_init",
    "adamw8bit_step",
    "adamw_init",
    "adamw_moments",
    "adamw_parameter",
    "adamw_step",
    "adapter_settings",
    "adapter_shapes",
    "affine_parameters",
    "bits_per_weight",
    "block_absmax",
    "clip_by_norm",
    "combine_adapters",
    "concatenate_adapters",
    "conditional_means",
    "config_tensors",
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
    "format_table",
    "header_tensors",
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
    "model_footprint",
    "moving_range",
    "named_tensors",
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
    "quantized_tensors",
    "relative_error",
    "round_to",
    "scale_int8_matmul",
    "scheme_named",
    "select_targets",
    "state_arrays",
    "state_bytes",
    "state_from_arrays",
    "storage_bytes",
    "storage_view",
    "store_state",
    "stored_bytes",
    "symmetric_scale",
    "table_bytes",
    "tensor_bytes",
    "trainable_biases",
    "training_memory",
    "unpack_4bit",
    "weight_only_backward",
    "weight_only_forward",
    "weight_values",
]
