"""Examples of clauses that the example of their operation leaves idle: by clause, an operation and its example."""

from qloracle_conformance.examples.example import Example
from qloracle_conformance.examples.layers import EXAMPLES as LAYERS

_FORWARD = LAYERS["lora.forward"]
_PLAIN = tuple(text for text in _FORWARD.inputs if not text.startswith("weight="))

CLAUSE_EXAMPLES: dict[str, tuple[str, Example]] = {
    "format.rounding": (
        "bfloat16.encode",
        Example(("values=1.2,1.00390625,1.01171875,-1.2,-1.00390625",), {"fmt": "bfloat16", "rounding": "toward_zero"}),
    ),
    "format.stochastic": (
        "bfloat16.encode",
        Example(
            ("values=1.001953125,1.001953125,1.001953125,-1.2",
             "random_bits:uint32=0x3fffffff,0x40000000,0xffffffff,0x80000000"),
            {"fmt": "bfloat16", "rounding": "stochastic"},
        ),
    ),
    "format.nan": (
        "bfloat16.encode",
        Example(("values=0x7fc00000,0x7fa10000,0xffc50001,0x7f800001",), {"fmt": "bfloat16", "nan": "payload"}),
    ),
    "format.overflow": (
        "float16.encode",
        Example(("values=65504,65519,65520,-65520,1e6,inf",), {"fmt": "float16", "overflow": "ieee"}),
    ),
    "lora.bias": ("lora.forward", Example((*_FORWARD.inputs, "lora_bias=1,2,3"), _FORWARD.options, _FORWARD.term)),
    "lora.fan_in_fan_out": (
        "lora.forward",
        Example((*_PLAIN, "weight=1,-1,0;0.5,2,1"), {**_FORWARD.options, "fan_in_fan_out": True}, _FORWARD.term),
    ),
}  # fmt: skip
