"""PEFT on the quantized layers of bitsandbytes: ``Linear4bit`` and ``Linear8bitLt``, in training mode.

What bitsandbytes would compile for each shape it meets runs eagerly here: the same operations, seconds sooner.
"""

from typing import Any

import bitsandbytes
import torch

from qloracle_conformance.adapters.peft.layers import applied, gradients, lora_layer
from qloracle_conformance.adapters.peft.merging import merge_bias_of

Tensor = torch.Tensor
# bitsandbytes has no types to speak of.
nn: Any = bitsandbytes.nn
functional: Any = bitsandbytes.functional
NESTED_BLOCK_SIZE = 256
PARTS = ("data", "absmax", "absmax_codes", "nested_absmax", "offset", "codes")
SETTINGS = ("codebook", "block_size", "shape", "granularity")


def linear_4bit(data: Tensor, state: Any, bias: Tensor | None, dtype: torch.dtype) -> Any:
    """Return a ``Linear4bit`` that computes in `dtype` and holds a weight that is quantized already."""
    d_out, d_in = state.shape
    base = nn.Linear4bit(d_in, d_out, compute_dtype=dtype, quant_type=state.quant_type, device="meta")
    base.weight = nn.Params4bit(
        data.reshape(-1, 1), quant_state=state, blocksize=state.blocksize, quant_type=state.quant_type,
        compress_statistics=state.nested, bnb_quantized=True, module=base,
    )  # fmt: skip
    base.quant_state, base.bias = state, None if bias is None else torch.nn.Parameter(bias)
    base.is_loaded_in_4bit = True
    return base


def linear_8bit(codes: Tensor, absmax: Tensor, bias: Tensor | None) -> Any:
    """Return a ``Linear8bitLt`` that holds a weight that is quantized already."""
    d_out, d_in = codes.shape
    base = nn.Linear8bitLt(d_in, d_out, has_fp16_weights=False, device="meta")
    base.weight = nn.Int8Params(codes, requires_grad=False, CB=codes, SCB=absmax)
    base.bias = None if bias is None else torch.nn.Parameter(bias)
    base.is_loaded_in_8bit = True
    return base


def state_of(
    dtype: torch.dtype, *, codebook: str, block_size: int, shape: tuple[int, int], absmax: Tensor | None = None,
    absmax_codes: Tensor | None = None, nested_absmax: Tensor | None = None, offset: Tensor | None = None,
) -> Any:  # fmt: skip
    """Return the state of a 4-bit weight; with codes of the absmax that of double quantization."""
    nested = None
    if absmax is None:
        absmax, code = absmax_codes, functional.create_dynamic_map(signed=True)
        nested = functional.QuantState(nested_absmax, code=code, blocksize=NESTED_BLOCK_SIZE, dtype=torch.float32)
    return functional.QuantState(
        absmax,
        torch.Size(shape),
        functional.get_4bit_type(codebook, device="cpu"),
        block_size,
        codebook,
        dtype,
        offset,
        nested,
    )


def base_layer(arguments: dict[str, Any], bias: Tensor | None, dtype: torch.dtype) -> Any:
    """Take what stands for the weight out of the arguments, and return the layer that holds it."""
    parts = {name: arguments.pop(name) for name in PARTS if name in arguments}
    settings = {name: arguments.pop(name) for name in SETTINGS if name in arguments}
    if "codes" in parts:
        arguments.pop("block_size", None)
        return linear_8bit(parts["codes"], parts["absmax"], bias)
    return linear_4bit(parts.pop("data"), state_of(dtype, **settings, **parts), bias, dtype)


def qlora_forward(x: Tensor, *, bias: Tensor | None, mask: Tensor | None, **arguments: Any) -> Tensor:
    """``lora.Linear4bit`` or ``lora.Linear8bitLt``, with a magnitude DoRA."""
    base = base_layer(arguments, None if bias is None else bias.clone(), x.dtype)
    with torch.compiler.set_stance("force_eager"):
        return applied(lora_layer(base, **arguments), x, mask).detach()


def qlora_backward(dy: Tensor, x: Tensor, *, mask: Tensor | None, **arguments: Any) -> tuple[Tensor, ...]:
    """Its gradients."""
    base = base_layer(arguments, x.new_zeros(len(arguments["lora_b"])), x.dtype)
    with torch.compiler.set_stance("force_eager"):
        return tuple(gradients(lora_layer(base, **arguments), dy, x, mask).values())


def merged(cycles: int | None, *, dtype: str, **arguments: Any) -> Any:
    """Return the base layer after a merge, or after so many merges and unmerges."""
    for name in ("scales", "fan_in_fan_out"):  # neither has another value in PEFT
        arguments.pop(name, None)
    if "codes" in arguments:
        arguments["codes"], _ = arguments["codes"].clone(), arguments.pop("shape")
    base = base_layer(arguments, None, getattr(torch, dtype))
    layer = lora_layer(base, **arguments)
    with torch.compiler.set_stance("force_eager"):
        for _ in range(1 if cycles is None else cycles):
            layer.merge()
            if cycles is not None:
                layer.unmerge()
    return layer.get_base_layer()


def merge_blocks(**arguments: Any) -> tuple[Tensor, Tensor]:
    """``merge()`` into a ``Linear4bit``."""
    weight = merged(None, **arguments).weight
    return weight.data.reshape(-1), weight.quant_state.absmax


def merge_double(**arguments: Any) -> tuple[Tensor, ...]:
    """``merge()`` into a ``Linear4bit`` with ``compress_statistics``."""
    weight = merged(None, **arguments).weight
    state = weight.quant_state
    return weight.data.reshape(-1), state.absmax, state.state2.absmax, state.offset


def merge_blocks_cycles(*, cycles: int, dtype: str, **arguments: Any) -> Tensor:
    """``merge()`` and ``unmerge()`` in turn, and what is dequantized then."""
    weight = merged(cycles, dtype=dtype, **arguments).weight
    with torch.compiler.set_stance("force_eager"):
        restored: Tensor = functional.dequantize_4bit(weight.data, weight.quant_state)
    return restored.to(getattr(torch, dtype))


def merge_int8(**arguments: Any) -> tuple[Tensor, Tensor]:
    """``merge()`` into a ``Linear8bitLt``."""
    weight = merged(None, **arguments).weight
    return weight.data, weight.SCB


def merge_bias(
    base_bias: Tensor, lora_bias: Tensor, *, bits: int, alpha: float, rank: int, rank_stabilized: bool, unmerge: bool
) -> Tensor:
    """The bias of a quantized layer with ``lora_bias``; all matrices are zeros."""
    d_out, d_in = len(base_bias), 64
    zeros = torch.zeros(d_out, d_in)
    if bits == 4:
        data, state = functional.quantize_4bit(zeros, quant_type="nf4")
        base = linear_4bit(data, state, base_bias.clone(), base_bias.dtype)
    else:
        base = linear_8bit(zeros.to(torch.int8), torch.ones(d_out), base_bias.clone())
    matrices = base_bias.new_zeros(rank, d_in), base_bias.new_zeros(d_out, rank)
    settings: dict[str, Any] = {
        "alpha": alpha,
        "rank_stabilized": rank_stabilized,
        "lora_bias": lora_bias,
        "autocast": False,
    }
    with torch.compiler.set_stance("force_eager"):
        return merge_bias_of(lora_layer(base, *matrices, **settings), base_bias, unmerge=unmerge)
