"""A linear layer whose weight is stored quantized."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from qloracle.errors import reject_value, require_record
from qloracle_gpu.torch.autocast import autocast_dtype
from qloracle_gpu.torch.blockwise import quantize_blockwise
from qloracle_gpu.torch.double_quant import quantize_double
from qloracle_gpu.torch.formats import DTYPES
from qloracle_gpu.torch.int8 import quantize_int8
from qloracle_gpu.torch.modules.lora_linear import linear_parameters
from qloracle_gpu.torch.modules.products import Product, format_name, plain
from qloracle_gpu.torch.modules.quantization import QuantizationConfig
from qloracle_gpu.torch.modules.quantized_tensor import QuantizedTensor
from qloracle_gpu.torch.qlora import QuantizedWeight, qlora_weight, shape_of


@dataclass(frozen=True)
class ComputeFormats:
    """What a layer with a quantized weight rounds to."""

    compute: torch.dtype  # x and the dequantized weight, before they are multiplied
    result: torch.dtype  # y

    @property
    def weight_rounding(self) -> str:
        """Name of the format of the dequantized weight."""
        return format_name(self.compute)

    @property
    def out_dtype(self) -> str:
        """Name of the format of y."""
        return format_name(self.result)


class QuantizedLinear(nn.Module):
    """A linear layer whose frozen weight is stored quantized.

    y = x Ŵᵀ + b, Ŵ the dequantized weight; or LLM.int8()'s y with a threshold

    Parameters
    ----------
    base : nn.Linear, or a module with `weight` and `bias` that computes x Wᵀ + b
    config : QuantizationConfig
    fan_in_fan_out : bool
        The weight of the base is stored as (d_in, d_out); it is turned before it is quantized.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If the base has no such weight, or its bytes do not fill whole items of the storage.

    Notes
    -----
    Clauses ``[qlora.weight]``, ``[quantized.matmul]``, ``[llm_int8.forward]``, ``[llm_int8.backward]``. x and Ŵ are
    rounded to `compute_dtype`, or to the dtype of autocast, or to that of x; products and sums are float32; y is
    rounded once to the dtype of autocast, or of x as it came.

    Examples
    --------
    >>> layer = QuantizedLinear(nn.Linear(8, 4), QuantizationConfig("int8"))
    >>> layer(torch.ones(2, 8)).shape
    torch.Size([2, 4])
    """

    weight: QuantizedTensor
    bias: nn.Parameter | None
    config: QuantizationConfig
    in_features: int
    out_features: int

    def __init__(self, base: nn.Module, config: QuantizationConfig, *, fan_in_fan_out: bool = False) -> None:
        super().__init__()
        require_record("config", config, QuantizationConfig)
        weight, bias = linear_parameters(base)
        values = weight.detach().T.contiguous() if fan_in_fan_out else weight.detach()
        _hold(self, QuantizedTensor(quantized_as(values, config), config.storage), bias, config)
        self.train(base.training)

    @classmethod
    def around(cls, weight: QuantizedTensor, bias: nn.Parameter | None, config: QuantizationConfig) -> Self:
        """Return a layer around a weight that is quantized already, as `config` says."""
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        _hold(made, weight, bias, config)
        return made

    def forward(self, x: Tensor) -> Tensor:
        """Return y for x of shape (..., d_in)."""
        formats = compute_formats(x, self.config)
        how = Product(1.0, False, 0.0, formats.weight_rounding, formats.out_dtype, threshold=self.config.threshold)
        if x.requires_grad and torch.is_grad_enabled():
            require_compute_dtype(x, self.config)
        return plain(x.to(formats.compute), self.weight.flat(), self.bias, how)

    def dequantized(self, dtype: str | None = None) -> Tensor:
        """Return the weight as a tensor of shape (d_out, d_in), by default in the format of the original."""
        record = self.weight.record()
        return qlora_weight(record, weight_rounding=record.dtype if dtype is None else dtype)

    def extra_repr(self) -> str:
        """Return sizes and the compute dtype in short."""
        sizes = f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        return f"{sizes}, compute_dtype={self.config.compute_dtype}"


def _hold(
    layer: QuantizedLinear, weight: QuantizedTensor, bias: nn.Parameter | None, config: QuantizationConfig
) -> None:
    """Give a layer its parts."""
    layer.weight, layer.bias, layer.config = weight, bias, config
    layer.out_features, layer.in_features = shape_of(weight.record())
    if bias is not None:
        bias.requires_grad_(False)


def quantized_as(weight: Tensor, config: QuantizationConfig) -> QuantizedWeight:
    """Return a weight quantized as a config says."""
    if config.kind == "int8":
        return quantize_int8(weight, granularity=config.granularity, block_size=config.block_size)
    block_size = 64 if config.block_size is None else config.block_size
    if config.double_quant:
        nested = config.nested_codebook
        return quantize_double(weight, codebook=config.codebook, block_size=block_size, nested_codebook=nested)
    return quantize_blockwise(weight, codebook=config.codebook, block_size=block_size)


def compute_formats(x: Tensor, config: QuantizationConfig) -> ComputeFormats:
    """Return what x and the weight are rounded to, and what the result is."""
    result = autocast_dtype(x.device.type) or x.dtype
    return ComputeFormats(result if config.compute_dtype is None else DTYPES[config.compute_dtype], result)


def require_compute_dtype(x: Tensor, config: QuantizationConfig) -> None:
    """Raise if a gradient would pass an integer base for which nobody said in which format to compute."""
    if config.compute_dtype is None and autocast_dtype(x.device.type) is None:
        reject_value("compute_dtype", "given to train through a quantized base, in its config or by autocast", None)
