"""Nothing in the hot path waits for the device: no value of a tensor is read on the host.

Tensors on the meta device hold nothing, so that whatever reads one fails, as it would wait on a GPU. The kernels of a
GPU are followed in Triton's interpreter, under a watch for every operation of torch that hands a value to the host.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qloracle
import qloracle_gpu.torch as backend
from qloracle.errors import ArgumentValueError
from qloracle.tables import CODEBOOKS
from qloracle_gpu.torch import nearest
from qloracle_gpu.torch.codebooks import codebook_named
from qloracle_gpu.torch.exact_mean import mean_by_tensors
from qloracle_gpu.torch.nested_absmax import QuantizedAbsmax, stored_absmax

from .layers import quantizers
from .operator_cases import operator_cases
from .words import require_same, words


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


ROOT = Path(__file__).parents[2]
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="NOT RUN: Triton is not installed")
WEIGHTS = {**quantizers(), "doubly quantized FP4": lambda w: backend.quantize_double(w, codebook="fp4", block_size=8)}
LAYER = {"lora_a": meta(2, 6), "lora_b": meta(5, 2), "alpha": 4.0}
MASKED = {**LAYER, "mask": meta(2, 3, 6, dtype=torch.bool), "dropout": 0.5}
X, W, DY, M, BIAS = meta(2, 3, 6), meta(5, 6), meta(2, 3, 5), meta(5), meta(5)


def quantized_products(quantize: Callable[[torch.Tensor], Any]) -> list[torch.Tensor]:
    q, how = quantize(W), {"weight_rounding": "bfloat16"}
    restore = {
        "QuantizedBlocks": backend.dequantize_blockwise, "DoubleQuantized": backend.dequantize_double,
        "QuantizedAffine": backend.dequantize_affine,
    }  # fmt: skip
    return [
        restore.get(type(q).__name__, backend.dequantize_int8)(q, dtype="bfloat16"),
        backend.quantized_matmul(X, q, bias=BIAS, **how),
        backend.qlora_forward(X, q, **MASKED, bias=BIAS, **how),
        backend.qlora_backward(DY, X, q, **MASKED, **how).x,
        backend.qdora_forward(X, q, magnitude=M, **LAYER),
        backend.qdora_backward(DY, X, q, magnitude=M, **LAYER).x,
    ]


def int8_products() -> list[torch.Tensor]:
    q = backend.quantize_int8(W, granularity="row")
    return [
        backend.llm_int8_forward(X, q, W, bias=BIAS),
        backend.llm_int8_forward(X, q, outlier_weight="dequantized", exclusion="elements"),
        backend.llm_int8_backward(DY, q).x,
        backend.int8_linear_forward(X, q, bias=BIAS),
        backend.weight_only_forward(X, q, bias=BIAS),
        backend.scale_int8_matmul(backend.int8_matmul(q.codes, q.codes), M, M, BIAS),
    ]


def affine_quantization() -> list[torch.Tensor]:
    made = backend.quantize_affine(W, granularity="row", value_range=(M, M))
    q = backend.quantize_symmetric(W, clip=M, qmin=-8, qmax=7, granularity="row")
    given = (q.scale, q.zero_point)
    return [
        made.codes,
        backend.dequantize_affine(q),
        *backend.moving_range(backend.minmax_range(W, granularity="row"), (M, M), 0.1),
        backend.fake_quantize(W, *given, qmin=-8, qmax=7, granularity="row"),
        backend.fake_quantize_backward(W, W, *given, qmin=-8, qmax=7, granularity="row"),
        backend.weight_only_forward(X, q, bias=BIAS),
        backend.weight_only_backward(DY, q).x,
        backend.quantize_like(W, q, scales="kept").codes,
    ]


def float_products() -> list[torch.Tensor]:
    ids = meta(4, dtype=torch.int64)
    return [
        backend.lora_forward(X, W, **MASKED, bias=BIAS),
        backend.lora_backward(DY, X, W, **MASKED).x,
        backend.dora_forward(X, W, magnitude=M, **LAYER),
        backend.dora_backward(DY, X, W, magnitude=M, **LAYER).x,
        backend.embedding_lora_forward(ids, W, meta(2, 5), meta(6, 2), alpha=2.0),
        backend.embedding_lora_backward(meta(4, 6), ids, W, meta(2, 5), meta(6, 2), alpha=2.0).lora_a,
    ]


def conversions() -> list[torch.Tensor]:
    made = [
        backend.encode(X, fmt, rounding=rounding, overflow=overflow, nan=nan)
        for fmt in ("bfloat16", "float16", "float8_e4m3fn")
        for rounding in ("ties_to_even", "ties_to_away", "toward_zero", "toward_positive", "toward_negative")
        for overflow in (None, "saturate")
        for nan in (None, "sign")
    ]
    bits = meta(2, 3, 6, dtype=torch.uint32)
    made.append(backend.encode(X, "bfloat16", rounding="stochastic", random_bits=bits))
    return [*made, backend.encode(meta(3, dtype=torch.int64), "float32"), backend.decode(meta(3, dtype=torch.float16))]


CALLS: dict[str, Callable[[], list[torch.Tensor]]] = {
    **{f"a weight in {name}": lambda q=quantize: quantized_products(q) for name, quantize in WEIGHTS.items()},
    **{
        f"blocks of {size} with {codebook}": lambda c=codebook, s=size: [
            backend.dequantize_blockwise(backend.quantize_blockwise(X, codebook=c, block_size=s), dtype="float16")
        ]
        for codebook in CODEBOOKS
        for size in (7, 64)
    },
    "absmax with codes of 4 bits": lambda: [
        backend.dequantize_absmax(backend.quantize_absmax(meta(9), codebook="nf4"), codebook="nf4")
    ],
    "INT8 products": int8_products,
    "affine quantization": affine_quantization,
    "products": float_products,
    "conversions": conversions,
}


@pytest.mark.parametrize("name", CALLS)
def test_no_value_is_read_on_the_host(name: str) -> None:
    results = CALLS[name]()
    assert results
    assert all(result.device.type == "meta" for result in results)


def test_the_meta_device_would_tell() -> None:
    with pytest.raises(RuntimeError, match="meta"):
        bool((X > 0).any())
    with pytest.raises(RuntimeError, match="meta"):
        backend.pack_4bit(meta(4, dtype=torch.uint8))  # it looks at the codes, and says so


def test_codes_that_are_decided_without_the_table_are_those_of_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    # What other devices than a CPU do where no kernel takes a tensor.
    monkeypatch.setattr(nearest, "_looked_up", nearest._decide)
    rng = np.random.default_rng(7)
    for name in CODEBOOKS:
        table = CODEBOOKS[name]
        near = np.concatenate([table.midpoints, [1.0, -1.0, 0.0, np.nan, 1e-45]]).astype(np.float32)
        ordinary = rng.standard_normal(90).astype(np.float32)
        x = np.concatenate([near, np.nextafter(near, np.float32(2)), [np.float32(np.inf)], ordinary])
        got = backend.quantize_blockwise(torch.from_numpy(x), codebook=name, block_size=50)
        assert words(got.data).tolist() == qloracle.quantize_blockwise(x, codebook=name, block_size=50).data.tolist()
    x = rng.standard_normal((5, 7)).astype(np.float32)
    expected = qloracle.quantize_int8(x, granularity="row").codes
    assert backend.quantize_int8(torch.from_numpy(x), granularity="row").codes.tolist() == expected.tolist()


def test_a_mean_by_tensors_is_that_of_the_reference() -> None:
    rng = np.random.default_rng(8)
    samples = [
        np.array(numbers, np.float32)
        for numbers in ([4, 2**-22, 2**-100, 0], [], [np.nan], [-0.0], [2**-149] * 3 + [0], [3.4028235e38] * 5, [1, -1])
    ]
    for size in (1, 2, 3, 300):
        patterns = rng.integers(0, 2**32, (20, size), dtype=np.uint64).astype(np.uint32)
        samples += [*patterns.view(np.float32), *(patterns & 0x80FFFFFF).view(np.float32)]
    for sample in samples:
        sample[np.isinf(sample)] = np.nan
        got, expected = mean_by_tensors(torch.from_numpy(sample)), qloracle.quantize_absmax(sample).offset
        require_same(got, expected, "float32", f"the mean of {sample[:4]}...")


def test_a_code_beyond_a_codebook_of_16_is_refused_on_a_cpu_and_reads_as_nan_elsewhere() -> None:
    codes, one = torch.tensor([15, 16], dtype=torch.uint8), torch.ones(1)
    with pytest.raises(ArgumentValueError, match="codes must be codes from 0 to 15, got 16"):
        backend.dequantize_absmax(QuantizedAbsmax(codes, one, one[0]), codebook="nf4")
    elsewhere = QuantizedAbsmax(codes.to("meta"), one.to("meta"), one[0].to("meta"))
    assert stored_absmax(elsewhere, codebook_named("nf4")).entries.shape == (256,)


def interpreted(module: str) -> str:
    """What a script prints in a process in which Triton interprets the kernels."""
    command = [sys.executable, "-W", "ignore", "-m", f"tests.gpu.{module}"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout.splitlines()[-1]


@pytest.mark.slow
@needs_triton
def test_the_kernels_are_launched_without_a_look_at_a_value() -> None:
    assert interpreted("interpret_waiting") == "waits: none"


@pytest.mark.exhaustive
@needs_triton
def test_results_of_kernels_have_the_shapes_and_strides_that_compilers_are_told() -> None:
    assert interpreted("interpret_operators") == f"as told: {len(operator_cases())}"
