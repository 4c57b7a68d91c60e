"""How transformers are built from tensors: one function a family, from the sizes of a configuration."""

from typing import Any

from qloracle.errors import reject_value
from qloracle.footprint.tensors import ModelTensor

Settings = dict[str, Any]
Tensors = list[ModelTensor]


def linear(name: str, d_out: int, d_in: int, *, bias: bool, fan_in_fan_out: bool = False) -> Tensors:
    """Return the weight of a linear layer, and its bias."""
    shape = (d_in, d_out) if fan_in_fan_out else (d_out, d_in)
    weight = ModelTensor(f"{name}.weight", shape, "linear", fan_in_fan_out)
    return [weight, *([ModelTensor(f"{name}.bias", (d_out,), "other")] if bias else [])]


def embedding(name: str, count: int, width: int) -> ModelTensor:
    """Return the table of an embedding."""
    return ModelTensor(f"{name}.weight", (count, width), "embedding")


def norm(name: str, width: int, *, bias: bool = False) -> Tensors:
    """Return the weight of a normalization, and its bias."""
    return [ModelTensor(f"{name}.{part}", (width,), "other") for part in (("weight", "bias") if bias else ("weight",))]


def gpt2(c: Settings) -> Tensors:
    """Return GPT-2: linear weights stored as (d_in, d_out), causal masks as buffers."""
    width, inner, positions = c["n_embd"], c["n_inner"] or 4 * c["n_embd"], c["n_positions"]
    tensors = [embedding("transformer.wte", c["vocab_size"], width), embedding("transformer.wpe", positions, width)]
    for layer in range(c["n_layer"]):
        here = f"transformer.h.{layer}"
        tensors += norm(f"{here}.ln_1", width, bias=True) + norm(f"{here}.ln_2", width, bias=True)
        sizes = {"attn.c_attn": (3 * width, width), "attn.c_proj": (width, width),
                 "mlp.c_fc": (inner, width), "mlp.c_proj": (width, inner)}  # fmt: skip
        for name, (d_out, d_in) in sizes.items():
            tensors += linear(f"{here}.{name}", d_out, d_in, bias=True, fan_in_fan_out=True)
        tensors.append(ModelTensor(f"{here}.attn.bias", (1, 1, positions, positions), "buffer", dtype="bool"))
        tensors.append(ModelTensor(f"{here}.attn.masked_bias", (), "buffer"))
    tensors += norm("transformer.ln_f", width, bias=True)
    return tensors + head(c, width)


def head(c: Settings, width: int) -> Tensors:
    """Return the language-model head, unless it is the embedding itself."""
    return [] if c["tie_word_embeddings"] else linear("lm_head", c["vocab_size"], width, bias=False)


def decoder(c: Settings, *, qkv_bias: bool = False, head_norms: bool = False, norms: int = 2, fused: bool = False
             ) -> Tensors:  # fmt: skip
    """Return a decoder with rotary positions and gated layers, as Llama is built."""
    width, inner, heads = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"]
    if c["head_dim"] is None and width % heads:
        reject_value("hidden_size", f"a multiple of num_attention_heads {heads} where head_dim is not given", width)
    head_dim = c["head_dim"] or width // heads
    query, key = heads * head_dim, (c["num_key_value_heads"] or heads) * head_dim
    bias = c["attention_bias"]
    into: dict[str, tuple[int, int, bool]] = {
        "self_attn.q_proj": (query, width, bias or qkv_bias), "self_attn.k_proj": (key, width, bias or qkv_bias),
        "self_attn.v_proj": (key, width, bias or qkv_bias), "self_attn.o_proj": (width, query, bias),
        "mlp.gate_proj": (inner, width, c["mlp_bias"]), "mlp.up_proj": (inner, width, c["mlp_bias"]),
        "mlp.down_proj": (width, inner, c["mlp_bias"]),
    }  # fmt: skip
    if fused:
        into = {"self_attn.qkv_proj": (query + 2 * key, width, False), "self_attn.o_proj": (width, query, False),
                "mlp.gate_up_proj": (2 * inner, width, False), "mlp.down_proj": (width, inner, False)}  # fmt: skip
    names = ("input", "post_attention", "pre_feedforward", "post_feedforward")[:norms]
    tensors = [embedding("model.embed_tokens", c["vocab_size"], width)]
    for layer in range(c["num_hidden_layers"]):
        here = f"model.layers.{layer}"
        for name, (d_out, d_in, with_bias) in into.items():
            tensors += linear(f"{here}.{name}", d_out, d_in, bias=with_bias)
        for name in names:
            tensors += norm(f"{here}.{name}_layernorm", width)
        for name in ("q", "k") if head_norms else ():
            tensors += norm(f"{here}.self_attn.{name}_norm", head_dim)
    frequencies = ModelTensor("model.rotary_emb.inv_freq", (head_dim // 2,), "buffer", dtype="float32")
    return [*tensors, *norm("model.norm", width), *head(c, width), frequencies]


def bert(c: Settings) -> Tensors:
    """Return an encoder with its pooler, as BERT is built."""
    width, inner, positions = c["hidden_size"], c["intermediate_size"], c["max_position_embeddings"]
    counts = {"word": c["vocab_size"], "position": positions, "token_type": c["type_vocab_size"]}
    tensors = [embedding(f"embeddings.{name}_embeddings", count, width) for name, count in counts.items()]
    ids = ("position_ids", "token_type_ids")
    tensors += [ModelTensor(f"embeddings.{name}", (1, positions), "buffer", dtype="int64") for name in ids]
    tensors += norm("embeddings.LayerNorm", width, bias=True)
    for layer in range(c["num_hidden_layers"]):
        here = f"encoder.layer.{layer}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            tensors += linear(f"{here}.attention.{name}", width, width, bias=True)
        tensors += norm(f"{here}.attention.output.LayerNorm", width, bias=True)
        tensors += linear(f"{here}.intermediate.dense", inner, width, bias=True)
        tensors += linear(f"{here}.output.dense", width, inner, bias=True)
        tensors += norm(f"{here}.output.LayerNorm", width, bias=True)
    return tensors + linear("pooler.dense", width, width, bias=True)


def distilbert(c: Settings) -> Tensors:
    """Return a DistilBERT: no token types, no pooler."""
    width, inner, positions = c["dim"], c["hidden_dim"], c["max_position_embeddings"]
    tensors = [embedding("embeddings.word_embeddings", c["vocab_size"], width),
               embedding("embeddings.position_embeddings", positions, width),
               ModelTensor("embeddings.position_ids", (1, positions), "buffer", dtype="int64"),
               *norm("embeddings.LayerNorm", width, bias=True)]  # fmt: skip
    for layer in range(c["n_layers"]):
        here = f"transformer.layer.{layer}"
        for name in ("q_lin", "k_lin", "v_lin", "out_lin"):
            tensors += linear(f"{here}.attention.{name}", width, width, bias=True)
        tensors += norm(f"{here}.sa_layer_norm", width, bias=True)
        tensors += linear(f"{here}.ffn.lin1", inner, width, bias=True)
        tensors += linear(f"{here}.ffn.lin2", width, inner, bias=True)
        tensors += norm(f"{here}.output_layer_norm", width, bias=True)
    return tensors
