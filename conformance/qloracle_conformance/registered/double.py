"""Operations of double quantization."""

from qloracle.blockwise import CODEBOOKS
from qloracle_conformance.generators import extents, quantizing, restoring
from qloracle_conformance.generators.quantizing import Quantizer
from qloracle_conformance.operations import dequantize, double
from qloracle_conformance.operations.operation import Operation

RESTORED_FAMILIES = ("exponents", "specials", "memory", "ramps", "extents", "layouts")
NESTED_FAMILIES = ("boundaries", "offsets", "tails", "specials", "normal", "shapes", "memory")


def operations() -> list[Operation]:
    """Return the operations."""
    clauses = {
        "offset": "double_quant.offset", "nested_absmax": "double_quant.quantize",
        "nested_codes": "double_quant.quantize",
    }  # fmt: skip
    quantizer = Quantizer("nf4_double.quantize", CODEBOOKS["nf4"].midpoints, 1, {"codebook": "nf4", "block_size": 0})
    plain = quantizing.for_quantizer(quantizing.FAMILIES, quantizer)
    restorer = Quantizer("nf4_double.dequantize", CODEBOOKS["nf4"].midpoints, 1, {})
    return [
        Operation("absmax.quantize", "quantize_absmax", 3, clauses, double.judge_quantize_absmax,
                  restoring.families(restoring.quantize_absmax_case, (*NESTED_FAMILIES, "extents")),
                  double.nested_intermediates),
        Operation("absmax.dequantize", "dequantize_absmax", 1, {"absmax": "double_quant.dequantize"},
                  dequantize.judge_dequantize_absmax,
                  restoring.families(restoring.restore_absmax_case, RESTORED_FAMILIES),
                  dequantize.absmax_intermediates),
        Operation(quantizer.operation, "quantize_double", 4,
                  {"packing": "packing.nibbles", "codes": "blockwise.quantize", **clauses},
                  double.judge_quantize_double,
                  {**restoring.families(restoring.quantize_double_case, NESTED_FAMILIES[1:], quantizer=quantizer),
                   "boundaries": plain["boundaries"], "ramps": plain["ramps"], "poison": plain["specials"],
                   **quantizing.for_quantizer(extents.FAMILIES, quantizer)},
                  double.nested_intermediates),
        Operation(restorer.operation, "dequantize_double", 1,
                  {"unpacking": "packing.nibbles", "values": "double_quant.dequantize", "shape": "blockwise.shape"},
                  dequantize.judge_dequantize,
                  restoring.families(restoring.dequantize_case, restoring.FAMILIES, quantizer=restorer, codebook="nf4",
                                     nested=True), dequantize.dequantize_intermediates),
    ]  # fmt: skip
