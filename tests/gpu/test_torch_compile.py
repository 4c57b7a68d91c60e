"""Layers and functions under torch.compile: one graph without breaks, and the bits of the eager code."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import astuple, is_dataclass
from typing import Any

import pytest
import torch
from torch import nn

import qloracle_gpu.torch as backend
from qloracle_gpu.torch.modules import (
    LoraConfig,
    LoRAEmbedding,
    LoraOptions,
    QuantizationConfig,
    apply_lora,
    quantize_model,
)

from .adapted_layers import CONFIGS, HALVES, LLM_INT8, float_layer, quantized_layer, rough_operands
from .layers import quantizers
from .operator_cases import operands, stored_weights, values

slow = pytest.mark.slow
OPERANDS = rough_operands()


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """Forget what was compiled: tests share code, and each recompilation counts towards a limit.

    An adapter that other tests load tells torch to compile nothing; here everything must be compiled, or fail.
    """
    torch._dynamo.reset()
    with torch.compiler.set_stance("default"):
        yield
    torch._dynamo.reset()


def embedding() -> LoRAEmbedding:
    table = LoRAEmbedding(nn.Embedding(9, 8), LoraOptions(rank=2))
    nn.init.normal_(table.adapter.lora_a)
    return table


def merged(layer: Any) -> Any:
    layer.merge()
    return layer.eval()


def disabled(layer: Any) -> Any:
    layer.adapter.enabled = False
    return layer


LAYERS: dict[str, Callable[[], Any]] = {
    "LoRA": lambda: float_layer(OPERANDS, bias="all", lora_bias=True, dropout=0.5),
    "DoRA": lambda: float_layer(OPERANDS, use_dora=True),
    "QLoRA in NF4": lambda: quantized_layer(OPERANDS, CONFIGS["NF4"], bias="all"),
    "QLoRA in INT8": lambda: quantized_layer(OPERANDS, CONFIGS["INT8 by row"]),
    "an embedding": embedding,
}
MORE_LAYERS: dict[str, Callable[[], Any]] = {
    **{f"QLoRA in {name}": lambda c=config: quantized_layer(OPERANDS, c) for name, config in CONFIGS.items()},
    "QDoRA": lambda: quantized_layer(OPERANDS, CONFIGS["NF4"], use_dora=True),
    "QLoRA with dropout": lambda: quantized_layer(OPERANDS, CONFIGS["NF4"], dropout=0.5, use_rslora=True),
    "LLM.int8()": lambda: quantized_layer(OPERANDS, LLM_INT8, bias="all", lora_bias=True),
    "a merged layer": lambda: merged(float_layer(OPERANDS, bias="all")),
    "a merged quantized layer": lambda: merged(quantized_layer(OPERANDS, CONFIGS["NF4"], bias="all")),
    "a disabled adapter": lambda: disabled(quantized_layer(OPERANDS, CONFIGS["INT8 by row"], bias="all")),
    "a disabled adapter on LLM.int8()": lambda: disabled(quantized_layer(OPERANDS, LLM_INT8, bias="all")),
}


def input_of(layer: nn.Module, rows: int = 6) -> torch.Tensor:
    if isinstance(layer, LoRAEmbedding):
        return torch.arange(rows) * 2 % 9
    return torch.from_numpy(OPERANDS["x"])[:rows].clone().requires_grad_()


def step(call: Callable[[torch.Tensor], torch.Tensor], layer: nn.Module, rows: int = 6) -> list[torch.Tensor]:
    """Result and gradients of one training step."""
    layer.zero_grad()
    torch.manual_seed(5)  # of dropout
    x = input_of(layer, rows)
    y = call(x)
    if y.requires_grad:
        y.square().sum().backward()
    found = [x.grad, *(p.grad for p in layer.parameters())]
    return [y.detach(), *(g.clone() for g in found if g is not None)]


def require_same_step(layer: nn.Module, **how: Any) -> None:
    compiled = step(torch.compile(layer, fullgraph=True, **how), layer)
    plain = step(layer, layer)
    assert len(compiled) == len(plain) > 1
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(compiled, plain, strict=True))


@pytest.mark.parametrize("name", LAYERS)
def test_a_compiled_layer_is_the_eager_one_forward_and_backward(name: str) -> None:
    require_same_step(LAYERS[name](), backend="aot_eager")


@slow
@pytest.mark.parametrize("name", MORE_LAYERS)
def test_every_kind_of_layer_compiles(name: str) -> None:
    require_same_step(MORE_LAYERS[name](), backend="aot_eager")


@slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of what inductor imports
@pytest.mark.parametrize("name", LAYERS)
def test_inductor_gives_the_same_bits(name: str) -> None:
    # Its own random numbers would be others: the setting asks for those of torch.
    require_same_step(LAYERS[name](), options={"fallback_random": True})


@slow
def test_one_graph_takes_any_number_of_rows() -> None:
    layer, graphs = quantized_layer(OPERANDS, CONFIGS["NF4"], bias="all"), []

    def counted(graph: torch.fx.GraphModule, examples: list[torch.Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend=counted)
    for rows in (6, 3, 5):
        assert all(
            torch.equal(*pair) for pair in zip(step(compiled, layer, rows), step(layer, layer, rows), strict=True)
        )
    assert len(graphs) == 1


@slow
def test_autocast_is_part_of_the_graph() -> None:
    for layer in (LAYERS["LoRA"]().eval(), quantized_layer(OPERANDS, QuantizationConfig())):

        def under_autocast(x: torch.Tensor, layer: nn.Module = layer) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                y: torch.Tensor = layer(x)
                return y

        got = step(torch.compile(under_autocast, fullgraph=True, backend="aot_eager"), layer)
        assert got[0].dtype is torch.bfloat16
        assert all(torch.equal(*pair) for pair in zip(got, step(under_autocast, layer), strict=True))


@slow
def test_a_model_with_adapters_compiles_and_exports() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(20, 16), nn.GELU(), nn.Linear(16, 12))
    config = QuantizationConfig(double_quant=True, compute_dtype="float32", skip_modules=["0"])
    model = apply_lora(quantize_model(model, config), LoraConfig(["0", "2"], rank=2, init="gaussian"))
    require_same_step(model, backend="aot_eager")
    x = input_of(model)
    exported = torch.export.export(copy.deepcopy(model).eval(), (x,)).module()
    assert torch.equal(exported(x), model.eval()(x))


TENSORS = {name: tensor.detach() for name, tensor in operands().items()}
X, WEIGHT, BIAS, MAGNITUDE = (TENSORS[name] for name in ("x", "weight", "bias", "magnitude"))
TABLE = (WEIGHT, TENSORS["lora_b"].T, TENSORS["lora_a"].T)  # of an embedding, with its A and B
IDS = torch.tensor([0, 4])
ADAPTER = {name: TENSORS[name] for name in ("lora_a", "lora_b")} | {"alpha": 4.0}
MASK = {"mask": X > 0, "dropout": 0.5}
DY = values(2, 3, 5)


def restored(record: Any) -> torch.Tensor:
    restore = {
        "QuantizedBlocks": backend.dequantize_blockwise, "DoubleQuantized": backend.dequantize_double,
        "QuantizedAffine": backend.dequantize_affine,
    }  # fmt: skip
    return restore.get(type(record).__name__, backend.dequantize_int8)(record, dtype="bfloat16")


def int8_functions(x: torch.Tensor) -> list[Any]:
    q, d = backend.quantize_int8(WEIGHT, granularity="row"), backend.decompose(X, 1.5)
    vectors = (q.absmax, q.absmax, BIAS)
    return [
        backend.scale_int8_matmul(backend.int8_matmul(q.codes, q.codes), *vectors),
        backend.int8_linear_forward(x, q, bias=BIAS),
        backend.weight_only_forward(x, q, bias=BIAS),
        backend.weight_only_backward(DY, q),
        backend.llm_int8_forward(x, q, WEIGHT, threshold=1.5, bias=BIAS),
        backend.llm_int8_forward(x, q, WEIGHT, parts=d, out_dtype="bfloat16"),
        backend.llm_int8_backward(DY, q, weight_rounding="bfloat16"),
    ]


def affine_functions(x: torch.Tensor) -> list[Any]:
    codes = {"qmin": -8, "qmax": 7, "granularity": "column"}
    lo, hi = backend.minmax_range(x, granularity="column")
    scale, zero_point = backend.affine_parameters(lo, hi, qmin=-8, qmax=7)
    q = backend.quantize_affine(WEIGHT, granularity="row")
    return [
        backend.quantize_affine(x, **codes, value_range=(lo, hi)),
        backend.quantize_symmetric(x, clip=hi.abs(), **codes),
        backend.symmetric_scale(hi.abs(), qmax=7),
        backend.moving_range(backend.percentile_range(x, 5, 95, granularity="column"), (lo, hi), 0.3),
        backend.fake_quantize(x, scale, zero_point, **codes),
        backend.fake_quantize_backward(x, x, scale, zero_point, **codes, interval="codes"),
        backend.weight_only_forward(x, q, bias=BIAS),
        backend.weight_only_backward(DY, q, weight_rounding="bfloat16"),
    ]


FUNCTIONS: dict[str, Callable[[torch.Tensor], Any]] = {
    **{
        f"quantize and dequantize, {name}": lambda x, q=quantize: (q(x), restored(q(x)))
        for name, quantize in quantizers().items()
    },
    "absmax": lambda x: backend.dequantize_absmax(backend.quantize_absmax(backend.block_absmax(x, 4))),
    "conversions": lambda x: [
        backend.encode(x, "bfloat16"), backend.decode(backend.encode(x, "float8_e5m2", rounding="toward_zero")),
        backend.unpack_4bit(backend.pack_4bit((x > 0).to(torch.uint8)), x.numel()),
    ],
    "LoRA": lambda x: (
        backend.lora_forward(x, WEIGHT, **ADAPTER, **MASK, bias=BIAS, lora_bias=TENSORS["lora_bias"]),
        backend.lora_backward(DY, x, WEIGHT, **ADAPTER, **MASK),
        backend.dora_forward(x, WEIGHT, magnitude=MAGNITUDE, **ADAPTER, out_dtype="float16"),
        backend.dora_backward(DY, x, WEIGHT, magnitude=MAGNITUDE, **ADAPTER),
    ),
    "INT8": int8_functions,
    "affine": affine_functions,
    "embedding": lambda x: (
        backend.embedding_lora_forward(IDS, *TABLE, alpha=1.0),
        backend.embedding_lora_backward(x[0, :2], IDS, *TABLE, alpha=1.0),
    ),
}  # fmt: skip


def weights_functions(record: Any, x: torch.Tensor) -> tuple[Any, ...]:
    how = {"weight_rounding": "bfloat16"}
    return (
        backend.quantized_matmul(x, record, bias=BIAS, **how),
        backend.qlora_forward(x, record, **ADAPTER, **MASK, **how),
        backend.qlora_backward(DY, x, record, **ADAPTER, **MASK, **how),
        backend.qdora_forward(x, record, magnitude=MAGNITUDE, **ADAPTER, **how),
        backend.qdora_backward(DY, x, record, magnitude=MAGNITUDE, **ADAPTER, **how),
    )


def tensors_of(found: Any) -> list[Any]:
    """The tensors and settings of a result, whatever it is made of."""
    if is_dataclass(found):
        found = astuple(found)
    return [part for each in found for part in tensors_of(each)] if isinstance(found, tuple | list) else [found]


def require_same_results(function: Callable[[torch.Tensor], Any]) -> None:
    x = X.clone().requires_grad_()
    got = tensors_of(torch.compile(function, fullgraph=True, backend="aot_eager")(x))
    expected = tensors_of(function(x))
    assert len(got) == len(expected)
    for mine, theirs in zip(got, expected, strict=True):
        if not isinstance(theirs, torch.Tensor):
            assert mine == theirs
            continue
        assert mine.dtype == theirs.dtype
        assert torch.equal(mine, theirs)
        assert not mine.requires_grad


@pytest.mark.parametrize("name", ["LoRA", "quantize and dequantize, NF4"])
def test_compiled_functions_give_the_bits_of_the_eager_ones(name: str) -> None:
    require_same_results(FUNCTIONS[name])


@slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_of_the_hot_path_compiles(name: str) -> None:
    require_same_results(FUNCTIONS[name])


@slow
@pytest.mark.parametrize("name", [name for name in stored_weights() if name != "a table of one's own"])
def test_functions_of_quantized_weights_compile(name: str) -> None:
    record = stored_weights()[name]
    require_same_results(lambda x: weights_functions(record, x))


def test_a_table_of_ones_own_is_refused_where_a_compiler_would_have_to_read_it() -> None:
    compiled = torch.compile(lambda x: backend.quantize_blockwise(x, codebook=HALVES), fullgraph=True, backend="eager")
    with pytest.raises(torch._dynamo.exc.Unsupported, match="codebook must be a name under"):
        compiled(X)
