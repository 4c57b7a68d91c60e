"""Operations of linear layers with INT8 or affine weights, and of LLM.int8()."""

from qloracle.decomposition import EXCLUSIONS
from qloracle.llm_int8 import OUTLIER_WEIGHTS
from qloracle_conformance.backend import Level
from qloracle_conformance.generators import decomposing
from qloracle_conformance.generators import quantized_linear as inputs
from qloracle_conformance.generators.grouping import OPTIONS
from qloracle_conformance.generators.restoring import families
from qloracle_conformance.operations import int8_linear
from qloracle_conformance.operations.operation import Operation

SUM: dict[str, Level] = {"y": "bound"}


def operations() -> list[Operation]:
    """Return the operations."""
    made = []
    for kind in ("int8", "affine"):
        made += [
            Operation(f"{kind}_weight.forward", f"{kind}_weight_forward", 1, {"y": "weight_only.forward"},
                      int8_linear.judge_weight_only,
                      families(inputs.weight_case, inputs.FAMILIES, kind=kind, backward=False),
                      int8_linear.weight_only_intermediates, strictest="bound", bound="bounds.weight_only",
                      given=f"{kind}_row.dequantize", options=OPTIONS[kind]),
            Operation(f"{kind}_weight.backward", f"{kind}_weight_backward", 2,
                      {"x": "weight_only.backward", "bias": "weight_only.backward"}, int8_linear.judge_backward,
                      families(inputs.weight_case, inputs.BACKWARD_FAMILIES, kind=kind, backward=True),
                      int8_linear.backward_intermediates, strictest="bound", bound="bounds.weight_only",
                      given=f"{kind}_row.dequantize", options=OPTIONS[kind]),
        ]  # fmt: skip
    decomposed = {
        "outliers": "llm_int8.outliers", "absmax": "llm_int8.absmax", "codes": "llm_int8.codes",
        "y": "llm_int8.forward",
    }  # fmt: skip
    return [
        *made,
        Operation("int8_linear.forward", "int8_linear_forward", 3,
                  {"absmax": "int8.absmax", "codes": "int8.quantize", "y": "int8_linear.forward"},
                  int8_linear.judge_rows, families(decomposing.row_case, decomposing.ROW_FAMILIES),
                  int8_linear.decomposed_intermediates, own_levels=SUM, bound="bounds.llm_int8"),
        Operation("llm_int8.forward", "llm_int8_forward", 4, decomposed, int8_linear.judge_llm_int8,
                  families(decomposing.llm_case, decomposing.FAMILIES), int8_linear.decomposed_intermediates,
                  own_levels=SUM, bound="bounds.llm_int8",
                  options={"exclusion": EXCLUSIONS, "outlier_weight": OUTLIER_WEIGHTS}),
        Operation("llm_int8.backward", "llm_int8_backward", 2,
                  {"x": "llm_int8.backward", "bias": "llm_int8.backward"}, int8_linear.judge_backward,
                  families(decomposing.backward_case, inputs.BACKWARD_FAMILIES), int8_linear.backward_intermediates,
                  strictest="bound", bound="bounds.weight_only", given="int8_row.dequantize"),
    ]  # fmt: skip
