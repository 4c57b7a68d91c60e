"""Layers with adapters, and models of them: `torch.nn.Module`s around the functions of this package.

`apply_lora` gives the modules of any model adapters by patterns of their names; `quantize_model` quantizes its linear
layers before; `save_adapter` and `load_adapter` keep adapters in PEFT's files; `merge_model` adds them to the weights.
`FakeQuantize` is for quantization-aware training.
"""

from qloracle_gpu.torch.modules.adapter import Adapter
from qloracle_gpu.torch.modules.adapter_files import load_adapter, save_adapter
from qloracle_gpu.torch.modules.applying import apply_lora, target_names
from qloracle_gpu.torch.modules.bitsandbytes_config import quantization_config
from qloracle_gpu.torch.modules.config import LoraConfig
from qloracle_gpu.torch.modules.errors import AdapterFileError, MergeStateError, UnsupportedModuleError
from qloracle_gpu.torch.modules.fake_quantize import FakeQuantize
from qloracle_gpu.torch.modules.lora_embedding import LoRAEmbedding
from qloracle_gpu.torch.modules.lora_linear import LoRALinear
from qloracle_gpu.torch.modules.merging_model import adapters_disabled, merge_and_unload, merge_model, unmerge_model
from qloracle_gpu.torch.modules.options import LoraOptions
from qloracle_gpu.torch.modules.qlora_linear import QLoRALinear
from qloracle_gpu.torch.modules.quantization import QuantizationConfig
from qloracle_gpu.torch.modules.quantized_linear import QuantizedLinear
from qloracle_gpu.torch.modules.quantized_tensor import QuantizedTensor
from qloracle_gpu.torch.modules.quantizing import quantize_model
from qloracle_gpu.torch.modules.report import TrainableParameters, trainable_parameters

__all__ = [
    "Adapter",
    "AdapterFileError",
    "FakeQuantize",
    "LoRAEmbedding",
    "LoRALinear",
    "LoraConfig",
    "LoraOptions",
    "MergeStateError",
    "QLoRALinear",
    "QuantizationConfig",
    "QuantizedLinear",
    "QuantizedTensor",
    "TrainableParameters",
    "UnsupportedModuleError",
    "adapters_disabled",
    "apply_lora",
    "load_adapter",
    "merge_and_unload",
    "merge_model",
    "quantization_config",
    "quantize_model",
    "save_adapter",
    "target_names",
    "trainable_parameters",
    "unmerge_model",
]
