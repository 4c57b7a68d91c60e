"""The trained part of a layer."""

import torch
from torch import Tensor, nn

from qloracle.errors import reject_value
from qloracle_gpu.torch.autocast import autocast_dtype
from qloracle_gpu.torch.initialization import AdapterMatrices, embedding_init, lora_init
from qloracle_gpu.torch.modules.options import LoraOptions
from qloracle_gpu.torch.modules.products import Product, Trained


class Adapter(nn.Module):
    """The matrices of an adapter in float32, with a magnitude or a bias where the options say so.

    Parameters
    ----------
    matrices : AdapterMatrices
    options : LoraOptions
    magnitude : tensor of float32, shape (d_out,), optional
        What DoRA's magnitude starts from.
    """

    def __init__(self, matrices: AdapterMatrices, options: LoraOptions, magnitude: Tensor | None = None) -> None:
        super().__init__()
        self.options = options
        self.enabled = True  # a disabled adapter leaves the layer as its base
        self.lora_a = nn.Parameter(matrices.lora_a)
        self.lora_b = nn.Parameter(matrices.lora_b)
        self.magnitude = None if magnitude is None else nn.Parameter(magnitude)
        self.lora_bias = nn.Parameter(matrices.lora_b.new_zeros(len(matrices.lora_b))) if options.lora_bias else None

    def trained(self, bias: Tensor | None) -> Trained:
        """Return what trains, rounded to the dtype of autocast while that is on."""
        target = autocast_dtype(self.lora_a.device.type)
        if target is None:
            return Trained(self.lora_a, self.lora_b, self.magnitude, self.lora_bias, bias)
        rounded = (None if t is None else t.to(target) for t in (self.magnitude, self.lora_bias, bias))
        return Trained(self.lora_a.to(target), self.lora_b.to(target), *rounded)

    def product(
        self, weight_rounding: str, out_dtype: str, *, fan_in_fan_out: bool = False, threshold: float | None = None
    ) -> Product:
        """Return how a layer with this adapter multiplies."""
        dropout = self.options.dropout if self.training else 0.0
        alpha, stabilized = self.options.alpha, self.options.use_rslora
        return Product(alpha, stabilized, dropout, weight_rounding, out_dtype, fan_in_fan_out, threshold)

    def dropout_mask(self, x: Tensor) -> Tensor | None:
        """Draw which elements of x the adapter keeps; None where it keeps all.

        The draw is torch's own for the device of x, so that a checkpointed layer, whose generator torch sets back
        before it computes again, gets the same mask. Nothing waits for the device.
        """
        if not self.training or self.options.dropout == 0:
            return None
        kept = torch.empty(x.shape, dtype=torch.bool, device=x.device)
        return kept.bernoulli_(1 - self.options.dropout)

    def extra_repr(self) -> str:
        """Return the options in short."""
        o = self.options
        marks = [mark for mark, on in (("rsLoRA", o.use_rslora), ("DoRA", o.use_dora), ("bias", o.lora_bias)) if on]
        return ", ".join([f"rank={o.rank}, alpha={o.alpha}, dropout={o.dropout}", *marks])


def linear_matrices(options: LoraOptions, d_out: int, d_in: int, device: torch.device) -> AdapterMatrices:
    """Return what the adapter of a linear layer starts from, in float32 on a device."""
    rank = options.rank
    if options.init == "empty" or device.type == "meta":
        return AdapterMatrices(torch.zeros(rank, d_in, device=device), torch.zeros(d_out, rank, device=device))
    draw = torch.rand if options.init == "kaiming" else torch.randn
    require_rank(rank, min(d_out, d_in))
    return lora_init(draw(rank, d_in, device=device, dtype=torch.float32), d_out, initialization=options.init)


def embedding_matrices(options: LoraOptions, count: int, dim: int, device: torch.device) -> AdapterMatrices:
    """Return what the adapter of an embedding starts from: A zero, and B normal whatever the options say."""
    rank = options.rank
    if options.init == "empty" or device.type == "meta":
        return AdapterMatrices(torch.zeros(rank, count, device=device), torch.zeros(dim, rank, device=device))
    require_rank(rank, min(count, dim))
    return embedding_init(torch.randn(dim, rank, device=device, dtype=torch.float32), count)


def require_rank(rank: int, smaller_side: int) -> None:
    """Raise unless a rank is one that a matrix can have, before anything is drawn."""
    if rank > smaller_side:
        reject_value("rank", f"from 1 to {smaller_side}, the smaller side of the matrix", rank)
