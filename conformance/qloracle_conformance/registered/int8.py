"""Operations of absmax INT8 and of the INT8 matmul."""

from qloracle_conformance.generators import integers, restoring
from qloracle_conformance.generators.quantizing import Quantizer
from qloracle_conformance.operations import int8
from qloracle_conformance.operations.operation import Operation
from qloracle_conformance.registered.quantizers import quantizer_families


def operations() -> list[Operation]:
    """Return the operations."""
    made = []
    for granularity in ("tensor", "row", "column", "block"):
        options = {"granularity": granularity, "block_size": None}
        quantizer = Quantizer(f"int8_{granularity}.quantize", int8.BOUNDARIES, 254, options, granularity)
        restorer = Quantizer(f"int8_{granularity}.dequantize", int8.BOUNDARIES, 254, options, granularity)
        made += [
            Operation(quantizer.operation, "quantize_int8", 2, {"absmax": "int8.absmax", "codes": "int8.quantize"},
                      int8.judge_quantize_int8, quantizer_families(quantizer), int8.quantize_int8_intermediates),
            Operation(restorer.operation, "dequantize_int8", 1, {"values": "int8.dequantize"},
                      int8.judge_dequantize_int8,
                      restoring.families(restoring.dequantize_int8_case, restoring.FAMILIES[1:], quantizer=restorer),
                      int8.dequantize_int8_intermediates),
        ]  # fmt: skip
    return [
        *made,
        Operation("int8.matmul", "int8_matmul", 1, {"acc": "int8.matmul"}, int8.judge_int8_matmul,
                  restoring.families(integers.matmul_case, integers.MATMUL_FAMILIES), int8.matmul_intermediates),
        Operation("int8.scale", "scale_int8_matmul", 1, {"y": "int8.scale"}, int8.judge_scale,
                  restoring.families(integers.scale_case, integers.SCALE_FAMILIES), int8.scale_intermediates,
                  strictest="bound", bound="bounds.scale"),
    ]  # fmt: skip
