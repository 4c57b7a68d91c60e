"""Examples of optimizer steps, clipping, accumulation and paging."""

from qloracle_conformance.examples.example import Example

_ADAMW = {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01}
_STEP = {**_ADAMW, "step": 1, "nonfinite": "propagate", "max_update_norm": None}
_TENSORS = ("p=1,-2,0.5", "gradient=0.5,-1,0", "m=0,0.25,0", "v=0,0.5,0")

EXAMPLES = {
    "adamw.step": Example(_TENSORS, _STEP),
    "adamw.nonfinite": Example(("p=1,-2,0.5", "gradient=0.5,nan,inf", "m=0,0,0", "v=0,0,0"), _STEP),
    "adamw.stochastic": Example(
        ("p:bfloat16=1,-2,0.5", "gradient:bfloat16=0.5,-1,0", "m=0,0,0", "v=0,0,0",
         "random_bits:uint32=0,0x80000000,0xffffffff"), {**_STEP, "lr": 0.001},
    ),
    "adamw.limited": Example(_TENSORS, {**_STEP, "max_update_norm": 0.25}),
    "adamw8bit.step": Example(
        ("p=1,-2,0.5,0", "gradient=0.5,-1,0,2", "codes_m:uint8=127,200,127,0", "absmax_m=0.5,1",
         "codes_v:uint8=0,255,10,0", "absmax_v=0.25,1"),
        {**_ADAMW, "step": 2, "nonfinite": "propagate", "block_size": 2},
    ),
    "gradient.clip": Example(("first=3,0", "second=-4"), {"max_norm": 1.0}),
    "gradient.accumulate": Example(("gradients=1,2;5,0", "counts:int64=3,1"), {"reduction": "mean"}),
    "accumulate.step": Example(
        ("p=1,-2", "gradients=1,2;5,0", "m=0,0", "v=0,0", "counts:int64=3,1"),
        {**_ADAMW, "step": 1, "reduction": "mean"},
    ),
    "paged.plan": Example(("sizes:int64=4,3,2", "accesses:int64=0,1,2,0"), {"budget": 6}),
    "adamw.paged": Example(
        ("p=1,-2,0.5,0", "gradients=0.5,-1,0,2;1,1,1,1"), {**_ADAMW, "state_bits": 32, "sizes": (1, 3), "budget": 24}
    ),
    "adamw.resume": Example(
        ("p=1,-2,0.5,0", "gradients=0.5,-1,0,2;1,1,1,1"), {**_ADAMW, "state_bits": 32, "split": 1}
    ),
}  # fmt: skip
