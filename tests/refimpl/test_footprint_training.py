"""Training memory: against PyTorch's own optimizer states, literal counts and arrays of the 8-bit quantizer."""

from types import ModuleType

import numpy as np
import pytest

from qloracle.blockwise import quantize_blockwise
from qloracle.errors import QloracleError
from qloracle.footprint.adapters import adapter_shapes
from qloracle.footprint.configs import config_tensors
from qloracle.footprint.tensors import named_tensors
from qloracle.footprint.training import state_bytes, training_memory

SIZES = (1, 255, 256, 257, 1000, 65536)
GPT2 = config_tensors({"model_type": "gpt2"})
LAYERS = named_tensors([("h.0.fc.weight", (30, 20)), ("h.1.fc.weight", (50, 7)), ("h.0.fc2.weight", (9, 9)),
                        ("wte.weight", (100, 20)), ("lm_head.weight", (100, 20)), ("ln.weight", (20,))])  # fmt: skip


@pytest.mark.proof("footprint.adapters", by="literal counts")
def test_the_trained_numbers_of_common_targets_are_the_known_ones() -> None:
    def trained(targets: str | list[str], rank: int) -> int:
        return sum(rows * columns for rows, columns in adapter_shapes(GPT2, rank, targets))

    assert trained(["c_attn"], 8) == 294_912  # r·(768 + 2304) in 12 layers
    assert trained(["c_attn"], 1) == 12 * (768 + 2304)
    assert trained("all-linear", 8) == 8 * 12 * ((768 + 2304) + 2 * 768 + 2 * (768 + 3072))
    assert trained(["wte"], 4) == 4 * (50257 + 768)
    big = named_tensors([("big.weight", (100_000, 400_000))])
    assert sum(rows * columns for rows, columns in adapter_shapes(big, 10, ["big"])) == 5_000_000


@pytest.mark.proof("footprint.adapters", by="modules of PyTorch")
def test_the_shapes_of_adapters_are_those_of_two_linear_layers_in_a_row(torch: ModuleType) -> None:
    expected = []
    for d_out, d_in in ((30, 20), (50, 7), (9, 9)):
        down, up = torch.nn.Linear(d_in, 3, bias=False), torch.nn.Linear(3, d_out, bias=False)
        expected += [tuple(down.weight.shape), tuple(up.weight.shape)]
    assert list(adapter_shapes(LAYERS, 3)) == expected
    assert list(adapter_shapes(LAYERS, 3, ["fc"])) == expected[:4]
    assert list(adapter_shapes(LAYERS, 3, ["h.1.fc", "fc2"])) == expected[2:]
    assert list(adapter_shapes(LAYERS, 3, ["lm_head"])) == [(3, 20), (100, 3)]


