"""Whole models: quantized, adapted, trained, merged, counted, saved and loaded by state_dict."""

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import qloracle
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle_gpu.torch.modules import (
    LoraConfig,
    MergeStateError,
    QLoRALinear,
    QuantizationConfig,
    QuantizedLinear,
    adapters_disabled,
    apply_lora,
    merge_and_unload,
    merge_model,
    quantize_model,
    trainable_parameters,
    unmerge_model,
)

DOUBLE = QuantizationConfig(codebook="nf4", double_quant=True, compute_dtype="float32")
CONFIGS = {
    "NF4": QuantizationConfig(compute_dtype="float32"),
    "NF4, doubly quantized, stored as float32": QuantizationConfig(
        double_quant=True, storage="float32", compute_dtype="float32"
    ),
    "FP4 stored as bfloat16": QuantizationConfig(codebook="fp4", storage="bfloat16", compute_dtype="float32"),
    "INT8": QuantizationConfig("int8", compute_dtype="float32"),
    "LLM.int8()": QuantizationConfig("int8", threshold=6.0, compute_dtype="float32"),
}


class Model(nn.Module):
    """An embedding, two layers, and an output layer."""

    def __init__(self, *, tied: bool = False) -> None:
        super().__init__()
        self.embed, self.up = nn.Embedding(12, 16), nn.Linear(16, 32)
        self.down, self.head = nn.Linear(32, 16, bias=False), nn.Linear(16, 12, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return a score for each token."""
        scores: torch.Tensor = self.head(self.down(torch.relu(self.up(self.embed(ids)))))
        return scores


IDS = torch.tensor([[1, 2, 3], [4, 5, 1]])
ALL = LoraConfig(["embed", "up", "down"], rank=4, alpha=8)


def adapted(config: LoraConfig = ALL, **options: Any) -> Model:
    """A model whose adapters have trained, so to say."""
    torch.manual_seed(0)
    model = apply_lora(Model(**options), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".adapter." in name:
                parameter.copy_(torch.randn(parameter.shape) / 8)
    return model


def bits(state: dict[str, Any]) -> dict[str, bytes]:
    return {name: t.contiguous().view(torch.uint8).numpy().tobytes() if t.ndim else t.numpy().tobytes()
            for name, t in state.items()}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_training_changes_the_adapters_alone_and_lowers_the_loss(name: str) -> None:
    torch.manual_seed(0)
    model = apply_lora(quantize_model(Model(), CONFIGS[name]), LoraConfig(["up", "down"], rank=4, alpha=8))
    assert isinstance(model.up, QLoRALinear)
    before = copy.deepcopy(bits(model.state_dict()))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(model(IDS).flatten(0, 1), IDS.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    after = bits(model.state_dict())
    changed = {key for key, content in after.items() if content != before[key]}
    assert changed == {f"{layer}.adapter.{part}" for layer in ("up", "down") for part in ("lora_a", "lora_b")}
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("name", CONFIGS)
def test_a_state_dict_restores_every_bit(name: str) -> None:
    model = apply_lora(quantize_model(Model(), CONFIGS[name]), LoraConfig(["up"], rank=4))
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    torch.manual_seed(99)
    other = apply_lora(quantize_model(Model(), CONFIGS[name]), LoraConfig(["up"], rank=4))
    other.load_state_dict(state)
    assert bits(other.state_dict()) == bits(model.state_dict())
    assert torch.equal(other(IDS), model(IDS))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_file_of_tensors_holds_a_quantized_model(name: str) -> None:
    from safetensors.torch import load, save

    model = quantize_model(Model(), CONFIGS[name])
    torch.manual_seed(99)
    other = quantize_model(Model(), CONFIGS[name])
    other.load_state_dict(load(save(model.state_dict())))
    assert bits(other.state_dict()) == bits(model.state_dict())


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_cast_of_the_model_changes_no_bit_of_a_quantized_weight(dtype: torch.dtype, name: str) -> None:
    model = quantize_model(Model(), CONFIGS[name])
    before = bits(model.up.weight.state_dict())
    model.to(dtype)
    assert model.up.bias.dtype == dtype
    assert bits(model.up.weight.state_dict()) == before
    model.half().float()
    assert bits(model.up.weight.state_dict()) == before


def test_a_move_takes_the_buffers_along() -> None:
    model = quantize_model(Model(), DOUBLE).to("meta")
    assert {buffer.device.type for buffer in model.buffers()} == {"meta"}
    assert model.up.weight.record().absmax.offset.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: s | {"up.weight.absmax": s["up.weight.absmax"].bfloat16()}, ArgumentTypeError,
         r"^up\.weight\.absmax must be float32, got torch\.bfloat16$"),
        (lambda s: s | {"up.weight.data": s["up.weight.data"][1:]}, ArgumentValueError,
         r"^up\.weight\.data must be of shape \(256,\), got \(255,\)$"),
        (lambda s: s | {"up.weight._extra_state": s["down.weight._extra_state"]}, ArgumentValueError,
         r'^the state of a quantized tensor must be \{"block_size": 64, .*"shape": \[32, 16\].*, got .*\[16, 32\]'),
    ],
)  # fmt: skip
def test_a_state_of_another_tensor_is_refused(change: Any, error: type[Exception], message: str) -> None:
    model = quantize_model(Model(), CONFIGS["NF4"])
    before = bits(model.state_dict())
    with pytest.raises(error, match=message):
        model.load_state_dict(change(model.state_dict()))
    assert bits(model.state_dict()) == before


def test_a_state_with_a_code_that_no_quantizer_writes_is_refused() -> None:
    model = quantize_model(Model(), CONFIGS["INT8"])
    state = copy.deepcopy(model.state_dict())
    state["up.weight.codes"][0, 0] = -128
    with pytest.raises(ArgumentValueError, match=r"^up\.weight\.codes must be INT8 codes from -127 to 127, got -128$"):
        model.load_state_dict(state)


def test_a_quantized_model_is_that_of_the_reference() -> None:
    model = Model()
    weight = model.up.weight.detach().numpy().copy()
    quantize_model(model, DOUBLE)
    expected = qloracle.dequantize_double(qloracle.quantize_double(weight))
    assert np.array_equal(model.up.dequantized().numpy().view(np.uint32), expected.view(np.uint32))


def test_the_output_layer_tied_layers_and_skipped_ones_are_not_quantized() -> None:
    def kinds(model: nn.Module) -> dict[str, bool]:
        return {name: isinstance(module, QuantizedLinear) for name, module in model.named_children()}

    assert kinds(quantize_model(Model(), DOUBLE)) == {"embed": False, "up": True, "down": True, "head": True}
    tied = quantize_model(Model(tied=True), DOUBLE)
    assert kinds(tied) == {"embed": False, "up": True, "down": True, "head": False}
    assert tied.head.weight is tied.embed.weight
    skipping = quantize_model(Model(), QuantizationConfig(skip_modules=["up", "head"]))
    assert kinds(skipping) == {"embed": False, "up": False, "down": True, "head": False}
    nested = quantize_model(nn.ModuleDict({"a": Model(), "b": Model()}), QuantizationConfig(skip_modules=["b"]))
    assert (kinds(nested["a"])["up"], kinds(nested["b"])["up"]) == (True, False)
    with pytest.raises(
        ArgumentValueError, match=r"^model must be one with a linear layer that is not skipped, got Mod"
    ):
        quantize_model(Model(), QuantizationConfig(skip_modules=["up", "down", "head"]))


def test_a_storage_that_the_bytes_do_not_fill_names_the_layer() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(
        ArgumentValueError, match=r"^0: packed must be a multiple of 2 bytes for float16 storage, got 3"
    ):
        quantize_model(model, QuantizationConfig(storage="float16"))
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize("safe", [False, True])
def test_merging_and_unmerging_a_model(safe: bool) -> None:
    model = adapted()
    layers = ("embed", "up", "down")
    before = {name: getattr(model, name).weight.clone() for name in layers}
    merge_model(model, safe=safe)
    for name in layers:
        layer, adapter = getattr(model, name), getattr(model, name).adapter
        how = {"alpha": 8, "fan_in_fan_out": name == "embed"}
        factors = (adapter.lora_a.detach().numpy(), adapter.lora_b.detach().numpy())
        allowed = qloracle.bounds.lora_merge_bound(before[name].numpy(), *factors, **how)
        merged = layer.weight.numpy().astype(np.float64)
        assert ((allowed.lo <= merged) & (merged <= allowed.hi)).all(), name
    unmerge_model(model)
    assert not any(getattr(model, name).merged for name in layers)


def test_a_safe_merge_that_fails_in_the_last_layer_changes_none() -> None:
    model = adapted()
    with torch.no_grad():
        model.down.adapter.lora_b[2, 1] = torch.inf
    before = bits(model.state_dict())
    with pytest.raises(
        ArgumentValueError, match=r"^down: the merged weight must be finite, got (-?inf|nan) at \(2, 0\)"
    ):
        merge_model(model, safe=True)
    assert bits(model.state_dict()) == before


def test_a_merge_into_a_tied_weight_is_refused() -> None:
    model = adapted(tied=True)
    with pytest.raises(MergeStateError, match=r"^embed: its weight is tied to that of another module"):
        merge_model(model)
    assert not model.up.merged


def test_a_merged_model_is_neither_saved_nor_loaded_by_its_state() -> None:
    model = adapted()
    state = model.state_dict()
    merge_model(model)
    with pytest.raises(MergeStateError, match=r"^a merged LoRAEmbedding cannot be saved by a state_dict"):
        model.state_dict()
    with pytest.raises(MergeStateError, match="cannot be loaded into by a state_dict"):
        model.load_state_dict(state)
    with pytest.raises(MergeStateError, match=r"^embed: LoRAEmbedding is merged"):
        merge_model(model)
    unmerge_model(model)
    with pytest.raises(MergeStateError, match=r"^embed: LoRAEmbedding is not merged"):
        unmerge_model(model)


def test_a_merged_and_unloaded_model_has_plain_layers_and_the_merged_outputs() -> None:
    for base in (Model(), quantize_model(Model(), CONFIGS["NF4"])):
        model = apply_lora(base, LoraConfig(["up", "down"], rank=4, use_dora=True))
        model.eval()
        merge_model(model)
        merged = model(IDS)
        unmerge_model(model)
        plain = merge_and_unload(model)
        assert {type(plain.up), type(plain.down)} <= {nn.Linear, QuantizedLinear}
        assert not any("adapter" in name for name in plain.state_dict())
        assert plain(IDS).shape == merged.shape
        assert not isinstance(plain.up, QuantizedLinear) or torch.equal(plain(IDS), merged)


def test_disabled_adapters_leave_the_base_and_come_back() -> None:
    torch.manual_seed(0)
    base = Model()
    model = adapted()
    with torch.no_grad():
        for name, parameter in base.named_parameters():
            parameter.copy_(dict(model.named_parameters())[name])
    y = model(IDS)
    with adapters_disabled(model):
        disabled = model(IDS)
    zeroed = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in zeroed.named_parameters():
            if ".adapter.lora_b" in name:
                parameter.zero_()
    assert torch.equal(disabled, zeroed(IDS))
    assert not torch.equal(disabled, y)
    assert torch.equal(model(IDS), y)


@pytest.mark.parametrize("bias", ["none", "all", "lora_only"])
@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("quantized", [False, True])
def test_the_report_counts_what_the_reference_counts(quantized: bool, dora: bool, bias: str) -> None:
    config = LoraConfig(["up", "down"], rank=4, use_dora=dora, bias=bias)
    model = quantize_model(Model(), DOUBLE) if quantized else Model()
    found = trainable_parameters(apply_lora(model, config))
    shapes, ranks = np.array([[16, 12], [32, 16], [16, 32], [12, 16]]), np.array([0, 4, 4, 0])
    biases = np.array([False, True, False, False])
    counts = qloracle.count_parameters(shapes, ranks, biases=biases, bias=bias, dora=dora)
    assert (found.trainable, found.total) == (counts.trainable, counts.total)
    assert (
        str(found) == f"trainable {found.trainable:>14,} | all {found.total:>16,} | trainable {found.percent:>7.4f} %"
    )


def test_a_copied_model_keeps_its_own_adapters() -> None:
    model = adapted()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.up.adapter.lora_b.zero_()
    assert model.up.adapter.lora_b.any()
    assert not torch.equal(model(IDS), other(IDS))


def test_a_model_without_adapters_cannot_be_merged() -> None:
    for verb in (merge_model, unmerge_model, merge_and_unload):
        with pytest.raises(ArgumentValueError, match=r"^model must be one with adapters, got Model$"):
            verb(Model())
