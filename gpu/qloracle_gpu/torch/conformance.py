"""The torch backend as the conformance suite sees it: through the same record as anybody else's."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import qloracle_gpu.torch as q
from qloracle.tables import CODEBOOKS
from qloracle_conformance import Backend, Claim, Roundings
from qloracle_conformance.adapters.torch_arrays import LAYOUTS, Placer, environment, fetch
from qloracle_gpu.torch.codebooks import codebook_named, device_codebook
from qloracle_gpu.torch.kernels.availability import kernels_of
from qloracle_gpu.torch.packing import STORAGES
from qloracle_gpu.torch.rounding import NAN_BITS, NARROW, OVERFLOWS, ROUNDINGS

Tensor = torch.Tensor

EXACT = (
    *(f"{fmt}.encode" for fmt in ("float64", "float32", *NARROW)), *(f"{fmt}.decode" for fmt in NARROW),
    "packing.pack", "packing.unpack",
    "packing.store", "packing.restore", "blocks.absmax",
    *(f"{codebook}.{what}" for codebook in CODEBOOKS for what in ("entries", "quantize", "dequantize")),
    "absmax.quantize", "absmax.dequantize", "nf4_double.quantize", "nf4_double.dequantize", "fp4_double.quantize",
    "fp4_double.dequantize",
    "int8_tensor.quantize", "int8_tensor.dequantize", "int8_row.quantize", "int8_row.dequantize",
    "int8_column.quantize", "int8_column.dequantize", "int8_block.quantize", "int8_block.dequantize", "int8.matmul",
)  # fmt: skip
NESTED_CODEBOOKS = ("dynamic_signed", "nf4")
SOURCES = ("float32", "float64", "float16", "bfloat16", "int8", "int32", "int64")
RULES: dict[str, tuple[object, ...]] = {"overflow": OVERFLOWS, "nan": ("class", *NAN_BITS)}
OPTIONS: dict[str, dict[str, tuple[object, ...]]] = {
    **{f"{fmt}.encode": {**RULES, "rounding": ROUNDINGS, "source": SOURCES} for fmt in NARROW},
    "float32.encode": {**RULES, "rounding": ROUNDINGS[:-1], "source": ("float64", "int64")},  # all but stochastic
    "float64.encode": {"source": ("int64",)},
    "packing.store": {"storage": tuple(STORAGES)},
    "packing.restore": {"storage": tuple(STORAGES)},
    "absmax.quantize": {"codebook": NESTED_CODEBOOKS},
    "absmax.dequantize": {"codebook": NESTED_CODEBOOKS},
    **{
        f"{codebook}_double.{verb}": {"nested_codebook": NESTED_CODEBOOKS}
        for codebook in ("nf4", "fp4")
        for verb in ("quantize", "dequantize")
    },
}
SUMS = (
    "int8.scale", "lora.forward", "lora.backward", "qlora.forward", "qlora.backward",
    *(f"{codebook}.matmul" for codebook in CODEBOOKS), "nf4_double.matmul",
)  # fmt: skip
SOURCE = "qloracle_gpu.torch documents the reference's rules as its own"


def backend(device: str = "cpu") -> Backend:
    """Return the torch backend on a device, with everything that it promises."""
    placer = Placer(device)
    claims = tuple(
        Claim(
            operation=name,
            levels={"*": "bound" if name in SUMS else "exact"},
            out_dtypes=("float32",) if name.endswith("decode") else ("float32", "float16", "bfloat16"),
            layouts=LAYOUTS,
            options=OPTIONS.get(name, {}),
            features=("bias", "dropout", "rank_stabilized", "minus_128", "lora_bias", "fan_in_fan_out"),
            roundings=Roundings(accumulate="float32", intermediate="float32", weight="float32"),
            basis="promised",
            source=SOURCE,
        )
        for name in (*EXACT, *SUMS)
    )
    ops: dict[str, Callable[..., Any]] = {**OPS, "codebook_entries": partial(_codebook_entries, device=placer.device)}
    around = {**environment(placer.device), "kernels": kernels_of(placer.device.type)}
    return Backend("torch", torch.__version__, placer.place, fetch, ops, claims, around)


def _decode(bits: Tensor, *, dtype: str) -> Tensor:  # noqa: ARG001  # float32 is the only claim
    return q.decode(bits)


def _codebook_entries(*, codebook: str, device: torch.device) -> Tensor:
    return device_codebook(codebook_named(codebook), device).entries


def _block_absmax(x: Tensor, *, block_size: int) -> Tensor:
    return q.block_absmax(x, block_size)


def _quantize_blockwise(x: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    quantized = q.quantize_blockwise(x, **options)
    return quantized.data, quantized.absmax


def _dequantize_blockwise(
    data: Tensor, absmax: Tensor, *, codebook: str, block_size: int, shape: tuple[int, ...], dtype: str
) -> Tensor:
    return q.dequantize_blockwise(q.QuantizedBlocks(data, absmax, codebook, block_size, shape, dtype))


def _storage_bytes(stored: Tensor, *, storage: str) -> Tensor:  # noqa: ARG001  # the dtype tells it
    return q.storage_bytes(stored)


def _quantize_absmax(absmax: Tensor, *, codebook: str) -> tuple[Tensor, Tensor, Tensor]:
    quantized = q.quantize_absmax(absmax, codebook=codebook)
    return quantized.codes, quantized.absmax, quantized.offset


def _dequantize_absmax(absmax_codes: Tensor, nested_absmax: Tensor, offset: Tensor, *, codebook: str) -> Tensor:
    return q.dequantize_absmax(q.QuantizedAbsmax(absmax_codes, nested_absmax, offset), codebook=codebook)


def _quantize_double(x: Tensor, **options: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    quantized = q.quantize_double(x, **options)
    return quantized.data, quantized.absmax.codes, quantized.absmax.absmax, quantized.absmax.offset


def _dequantize_double(
    data: Tensor, absmax_codes: Tensor, nested_absmax: Tensor, offset: Tensor, *,
    codebook: str, block_size: int, shape: tuple[int, ...], dtype: str, nested_codebook: str = "dynamic_signed",
) -> Tensor:  # fmt: skip
    absmax = q.QuantizedAbsmax(absmax_codes, nested_absmax, offset)
    return q.dequantize_double(q.DoubleQuantized(data, absmax, codebook, block_size, shape, dtype, nested_codebook))


def _quantize_int8(x: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    quantized = q.quantize_int8(x, **options)
    return quantized.codes, quantized.absmax


def _dequantize_int8(codes: Tensor, absmax: Tensor, *, granularity: str, block_size: int | None, dtype: str) -> Tensor:
    return q.dequantize_int8(q.QuantizedInt8(codes, absmax, granularity, block_size, dtype))


def _scale_int8_matmul(
    acc: Tensor, row_absmax: Tensor, column_absmax: Tensor, bias: Tensor | None, *, dtype: str
) -> Tensor:
    shift = None if bias is None else bias.float()
    return q.scale_int8_matmul(acc, row_absmax, column_absmax, shift, out_dtype=dtype)


def _lora_backward(dy: Tensor, **arguments: Any) -> tuple[Tensor, ...]:
    return _gradients(q.lora_backward(dy, **arguments), arguments["x"])


def _gradients(found: q.LoraGradients, x: Tensor) -> tuple[Tensor, ...]:
    """Return gradients as the suite takes them: in the format of x, those of biases rounded to it here."""
    return tuple(gradient.to(x.dtype) for gradient in vars(found).values())


def _quantized(arguments: dict[str, Any]) -> dict[str, Any]:
    """Replace the parts of a quantized weight by its record."""
    parts = {name: arguments.pop(name) for name in ("data", "absmax", "codebook", "block_size", "shape")}
    return {**arguments, "weight": q.QuantizedBlocks(**parts, dtype="float32")}


def _double(arguments: dict[str, Any]) -> dict[str, Any]:
    """Replace the parts of a doubly quantized weight by its record."""
    nested = q.QuantizedAbsmax(*(arguments.pop(name) for name in ("absmax_codes", "nested_absmax", "offset")))
    parts = {name: arguments.pop(name) for name in ("data", "codebook", "block_size", "shape")}
    return {**arguments, "weight": q.DoubleQuantized(**parts, absmax=nested, dtype="float32")}


def _quantized_matmul(**arguments: Any) -> Tensor:
    return q.quantized_matmul(**_quantized(arguments))


def _double_quantized_matmul(**arguments: Any) -> Tensor:
    return q.quantized_matmul(**_double(arguments))


def _qlora_forward(**arguments: Any) -> Tensor:
    return q.qlora_forward(**_quantized(arguments))


def _qlora_backward(**arguments: Any) -> tuple[Tensor, ...]:
    return _gradients(q.qlora_backward(**_quantized(arguments)), arguments["x"])[:4]


OPS: dict[str, Callable[..., Any]] = {
    "encode": q.encode,
    "decode": _decode,
    "block_absmax": _block_absmax,
    "pack_4bit": q.pack_4bit,
    "unpack_4bit": q.unpack_4bit,
    "storage_view": q.storage_view,
    "storage_bytes": _storage_bytes,
    "quantize_blockwise": _quantize_blockwise,
    "dequantize_blockwise": _dequantize_blockwise,
    "quantize_absmax": _quantize_absmax,
    "dequantize_absmax": _dequantize_absmax,
    "quantize_double": _quantize_double,
    "dequantize_double": _dequantize_double,
    "quantize_int8": _quantize_int8,
    "dequantize_int8": _dequantize_int8,
    "int8_matmul": q.int8_matmul,
    "scale_int8_matmul": _scale_int8_matmul,
    "lora_forward": q.lora_forward,
    "lora_backward": _lora_backward,
    "quantized_matmul": _quantized_matmul,
    "double_quantized_matmul": _double_quantized_matmul,
    "qlora_forward": _qlora_forward,
    "qlora_backward": _qlora_backward,
}