@pytest.mark.proof("footprint.states", by="the states of torch.optim.AdamW")
def test_32_bit_states_take_the_bytes_of_torch_adamw(torch: ModuleType) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(size)) for size in SIZES]
    optimizer = torch.optim.AdamW(parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moments = [m for s in optimizer.state.values() for name, m in s.items() if name.startswith("exp_avg")]
    expected = sum(m.nelement() * m.element_size() for m in moments)
    assert state_bytes(SIZES) == state_bytes(SIZES, "paged_adamw_32bit") == expected


@pytest.mark.proof("footprint.states", by="the arrays of the 8-bit quantizer")
def test_8_bit_states_take_the_bytes_of_quantized_moments_and_two_tables() -> None:
    expected = 0
    for size in SIZES:
        moment = quantize_blockwise(np.zeros(size, np.float32), codebook="dynamic_signed", block_size=256)
        expected += 2 * (moment.data.nbytes + moment.absmax.nbytes)
    assert state_bytes(SIZES, "adamw_8bit") == state_bytes(SIZES, "paged_adamw_8bit") == expected + 2 * 256 * 4
    assert state_bytes([], "adamw_8bit") == 0


@pytest.mark.proof("footprint.training", by="tensors of a PyTorch training step")
def test_full_fine_tuning_takes_the_bytes_of_a_pytorch_step(torch: ModuleType) -> None:
    shapes = [("a.weight", (33, 20)), ("a.bias", (33,)), ("emb.embed.weight", (70, 20))]
    tensors = named_tensors(shapes)
    for fmt, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        weights = [torch.nn.Parameter(torch.zeros(shape, dtype=dtype)) for _, shape in shapes]
        masters = [] if dtype is torch.float32 else [torch.nn.Parameter(w.detach().float()) for w in weights]
        optimizer = torch.optim.AdamW(masters or weights)
        for parameter in (*weights, *masters):
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        states = [m for s in optimizer.state.values() for name, m in s.items() if name.startswith("exp_avg")]
        gradients = [w.grad for w in weights]

        def total(found: list) -> int:  # type: ignore[type-arg]
            return sum(t.nelement() * t.element_size() for t in found)

        memory = training_memory(tensors, "full", scheme=fmt)
        assert memory.weights == total(weights)
        assert memory.gradients == total(gradients)
        assert memory.master_weights == total(masters)
        assert memory.optimizer_states == total(states)
        assert memory.total == total([*weights, *masters, *gradients, *states])


@pytest.mark.proof("footprint.training", by="literal counts")
def test_mixed_precision_takes_16_bytes_a_parameter_and_adapters_their_own() -> None:
    model = named_tensors([("layer.fc.weight", (1024, 1024))])
    n, r = 1024 * 1024, 8
    trained = r * 2048
    full = training_memory(model, "full")
    assert full.total == full.device == 16 * n
    assert full.trainable_parameters == n
    assert training_memory(model, "full", master_weights=False).total == 12 * n
    lora = training_memory(model, "lora", rank=r)
    assert (lora.weights, lora.adapters, lora.gradients, lora.optimizer_states) == (
        2 * n, 4 * trained, 4 * trained, 8 * trained,
    )  # fmt: skip
    assert lora.total == 2 * n + 16 * trained
    half = training_memory(model, "lora", rank=r, adapter_format="bfloat16")
    assert half.total == 2 * n + (2 + 2 + 4 + 8) * trained
    qlora = training_memory(model, "qlora", rank=r, scheme="nf4")
    assert qlora.total == n // 2 + 4 * n // 64 + 64 + 16 * trained
    paged = training_memory(model, "lora", rank=r, optimizer="paged_adamw_32bit", device_budget=1000)
    assert paged.total == lora.total
    assert (paged.host, paged.device) == (8 * trained - 1000, lora.total - 8 * trained + 1000)
    roomy = training_memory(model, "lora", rank=r, optimizer="paged_adamw_8bit", device_budget=10**9)
    assert roomy.host == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "full", "rank": 8}, "rank must be None for full fine-tuning, got 8"),
        ({"method": "lora"}, "rank must be given for LoRA and QLoRA, got None"),
        ({"method": "dora", "rank": 8}, "method must be one of full, lora, qlora, got 'dora'"),
        (
            {"method": "qlora", "rank": 8, "scheme": "float16"},
            "scheme must be a quantized scheme for QLoRA, got float16",
        ),
        ({"method": "lora", "rank": 8, "scheme": "nf4"}, "scheme must be a plain format for full fine-tuning and LoRA"),
        ({"method": "lora", "rank": 8, "targets": ["q_proj"]}, "targets must be such that at least one name"),
        ({"method": "lora", "rank": 8, "targets": 5}, "targets must be"),
        ({"method": "lora", "rank": 1000, "targets": ["c_attn"]}, "rank must be at most 768, the smaller side of"),
        ({"method": "lora", "rank": 8, "optimizer": "sgd"}, "optimizer must be one of adamw_32bit"),
        ({"method": "lora", "rank": 8, "device_budget": -1}, "device_budget must be a number of bytes, 0 or more"),
    ],
)
def test_arguments_that_do_not_belong_together_are_refused_by_name(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(QloracleError) as caught:
        training_memory(GPT2, **arguments)  # type: ignore[arg-type]
    assert message in str(caught.value)
