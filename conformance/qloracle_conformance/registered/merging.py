"""Operations that merge adapters into weights and take them out again."""

from typing import Any

from qloracle_conformance.generators import dora_merging
from qloracle_conformance.generators import merging as inputs
from qloracle_conformance.generators.restoring import families
from qloracle_conformance.operations import dora_merging as dora_judges
from qloracle_conformance.operations import merging as judges
from qloracle_conformance.operations.operation import Operation

OPTIONS: dict[str, tuple[object, ...]] = {"fan_in_fan_out": (False, True), "adapter_dtype": ("same", "float32")}


def operations() -> list[Operation]:
    """Return the operations."""
    return [
        _merge("lora.merge", {"weight": "lora.merge"}, judges.judge_merge, "bounds.merge"),
        _merge("lora.unmerge", {"weight": "lora.unmerge"}, judges.judge_unmerge, "bounds.merge",
               judges.unmerge_intermediates),
        _merge("lora.merge_safe", {"accepted": "lora.merge_safe", "weight": "lora.merge_safe"}, judges.judge_safe,
               "bounds.merge", outputs=2),
        _merge("lora.merge_cycles", {"weight": "lora.unmerge"}, judges.judge_cycles, "bounds.merge_cycles",
               judges.cycles_intermediates),
        Operation("bias.merge", "merge_bias", 1, {"bias": "lora.merge_bias"}, judges.judge_bias,
                  families(inputs.bias_case, inputs.BIAS_FAMILIES), judges.bias_intermediates, strictest="bound",
                  bound="bounds.merge"),
        _dora("dora.merge", {"norms": "dora.norm", "weight": "dora.merge"}, dora_judges.judge_dora_merge, outputs=2),
        _dora("dora.unmerge", {"weight": "dora.unmerge"}, dora_judges.judge_dora_unmerge, outputs=1, without="specials",
              shown=dora_judges.dora_unmerge_intermediates),
    ]  # fmt: skip


def _merge(
    name: str, stages: dict[str, str], judge: Any, bound: str, shown: Any = judges.merge_intermediates,
    outputs: int = 1,
) -> Operation:  # fmt: skip
    made = families(inputs.merge_case, inputs.FAMILIES, operation=name)
    return Operation(name, name.replace(".", "_"), outputs, stages, judge, made, shown,
                     strictest="bound", bound=bound, options=OPTIONS)  # fmt: skip


def _dora(name: str, stages: dict[str, str], judge: Any, outputs: int, without: str = "",
          shown: Any = dora_judges.dora_intermediates) -> Operation:  # fmt: skip
    chosen = tuple(family for family in dora_merging.FAMILIES if family != without)
    made = families(dora_merging.dora_case, chosen, operation=name)
    return Operation(name, name.replace(".", "_"), outputs, stages, judge, made, shown,
                     strictest="bound", bound="bounds.dora_merge", options=OPTIONS)  # fmt: skip
