"""What the CuPy backend promises to the conformance suite."""

from qloracle.formats import FORMATS, Format
from qloracle.tables import CODEBOOKS
from qloracle_conformance import Claim, Roundings
from qloracle_gpu.cupy.accumulate import REDUCTIONS
from qloracle_gpu.cupy.adamw_rule import NONFINITE
from qloracle_gpu.cupy.decomposition import EXCLUSIONS
from qloracle_gpu.cupy.fake_quant import INTERVALS
from qloracle_gpu.cupy.initialization import INITIALIZATIONS
from qloracle_gpu.cupy.int8 import GRANULARITIES as INT8_GRANULARITIES
from qloracle_gpu.cupy.llm_int8 import OUTLIER_WEIGHTS
from qloracle_gpu.cupy.observers import GRANULARITIES
from qloracle_gpu.cupy.packing import STORAGE_ITEMS
from qloracle_gpu.cupy.quantizing_like import SCALES
from qloracle_gpu.cupy.rounding import OVERFLOWS
from qloracle_gpu.cupy.sources import NAN_BITS, NAN_VALUES, ROUNDINGS

EXACT = (
    "packing.pack", "packing.unpack", "packing.store", "packing.restore", "blocks.absmax",
    *(f"{codebook}.{what}" for codebook in CODEBOOKS for what in ("entries", "quantize", "dequantize")),
    "absmax.quantize", "absmax.dequantize", "nf4_double.quantize", "nf4_double.dequantize", "fp4_double.quantize",
    "fp4_double.dequantize",
    "int8_tensor.quantize", "int8_tensor.dequantize", "int8_row.quantize", "int8_row.dequantize",
    "int8_column.quantize", "int8_column.dequantize", "int8_block.quantize", "int8_block.dequantize", "int8.matmul",
    "affine.parameters",
    *(f"affine_{granularity}.{verb}" for granularity in GRANULARITIES for verb in ("quantize", "dequantize")),
    "symmetric.quantize", "minmax.observe", "percentile.observe", "moving.observe", "fake_quantize.forward",
    "fake_quantize.backward", "lora.init", "embedding.init", "paged.plan", "adamw.paged", "adamw.resume",
)  # fmt: skip
SUMS = (
    "int8.scale", "lora.forward", "lora.backward", "qlora.forward", "qlora.backward", "qlora_double.forward",
    "qlora_double.backward", "qlora_int8.forward", "qlora_int8.backward",
    *(f"{codebook}.matmul" for codebook in CODEBOOKS), "nf4_double.matmul", "llm_int8.forward", "llm_int8.backward",
    "qlora_affine.forward", "qlora_affine.backward", "dora.forward", "dora.backward", "qdora.forward",
    "qdora.backward", "embedding.forward", "embedding.backward", "int8_weight.forward", "int8_weight.backward",
    "affine_weight.forward", "affine_weight.backward", "int8_linear.forward", "lora.merge", "lora.unmerge",
    "lora.merge_safe", "lora.merge_cycles", "bias.merge", "dora.merge", "dora.unmerge", "blocks.merge",
    "double.merge", "int8.merge", "affine.merge", "blocks.merge_original", "blocks.merge_cycles", "adapters.combine",
    "adapters.concatenate", "adamw.step", "adamw.nonfinite", "adamw.stochastic", "adamw.limited", "adamw8bit.step",
    "gradient.clip", "gradient.accumulate", "accumulate.step",
)  # fmt: skip
CODE_RANGES = ("-128..127", "0..255", "-8..7", "0..15", "-127..127", "-7..7")
MERGES: dict[str, tuple[object, ...]] = {"fan_in_fan_out": (False, True)}
QUANTIZED_MERGES = {"scales": SCALES} | MERGES
NESTED_CODEBOOKS = ("dynamic_signed", "nf4")
SOURCES = ("float32", "float64", "float16", "bfloat16", "int8", "int32", "int64")
SOURCES_OF = {"float64": ("int64",), "float32": ("float64", "int64")}
OPTIONS: dict[str, dict[str, tuple[object, ...]]] = {
    "packing.store": {"storage": tuple(STORAGE_ITEMS)},
    "packing.restore": {"storage": tuple(STORAGE_ITEMS)},
    "absmax.quantize": {"codebook": NESTED_CODEBOOKS},
    "absmax.dequantize": {"codebook": NESTED_CODEBOOKS},
    "llm_int8.forward": {"exclusion": EXCLUSIONS, "outlier_weight": OUTLIER_WEIGHTS},
    **{name: {"nonfinite": tuple(NONFINITE)} for name in ("adamw.nonfinite", "adamw.stochastic", "adamw8bit.step")},
    "adamw.paged": {"state_bits": (32, 8)},
    "adamw.resume": {"state_bits": (32, 8)},
    "gradient.accumulate": {"reduction": REDUCTIONS},
    "accumulate.step": {"reduction": REDUCTIONS},
    "lora.init": {"initialization": INITIALIZATIONS},
    "affine.parameters": {"code_range": CODE_RANGES},
    **{
        f"affine_{granularity}.{verb}": {"code_range": CODE_RANGES}
        for granularity in GRANULARITIES
        for verb in ("quantize", "dequantize")
    },
    "symmetric.quantize": {"code_range": CODE_RANGES, "granularity": GRANULARITIES},
    "minmax.observe": {"granularity": GRANULARITIES},
    "percentile.observe": {"granularity": GRANULARITIES},
    "fake_quantize.forward": {"code_range": CODE_RANGES, "granularity": GRANULARITIES},
    "fake_quantize.backward": {"code_range": CODE_RANGES, "granularity": GRANULARITIES, "interval": INTERVALS},
    **{
        f"{kind}.{way}": {"granularity": INT8_GRANULARITIES}
        for kind in ("int8_weight", "qlora_int8")
        for way in ("forward", "backward")
    },
    **{
        f"{kind}.{way}": {"granularity": GRANULARITIES, "code_range": CODE_RANGES}
        for kind in ("affine_weight", "qlora_affine")
        for way in ("forward", "backward")
    },
    **{
        f"{kind}.{verb}": MERGES | {"adapter_dtype": ("same", "float32")}
        for kind, verbs in (
            ("lora", ("merge", "unmerge", "merge_safe", "merge_cycles")),
            ("dora", ("merge", "unmerge")),
        )
        for verb in verbs
    },
    "blocks.merge": QUANTIZED_MERGES | {"codebook": tuple(CODEBOOKS)},
    "blocks.merge_original": QUANTIZED_MERGES | {"codebook": tuple(CODEBOOKS)},
    "blocks.merge_cycles": MERGES | {"codebook": tuple(CODEBOOKS)},
    "double.merge": QUANTIZED_MERGES | {"codebook": ("nf4", "fp4")},
    "int8.merge": QUANTIZED_MERGES | {"granularity": INT8_GRANULARITIES},
    "affine.merge": QUANTIZED_MERGES | {"granularity": GRANULARITIES, "code_range": CODE_RANGES},
    **{
        f"{codebook}_double.{verb}": {"nested_codebook": NESTED_CODEBOOKS}
        for codebook in ("nf4", "fp4")
        for verb in ("quantize", "dequantize")
    },
}
LAYOUTS = ("contiguous", "offset", "strided", "transposed", "reversed", "padded")
FEATURES = ("bias", "dropout", "rank_stabilized", "minus_128", "lora_bias", "fan_in_fan_out")
SOURCE = "qloracle_gpu.cupy documents the reference's rules as its own"


