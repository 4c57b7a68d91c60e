"""What the modules promise."""

from typing import Any

from qloracle.formats import TENSOR_FORMATS
from qloracle.tables import CODEBOOKS
from qloracle_conformance import Claim, Roundings
from qloracle_conformance.adapters.torch_arrays import LAYOUTS
from qloracle_gpu.torch.conformance_layers.merges import FOUR_BITS
from qloracle_gpu.torch.counting import BIAS_MODES
from qloracle_gpu.torch.int8 import GRANULARITIES
from qloracle_gpu.torch.quantizing_like import SCALES

FEATURES = ("bias", "dropout", "rank_stabilized", "lora_bias", "fan_in_fan_out")
SOURCE = "qloracle_gpu.torch.modules document the reference's rules as their own"
BOTH = (False, True)
WAYS = ("forward", "backward")
Options = dict[str, tuple[object, ...]]

# In the compute dtype of the layer, to which x and the weight are rounded.
QUANTIZED: dict[str, Options] = {
    **{f"{name}.{way}": {} for name in ("qlora", "qlora_double", "qdora") for way in WAYS},
    **{f"{name}.matmul": {} for name in (*FOUR_BITS, "nf4_double")},
    **{f"{name}.{way}": {"granularity": GRANULARITIES} for name in ("int8_weight", "qlora_int8") for way in WAYS},
    "int8_linear.forward": {},
    "llm_int8.forward": {"exclusion": ("columns", "elements"), "outlier_weight": ("original", "dequantized")},
    "llm_int8.backward": {},
}  # fmt: skip
MERGED: Options = {"fan_in_fan_out": BOTH, "adapter_dtype": ("same", "float32")}
STORED: Options = {"fan_in_fan_out": BOTH, "scales": SCALES}
TABLES: Options = {"codebook": tuple(CODEBOOKS)}
SUMS: dict[str, Options] = {
    **{f"{name}.{way}": {} for name in ("lora", "dora", "embedding") for way in WAYS},
    **{f"lora.{what}": MERGED for what in ("merge", "unmerge", "merge_safe", "merge_cycles")},
    "dora.merge": MERGED,
    "dora.unmerge": MERGED,
    "bias.merge": {},
    "blocks.merge": {**STORED, **TABLES},
    "double.merge": {**STORED, "codebook": ("nf4", "fp4")},
    "int8.merge": {**STORED, "granularity": GRANULARITIES},
    "blocks.merge_original": {**STORED, **TABLES},
    "blocks.merge_cycles": {"fan_in_fan_out": BOTH, **TABLES},
    "adapters.combine": {},
    "adapters.concatenate": {},
}
NESTED: Options = {"nested_codebook": ("dynamic_signed",)}
# Quantizers that a QuantizedLinear applies to its weight, which is a matrix; those of other tables differ by a name.
MATRICES: dict[str, Options] = {
    **{f"{name}.{verb}": {} for name in ("nf4", "fp4") for verb in ("quantize", "dequantize")},
    **{f"{name}_double.{verb}": NESTED for name in ("nf4", "fp4") for verb in ("quantize", "dequantize")},
    **{f"int8_{name}.{verb}": {} for name in GRANULARITIES for verb in ("quantize", "dequantize")},
}
EXACT: dict[str, Options] = {
    "lora.init": {"initialization": ("kaiming", "gaussian")},
    "embedding.init": {},
    "adapters.targets": {},
    "adapters.patterns": {},
    "adapters.count": {"bias": BIAS_MODES},
    "adapters.biases": {"bias": BIAS_MODES},
}


def claims(compute_dtype: str) -> tuple[Claim, ...]:
    """Return the claims of layers that compute in a dtype; with a narrow one, of quantized layers alone."""
    # A layer rounds x to its compute dtype as well, which the suite's sums do not know: x has it already.
    of_x = TENSOR_FORMATS if compute_dtype == "float32" else (compute_dtype,)
    quantized = [
        _claim(name, options, _levels(name), dtypes=of_x, weight=compute_dtype) for name, options in QUANTIZED.items()
    ]
    if compute_dtype != "float32":
        return tuple(quantized)
    return (
        *quantized,
        *(_claim(name, options, {"*": "bound"}) for name, options in SUMS.items()),
        *(_claim(name, options, {"*": "exact"}) for name, options in EXACT.items()),
        *(_claim(name, options, {"*": "exact"}, ndims=(2,)) for name, options in MATRICES.items()),
    )


def _levels(name: str) -> dict[str, Any]:
    return {"*": "exact", "y": "bound"} if name in ("int8_linear.forward", "llm_int8.forward") else {"*": "bound"}


def _claim(name: str, options: Options, levels: dict[str, Any], *, weight: str = "float32", **more: Any) -> Claim:
    roundings = Roundings(accumulate="float32", intermediate="float32", weight=weight)
    return Claim(
        name, levels, layouts=LAYOUTS, options=options, features=FEATURES, roundings=roundings, basis="promised",
        source=SOURCE, **more,
    )  # fmt: skip
