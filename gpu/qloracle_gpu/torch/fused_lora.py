"""LoRA and QLoRA by kernels where they run: the base and the adapter in one pass, and the weight never dequantized.

With low = (x·mask) Aᵀ and back = dy B as float32, s and 1/(1 − p) multiply results, once each:

    y  = x Wᵀ + s·(1/(1 − p)·low Bᵀ + b_B) + b
    dx = dy W + s/(1 − p)·mask·(back A)    dA = s/(1 − p)·backᵀ (x·mask)    dB = s/(1 − p)·dyᵀ low

Weights that are numbers are taken if all large operands have one 16-bit format; torch's own product of float32 is as
good as any kernel of ours.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from qloracle_gpu.torch.affine import QuantizedAffine
from qloracle_gpu.torch.blockwise import QuantizedBlocks
from qloracle_gpu.torch.double_quant import DoubleQuantized
from qloracle_gpu.torch.formats import NAMES, require_device
from qloracle_gpu.torch.int8 import QuantizedInt8
from qloracle_gpu.torch.kernels.availability import kernels_run_on
from qloracle_gpu.torch.kernels.stored_weight import StoredWeight
from qloracle_gpu.torch.stored_products import stored_weight

Weight = Tensor | QuantizedBlocks | DoubleQuantized | QuantizedInt8 | QuantizedAffine


@dataclass(frozen=True)
class Adapter:
    """The adapter of a layer; shapes, formats and devices belong together, and with x."""

    lora_a: Tensor  # (r, d_in)
    lora_b: Tensor  # (d_out, r)
    scale: float
    mask: Tensor | None = None  # bool, the shape of x
    dropout: float = 0.0

    @property
    def share(self) -> float:
        """What a kept element is multiplied by."""
        return 1.0 if self.dropout == 1 else 1 / (1 - self.dropout)

    def dropped(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return rows of x and of the mask whose product is the adapter's share of x, but for `share`."""
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        if self.dropout == 1:
            return torch.zeros_like(rows), None
        return rows, None if self.mask is None else self.mask.reshape(rows.shape).contiguous()


def fused_forward(
    x: Tensor, weight: Weight, adapter: Adapter, target: torch.dtype, *, bias: Tensor | None, lora_bias: Tensor | None,
    weight_rounding: str = "float32", fan_in_fan_out: bool = False,
) -> Tensor | None:  # fmt: skip
    """Return y of a layer with an adapter, or None where no kernel takes it.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If the parts of a quantized weight do not belong together, or operands lie on different devices.
    """
    stored = _taken(x, weight, (x,), weight_rounding)
    if stored is None:
        return None
    for argument, vector in (("bias", bias), ("lora_bias", lora_bias)):
        if vector is not None:
            require_device(argument, vector, x.device)
    from qloracle_gpu.torch.kernels.products import LARGEST_PASSING_RANK, Correction, operand_format, product

    rank, d_out = len(adapter.lora_a), len(adapter.lora_b)
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    operand = operand_format(x.dtype, stored)
    passing = rank <= LARGEST_PASSING_RANK and adapter.mask is None
    passing = passing and operand == NAMES[adapter.lora_a.dtype] != "float32"
    correction = Correction(
        adapter.lora_b.contiguous(), rank, adapter.scale, adapter.share,
        down=adapter.lora_a.contiguous() if passing else None,
        low=None if passing else _low(x, adapter), shift=None if lora_bias is None else lora_bias.contiguous(),
    )  # fmt: skip
    y = torch.empty(len(rows), d_out, dtype=target, device=x.device)
    product(
        rows, stored, y, NAMES[target], transposed=fan_in_fan_out, bias=None if bias is None else bias.contiguous(),
        correction=correction,
    )  # fmt: skip
    return y.view(*x.shape[:-1], d_out)


def fused_backward(
    dy: Tensor, x: Tensor, weight: Weight, adapter: Adapter, *, weight_rounding: str = "float32",
    fan_in_fan_out: bool = False,
) -> tuple[Tensor, Tensor, Tensor] | None:  # fmt: skip
    """Return the gradients of x, A and B in the formats of these, or None where no kernel takes them.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `fused_forward`.
    """
    stored = _taken(x, weight, (x, dy), weight_rounding)
    if stored is None:
        return None
    require_device("dy", dy, x.device)
    from qloracle_gpu.torch.kernels.adapter_gradients import row_sums
    from qloracle_gpu.torch.kernels.products import Correction, product

    a, b = adapter.lora_a.contiguous(), adapter.lora_b.contiguous()
    dy_rows, (rows, mask) = dy.reshape(-1, dy.shape[-1]).contiguous(), adapter.dropped(x)
    back = torch.empty(len(rows), len(a), dtype=torch.float32, device=x.device)
    product(dy_rows, StoredWeight(b, (len(b), len(a))), back, "float32", transposed=True)
    kept = adapter.dropout != 1  # else nothing of the adapter reaches x
    correction = Correction(a, len(a), adapter.scale, adapter.share, low=back, backward=True) if kept else None
    dx = torch.empty(rows.shape, dtype=x.dtype, device=x.device)
    product(dy_rows, stored, dx, NAMES[x.dtype], transposed=not fan_in_fan_out, mask=mask if kept else None,
            correction=correction)  # fmt: skip
    found = row_sums(back, rows, mask), row_sums(_low(x, adapter), dy_rows).T
    scaled = [sums.mul(adapter.share).mul_(adapter.scale) for sums in found]
    return dx.view(x.shape), scaled[0].to(a.dtype), scaled[1].to(b.dtype).contiguous()


def _taken(x: Tensor, weight: Weight, large: tuple[Tensor, ...], weight_rounding: str) -> StoredWeight | None:
    """Return the weight as kernels take it, or None if they do not."""
    if not kernels_run_on(x.device.type) or any(part.numel() == 0 for part in large):
        return None
    if isinstance(weight, QuantizedAffine):
        return None
    if not isinstance(weight, Tensor):
        stored = stored_weight(weight, weight_rounding, x.device)
        return stored if stored.data.numel() else None
    if weight.numel() == 0 or x.dtype is torch.float32 or any(part.dtype is not weight.dtype for part in large):
        return None
    lines, length = weight.shape
    return StoredWeight(weight.contiguous(), (lines, length))


def _low(x: Tensor, adapter: Adapter) -> Tensor:
    """Return (x·mask) Aᵀ as float32."""
    from qloracle_gpu.torch.kernels.products import product

    rows, mask = adapter.dropped(x)
    low = torch.empty(len(rows), len(adapter.lora_a), dtype=torch.float32, device=x.device)
    rank, d_in = adapter.lora_a.shape
    product(rows, StoredWeight(adapter.lora_a.contiguous(), (rank, d_in)), low, "float32", mask=mask)
    return low
