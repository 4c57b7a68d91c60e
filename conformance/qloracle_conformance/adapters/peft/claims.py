"""What PEFT's backends claim. Rounding points are those of its source, file by file.

``lora/layer.py``, ``Linear.forward``: the result of the base layer is in the format of the base; x is cast to the
format of A, float32; ``lora_B(lora_A(dropout(x))) * scaling`` and the sum with the result are float32, and the sum is
cast to the format of the result. ``Linear.get_delta_weight`` multiplies in float32 and rounds to the format of A.
"""

from typing import Any

from qloracle.bounds import Roundings
from qloracle_conformance.adapters.torch_arrays import LAYOUTS
from qloracle_conformance.backend import Claim, Level

CONFIG = "https://huggingface.co/docs/peft/package_reference/lora"
FEATURES = ("bias", "dropout", "rank_stabilized", "lora_bias", "fan_in_fan_out")
BOUND: dict[str, Level] = {"*": "bound"}
# For smaller blocks the AVX-512 kernel of bitsandbytes reads the absmax of another block where rows and blocks do not
# match, see nf4.dequantize of its own adapter. From 2048 on it has another one, so that what is judged here is PEFT.
SIZES = (2048, 4096)
EXACT: dict[str, Level] = {"*": "exact"}


def claims_of(kind: str, dtype: str) -> tuple[Claim, ...]:
    """Return the claims of PEFT on one kind of base layer."""
    if kind == "float":
        layers = (*_layers(dtype), *_merges(dtype))
        return (*layers, *_adapters()) if dtype == "float32" else layers
    return _on_4bit(dtype) if kind == "4bit" else _on_8bit(dtype)


def _layers(dtype: str) -> tuple[Claim, ...]:
    def claim(operation: str, source: str, **more: Any) -> Claim:
        settings: dict[str, Any] = {"dtypes": (dtype,), "features": FEATURES, "layouts": LAYOUTS, "ndims": (1, 2, 3, 4)}
        settings |= {"roundings": Roundings(base=dtype), **more}
        return Claim(operation, BOUND, source=source, **settings)

    narrow = Roundings(base=dtype, adapter=dtype)
    return (
        claim("lora.forward", "lora/layer.py, Linear.forward"),
        # The cast of x to float32 casts its gradient back before that of the base layer is added to it.
        claim("lora.backward", "autograd of lora/layer.py, Linear.forward", roundings=narrow),
        claim("dora.forward", "lora/dora.py, DoraLinearLayer.forward"),
        # From a 1-d input DoRA makes a 2-d output, see dora.forward: there is no gradient of the right shape to give.
        claim("dora.backward", "autograd of lora/dora.py, with the norm detached", ndims=(2, 3, 4), roundings=narrow),
        claim("embedding.forward", "lora/layer.py, Embedding.forward", ndims=(0, 1, 2, 3, 4)),
        claim("embedding.backward", "autograd of lora/layer.py, Embedding.forward", ndims=(0, 1, 2, 3, 4)),
    )


def _merges(dtype: str) -> tuple[Claim, ...]:
    def claim(operation: str, source: str, **more: Any) -> Claim:
        options = {"fan_in_fan_out": (False, True), "adapter_dtype": ("same", "float32")}
        settings: dict[str, Any] = {
            "dtypes": (dtype,) if dtype == "float32" else (dtype, "float32"),
            "layouts": LAYOUTS,
        }
        settings |= {"options": options, "roundings": Roundings(adapter=dtype), **more}
        return Claim(operation, BOUND, source=source, **settings)

    norms = {"roundings": Roundings(adapter=dtype, norm=dtype)}
    levels: dict[str, Any] = {"dtypes": (dtype,), "layouts": LAYOUTS, "roundings": Roundings(adapter=dtype)}
    return (
        claim("lora.merge", "lora/layer.py, Linear.merge and get_delta_weight"),
        claim("lora.unmerge", "lora/layer.py, Linear.unmerge: the delta is cast to the format of the weight"),
        claim("lora.merge_safe", "lora/layer.py, Linear.merge(safe_merge=True)"),
        claim("lora.merge_cycles", "lora/layer.py, Linear.merge and Linear.unmerge"),
        Claim("bias.merge", BOUND, source="lora/layer.py, Linear.merge: bias + lora_B.bias * scaling", **levels),
        claim("dora.merge", "lora/variants.py, DoraLinearVariant.merge_unsafe", **norms),
        claim("dora.unmerge", "lora/variants.py, DoraLinearVariant.unmerge", **norms),
    )


