"""Layers with adapters of given operands, for tests."""

from typing import Any

import numpy as np
import torch
from torch import nn

from qloracle.codebooks import Codebook
from qloracle_gpu.torch.modules import (
    LoRALinear,
    LoraOptions,
    QLoRALinear,
    QuantizationConfig,
    QuantizedLinear,
)

from .layers import (
    random_operands,
)

HALVES = Codebook("halves", np.arange(-8, 8).astype(np.float32) / 2)
CONFIGS = {
    "NF4": QuantizationConfig(codebook="nf4", block_size=8, compute_dtype="float32"),
    "FP4, doubly quantized": QuantizationConfig(codebook="fp4", double_quant=True, compute_dtype="float32"),
    "a table of one's own": QuantizationConfig(codebook=HALVES, block_size=6, compute_dtype="float32"),
    "NF4 stored as bfloat16": QuantizationConfig(codebook="nf4", storage="bfloat16", compute_dtype="float32"),
    "INT8 by row": QuantizationConfig("int8", compute_dtype="float32"),
    "INT8 by block": QuantizationConfig("int8", granularity="block", block_size=8, compute_dtype="float32"),
}
LLM_INT8 = QuantizationConfig("int8", threshold=6.0, compute_dtype="float32")


def fill(layer: Any, operands: dict[str, np.ndarray]) -> Any:
    """Give a layer the adapter of some operands."""
    with torch.no_grad():
        for name in ("lora_a", "lora_b", "magnitude", "lora_bias"):
            if name in operands:
                getattr(layer.adapter, name).copy_(torch.from_numpy(operands[name]))
    return layer


def linear(operands: dict[str, np.ndarray]) -> nn.Linear:
    d_out, d_in = operands["weight"].shape
    made = nn.Linear(d_in, d_out, bias="bias" in operands)
    with torch.no_grad():
        made.weight.copy_(torch.from_numpy(operands["weight"]))
        if "bias" in operands:
            made.bias.copy_(torch.from_numpy(operands["bias"]))
    return made


def float_layer(operands: dict[str, np.ndarray], **options: Any) -> LoRALinear:
    chosen = {"rank": len(operands["lora_a"]), "alpha": 8.0} | options
    return fill(LoRALinear(linear(operands), LoraOptions(**chosen)), operands)


def quantized_layer(operands: dict[str, np.ndarray], config: QuantizationConfig, **options: Any) -> QLoRALinear:
    chosen = {"rank": len(operands["lora_a"]), "alpha": 8.0} | options
    return fill(QLoRALinear(QuantizedLinear(linear(operands), config), LoraOptions(**chosen)), operands)


def rough_operands() -> dict[str, np.ndarray]:
    return random_operands(1, x=(6, 20), weight=(12, 20), lora_a=(3, 20), lora_b=(12, 3), bias=(12,))
