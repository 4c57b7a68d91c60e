"""Arguments of every operator of torch.ops.qloracle, for tests."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import qloracle_gpu.torch as backend
from qloracle.codebooks import Codebook
from qloracle.tables import CODEBOOKS
from qloracle_gpu.torch.library.flat_weight import flat_weight
from qloracle_gpu.torch.qlora import QuantizedWeight

from .layers import as_tensors, quantizers, random_operands

Arguments = dict[str, Any]
EIGHTHS = Codebook("eighths", np.arange(-8, 8).astype(np.float32) / 8)
CHECKED = (
    "NF4", "8-bit blocks", "doubly quantized NF4", "INT8 by row", "INT8 by block", "affine 4 bits by group",
    "a table of one's own",
)  # fmt: skip


def values(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Standard normal numbers with strides of their own: every second column of a tensor."""
    wide = np.random.default_rng(sum(shape)).standard_normal((*shape[:-1], 2 * shape[-1]))
    return torch.from_numpy(wide.astype(np.float32)).to(dtype)[..., ::2]


def operands(dtype: torch.dtype = torch.float32, *, gradient: bool = True) -> dict[str, torch.Tensor]:
    """Operands of a layer; what trains asks for a gradient."""
    shapes = {"x": (2, 3, 6), "weight": (5, 6), "lora_a": (2, 6), "lora_b": (5, 2), "magnitude": (5,), "bias": (5,)}
    made = {name: t.to(dtype) for name, t in as_tensors(random_operands(3, **shapes, lora_bias=(5,))).items()}
    return {name: t.requires_grad_(gradient and name != "weight") for name, t in made.items()}


def stored_weights() -> dict[str, QuantizedWeight]:
    """The weight of `operands`, quantized by each quantizer."""
    weight = operands()["weight"]
    own = backend.quantize_blockwise(weight, codebook=EIGHTHS, block_size=8)
    return {name: quantize(weight) for name, quantize in quantizers().items()} | {"a table of one's own": own}


def _mask() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(4).random((2, 3, 6)) < 0.5)


def _blocks() -> dict[str, tuple[str, tuple[Any, ...]]]:
    x = values(3, 5)
    cases: dict[str, tuple[str, tuple[Any, ...]]] = {"block_absmax": ("block_absmax", (x, 4))}
    for codebook in CODEBOOKS:
        q = backend.quantize_blockwise(x, codebook=codebook, block_size=7)
        cases[f"quantize_blockwise, {codebook}"] = ("quantize_blockwise", (x, codebook, 7))
        arguments = (q.data, q.absmax, codebook, 7, (3, 5), "bfloat16")
        cases[f"dequantize_blockwise, {codebook}"] = ("dequantize_blockwise", arguments)
    d = backend.quantize_double(x, block_size=4)
    nested = (d.absmax.codes, d.absmax.absmax, d.absmax.offset)
    absmax = backend.block_absmax(x, 4)
    return cases | {
        "quantize_blockwise, bfloat16": ("quantize_blockwise", (x.to(torch.bfloat16), "nf4", 8)),
        "quantize_absmax": ("quantize_absmax", (absmax,)),
        "quantize_absmax, an offset": ("quantize_absmax", (absmax, "nf4", torch.tensor(0.5))),
        "dequantize_absmax": ("dequantize_absmax", nested),
        "quantize_double": ("quantize_double", (x, "fp4", 4)),
        "dequantize_double": ("dequantize_double", (d.data, *nested, "nf4", 4, (3, 5), "float32")),
    }


def _integers() -> dict[str, tuple[str, tuple[Any, ...]]]:
    x = values(3, 5)
    a, b = (torch.from_numpy(np.random.default_rng(5).integers(-127, 128, (3, 4), np.int8)) for _ in range(2))
    cases = {}
    for granularity, block_size in (("tensor", None), ("row", None), ("column", None), ("block", 4)):
        q = backend.quantize_int8(x, granularity=granularity, block_size=block_size)
        cases[f"quantize_int8, {granularity}"] = ("quantize_int8", (x, granularity, block_size))
        arguments = (q.codes, q.absmax, granularity, block_size, "float16")
        cases[f"dequantize_int8, {granularity}"] = ("dequantize_int8", arguments)
    w = backend.quantize_int8(values(4, 5), granularity="row")
    scaled = (backend.int8_matmul(a, b), torch.ones(3), torch.ones(3), torch.ones(3), "bfloat16")
    return cases | {
        "int8_matmul": ("int8_matmul", (a, b)),
        "int8_matmul, 3 axes": ("int8_matmul", (a[None], b)),
        "scale_int8_matmul": ("scale_int8_matmul", scaled),
        "int8_linear_forward": ("int8_linear_forward", (x, w.codes, w.absmax, torch.ones(4), "bfloat16")),
    }


def _affine() -> dict[str, tuple[str, tuple[Any, ...]]]:
    x, cases = values(3, 5), {}
    for granularity, group_size in (("tensor", None), ("row", None), ("column", None), ("group", 4)):
        q = backend.quantize_affine(x, qmin=-8, qmax=7, granularity=granularity, group_size=group_size)
        how, parameters = (-8, 7, granularity, group_size), (q.scale, q.zero_point)
        trained = x.clone().requires_grad_()
        cases[f"quantize_affine, {granularity}"] = ("quantize_affine", (x, *how))
        cases[f"dequantize_affine, {granularity}"] = ("dequantize_affine", (q.codes, *parameters, *how, "bfloat16"))
        cases[f"fake_quantize, {granularity}"] = ("fake_quantize", (trained, *parameters, *how))
        arguments = (values(3, 5), x, *parameters, *how, "codes")
        cases[f"fake_quantize_backward, {granularity}"] = ("fake_quantize_backward", arguments)
        cases[f"minmax_range, {granularity}"] = ("minmax_range", (x, granularity, group_size))
        cases[f"percentile_range, {granularity}"] = ("percentile_range", (x, 5.0, 95.0, granularity, group_size))
    lo, hi = backend.minmax_range(x, granularity="row")
    return cases | {
        "quantize_affine, a given range": ("quantize_affine", (x, 0, 255, "row", None, lo, hi)),
        "affine_parameters": ("affine_parameters", (lo, hi, 0, 15)),
        "symmetric_scale": ("symmetric_scale", (hi.abs(), 127)),
        "quantize_symmetric": ("quantize_symmetric", (x, hi.abs(), -127, 127, "row")),
        "moving_range": ("moving_range", (lo, hi, lo, hi + 1, 0.1)),
    }


