"""Which results of a floating-point sum are allowed: those that some order of evaluation gives.

The bounds by what they are of: `bounds_lora`, `bounds_dora`, `bounds_embedding`, `bounds_matmul`, `bounds_scale`; of
merges `bounds_merge`, `bounds_dora_merge`, `bounds_cycles`, `bounds_requantize`, `bounds_combine`. Their common
derivation stands in `tracking`; what an implementation declares, in `roundings`.
"""

from qloracle.bounds_dora import dora_forward_bound
from qloracle.bounds_dora_backward import dora_backward_bound
from qloracle.bounds_embedding import embedding_lora_backward_bound, embedding_lora_forward_bound
from qloracle.bounds_lora import lora_backward_bound, lora_forward_bound
from qloracle.bounds_matmul import quantized_matmul_bound
from qloracle.bounds_scale import scale_int8_matmul_bound
from qloracle.roundings import Roundings
from qloracle.tracking import Interval

__all__ = [
    "Interval",
    "Roundings",
    "dora_backward_bound",
    "dora_forward_bound",
    "embedding_lora_backward_bound",
    "embedding_lora_forward_bound",
    "lora_backward_bound",
    "lora_forward_bound",
    "quantized_matmul_bound",
    "scale_int8_matmul_bound",
]
