"""Operations that quantize in flat blocks with a codebook."""

from qloracle.tables import CODEBOOKS
from qloracle_conformance.generators import restoring
from qloracle_conformance.generators.quantizing import Quantizer
from qloracle_conformance.operations import conversion, dequantize, quantize
from qloracle_conformance.operations.operation import Operation
from qloracle_conformance.registered.quantizers import quantizer_families

# Of the codebooks besides NF4, FP4 and the signed dynamic map: those that see the table and where its codes turn.
EVERY_FAMILY = ("nf4", "fp4", "dynamic_signed")
FEWER = ("boundaries", "specials", "shapes", "memory", "ramps")
RESTORED = (*restoring.FAMILIES, "ties")
FEWER_RESTORED = ("table", "exponents", "specials", "shapes", "memory", "extents", "ties")


def operations() -> list[Operation]:
    """Return the operations."""
    made = []
    for name, table in CODEBOOKS.items():
        every = name in EVERY_FAMILY
        quantizer = Quantizer(f"{name}.quantize", table.midpoints, 1, {"codebook": name, "block_size": 0})
        restorer = Quantizer(f"{name}.dequantize", table.midpoints, 1, {})
        packing = {"packing": "packing.nibbles"} if table.code_bits == 4 else {}
        unpacking = {"unpacking": "packing.nibbles"} if table.code_bits == 4 else {}
        made += [
            Operation(quantizer.operation, "quantize_blockwise", 2,
                      {"absmax": "blocks.absmax", **packing, "codes": "blockwise.quantize"}, quantize.judge_quantize,
                      {k: v for k, v in quantizer_families(quantizer).items() if every or k in FEWER},
                      quantize.quantize_intermediates),
            Operation(restorer.operation, "dequantize_blockwise", 1,
                      {**unpacking, "values": "blockwise.dequantize", "shape": "blockwise.shape"},
                      dequantize.judge_dequantize,
                      restoring.families(restoring.dequantize_case, RESTORED if every else FEWER_RESTORED,
                                         quantizer=restorer, codebook=name, nested=False),
                      dequantize.dequantize_intermediates),
        ]  # fmt: skip
    absmax_only = Quantizer("blocks.absmax", CODEBOOKS["nf4"].midpoints, 1, {"block_size": 0})
    return [
        Operation("blocks.absmax", "block_absmax", 1, {"absmax": "blocks.absmax"}, conversion.judge_block_absmax,
                  {k: v for k, v in quantizer_families(absmax_only).items() if k != "boundaries"},
                  conversion.absmax_only_intermediates),
        *made,
    ]  # fmt: skip