def _conversions() -> dict[str, tuple[str, tuple[Any, ...]]]:
    x = values(3, 5)
    random_bits = torch.arange(15, dtype=torch.int32).view(torch.uint32).view(3, 5)
    codes = torch.arange(15, dtype=torch.uint8)
    return {
        "decode, bfloat16": ("decode", (x.to(torch.bfloat16),)),
        "decode, float8_e4m3fn": ("decode", (x.to(torch.float8_e4m3fn),)),
        "encode, bfloat16": ("encode", (x, "bfloat16")),
        "encode, float8_e5m2": ("encode", (x, "float8_e5m2", "toward_zero", "saturate", "sign")),
        "encode, stochastic": ("encode", (x, "float16", "stochastic", None, None, random_bits)),
        "pack_4bit": ("pack_4bit", (codes, 7)),
        "unpack_4bit": ("unpack_4bit", (backend.pack_4bit(codes), 15)),
    }


def _layers() -> dict[str, tuple[str, tuple[Any, ...]]]:
    o, dy = operands(), values(2, 3, 5)
    matrices = (o["x"], o["weight"], o["lora_a"], o["lora_b"])
    constant = tuple(t.detach() for t in matrices)
    m, ids = o["magnitude"], torch.tensor([[1, 5], [0, 1]])
    table, a, b = values(6, 5), values(2, 6).requires_grad_(), values(5, 2).requires_grad_()
    return {
        "linear": ("linear", (o["x"], o["weight"], o["bias"])),
        "linear, turned": ("linear", (o["x"], o["weight"].T, None, True, "bfloat16")),
        "linear_backward": ("linear_backward", (dy, o["weight"], False, "bfloat16")),
        "lora_forward": ("lora_forward", (*matrices, 4.0, None, o["bias"], o["lora_bias"])),
        "lora_forward, dropout": ("lora_forward", (*matrices, 4.0, None, None, None, _mask(), 0.5, True)),
        "lora_forward, DoRA": ("lora_forward", (*matrices, 4.0, m, o["bias"])),
        "lora_backward": ("lora_backward", (dy, *constant, 4.0)),
        "lora_backward, DoRA": ("lora_backward", (dy, *constant, 4.0, m.detach(), _mask(), 0.5)),
        "embedding_lora_forward": ("embedding_lora_forward", (ids, table, a, b, 4.0)),
        "embedding_lora_backward": (
            "embedding_lora_backward", (values(2, 2, 5), ids, table, a.detach(), b.detach(), 4.0)
        ),
    }  # fmt: skip


def _stored() -> dict[str, tuple[str, tuple[Any, ...]]]:
    o, dy = operands(), values(2, 3, 5)
    trained, cases = (o["lora_a"], o["lora_b"], 4.0), {}
    constant = tuple(t.detach() if isinstance(t, torch.Tensor) else t for t in trained)
    for name, record in stored_weights().items():
        if name not in CHECKED:
            continue
        flat = flat_weight(record).arguments
        adapter = (*trained, None, o["bias"], o["lora_bias"], _mask(), 0.5, False, "bfloat16")
        cases[f"quantized_matmul, {name}"] = ("quantized_matmul", (o["x"], *flat, o["bias"]))
        cases[f"qlora_forward, {name}"] = ("qlora_forward", (o["x"], *flat, *adapter))
        cases[f"qlora_backward, {name}"] = ("qlora_backward", (dy, o["x"].detach(), *flat, *constant))
    by_row = stored_weights()["INT8 by row"]
    codes, flat = (by_row.codes, by_row.absmax), flat_weight(by_row).arguments
    m = o["magnitude"]
    llm = (None, 1.5, "columns", "dequantized", "float32", o["bias"])
    return cases | {
        "quantized_matmul_backward": ("quantized_matmul_backward", (dy, *flat, "float32", "bfloat16")),
        "qlora_forward, DoRA": ("qlora_forward", (o["x"], *flat, *trained, m, o["bias"])),
        "qlora_backward, DoRA": ("qlora_backward", (dy, o["x"].detach(), *flat, *constant, m.detach())),
        "qlora_forward, LLM.int8()": (
            "qlora_forward", (o["x"], *flat, *trained, None, o["bias"], None, None, 0.0, False, "float32", 1.5)
        ),
        "llm_int8_forward": ("llm_int8_forward", (o["x"], *codes, *llm)),
        "llm_int8_forward, the original": ("llm_int8_forward", (o["x"], *codes, o["weight"], 1.5, "elements")),
    }  # fmt: skip


MAKERS: tuple[Callable[[], dict[str, tuple[str, tuple[Any, ...]]]], ...] = (
    _blocks, _integers, _affine, _conversions, _layers, _stored,
)  # fmt: skip


def operator_cases() -> dict[str, tuple[str, tuple[Any, ...]]]:
    """Operator and arguments by the name of a case, made anew."""
    return {name: case for make in MAKERS for name, case in make().items()}
