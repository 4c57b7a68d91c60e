"""Examples of counted memory: a tensor, a few tensors, a small model."""

from qloracle_conformance.examples.example import Example

_SHAPES = "shapes:int64=768,768;3072,768"
_NAMES = ("transformer.wte.weight", "transformer.h.0.attn.c_attn.weight", "transformer.h.0.ln_1.weight")
_CONFIG = (
    ("model_type", "gpt2"), ("vocab_size", 50257), ("n_positions", 1024), ("n_embd", 768), ("n_layer", 12),
    ("n_head", 12),
)  # fmt: skip

EXAMPLES = {
    "footprint.tensor": Example((_SHAPES,), {"scheme": "nf4_double", "block_size": 64}),
    "footprint.bits": Example((), {"scheme": "nf4_double", "block_size": 64}),
    "footprint.tables": Example(("quantized:bool=1,0,1",), {"scheme": "nf4", "tables": "shared"}),
    "footprint.tensors": Example(("shapes:int64=50257,768;768,2304;-1,768",), {"names": _NAMES}),
    "footprint.selection": Example(("linear:bool=0,1,0",), {"names": _NAMES, "skip": ("lm_head",)}),
    "footprint.model": Example(
        (_SHAPES, "quantized:bool=1,0", "item_bytes:int64=0,4"),
        {"scheme": "nf4", "block_size": 64, "other": "float16", "tables": "shared"},
    ),
    "footprint.config": Example((), {"config": _CONFIG}),
    "footprint.adapters": Example((_SHAPES, "targeted:bool=1,0"), {"rank": 8}),
    "footprint.states": Example(("sizes:int64=4096,5000",), {"optimizer": "adamw_8bit"}),
    "footprint.training": Example(
        (_SHAPES,),
        {"method": "qlora", "scheme": "nf4", "rank": 8, "adapter_format": "bfloat16", "optimizer": "adamw_32bit",
         "master_weights": False, "device_budget": 1000000000},
    ),
}  # fmt: skip
