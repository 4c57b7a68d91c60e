"""Which modules a config selects: the rules of the reference, on names and on models."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import qloracle
from qloracle.errors import ArgumentTypeError, ArgumentValueError, QloracleError
from qloracle_gpu.torch.module_names import selected_names
from qloracle_gpu.torch.modules import LoraConfig, LoRALinear, UnsupportedModuleError, apply_lora, target_names

PARTS = ["h", "layers", "0", "1", "10", "attn", "experts", "q", "v", "conv", "q_proj", "xq"]
NAMES = st.lists(st.lists(st.sampled_from(PARTS), min_size=1, max_size=5).map(".".join), min_size=1, max_size=8)
TARGETS = st.one_of(
    st.lists(st.sampled_from([*PARTS, "attn.q", "h.0.q", "1.q"]), max_size=3),
    st.sampled_from([".*q", r"h\.\d+\..*", "(", ".*", "all-linear", "q"]),
)


def outcome(call: Any, *args: Any, **options: Any) -> Any:
    """What a call returns, or the type of its error and the argument that it names."""
    try:
        return [bool(chosen) for chosen in call(*args, **options)]
    except QloracleError as error:
        return type(error), str(error).partition(" must be ")[0]


@settings(max_examples=300, deadline=None)
@given(
    NAMES,
    TARGETS,
    st.one_of(st.just(()), TARGETS),
    st.one_of(st.none(), st.lists(st.sampled_from([0, 1, 10]), max_size=2)),
    st.sampled_from([None, "h", "layers", "h|layers", "experts", "("]),
)
def test_names_are_selected_as_the_reference_selects_them(
    names: list[str], targets: Any, exclude: Any, layers: Any, pattern: Any
) -> None:
    linear = [name.endswith(("q", "v")) for name in names] if targets == "all-linear" else None
    options = {"linear": linear, "exclude": exclude, "layers": layers, "layers_pattern": pattern}
    assert outcome(selected_names, names, targets, **options) == outcome(
        qloracle.select_targets, names, targets, **options
    )


@settings(max_examples=200, deadline=None)
@given(
    NAMES,
    st.dictionaries(st.sampled_from(["q", r"1\.q", "h.*", r"attn\.[qv]", "v"]), st.integers(1, 64), max_size=3),
    st.dictionaries(st.sampled_from(["q", r"0\..*", "v"]), st.floats(-100, 100), max_size=2),
    st.booleans(),
)
def test_ranks_and_alphas_are_those_of_the_reference(
    names: list[str], ranks: dict[str, int], alphas: dict[str, float], stabilized: bool
) -> None:
    patterns: dict[str, Any] = {"rank": 8, "alpha": 16.0, "rank_pattern": ranks, "alpha_pattern": alphas}
    expected = qloracle.adapter_settings(names, rank_stabilized=stabilized, **patterns)
    config = LoraConfig("all-linear", use_rslora=stabilized, **patterns)
    for name, rank, alpha, scale in zip(names, expected.rank, expected.alpha, expected.scale, strict=True):
        options = config.options_for(name)
        assert (options.rank, options.alpha, options.scale) == (rank, alpha, scale), name


class Block(nn.Module):
    """A block of a model."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.v_proj, self.norm = nn.Linear(8, 8), nn.Linear(8, 4), nn.LayerNorm(8)


