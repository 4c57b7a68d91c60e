"""Examples of adapters beside their layers: what they start from, combining, choosing layers, counting."""

from qloracle_conformance.examples.example import Example

_NAMES = ("layers.0.attn.q_proj", "layers.0.mlp.up_proj", "layers.1.attn.q_proj", "lm_head")
_COMBINED = {"ranks": (1, 1), "alphas": (2.0, 1.0), "weights": (1.0, 0.5), "stabilized": (False, False)}
_FACTORS = ("lora_a=1,-1;0.5,2", "lora_b=1,0;0,1;2,-1")

EXAMPLES = {
    "lora.init": Example(
        ("draws=0.1,0.5;0.75,0.9",), {"d_out": 3, "initialization": "kaiming", "std": None, "dtype": "float32"}
    ),
    "embedding.init": Example(("draws=0.5,-1;0.25,2",), {"num_embeddings": 3, "dtype": "float32"}),
    "adapters.combine": Example(_FACTORS, _COMBINED),
    "adapters.concatenate": Example(_FACTORS, _COMBINED),
    "adapters.targets": Example(
        (), {"names": _NAMES, "exclude": (), "layers": (0,), "layers_pattern": None, "targets": ("q_proj",)}
    ),
    "adapters.patterns": Example(
        ("selected:bool=1,1,1,0",),
        {"names": _NAMES, "rank": 8, "alpha": 16.0, "rank_pattern": {"up_proj": 4}, "alpha_pattern": {"q_proj": 32.0},
         "rank_stabilized": False},
    ),
    "adapters.count": Example(
        ("shapes:int64=768,768;3072,768", "ranks:int64=8,0", "biases:bool=1,1"),
        {"bias": "none", "dora": False, "lora_bias": False},
    ),
    "adapters.biases": Example(("biases:bool=1,1,0", "adapted:bool=1,0,1"), {"bias": "lora_only"}),
}  # fmt: skip
