"""Layers under checkpoints, torch.func and CUDA graphs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import qloracle_gpu.torch as backend
from qloracle_gpu.torch.modules import QuantizationConfig

from .adapted_layers import CONFIGS, LLM_INT8, float_layer, quantized_layer, rough_operands

OPERANDS = rough_operands()
LAYERS: dict[str, Callable[[], Any]] = {
    "LoRA": lambda: float_layer(OPERANDS, bias="all", dropout=0.5),
    "DoRA": lambda: float_layer(OPERANDS, use_dora=True, dropout=0.5),
    "QLoRA in NF4": lambda: quantized_layer(OPERANDS, CONFIGS["NF4"], bias="all", dropout=0.5),
    "QDoRA in FP4": lambda: quantized_layer(OPERANDS, CONFIGS["FP4, doubly quantized"], use_dora=True),
    "INT8": lambda: quantized_layer(OPERANDS, CONFIGS["INT8 by row"], lora_bias=True),
    "LLM.int8()": lambda: quantized_layer(OPERANDS, LLM_INT8, dropout=0.5),
}
on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="NOT RUN: no CUDA device")


def gradients(layer: Any, run: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
    layer.zero_grad()
    x = torch.from_numpy(OPERANDS["x"]).clone().requires_grad_()
    torch.manual_seed(5)  # of dropout
    run(x).square().sum().backward()
    return [x.grad, *(p.grad.clone() for p in layer.parameters() if p.requires_grad)]


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_a_checkpointed_layer_has_the_same_gradients(name: str, reentrant: bool) -> None:
    layer = LAYERS[name]()
    plain = gradients(layer, layer)
    again = gradients(layer, lambda x: checkpoint(layer, x, use_reentrant=reentrant))
    assert all(torch.equal(*pair) for pair in zip(plain, again, strict=True))


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_single_samples_by_vmap_are_those_of_single_calls(name: str) -> None:
    layer = LAYERS[name]().eval()
    parameters = {n: p.detach() for n, p in layer.named_parameters()}
    x = torch.from_numpy(OPERANDS["x"])

    def loss(trained: dict[str, torch.Tensor], sample: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = torch.func.functional_call(layer, parameters | trained, (sample[None],))
        return y.square().sum()

    trained = {n: parameters[n] for n in ("adapter.lora_a", "adapter.lora_b")}
    together = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(trained, x)
    for place, sample in enumerate(x):
        layer.zero_grad()
        layer(sample[None]).square().sum().backward()
        for n in trained:
            assert torch.equal(together[n][place], dict(layer.named_parameters())[n].grad), f"sample {place}, {n}"


def captured(step: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
    """A graph of a step after a warm-up on a stream of its own, and the tensors that a replay writes."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    return graph, found


@on_cuda
def test_a_cuda_graph_replays_quantize_dequantize_products_and_a_layer() -> None:
    torch.manual_seed(1)
    x, weight = torch.randn(4, 256, device="cuda"), torch.randn(128, 256, device="cuda")
    config = QuantizationConfig(double_quant=True, compute_dtype="float32")
    operands = {"weight": weight.cpu().numpy(), "lora_a": torch.randn(8, 256).numpy(), "bias": torch.randn(128).numpy()}
    layer = quantized_layer({**operands, "lora_b": torch.randn(128, 8).numpy()}, config).to("cuda")
    stored = backend.quantize_blockwise(weight)
    steps: dict[str, Callable[[], torch.Tensor]] = {
        "quantize": lambda: backend.quantize_blockwise(x).data,
        "double quantization": lambda: backend.dequantize_double(backend.quantize_double(x, block_size=32)),
        "dequantize": lambda: backend.dequantize_blockwise(backend.quantize_blockwise(x), dtype="bfloat16"),
        "INT8": lambda: backend.dequantize_int8(backend.quantize_int8(x, granularity="row")),
        "a product of few rows": lambda: backend.quantized_matmul(x, stored),
        "a layer": lambda: layer(x).detach(),
    }
    graphs = {name: captured(step) for name, step in steps.items()}
    for _ in range(2):
        x.copy_(torch.randn_like(x))
        for name, (graph, found) in graphs.items():
            graph.replay()
            assert torch.equal(found, steps[name]()), name


@on_cuda
def test_nothing_waits_for_the_device_by_its_own_account() -> None:
    x = torch.randn(4, 256, device="cuda", requires_grad=True)
    operands = {"weight": torch.randn(128, 256).numpy(), "lora_a": torch.randn(8, 256).numpy()}
    layer = quantized_layer({**operands, "lora_b": torch.randn(128, 8).numpy()}, CONFIGS["NF4"], dropout=0.5).to("cuda")
    layer(x).sum().backward()  # makes what is made once
    backend.dequantize_double(backend.quantize_double(x))
    torch.cuda.set_sync_debug_mode("error")
    try:
        layer(x).sum().backward()
        backend.dequantize_double(backend.quantize_double(x))
        backend.dequantize_int8(backend.quantize_int8(x, granularity="row"))
    finally:
        torch.cuda.set_sync_debug_mode("default")
