"""Operations of layers with low-rank adapters."""

from qloracle_conformance.generators import layers
from qloracle_conformance.operations import layers as judges
from qloracle_conformance.operations.operation import Operation


def operations() -> list[Operation]:
    """Return the operations."""
    made = []
    for kind in ("lora", "qlora"):
        forward, backward = f"{kind}.forward", f"{kind}.backward"
        terms = {
            "base": forward, "bias": forward, "adapter": forward, "scale": "lora.scale", "dropout": "lora.dropout",
            "whole": forward,
        }  # fmt: skip
        gradients = dict.fromkeys(layers.GRADIENTS, backward)
        given = "nf4.dequantize" if kind == "qlora" else ""
        made += [
            Operation(forward, f"{kind}_forward", 1, terms, judges.judge_forward, layers.layer_families(forward),
                      judges.forward_intermediates, layers.REACHED, "bound", "bounds.lora", given),
            Operation(backward, f"{kind}_backward", 4, gradients, judges.judge_backward,
                      layers.layer_families(backward), judges.backward_intermediates, strictest="bound", bound="bounds.lora", given=given),
        ]  # fmt: skip
    return made
