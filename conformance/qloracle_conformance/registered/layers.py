"""Operations of layers with low-rank adapters."""

from qloracle_conformance.generators import layers
from qloracle_conformance.generators.grouping import OPTIONS
from qloracle_conformance.generators.linear import TERMS
from qloracle_conformance.operations import layers as judges
from qloracle_conformance.operations.operation import Operation

# An operation on a quantized weight is judged only if this one, which restores it, passed.
GIVEN = {
    "lora": "", "qlora": "nf4.dequantize", "qlora_double": "nf4_double.dequantize", "qlora_int8": "int8_row.dequantize",
    "qlora_affine": "affine_row.dequantize",
}  # fmt: skip


def operations() -> list[Operation]:
    """Return the operations."""
    made = []
    for kind in ("lora", *(name for name in layers.KINDS if name != "qdora")):
        rule = "lora" if kind == "lora" else "qlora"
        forward, backward = f"{kind}.forward", f"{kind}.backward"
        terms = {
            "base": f"{rule}.forward", "bias": f"{rule}.forward", "adapter": f"{rule}.forward", "scale": "lora.scale",
            "dropout": "lora.dropout", "whole": f"{rule}.forward",
        }  # fmt: skip
        terms |= {"base": "qlora.weight"} if kind not in ("lora", "qlora") else {}
        gradients = dict.fromkeys(layers.GRADIENTS[:-1], f"{rule}.backward")
        if kind == "lora":
            terms |= {"lora_bias": "lora.bias", "fan_in_fan_out": "lora.fan_in_fan_out"}
            gradients["lora_bias"] = "lora.bias"
        reached = {**layers.REACHED, "small_lattice": TERMS}
        options = OPTIONS.get(layers.KINDS.get(kind, ""), {})
        made += [
            Operation(forward, f"{kind}_forward", 1, terms, judges.judge_forward, layers.layer_families(forward),
                      judges.forward_intermediates, reached, "bound", "bounds.lora", GIVEN[kind], options=options),
            Operation(backward, f"{kind}_backward", len(gradients), gradients, judges.judge_backward,
                      layers.layer_families(backward), judges.backward_intermediates, strictest="bound",
                      bound="bounds.lora", given=GIVEN[kind], options=options, sums=("bias",)),
        ]  # fmt: skip
    return made
