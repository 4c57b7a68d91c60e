"""Operations of double quantization."""

from qloracle.nested_absmax import NESTED_CODEBOOK
from qloracle.tables import CODEBOOKS
from qloracle_conformance.generators import extents, quantizing, restoring
from qloracle_conformance.generators.quantizing import Quantizer
from qloracle_conformance.operations import dequantize, double
from qloracle_conformance.operations.operation import Operation

RESTORED_FAMILIES = ("exponents", "specials", "memory", "ramps", "extents", "layouts")
NESTED_FAMILIES = ("boundaries", "offsets", "tails", "specials", "normal", "shapes", "memory")
NESTED_CODEBOOKS = (NESTED_CODEBOOK, "nf4")  # of the absmax
CLAUSES = {
    "offset": "double_quant.offset",
    "nested_absmax": "double_quant.quantize",
    "nested_codes": "double_quant.quantize",
}
# The tensor's codebooks; NF4 with every family, FP4 with those that show where the two differ.
FEWER = ("tails", "specials", "shapes", "memory", "boundaries")
FEWER_RESTORED = ("exponents", "specials", "shapes", "memory")


def operations() -> list[Operation]:
    """Return the operations."""
    codebook = {"codebook": NESTED_CODEBOOKS}
    return [
        Operation("absmax.quantize", "quantize_absmax", 3, CLAUSES, double.judge_quantize_absmax,
                  restoring.families(restoring.quantize_absmax_case, (*NESTED_FAMILIES, "extents")),
                  double.nested_intermediates, options=codebook),
        Operation("absmax.dequantize", "dequantize_absmax", 1, {"absmax": "double_quant.dequantize"},
                  dequantize.judge_dequantize_absmax,
                  restoring.families(restoring.restore_absmax_case, RESTORED_FAMILIES),
                  dequantize.absmax_intermediates, options=codebook),
        *_tensors("nf4"),
        *_tensors("fp4"),
    ]  # fmt: skip


def _tensors(name: str) -> list[Operation]:
    table, codebook = CODEBOOKS[name], {"nested_codebook": NESTED_CODEBOOKS}
    quantizer = Quantizer(f"{name}_double.quantize", table.midpoints, 1, {"codebook": name, "block_size": 0})
    restorer = Quantizer(f"{name}_double.dequantize", table.midpoints, 1, {})
    plain = quantizing.for_quantizer(quantizing.FAMILIES, quantizer)
    quantized = {
        **restoring.families(restoring.quantize_double_case, NESTED_FAMILIES[1:], quantizer=quantizer),
        "boundaries": plain["boundaries"],
        "ramps": plain["ramps"],
        "poison": plain["specials"],
        **quantizing.for_quantizer(extents.FAMILIES, quantizer),
    }
    restored = restoring.families(
        restoring.dequantize_case, restoring.FAMILIES, quantizer=restorer, codebook=name, nested=True
    )
    if name != "nf4":
        quantized = {family: quantized[family] for family in FEWER}
        restored = {family: restored[family] for family in FEWER_RESTORED}
    return [
        Operation(quantizer.operation, "quantize_double", 4,
                  {"packing": "packing.nibbles", "codes": "blockwise.quantize", **CLAUSES},
                  double.judge_quantize_double, quantized, double.nested_intermediates, options=codebook),
        Operation(restorer.operation, "dequantize_double", 1,
                  {"unpacking": "packing.nibbles", "values": "double_quant.dequantize", "shape": "blockwise.shape"},
                  dequantize.judge_dequantize, restored, dequantize.dequantize_intermediates, options=codebook),
    ]  # fmt: skip