class Model(nn.Module):
    """A model with an output layer that it names."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.h = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(8, 10, bias=False)

    def get_output_embeddings(self) -> nn.Module:
        """As transformers models do."""
        return self.head


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"target_modules": ["q_proj"]}, ["h.0.q_proj", "h.1.q_proj"]),
        ({"target_modules": "all-linear"}, ["h.0.q_proj", "h.0.v_proj", "h.1.q_proj", "h.1.v_proj"]),
        ({"target_modules": "all-linear", "exclude_modules": ["v_proj"]}, ["h.0.q_proj", "h.1.q_proj"]),
        ({"target_modules": r"h\.0\..*_proj"}, ["h.0.q_proj", "h.0.v_proj"]),
        ({"target_modules": ["q_proj", "head"], "layers_to_transform": [1]}, ["h.1.q_proj", "head"]),
        ({"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "h"}, ["h.1.q_proj"]),
        ({"target_modules": ["embed"]}, ["embed"]),
    ],
    ids=str,
)
def test_a_config_selects_modules_of_a_model(options: dict[str, Any], expected: list[str]) -> None:
    config = LoraConfig(**options, rank=2)
    assert target_names(Model(), config) == expected
    model = apply_lora(Model(), config)
    adapted = [name for name, module in model.named_modules() if hasattr(module, "adapter")]
    trained = {name.rpartition(".adapter.")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert (adapted, trained) == (expected, set(expected))


def test_a_module_of_two_names_is_adapted_once_for_both() -> None:
    model = Model()
    model.h[1].q_proj = model.h[0].q_proj
    apply_lora(model, LoraConfig(["q_proj"], rank=2))
    assert isinstance(model.h[0].q_proj, LoRALinear)
    assert model.h[0].q_proj is model.h[1].q_proj


@pytest.mark.parametrize(("mode", "names"), [
    ("none", []),
    ("lora_only", ["h.0.q_proj.bias", "h.1.q_proj.bias"]),
    ("all", [f"h.{i}.{part}.bias" for i in (0, 1) for part in ("q_proj", "v_proj", "norm")]),
])  # fmt: skip
def test_the_biases_train_that_the_mode_says(mode: str, names: list[str]) -> None:
    model = apply_lora(Model(), LoraConfig(["q_proj"], rank=2, bias=mode))
    assert [name for name, p in model.named_parameters() if p.requires_grad and name.endswith("bias")] == names


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("norm", "^h.0.norm is a LayerNorm: an adapter needs a linear layer or an embedding"),
        ("attention.out_proj", "^attention.out_proj is a NonDynamicallyQuantizableLinear: an adapter needs"),
    ],
)
def test_a_module_that_no_adapter_can_stand_for_is_named_and_nothing_is_changed(target: str, message: str) -> None:
    model = Model()
    model.attention = nn.MultiheadAttention(8, 2)
    with pytest.raises(UnsupportedModuleError, match=message):
        apply_lora(model, LoraConfig(["q_proj", target], rank=2))
    assert type(model.h[0].q_proj) is nn.Linear
    assert all(p.requires_grad for p in model.parameters())


def test_a_second_adapter_on_a_module_is_refused() -> None:
    model = apply_lora(Model(), LoraConfig(["q_proj"], rank=2))
    with pytest.raises(UnsupportedModuleError, match=r"^h\.0\.q_proj has an adapter already"):
        apply_lora(model, LoraConfig(["q_proj"], rank=2))


def test_a_rank_that_a_matrix_cannot_have_names_the_module_and_nothing_is_changed() -> None:
    model = Model()
    with pytest.raises(ArgumentValueError, match=r"^h\.0\.v_proj: rank must be from 1 to 4, the smaller side"):
        apply_lora(model, LoraConfig(["q_proj", "v_proj"], rank=5))
    assert type(model.h[0].q_proj) is nn.Linear
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target_modules": 5}, ArgumentTypeError, "^target_modules must be a sequence of strings, got int$"),
        ({"target_modules": "("}, ArgumentValueError, r"^target_modules must be a regular expression \("),
        ({"target_modules": ["q"], "rank": 0}, ArgumentValueError, "^rank must be a positive integer, got 0$"),
        ({"target_modules": ["q"], "rank_pattern": {"q": 0}}, ArgumentValueError, "^rank must be a positive integer"),
        ({"target_modules": ["q"], "rank_pattern": {"(": 1}}, ArgumentValueError, "^rank_pattern must be a regular ex"),
        ({"target_modules": ["q"], "alpha_pattern": {"q": "1"}}, ArgumentTypeError, "^alpha must be a number"),
        ({"target_modules": ["q"], "alpha_pattern": ["q"]}, ArgumentTypeError, "^alpha_pattern must be a mapping"),
        ({"target_modules": ["q"], "layers_to_transform": 1}, ArgumentTypeError, "^layers_to_transform must be a seq"),
        ({"target_modules": ["q"], "layers_pattern": "("}, ArgumentValueError, "^layers_pattern must be a regular exp"),
        ({"target_modules": ["q"], "dropout": 2}, ArgumentValueError, "^dropout must be a probability from 0 to 1"),
    ],
)
def test_what_no_config_can_have_is_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LoraConfig(**options)


def test_adapters_of_the_same_seed_start_alike() -> None:
    starts = []
    for _ in range(2):
        torch.manual_seed(1)
        starts.append(apply_lora(Model(), LoraConfig(["q_proj"], rank=2)).h[0].q_proj.adapter.lora_a)
    bound = qloracle.lora_init(torch.zeros(2, 8).numpy(), 8).lora_a.min()
    assert torch.equal(*starts)
    assert starts[0].abs().max() <= -bound
    assert starts[0].unique().numel() == 16
