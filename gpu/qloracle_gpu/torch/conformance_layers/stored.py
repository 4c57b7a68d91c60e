"""Weights that are stored quantized, as `QuantizedLinear` and its `QuantizedTensor` hold them."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

import qloracle_gpu.torch as q
from qloracle_gpu.torch.modules import QuantizationConfig, QuantizedLinear, QuantizedTensor
from qloracle_gpu.torch.qlora import QuantizedWeight

PARTS = ("data", "absmax", "absmax_codes", "nested_absmax", "offset", "codes")
SETTINGS = ("codebook", "block_size", "shape", "granularity")


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Module:
    """Return a base layer around tensors, whichever way the weight is stored."""
    base: Any = nn.Linear(1, 1, bias=False, device="meta")  # a bias that may be None has no type in torch
    base.weight = nn.Parameter(weight)
    base.bias = None if bias is None else nn.Parameter(bias)
    made: nn.Module = base
    return made


def record_of(arguments: dict[str, Any], dtype: str = "float32") -> QuantizedWeight:
    """Take what stands for a weight out of the arguments, and return its record."""
    parts = {name: arguments.pop(name) for name in PARTS if name in arguments}
    settings = {name: arguments.pop(name) for name in SETTINGS if name in arguments}
    if "codes" in parts:
        how = (settings.get("granularity", "row"), settings.get("block_size"))
        return q.QuantizedInt8(parts["codes"], parts["absmax"], *how, dtype)
    if "offset" not in parts:
        return q.QuantizedBlocks(parts["data"], parts["absmax"], **settings, dtype=dtype)
    nested = q.QuantizedAbsmax(parts["absmax_codes"], parts["nested_absmax"], parts["offset"])
    return q.DoubleQuantized(parts["data"], nested, **settings, dtype=dtype)


def config_of(record: QuantizedWeight, **options: Any) -> QuantizationConfig:
    """Return the config of a layer whose weight is stored as a record is."""
    if isinstance(record, q.QuantizedInt8):
        return QuantizationConfig("int8", granularity=record.granularity, block_size=record.block_size, **options)
    if isinstance(record, q.QuantizedBlocks | q.DoubleQuantized):
        double, block_size = isinstance(record, q.DoubleQuantized), record.block_size
        return QuantizationConfig(codebook=record.codebook, block_size=block_size, double_quant=double, **options)
    raise TypeError(f"no layer that is judged here holds a {type(record).__name__}")


def quantized_linear(record: QuantizedWeight, bias: Tensor | None = None, **options: Any) -> QuantizedLinear:
    """Return a layer around a weight that is quantized already."""
    parameter = None if bias is None else nn.Parameter(bias)
    return QuantizedLinear.around(QuantizedTensor(record), parameter, config_of(record, **options))


def parts_of(record: QuantizedWeight) -> tuple[Tensor, ...]:
    """Return the tensors of a record in the order in which the suite takes them."""
    if isinstance(record, q.QuantizedInt8):
        return record.codes, record.absmax
    if isinstance(record, q.QuantizedBlocks):
        return record.data, record.absmax
    if isinstance(record, q.DoubleQuantized):
        return record.data, record.absmax.codes, record.absmax.absmax, record.absmax.offset
    raise TypeError(f"no layer that is judged here holds a {type(record).__name__}")


def _quantize(x: Tensor, **config: Any) -> tuple[Tensor, ...]:
    return parts_of(QuantizedLinear(linear(x), QuantizationConfig(**config)).weight.record())


def _dequantize(*, dtype: str, **arguments: Any) -> Tensor:
    return quantized_linear(record_of(arguments)).dequantized(dtype)


def _quantize_int8(x: Tensor, **config: Any) -> tuple[Tensor, ...]:
    return _quantize(x, kind="int8", **config)


def _quantize_double(x: Tensor, **config: Any) -> tuple[Tensor, ...]:
    return _quantize(x, double_quant=True, **config)


OPS: dict[str, Callable[..., Any]] = {
    "quantize_blockwise": _quantize,
    "dequantize_blockwise": _dequantize,
    "quantize_double": _quantize_double,
    "dequantize_double": _dequantize,
    "quantize_int8": _quantize_int8,
    "dequantize_int8": _dequantize,
}
