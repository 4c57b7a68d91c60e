"""The functions give the same bits under autocast, which would round the operands of their float32 products."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import qloracle_gpu.torch as backend

from .layers import as_tensors, random_operands

T = as_tensors(
    random_operands(
        1, x=(6, 20), weight=(12, 20), lora_a=(3, 20), lora_b=(12, 3), dy=(6, 12), magnitude=(12,), table_a=(3, 12)
    )
)
FACTORS = {name: T[name] for name in ("weight", "lora_a", "lora_b")}
QUANTIZED = backend.quantize_int8(T["weight"], granularity="row")
IDS = torch.tensor([1, 5, 1, 0, 2, 3])
TABLE = {"weight": T["weight"], "lora_a": T["table_a"], "lora_b": T["x"].T[:, :3].contiguous()}
CALLS: dict[str, Callable[[], Any]] = {
    "lora_forward": lambda: backend.lora_forward(T["x"], **FACTORS, alpha=3),
    "lora_backward": lambda: backend.lora_backward(T["dy"], T["x"], **FACTORS, alpha=3),
    "dora_forward": lambda: backend.dora_forward(T["x"], **FACTORS, magnitude=T["magnitude"], alpha=3),
    "dora_backward": lambda: backend.dora_backward(T["dy"], T["x"], **FACTORS, magnitude=T["magnitude"], alpha=3),
    "dora_norm": lambda: backend.dora_norm(**FACTORS, alpha=3),
    "dora_merge": lambda: backend.dora_merge(**FACTORS, magnitude=T["magnitude"], alpha=3),
    "lora_merge": lambda: backend.lora_merge(**FACTORS, alpha=3),
    "lora_unmerge": lambda: backend.lora_unmerge(**FACTORS, alpha=3),
    "embedding_lora_forward": lambda: backend.embedding_lora_forward(IDS, **TABLE, alpha=3),
    "embedding_lora_backward": lambda: backend.embedding_lora_backward(
        random_tensor(6, 20), IDS, **TABLE, alpha=3
    ),
    "weight_only_forward": lambda: backend.weight_only_forward(T["x"], QUANTIZED),
    "weight_only_backward": lambda: backend.weight_only_backward(T["dy"], QUANTIZED),
    "int8_linear_forward": lambda: backend.int8_linear_forward(T["x"], QUANTIZED),
    "llm_int8_forward": lambda: backend.llm_int8_forward(T["x"], QUANTIZED, T["weight"], threshold=1.5),
    "int8_matmul": lambda: backend.int8_matmul(QUANTIZED.codes, QUANTIZED.codes),
}  # fmt: skip


def random_tensor(*shape: int) -> torch.Tensor:
    return as_tensors(random_operands(2, t=shape))["t"]


def parts(result: Any) -> list[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else list(vars(result).values())


@pytest.mark.parametrize("name", CALLS)
def test_autocast_changes_no_bit_of_a_function(name: str) -> None:
    plain = parts(CALLS[name]())
    with torch.autocast("cpu", torch.bfloat16):
        assert (T["x"] @ T["lora_a"].T).dtype == torch.bfloat16
        under = parts(CALLS[name]())
    assert [part.dtype for part in under] == [part.dtype for part in plain]
    assert all(torch.equal(one, other) for one, other in zip(under, plain, strict=True))