def _adapters() -> tuple[Claim, ...]:
    modes = {"bias": ("none", "all", "lora_only")}
    promised: dict[str, Any] = {"basis": "promised", "source": CONFIG}
    return (
        Claim("lora.init", {"lora_a": "bound", "lora_b": "exact"}, layouts=LAYOUTS,
              options={"initialization": ("kaiming",)},
              source="lora/layer.py, reset_lora_parameters: kaiming_uniform_ with a = sqrt(5), zeros"),
        Claim("embedding.init", EXACT, layouts=LAYOUTS, source="lora/layer.py, reset_lora_parameters: zeros, normal_"),
        Claim("adapters.combine", BOUND, dtypes=("float32",), layouts=LAYOUTS, **promised),
        Claim("adapters.concatenate", BOUND, dtypes=("float32",), layouts=LAYOUTS,
              source="lora/model.py, add_weighted_adapter: A * weight * scaling side by side, B as it is"),
        Claim("adapters.targets", EXACT, layouts=LAYOUTS,
              source="docstring of LoraConfig: a string is matched as a whole, a list by whole names or their ends"),
        Claim("adapters.patterns", EXACT, layouts=LAYOUTS, **promised),
        # PEFT refuses DoRA together with a bias of the adapter, so that lora_bias is left out.
        Claim("adapters.count", EXACT, layouts=LAYOUTS, options=modes, source="sizes of LoRA's own matrices"),
        Claim("adapters.biases", EXACT, layouts=LAYOUTS, options=modes, **promised),
    )  # fmt: skip


def _on_4bit(dtype: str) -> tuple[Claim, ...]:
    return (
        *_on_quantized(dtype, ("qlora", "qlora_double", "qdora")),
        Claim("blocks.merge", BOUND, dtypes=("float32",), out_dtypes=(dtype,), block_sizes=SIZES,
              options={"codebook": ("nf4", "fp4")}, source="lora/bnb.py, Linear4bit.merge", empty=False),
        Claim("double.merge", BOUND, dtypes=("float32",), out_dtypes=(dtype,), block_sizes=SIZES,
              options={"codebook": ("nf4", "fp4")}, source="lora/bnb.py, Linear4bit.merge", empty=False),
        Claim("blocks.merge_cycles", BOUND, dtypes=("float32",), out_dtypes=(dtype,), block_sizes=SIZES,
              options={"codebook": ("nf4", "fp4")}, source="lora/bnb.py, Linear4bit.merge and unmerge", empty=False),
        Claim("bias.merge", BOUND, dtypes=(dtype,), roundings=Roundings(adapter=dtype), empty=False,
              source="as lora/layer.py, Linear.merge: the adapter's bias is scaled, as it is in forward"),
    )  # fmt: skip


def _on_8bit(dtype: str) -> tuple[Claim, ...]:
    return (
        *_on_quantized(dtype, ("qlora_int8",)),
        Claim("int8.merge", BOUND, dtypes=("float32",), out_dtypes=(dtype,), options={"granularity": ("row",)},
              source="lora/bnb.py, Linear8bitLt.merge", empty=False),
        Claim("bias.merge", BOUND, dtypes=(dtype,), roundings=Roundings(adapter=dtype), empty=False,
              source="as lora/layer.py, Linear.merge: the adapter's bias is scaled, as it is in forward"),
    )  # fmt: skip


def _on_quantized(dtype: str, names: tuple[str, ...]) -> tuple[Claim, ...]:
    # A gradient of a bias is summed over the first axis alone (MatMul4Bit.backward): there is none of a 1-d input.
    axes: dict[str, tuple[int, ...]] = {"forward": (1, 2, 3, 4), "backward": (2, 3, 4)}
    return tuple(
        Claim(f"{name}.{direction}", BOUND, dtypes=(dtype,), block_sizes=SIZES, ndims=ndims,
              features=("bias", "dropout", "rank_stabilized"), roundings=Roundings(base=dtype, weight=dtype),
              source="lora/bnb.py, forward, and autograd of it; the base layer dequantizes to the format of x")
        for name in names for direction, ndims in axes.items()
    )  # fmt: skip
