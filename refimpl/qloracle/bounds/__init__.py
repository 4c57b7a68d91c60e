"""Which results of a floating-point sum are allowed: those that some order of evaluation gives.

One module for each rule that has a sum, named after the module of the rule; merges stand in `merge`, `dora_merge`,
`dora_unmerge`, `cycles`, `requantize` and `combine`. The common derivation stands in `tracking`; what an implementation
declares, in `tracking.roundings`.
"""

from qloracle.bounds.adamw import adamw_moments_bound
from qloracle.bounds.adamw_parameter import adamw_parameter_bound
from qloracle.bounds.combine import combine_bound, concatenate_bound
from qloracle.bounds.cycles import merge_cycles_bound, requantize_cycles_bound
from qloracle.bounds.dora import dora_forward_bound
from qloracle.bounds.dora_backward import dora_backward_bound
from qloracle.bounds.dora_merge import dora_merge_bound
from qloracle.bounds.dora_unmerge import dora_unmerge_bound
from qloracle.bounds.embedding import embedding_lora_backward_bound, embedding_lora_forward_bound
from qloracle.bounds.int8_linear import weight_only_backward_bound, weight_only_forward_bound
from qloracle.bounds.llm_int8 import llm_int8_forward_bound
from qloracle.bounds.lora import lora_backward_bound, lora_forward_bound
from qloracle.bounds.matmul import quantized_matmul_bound
from qloracle.bounds.merge import lora_merge_bound, merge_bias_bound
from qloracle.bounds.requantize import absmax_bound, code_bound, merged_values_bound
from qloracle.bounds.scale import scale_int8_matmul_bound
from qloracle.tracking.interval import Interval
from qloracle.tracking.roundings import Roundings

__all__ = [
    "Interval",
    "Roundings",
    "absmax_bound",
    "adamw_moments_bound",
    "adamw_parameter_bound",
    "code_bound",
    "combine_bound",
    "concatenate_bound",
    "dora_backward_bound",
    "dora_forward_bound",
    "dora_merge_bound",
    "dora_unmerge_bound",
    "embedding_lora_backward_bound",
    "embedding_lora_forward_bound",
    "llm_int8_forward_bound",
    "lora_backward_bound",
    "lora_forward_bound",
    "lora_merge_bound",
    "merge_bias_bound",
    "merge_cycles_bound",
    "merged_values_bound",
    "quantized_matmul_bound",
    "requantize_cycles_bound",
    "scale_int8_matmul_bound",
    "weight_only_backward_bound",
    "weight_only_forward_bound",
]
