"""All operations and properties, by name.

A property is one family of inputs for one stage of one operation; its id is ``operation.stage.family``. Ids are locked
in ``property_ids.txt``: they never change meaning and are never reused.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files

from qloracle.blockwise import CODEBOOKS
from qloracle_conformance.generators import converting, extents, integers, layers, quantizing, restoring
from qloracle_conformance.generators.case import Generator
from qloracle_conformance.generators.quantizing import Quantizer
from qloracle_conformance.operations import conversion, dequantize, double, int8, quantize
from qloracle_conformance.operations import layers as layer_judges
from qloracle_conformance.operations.operation import Operation

BOTH = ("shapes", "memory")
LONG = ("extents", "degenerate", "squares")
RESTORED_FAMILIES = ("exponents", "specials", "memory", "ramps", "extents", "layouts")
NESTED_FAMILIES = ("boundaries", "offsets", "tails", "specials", "normal", "shapes", "memory")


WEIGHTS = "weights"  # the family of properties whose inputs are the matrices of a checkpoint
QUANTIZERS = ("nf4", "nf4_double", "dynamic_signed", "int8_tensor", "int8_row", "int8_column", "int8_block")


@dataclass(frozen=True)
class Property:
    """One checkable statement: inputs of this family, judged at this stage."""

    operation: str
    stage: str
    family: str

    @property
    def id(self) -> str:
        """The locked name."""
        return f"{self.operation}.{self.stage}.{self.family}"


def _conversions() -> list[Operation]:
    made = []
    for fmt in ("bfloat16", "float16"):
        made += [
            Operation(f"{fmt}.encode", "encode", 1, {"bits": "format.encode"}, conversion.judge_encode,
                      {**converting.encode_families(fmt), **restoring.families(extents.encode_case, LONG, fmt=fmt)},
                      conversion.encode_intermediates),
            Operation(f"{fmt}.decode", "decode", 1, {"values": "format.decode"}, conversion.judge_decode,
                      {**converting.decode_families(fmt), **restoring.families(extents.decode_case, LONG, fmt=fmt)},
                      conversion.decode_intermediates),
        ]  # fmt: skip
    return [
        *made,
        Operation("packing.pack", "pack_4bit", 1, {"packed": "packing.nibbles"}, conversion.judge_pack,
                  {**restoring.families(converting.pack_case, BOTH),
                   **restoring.families(extents.pack_case, ("extents", "squares"))}, conversion.packing_intermediates),
        Operation("packing.unpack", "unpack_4bit", 1, {"codes": "packing.nibbles"}, dequantize.judge_unpack,
                  {**restoring.families(converting.unpack_case, BOTH),
                   **restoring.families(extents.unpack_case, ("extents",))}, conversion.packing_intermediates),
    ]  # fmt: skip


def quantizer_families(quantizer: Quantizer) -> dict[str, Generator]:
    """Return all families of a quantizer of plain tensors."""
    return quantizing.for_quantizer({**quantizing.FAMILIES, **extents.FAMILIES}, quantizer)


def _blockwise() -> list[Operation]:
    made = []
    for name, table in CODEBOOKS.items():
        quantizer = Quantizer(f"{name}.quantize", table.midpoints, 1, {"codebook": name, "block_size": 0})
        restorer = Quantizer(f"{name}.dequantize", table.midpoints, 1, {})
        packing = {"packing": "packing.nibbles"} if table.code_bits == 4 else {}
        unpacking = {"unpacking": "packing.nibbles"} if table.code_bits == 4 else {}
        made += [
            Operation(quantizer.operation, "quantize_blockwise", 2,
                      {"absmax": "blocks.absmax", **packing, "codes": "blockwise.quantize"}, quantize.judge_quantize,
                      quantizer_families(quantizer), quantize.quantize_intermediates),
            Operation(restorer.operation, "dequantize_blockwise", 1,
                      {**unpacking, "values": "blockwise.dequantize", "shape": "blockwise.shape"},
                      dequantize.judge_dequantize,
                      restoring.families(restoring.dequantize_case, restoring.FAMILIES, quantizer=restorer,
                                         codebook=name, nested=False), dequantize.dequantize_intermediates),
        ]  # fmt: skip
    absmax_only = Quantizer("blocks.absmax", CODEBOOKS["nf4"].midpoints, 1, {"block_size": 0})
    return [
        Operation("blocks.absmax", "block_absmax", 1, {"absmax": "blocks.absmax"}, conversion.judge_block_absmax,
                  {k: v for k, v in quantizer_families(absmax_only).items() if k != "boundaries"},
                  conversion.absmax_only_intermediates),
        *made,
    ]  # fmt: skip


def _double() -> list[Operation]:
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


def _int8() -> list[Operation]:
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
        Operation("int8.scale", "scale_int8_matmul", 1, {"y": "bounds.scale"}, int8.judge_scale,
                  restoring.families(integers.scale_case, integers.SCALE_FAMILIES), int8.scale_intermediates,
                  strictest="bound"),
    ]  # fmt: skip


def _layers() -> list[Operation]:
    made = []
    for kind in ("lora", "qlora"):
        forward, backward = f"{kind}.forward", f"{kind}.backward"
        terms = {
            "base": forward, "bias": forward, "adapter": forward, "scale": "lora.scale", "dropout": "lora.dropout",
            "whole": forward,
        }  # fmt: skip
        gradients = dict.fromkeys(layers.GRADIENTS, backward)
        made += [
            Operation(forward, f"{kind}_forward", 1, terms, layer_judges.judge_forward, layers.layer_families(forward),
                      layer_judges.forward_intermediates, layers.REACHED, "bound"),
            Operation(backward, f"{kind}_backward", 4, gradients, layer_judges.judge_backward,
                      layers.layer_families(backward), layer_judges.backward_intermediates, strictest="bound"),
        ]  # fmt: skip
    return made


OPERATIONS: dict[str, Operation] = {
    operation.name: operation for operation in (*_conversions(), *_blockwise(), *_double(), *_int8(), *_layers())
}
# An operation whose weight goes through another one is judged only if that one passed.
GIVEN = {"qlora.forward": "nf4.dequantize", "qlora.backward": "nf4.dequantize"}


@cache
def properties() -> dict[str, Property]:
    """Return all properties by id, in the order of operations, families and stages."""
    found = {}
    for operation in OPERATIONS.values():
        for family in operation.families:
            for stage in operation.stages_of(family):
                prop = Property(operation.name, stage, family)
                found[prop.id] = prop
        if operation.name.partition(".")[0] in QUANTIZERS:
            for stage in operation.stages_of(WEIGHTS):
                found[f"{operation.name}.{stage}.{WEIGHTS}"] = Property(operation.name, stage, WEIGHTS)
    return found


def selected(pattern: str | None) -> dict[str, Property]:
    """Return the properties whose id matches a shell pattern, or begins with it; all without one."""
    if pattern is None:
        return properties()
    return {k: p for k, p in properties().items() if fnmatchcase(k, pattern) or k.startswith(pattern + ".")}


def locked_ids() -> list[str]:
    """Return the ids of the lock file."""
    text = files("qloracle_conformance").joinpath("property_ids.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]
