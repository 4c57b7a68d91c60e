"""Adapters in files: what is written, what is refused, and the round trip through PEFT itself."""

import json
import os
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from qloracle.bounds import Roundings, dora_forward_bound, embedding_lora_forward_bound, lora_forward_bound
from qloracle.errors import ArgumentValueError
from qloracle_gpu.torch.modules import (
    AdapterFileError,
    LoraConfig,
    LoRAEmbedding,
    MergeStateError,
    QuantizationConfig,
    apply_lora,
    load_adapter,
    merge_model,
    quantize_model,
    save_adapter,
)

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
IDS = torch.tensor([[1, 2, 3], [4, 5, 1]])


class Model(nn.Module):
    """An embedding and two layers, one of them without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.up, self.down = nn.Embedding(12, 16), nn.Linear(16, 32), nn.Linear(32, 12, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return a score for each token."""
        scores: torch.Tensor = self.down(torch.relu(self.up(self.embed(ids))))
        return scores


def base() -> Model:
    torch.manual_seed(0)
    return Model()


def randomized(model: nn.Module) -> nn.Module:
    """The model with small random numbers in everything that trains."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape) / 8)
    return model


def saved(folder: Path, **options: Any) -> nn.Module:
    """Save a model with adapters of some options and return it."""
    chosen = {"target_modules": ["up", "down"], "rank": 4, "alpha": 8} | options
    model = randomized(apply_lora(base(), LoraConfig(**chosen)))
    save_adapter(model, folder)
    return model.eval()


def keys(folder: Path) -> dict[str, list[int]]:
    with safe_open(folder / TENSORS, "pt") as file:
        assert file.metadata() == {"format": "pt"}
        return {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 - it is no mapping


def test_the_tensors_have_the_names_that_peft_gives_them(tmp_path: Path) -> None:
    saved(tmp_path, target_modules=["embed", "up"], bias="all")
    assert keys(tmp_path) == {
        "base_model.model.embed.lora_embedding_A": [4, 12],
        "base_model.model.embed.lora_embedding_B": [16, 4],
        "base_model.model.up.lora_A.weight": [4, 16],
        "base_model.model.up.lora_B.weight": [32, 4],
        "base_model.model.up.base_layer.bias": [32],
    }
    saved(tmp_path, target_modules=["down"], bias="all", lora_bias=True)
    assert keys(tmp_path) == {
        "base_model.model.down.lora_A.weight": [4, 32],
        "base_model.model.down.lora_B.weight": [12, 4],
        "base_model.model.down.lora_B.bias": [12],
        "base_model.model.up.bias": [32],
    }
    saved(tmp_path, target_modules=["down"], use_dora=True)
    assert keys(tmp_path)["base_model.model.down.lora_magnitude_vector"] == [12]


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rsLoRA": {"use_rslora": True, "alpha": 3.5},
    "DoRA": {"use_dora": True},
    "biases": {"bias": "all"},
    "biases of adapted layers": {"bias": "lora_only"},
    "a bias of the adapter": {"lora_bias": True, "target_modules": ["up"]},
    "patterns": {"rank_pattern": {"up": 2}, "alpha_pattern": {"do.*": 16}},
    "a regular expression": {"target_modules": r"(up|down)"},
    "all linear layers": {"target_modules": "all-linear", "exclude_modules": ["down"]},
    "an embedding": {"target_modules": ["embed", "down"]},
    "dropout": {"dropout": 0.25},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_saved_is_loaded_to_the_last_bit(name: str, tmp_path: Path) -> None:
    model = saved(tmp_path, **VARIANTS[name])
    other = load_adapter(base(), tmp_path).eval()
    assert torch.equal(other(IDS), model(IDS))
    for key, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], tensor), key
    again = load_adapter(randomized(load_adapter(base(), tmp_path)), tmp_path).eval()
    assert torch.equal(again(IDS), model(IDS))
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert [n for n, p in other.named_parameters() if p.requires_grad] == trained


def test_the_table_that_peft_writes_beside_an_adapter_must_be_that_of_the_model(tmp_path: Path) -> None:
    model = saved(tmp_path, target_modules=["embed"])
    key, table = "base_model.model.embed.base_layer.weight", base().embed.weight.detach()
    tensors = load_file(tmp_path / TENSORS)
    save_file(tensors | {key: table}, tmp_path / TENSORS)
    assert torch.equal(load_adapter(base(), tmp_path)(IDS), model(IDS))
    for other in (table + 1, table.half(), table[1:]):
        save_file(tensors | {key: other}, tmp_path / TENSORS)
        with pytest.raises(AdapterFileError, match=r"embed\.base_layer\.weight must be the table of the model"):
            load_adapter(base(), tmp_path)


def test_an_adapter_is_loaded_onto_a_quantized_base(tmp_path: Path) -> None:
    def quantized() -> nn.Module:
        return quantize_model(base(), QuantizationConfig(double_quant=True, compute_dtype="float32"))

    model = randomized(apply_lora(quantized(), LoraConfig(["up"], rank=4)))
    save_adapter(model, tmp_path)
    assert torch.equal(load_adapter(quantized(), tmp_path)(IDS), model(IDS))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        saved(tmp_path, rank=2)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def edit_config(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        fields = json.loads((folder / CONFIG).read_text()) | changes
        (folder / CONFIG).write_text(json.dumps(fields))

    return edit


def edit_tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        save_file(change(load_file(folder / TENSORS)), folder / TENSORS)

    return edit


UP_A = "base_model.model.up.lora_A.weight"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / CONFIG).unlink(), r"adapter_config\.json cannot be read: .*No such file"),
    "no tensors": (lambda f: (f / TENSORS).unlink(), r"adapter_model\.safetensors cannot be read: .*No such file"),
    "half a config": (lambda f: (f / CONFIG).write_text('{"r": '), r"adapter_config\.json cannot be read: Expecting"),
    "a list": (lambda f: (f / CONFIG).write_text("[]"), r"adapter_config\.json must be a JSON object, got list$"),
    "binary": (lambda f: (f / CONFIG).write_bytes(b"\xff\xfe"), r"adapter_config\.json cannot be read: "),
    "half the tensors": (
        lambda f: (f / TENSORS).write_bytes((f / TENSORS).read_bytes()[:-9]), r"safetensors cannot be read: "),
    "another method": (edit_config(peft_type="IA3"), r"peft_type must be 'LORA', got 'IA3'$"),
    "rank 0": (edit_config(r=0), r"rank must be a positive integer, got 0$"),
    "a rank too high": (edit_config(r=5), r"down\.lora_A\.weight must be of shape \(5, 32\), got \(4, 32\)$"),
    "no target": (edit_config(target_modules=["q"]), r"does not fit the model: targets must be such that"),
    "targets unset": (edit_config(target_modules=None), r"does not fit the model: targets must be such that"),
    "a malformed pattern": (edit_config(rank_pattern={"(": 1}), r"rank_pattern must be a regular expression"),
    "saved modules": (edit_config(modules_to_save=["head"]), r"modules_to_save must be unset: no module here has it"),
    "a future field": (edit_config(use_fusion=True), r"use_fusion must be unset: no module here has it"),
    "a base that was changed": (edit_config(init_lora_weights="pissa"), r"init_lora_weights must be one that"),
    "DoRA without magnitudes": (edit_config(use_dora=True), r"lacks 2 tensors, the first is .*down\.lora_magni"),
    "a tensor too few": (edit_tensors(lambda t: {k: t[k] for k in t if k != UP_A}), r"lacks 1 tensors"),
    "a tensor too many": (edit_tensors(lambda t: t | {"x": torch.ones(1)}), r"x belongs to no adapter of the config"),
    "another shape": (edit_tensors(lambda t: t | {UP_A: torch.ones(3, 16)}), r"of shape \(4, 16\), got \(3, 16\)$"),
    "integers": (
        edit_tensors(lambda t: t | {UP_A: torch.ones(4, 16, dtype=torch.int8)}), r"must be float32, float16 or"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_files_are_refused_and_the_model_is_as_it_was(name: str, tmp_path: Path) -> None:
    saved(tmp_path)
    damage, message = DAMAGES[name]
    damage(tmp_path)
    model = base()
    with pytest.raises(AdapterFileError, match=message):
        load_adapter(model, tmp_path)
    assert type(model.up) is nn.Linear
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 16}, "alpha of up must be the model's 16, got 8$"),
        ({"use_rslora": True}, "use_rslora of up must be the model's True, got False$"),
        ({"rank": 2}, "rank of up must be the model's 2, got 4$"),
        ({"bias": "all"}, "bias must be the model's 'all', got 'none'$"),
        ({"target_modules": ["up"]}, "down.lora_A.weight belongs to no adapter of the config in this model$"),
    ],
)
def test_an_adapter_of_another_config_is_not_loaded_over_that_of_a_model(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    saved(tmp_path)
    chosen = {"target_modules": ["up", "down"], "rank": 4, "alpha": 8} | options
    model = randomized(apply_lora(base(), LoraConfig(**chosen)))
    before = model.up.adapter.lora_a.clone()
    with pytest.raises(AdapterFileError, match=message):
        load_adapter(model, tmp_path)
    assert torch.equal(model.up.adapter.lora_a, before)


def test_a_merged_or_plain_model_has_nothing_to_save(tmp_path: Path) -> None:
    with pytest.raises(ArgumentValueError, match=r"^model must be one that apply_lora has given adapters, got Model$"):
        save_adapter(base(), tmp_path)
    model = merge_model(apply_lora(base(), LoraConfig(["up"], rank=4)))
    with pytest.raises(MergeStateError, match=r"^a merged LoRALinear cannot be saved"):
        save_adapter(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def peft() -> Iterator[Any]:
    """The PEFT library, whose imports warn of much."""
    if find_spec("peft") is None:
        pytest.skip("NOT RUN: peft is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import peft

        yield peft


PEFT_VARIANTS = {name: options for name, options in VARIANTS.items() if name != "all linear layers"}


def require_layers_within_the_bound(ours: nn.Module, theirs: nn.Module) -> None:
    """Compare layer by layer: what PEFT computes for the same input must be what the reference allows for ours."""
    inputs: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    hooks = [
        module.register_forward_hook(lambda m, x, y, name=name: inputs.update({name: (x[0].detach(), y.detach())}))
        for name, module in theirs.named_modules()
        if name in dict(ours.named_modules()) and hasattr(ours.get_submodule(name), "adapter")
    ]
    theirs(IDS)
    for hook in hooks:
        hook.remove()
    assert inputs
    for name, (x, y) in inputs.items():
        layer = ours.get_submodule(name)
        adapter, options = layer.adapter, layer.adapter.options
        parts = {"weight": layer.weight, "lora_a": adapter.lora_a, "lora_b": adapter.lora_b}
        how: dict[str, Any] = {"alpha": options.alpha, "rank_stabilized": options.use_rslora}
        arrays = {key: tensor.detach().numpy() for key, tensor in parts.items()}
        if isinstance(layer, LoRAEmbedding):
            allowed = embedding_lora_forward_bound(x.numpy(), **arrays, **how)
        else:
            bias = None if layer.bias is None else layer.bias.detach().numpy()
            magnitude = None if adapter.magnitude is None else adapter.magnitude.detach().numpy()
            extra = None if adapter.lora_bias is None else adapter.lora_bias.detach().numpy()
            if magnitude is not None:
                allowed = dora_forward_bound(x.numpy(), **arrays, magnitude=magnitude, bias=bias, **how)
            else:
                roundings = Roundings()
                allowed = lora_forward_bound(
                    x.numpy(), **arrays, bias=bias, lora_bias=extra, roundings=roundings, **how
                )
        for whose, result in (("PEFT's", y), ("our", layer(x).detach())):
            values = result.double().numpy()
            inside = (allowed.lo <= values) & (values <= allowed.hi)
            assert inside.all(), f"{whose} {name}: {(~inside).sum()} of {inside.size} outside the bound"


@pytest.mark.slow
@pytest.mark.parametrize("name", PEFT_VARIANTS)
def test_peft_reads_what_is_saved_here(peft: Any, name: str, tmp_path: Path) -> None:
    model = saved(tmp_path, **PEFT_VARIANTS[name])
    theirs = peft.PeftModel.from_pretrained(base(), str(tmp_path)).eval()
    state = peft.get_peft_model_state_dict(theirs)
    stored = load_file(tmp_path / TENSORS)
    assert set(state) == set(stored)
    assert all(torch.equal(state[key], tensor) for key, tensor in stored.items())
    require_layers_within_the_bound(model, theirs.base_model.model)


def peft_config(peft: Any, options: dict[str, Any]) -> Any:
    """The same options as PEFT names them."""
    renamed = {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout"}
    chosen = {"target_modules": ["up", "down"], "rank": 4, "alpha": 8} | options
    return peft.LoraConfig(**{renamed.get(name, name): value for name, value in chosen.items()})


@pytest.mark.slow
@pytest.mark.parametrize("name", PEFT_VARIANTS)
def test_what_peft_saves_is_read_here(peft: Any, name: str, tmp_path: Path) -> None:
    theirs = randomized(peft.get_peft_model(base(), peft_config(peft, PEFT_VARIANTS[name]))).eval()
    theirs.save_pretrained(str(tmp_path))
    model = load_adapter(base(), tmp_path).eval()
    require_layers_within_the_bound(model, theirs.base_model.model)
    again = tmp_path / "again"
    save_adapter(model, again)
    first, second = load_file(tmp_path / TENSORS), load_file(again / TENSORS)
    assert set(first) == set(second)
    assert all(torch.equal(second[key], tensor) for key, tensor in first.items())


@pytest.mark.slow
def test_all_linear_layers_are_those_of_peft(peft: Any, tmp_path: Path) -> None:
    theirs = peft.get_peft_model(base(), peft.LoraConfig(r=4, target_modules="all-linear"))
    ours = apply_lora(base(), LoraConfig("all-linear", rank=4))
    adapted = {name for name, module in ours.named_modules() if hasattr(module, "adapter")}
    assert adapted == {name for name, m in theirs.base_model.model.named_modules() if hasattr(m, "lora_A")}
    save_adapter(ours, tmp_path)
    assert peft.PeftModel.from_pretrained(base(), str(tmp_path)).peft_config["default"].target_modules == adapted
