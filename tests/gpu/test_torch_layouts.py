"""Tensors of any strides and offset, with gradient history, in any number of dimensions; inputs stay as they are."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import qloracle
import qloracle_gpu.torch as backend
from qloracle_gpu.torch.codebooks import device_codebook

from .boundaries import with_specials
from .words import require_same, words

LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.T.contiguous().T,
    "every second column": lambda x: x.repeat_interleave(2, 1)[:, ::2],
    "one element into its storage": lambda x: torch.cat([x.new_zeros(1), x.reshape(-1)])[1:].view(x.shape),
    "rows of a wider matrix": lambda x: torch.cat([x, x], 1)[:, : x.shape[1]],
    "with gradient history": lambda x: x.clone().requires_grad_() * 1,
}
OPERATIONS: dict[str, Callable[[Any, Any], list[Any]]] = {
    "block_absmax": lambda module, x: [module.block_absmax(x, 7)],
    "nf4": lambda module, x: flat(module.quantize_blockwise(x, block_size=7)),
    "dynamic_signed": lambda module, x: flat(module.quantize_blockwise(x, codebook="dynamic_signed", block_size=6)),
    "double": lambda module, x: flat(module.quantize_double(x, block_size=3)),
    "int8 tensor": lambda module, x: flat(module.quantize_int8(x, granularity="tensor")),
    "int8 row": lambda module, x: flat(module.quantize_int8(x, granularity="row")),
    "int8 column": lambda module, x: flat(module.quantize_int8(x, granularity="column")),
    "int8 block": lambda module, x: flat(module.quantize_int8(x, granularity="block", block_size=9)),
    "encode": lambda module, x: [module.encode(x, "float16")],
}


def flat(record: Any) -> list[Any]:
    """The arrays of a record and of the record inside it."""
    parts = [flat(v) if hasattr(v, "__dataclass_fields__") else [v] for v in vars(record).values()]
    return [v for part in parts for v in part if isinstance(v, torch.Tensor | np.ndarray | np.generic)]


def sample() -> torch.Tensor:
    x = np.random.default_rng(14).standard_normal((9, 21)).astype(np.float32)
    x[4] = with_specials(np.random.default_rng(15), 1, 21)
    return torch.from_numpy(x)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_result_of_the_reference_and_stays_as_it_is(layout: str, operation: str) -> None:
    x = LAYOUTS[layout](sample())
    storage = torch.empty(0).set_(x.detach().untyped_storage())
    before = words(storage.clone())
    got = OPERATIONS[operation](backend, x)
    require_same(storage, before.view(np.float32), None, f"storage of the input of {operation}, {layout}")
    expected = OPERATIONS[operation](qloracle, sample().numpy())
    for mine, wanted in zip(got, expected, strict=True):
        fmt = "float32" if mine.dtype is torch.float32 else "float16" if mine.dtype is torch.float16 else None
        require_same(mine, np.asarray(wanted), fmt, f"{operation} of a tensor that is {layout}")
        assert mine.is_contiguous(), f"{operation} returns a tensor that is not contiguous"
        assert not mine.requires_grad, f"{operation} returns gradient history"


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 2), (2, 3, 5), (2, 1, 3, 5)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_shape_and_format_come_back(shape: tuple[int, ...], dtype: str) -> None:
    x = torch.linspace(-1, 1, 30)[: int(np.prod(shape))].reshape(shape).to(getattr(torch, dtype))
    quantized = backend.quantize_blockwise(x, block_size=4)
    assert (quantized.shape, quantized.dtype) == (shape, dtype)
    for restored in (
        backend.dequantize_blockwise(quantized),
        backend.dequantize_double(backend.quantize_double(x, block_size=4)),
        backend.dequantize_int8(backend.quantize_int8(x)),
    ):
        assert (tuple(restored.shape), restored.dtype) == (shape, x.dtype)


def test_stored_tensors_may_have_any_strides() -> None:
    x = sample()
    nf4, wide, int8 = (
        backend.quantize_blockwise(x, block_size=7),
        backend.quantize_blockwise(x, codebook="dynamic_signed", block_size=7),
        backend.quantize_int8(x, granularity="row"),
    )

    def spread(values: torch.Tensor) -> torch.Tensor:
        return values.repeat_interleave(3, -1)[..., ::3]

    for plain in (nf4, wide):
        fields = (plain.codebook, plain.block_size, plain.shape, plain.dtype)
        strided = backend.QuantizedBlocks(spread(plain.data), spread(plain.absmax), *fields)
        expected = backend.dequantize_blockwise(plain).numpy()
        require_same(backend.dequantize_blockwise(strided), expected, "float32", plain.codebook)
    strided = backend.QuantizedInt8(spread(int8.codes), spread(int8.absmax), "row", None, "float32")
    require_same(backend.dequantize_int8(strided), backend.dequantize_int8(int8).numpy(), "float32", "INT8")


def test_tables_made_in_inference_mode_serve_outside_of_it() -> None:
    device_codebook.cache_clear()
    with torch.inference_mode():
        inside = backend.quantize_blockwise(sample())
    outside = backend.quantize_blockwise(sample())
    assert torch.equal(inside.data, outside.data)