def claims() -> tuple[Claim, ...]:
    """Return all claims: every conversion that there is under every rule, and what the two lists name."""
    encoded = {f"{name}.encode": _conversion_options(fmt) for name, fmt in FORMATS.items()}
    decoded: dict[str, dict[str, tuple[object, ...]]] = {
        f"{name}.decode": {} for name in FORMATS if name not in ("float64", "float32")
    }
    exact = encoded | decoded | {name: OPTIONS.get(name, {}) for name in EXACT}
    found = [_claim(name, "exact", options) for name, options in exact.items()]
    return (*found, *(_claim(name, "bound", OPTIONS.get(name, {})) for name in SUMS))


def _claim(name: str, level: str, options: dict[str, tuple[object, ...]]) -> Claim:
    return Claim(
        operation=name,
        levels={"*": level},  # type: ignore[dict-item]
        out_dtypes=("float32",) if name.endswith("decode") else ("float32", "float16", "bfloat16"),
        layouts=LAYOUTS,
        options=options,
        features=FEATURES,
        roundings=Roundings(accumulate="float32", intermediate="float32", weight="float32"),
        basis="promised",
        source=SOURCE,
    )


def _conversion_options(fmt: Format) -> dict[str, tuple[object, ...]]:
    overflow = OVERFLOWS if fmt.infinities or fmt.has_nan else ("saturate",)
    nan: tuple[object, ...] = ("class", *NAN_BITS) if fmt.has_nan else ("unspecified", *NAN_VALUES[1:])
    options: dict[str, tuple[object, ...]] = {"rounding": ROUNDINGS, "overflow": overflow, "nan": nan}
    if fmt.name == "float64":  # wide enough for every source but integers, and without an end
        options |= {"overflow": ("ieee",), "nan": ("class",)}
    return options | {"source": SOURCES_OF.get(fmt.name, SOURCES)}
