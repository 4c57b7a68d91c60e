"""Optimizers: AdamW with states in 32 or 8 bits, in place or paged, for `torch.nn.Module`s.

They step as the functions of the package do, `adamw_step` and `adamw8bit_step`, bit for bit.
"""

from qloracle_gpu.torch.optim.optimizers import AdamW, AdamW8bit, PagedAdamW, PagedAdamW8bit

__all__ = ["AdamW", "AdamW8bit", "PagedAdamW", "PagedAdamW8bit"]
