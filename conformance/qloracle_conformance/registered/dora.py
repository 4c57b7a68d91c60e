"""Operations of DoRA layers, on plain and on quantized weights."""

from qloracle_conformance.generators import dora
from qloracle_conformance.operations import dora as judges
from qloracle_conformance.operations.operation import Operation


def operations() -> list[Operation]:
    """Return the operations."""
    made = []
    for kind, given in (("dora", ""), ("qdora", "nf4.dequantize")):
        forward, backward = f"{kind}.forward", f"{kind}.backward"
        terms = {**dict.fromkeys(dora.TERMS, forward), "norm": "dora.norm"}
        made += [
            Operation(forward, f"{kind}_forward", 1, terms, judges.judge_forward, dora.dora_families(forward),
                      judges.forward_intermediates, dora.REACHED, "bound", "bounds.dora", given),
            Operation(backward, f"{kind}_backward", 5, dict.fromkeys(dora.GRADIENTS, backward), judges.judge_backward,
                      dora.dora_families(backward), judges.backward_intermediates, strictest="bound",
                      bound="bounds.dora", given=given),
        ]  # fmt: skip
    return made
