"""One registry of valid calls of every public function: what the tests of purity and of malformed calls start from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import qloracle
from qloracle import QuantizedAbsmax, Scheme, named_tensors
from qloracle.combining import LoraAdapter
from qloracle.optim.adamw import AdamwState
from qloracle.optim.options import AdamwOptions

Arguments = dict[str, Any]


@dataclass(frozen=True)
class PublicCall:
    """A valid call."""

    function: str  # name in qloracle.__all__
    variant: str
    arguments: Callable[[], Arguments]  # made anew for every call

    @property
    def id(self) -> str:
        """For messages."""
        return f"{self.function}-{self.variant}"

    def run(self, arguments: Arguments) -> object:
        """Call the function."""
        return getattr(qloracle, self.function)(**arguments)


def values(*shape: int, scale: float = 1.0) -> Any:
    """Ordinary float32 numbers that depend on the shape alone."""
    random = np.random.Generator(np.random.Philox(sum(shape) + 7 * len(shape)))
    return (random.standard_normal(shape) * scale).astype(np.float32)


def mask(*shape: int) -> Any:
    return np.random.Generator(np.random.Philox(3)).random(shape) < 0.7


def integers(low: int, high: int, dtype: str, *shape: int) -> Any:
    return np.random.Generator(np.random.Philox(5)).integers(low, high, shape).astype(dtype)


def layer(**more: Any) -> Arguments:
    """The operands of a LoRA layer of 5 outputs, 7 inputs and rank 3 on a batch of 4."""
    return {"x": values(4, 7), "weight": values(5, 7), "lora_a": values(3, 7), "lora_b": values(5, 3), "alpha": 6.0,
            **more}  # fmt: skip


def adapter(**more: Any) -> Arguments:
    return {name: array for name, array in layer(**more).items() if name != "x"}


def blocks() -> Any:
    return qloracle.quantize_blockwise(values(5, 7), block_size=8)


def double() -> Any:
    return qloracle.quantize_double(values(5, 7), block_size=8)


def rows() -> Any:
    return qloracle.quantize_int8(values(5, 7), granularity="row")


def affine() -> Any:
    return qloracle.quantize_affine(values(5, 7), granularity="group", group_size=6)


def nested() -> QuantizedAbsmax:
    return qloracle.quantize_absmax(np.abs(values(300)))


def tensors() -> Any:
    return named_tensors([("wte.weight", (50, 8)), ("h.0.fc.weight", (16, 8)), ("h.0.ln.weight", (8,))])


def adapters() -> list[LoraAdapter]:
    one = {"lora_a": values(3, 7), "lora_b": values(5, 3), "alpha": 6.0}
    return [LoraAdapter(**one), LoraAdapter(**{**one, "lora_a": values(2, 7), "lora_b": values(5, 2)})]


def merged() -> Any:
    return qloracle.dora_merge(**dora_adapter())


def dora_adapter(**more: Any) -> Arguments:
    return adapter(magnitude=np.abs(values(5)), **more)


def weightless(**more: Any) -> Arguments:
    return {name: array for name, array in layer(**more).items() if name != "weight"}


def moments() -> AdamwState:
    return AdamwState(values(4, 70), np.abs(values(4, 70)), 2)


def small_moments() -> Any:
    return qloracle.quantize_moments(moments(), block_size=64)


def options() -> AdamwOptions:
    return AdamwOptions(lr=0.01, weight_decay=0.1)


def step(**more: Any) -> Arguments:
    return {"p": values(4, 70), "gradient": values(4, 70), "options": options(), **more}


def paged() -> Any:
    return qloracle.page_states({"a": {"m": values(6)}, "b": {"m": values(5)}}, 24)


FLOATS = {"x": values(6, 10)}
GRADIENT = {"dy": values(4, 5)}

VALID: dict[str, dict[str, Callable[[], Arguments]]] = {
    "accumulate_gradients": {
        "plain": lambda: {"gradients": values(3, 4, 5), "counts": np.array([3, 1, 2])},
        "sum": lambda: {"gradients": values(3, 6).astype("f2"), "counts": np.array([3, 1, 2]), "reduction": "sum"},
    },
    "accumulated_step": {
        "plain": lambda: {"p": values(4, 70), "gradients": values(3, 4, 70), "counts": np.array([3, 1, 2]),
                          "state": moments(), "options": options()},
    },
    "adamw8bit_init": {"plain": lambda: {"shape": (300,), "block_size": 64}, "empty": lambda: {"shape": (0,)}},
    "adamw8bit_step": {"plain": lambda: step(state=small_moments())},
    "adamw_init": {"plain": lambda: {"shape": (2, 3)}, "0-d": lambda: {"shape": ()}},
    "adamw_moments": {
        "plain": lambda: {"gradient": values(4, 70), "m": values(4, 70), "v": np.abs(values(4, 70)),
                          "options": options()},
        "0-d": lambda: {"gradient": values(), "m": values(), "v": np.abs(values()), "options": options()},
        "empty": lambda: {"gradient": values(0, 3), "m": values(0, 3), "v": values(0, 3), "options": options()},
    },
    "adamw_parameter": {
        "plain": lambda: {"p": values(4, 70), "m": values(4, 70), "v": np.abs(values(4, 70)), "options": options(),
                          "step": 3},
        "0-d": lambda: {"p": values(), "m": values(), "v": np.abs(values()), "options": options(), "step": 1},
    },
    "adamw_step": {
        "plain": lambda: step(state=moments()),
        "stochastic": lambda: {"p": integers(0, 0x7F80, "uint16", 4, 70), "state": moments(),
                               "gradient": integers(0, 0x7F80, "uint16", 4, 70), "options": options(),
                               "fmt": "bfloat16", "random_bits": integers(0, 2**32, "uint32", 4, 70)},
    },
    "clip_by_norm": {"plain": lambda: {"values": [values(4, 7), values(3)], "max_norm": 0.5}},
    "dequantize_moments": {"plain": lambda: {"state": small_moments(), "shape": (4, 70)}},
    "fetch_state": {"plain": lambda: {"paged": paged(), "name": "b"}},
    "page_in": {"plain": lambda: {"plan": qloracle.page_plan({"a": 3, "b": 4}, 5), "name": "b"}},
    "page_plan": {"plain": lambda: {"sizes": {"a": 3, "b": 4}, "budget": 5}},
    "page_states": {"plain": lambda: {"states": {"a": {"m": values(6)}, "b": {"m": values(5)}}, "budget": 24}},
    "quantize_moments": {"plain": lambda: {"state": moments(), "block_size": 64}},
    "state_arrays": {"plain": lambda: {"state": moments()}, "small": lambda: {"state": small_moments()}},
    "state_from_arrays": {
        "plain": lambda: {"arrays": qloracle.state_arrays(moments())},
        "small": lambda: {"arrays": qloracle.state_arrays(small_moments())},
    },
    "store_state": {
        "plain": lambda: {"paged": qloracle.fetch_state(paged(), "a")[0], "name": "a", "state": {"m": values(6)}},
    },
    "adapter_settings": {"plain": lambda: {"names": ["a.q", "b.v"], "rank": 4, "alpha": 8.0, "rank_pattern": {"q": 2}}},
    "adapter_shapes": {"plain": lambda: {"tensors": tensors(), "rank": 2}},
    "affine_parameters": {
        "plain": lambda: {"lo": -np.abs(values(6)), "hi": np.abs(values(6)), "qmin": -128, "qmax": 127},
        "0-d": lambda: {"lo": np.float32(-1.0), "hi": np.float32(2.0), "qmin": -8, "qmax": 7},
        "empty": lambda: {"lo": values(0), "hi": values(0), "qmin": 0, "qmax": 255},
    },
    "bits_per_weight": {"plain": lambda: {"scheme": "nf4"}, "record": lambda: {"scheme": Scheme("mine", 3)}},
    "block_absmax": {
        "plain": lambda: {**FLOATS, "block_size": 7},
        "0-d": lambda: {"x": values(), "block_size": 7},
        "empty": lambda: {"x": values(0, 3), "block_size": 7},
    },
    "combine_adapters": {"plain": lambda: {"adapters": adapters(), "weights": [0.5, 2.0]}},
    "concatenate_adapters": {"plain": lambda: {"adapters": adapters(), "weights": [0.5, 2.0]}},
    "conditional_means": {"plain": dict},
    "config_tensors": {"plain": lambda: {"config": {"model_type": "gpt2", "n_layer": 1}}},
    "count_parameters": {
        "plain": lambda: {"shapes": np.array([[5, 7], [9, 9]]), "ranks": np.array([2, 0]),
                          "biases": np.array([True, False]), "bias": "all"},
        "empty": lambda: {"shapes": np.zeros((0, 2), np.int64), "ranks": np.zeros(0, np.int64)},
    },
    "decode": {
        "plain": lambda: {"bits": integers(0, 2**16, "uint16", 6, 10), "fmt": "bfloat16"},
        "own": lambda: {"bits": values(6, 10)},
        "0-d": lambda: {"bits": np.array(0x3F80, np.uint16), "fmt": "bfloat16"},
        "empty": lambda: {"bits": np.zeros((0, 2), np.uint8), "fmt": "float8_e5m2"},
    },
    "decompose": {"plain": lambda: {"x": values(6, 10, scale=4.0), "threshold": 6.0}},
    "dequantize_absmax": {
        "plain": lambda: {"quantized": nested()},
        "empty": lambda: {"quantized": qloracle.quantize_absmax(values(0))},
    },
    "dequantize_affine": {
        "plain": lambda: {"quantized": affine()},
        "0-d": lambda: {"quantized": qloracle.quantize_affine(values())},
        "empty": lambda: {"quantized": qloracle.quantize_affine(values(0, 3))},
    },
    "dequantize_blockwise": {
        "plain": lambda: {"quantized": blocks()},
        "bytes": lambda: {"quantized": qloracle.quantize_blockwise(values(300), codebook="dynamic_signed")},
        "0-d": lambda: {"quantized": qloracle.quantize_blockwise(values())},
        "empty": lambda: {"quantized": qloracle.quantize_blockwise(values(0, 3)), "dtype": "bfloat16"},
    },
    "dequantize_double": {
        "plain": lambda: {"quantized": double()},
        "0-d": lambda: {"quantized": qloracle.quantize_double(values())},
        "empty": lambda: {"quantized": qloracle.quantize_double(values(0, 3))},
    },
    "dequantize_int8": {
        "plain": lambda: {"quantized": rows()},
        "0-d": lambda: {"quantized": qloracle.quantize_int8(values())},
        "empty": lambda: {"quantized": qloracle.quantize_int8(values(0, 3), granularity="column")},
    },
    "dora_backward": {
        "plain": lambda: layer(**GRADIENT, magnitude=np.abs(values(5)), mask=mask(4, 7), dropout=0.25),
        "empty": lambda: layer(dy=values(0, 5), x=values(0, 7), magnitude=np.abs(values(5))),
    },
    "dora_forward": {
        "plain": lambda: layer(magnitude=np.abs(values(5)), bias=values(5), mask=mask(4, 7), dropout=0.25),
        "empty": lambda: {**layer(magnitude=np.abs(values(5))), "x": values(0, 7)},
    },
    "dora_merge": {"plain": dora_adapter},
    "dora_norm": {"plain": adapter},
    "dora_unmerge": {
        "plain": lambda: {"merged": merged(), **{n: v for n, v in dora_adapter().items() if n != "weight"}},
    },
    "embedding_init": {"plain": lambda: {"draws": values(5, 3), "num_embeddings": 9}},
    "embedding_lora_backward": {
        "plain": lambda: {"dy": values(4, 7), "ids": integers(0, 5, "int64", 4), "weight": values(5, 7),
                          "lora_a": values(3, 5), "lora_b": values(7, 3), "alpha": 6.0},
    },
    "embedding_lora_forward": {
        "plain": lambda: {"ids": integers(0, 5, "int64", 4), "weight": values(5, 7), "lora_a": values(3, 5),
                          "lora_b": values(7, 3), "alpha": 6.0},
        "empty": lambda: {"ids": np.zeros((0, 2), np.int64), "weight": values(5, 7), "lora_a": values(3, 5),
                          "lora_b": values(7, 3), "alpha": 6.0},
    },
    "encode": {
        "plain": lambda: {"values": values(6, 10), "fmt": "float8_e4m3fn"},
        "wide": lambda: {"values": values(6, 10).astype(np.float64), "fmt": "bfloat16", "rounding": "toward_zero"},
        "integers": lambda: {"values": integers(-(2**40), 2**40, "int64", 6, 10), "fmt": "float16"},
        "stochastic": lambda: {"values": values(6, 10), "fmt": "bfloat16", "rounding": "stochastic",
                               "random_bits": integers(0, 2**32, "uint32", 6, 10)},
        "words": lambda: {"values": integers(0, 0x7F80, "uint16", 6, 10), "fmt": "float16", "source": "bfloat16"},
        "0-d": lambda: {"values": values(), "fmt": "float16"},
        "empty": lambda: {"values": values(0, 3), "fmt": "tfloat32"},
    },
    "fake_quantize": {
        "plain": lambda: {"x": values(6, 10), "scale": np.full(6, 0.5, np.float32), "zero_point": np.zeros(6, np.int32),
                          "granularity": "row"},
        "0-d": lambda: {"x": values(), "scale": np.array(0.5, np.float32), "zero_point": np.array(3, np.int32)},
        "empty": lambda: {"x": values(0, 3), "scale": np.array(0.5, np.float32), "zero_point": np.array(3, np.int32)},
    },
    "fake_quantize_backward": {
        "plain": lambda: {"dy": values(6, 10), "x": values(6, 10), "scale": np.full(10, 0.5, np.float32),
                          "zero_point": np.zeros(10, np.int32), "granularity": "column"},
        "0-d": lambda: {"dy": values(), "x": values(), "scale": np.array(0.5, np.float32),
                        "zero_point": np.array(3, np.int32)},
    },
    "format_table": {"plain": lambda: {"fmt": "float8_e4m3fn"}},
    "header_tensors": {"plain": lambda: {"header": {"fc.weight": {"dtype": "F32", "shape": [4, 2]}}}},
    "int8_linear_forward": {"plain": lambda: {"x": values(4, 7), "weight": rows(), "bias": values(5)}},
    "int8_matmul": {
        "plain": lambda: {"a": integers(-127, 128, "int8", 4, 7), "b": integers(-127, 128, "int8", 5, 7)},
        "empty": lambda: {"a": np.zeros((0, 7), np.int8), "b": integers(-127, 128, "int8", 5, 7)},
    },
    "llm_int8_backward": {"plain": lambda: {**GRADIENT, "weight": rows()}},
    "llm_int8_forward": {
        "plain": lambda: {"x": values(4, 7, scale=4.0), "weight": rows(), "original": values(5, 7), "bias": values(5)},
    },
    "lora_backward": {
        "plain": lambda: layer(**GRADIENT, mask=mask(4, 7), dropout=0.25),
        "empty": lambda: {**layer(dy=values(0, 5)), "x": values(0, 7)},
    },
    "lora_forward": {
        "plain": lambda: layer(bias=values(5), mask=mask(4, 7), dropout=0.25),
        "empty": lambda: {**layer(), "x": values(2, 0, 7)},
    },
    "lora_init": {"plain": lambda: {"draws": values(3, 7), "d_out": 5, "initialization": "gaussian"}},
    "lora_merge": {"plain": adapter, "safe": lambda: adapter(safe=True)},
    "lora_unmerge": {"plain": adapter},
    "merge_bias": {"plain": lambda: {"bias": values(5), "lora_bias": values(5), "alpha": 6.0, "rank": 3}},
    "merge_into_original": {"plain": lambda: {"original": values(5, 7), "like": rows(), **matrices()}},
    "merge_requantize": {"plain": lambda: {"weight": blocks(), **matrices()},
                         "affine": lambda: {"weight": affine(), **matrices()}},
    "minmax_range": {
        "plain": lambda: {"x": values(6, 10), "granularity": "row"},
        "0-d": lambda: {"x": values()},
        "empty": lambda: {"x": values(0, 3), "granularity": "column"},
    },
    "model_footprint": {"plain": lambda: {"tensors": tensors(), "scheme": "nf4_double"}},
    "moving_range": {
        "plain": lambda: {"previous": (-np.abs(values(4)), np.abs(values(4))),
                          "current": (-np.abs(values(4)), np.abs(values(4))), "weight": 0.25},
    },
    "named_tensors": {"plain": lambda: {"shapes": [("a.weight", (3, 4))]}},
    "outlier_columns": {"plain": lambda: {"x": values(6, 10, scale=4.0), "threshold": 6.0}},
    "pack_4bit": {
        "plain": lambda: {"codes": integers(0, 16, "uint8", 3, 5), "pad_code": 7},
        "0-d": lambda: {"codes": np.array(3, np.uint8)},
        "empty": lambda: {"codes": np.zeros((0, 2), np.uint8)},
    },
    "percentile_range": {
        "plain": lambda: {"x": values(6, 10), "lower": 1.0, "upper": 99.0, "granularity": "column"},
        "0-d": lambda: {"x": values(), "lower": 0.0, "upper": 100.0},
    },
    "qdora_backward": {
        "plain": lambda: weightless(**GRADIENT, magnitude=np.abs(values(5))) | {"weight": double()},
    },
    "qdora_forward": {"plain": lambda: weightless(magnitude=np.abs(values(5)), bias=values(5)) | {"weight": rows()}},
    "qlora_backward": {"plain": lambda: weightless(**GRADIENT) | {"weight": double()}},
    "qlora_forward": {
        "plain": lambda: weightless(bias=values(5)) | {"weight": blocks(), "weight_rounding": "bfloat16"},
        "affine": lambda: weightless() | {"weight": affine()},
    },
    "quantize_absmax": {
        "plain": lambda: {"absmax": np.abs(values(300))},
        "offset": lambda: {"absmax": np.abs(values(300)), "offset": np.float32(0.5)},
        "empty": lambda: {"absmax": values(0)},
    },
    "quantize_affine": {
        "plain": lambda: {"x": values(6, 10), "granularity": "group", "group_size": 7},
        "range": lambda: {"x": values(6, 10), "granularity": "row",
                          "value_range": (-np.abs(values(6)), np.abs(values(6)))},
        "0-d": lambda: {"x": values()},
        "empty": lambda: {"x": values(0, 3), "granularity": "row"},
    },
    "quantize_blockwise": {
        "plain": lambda: {"x": values(6, 10), "block_size": 7},
        "words": lambda: {"x": integers(0, 0x7F80, "uint16", 6, 10), "block_size": 7, "fmt": "bfloat16"},
        "bytes": lambda: {"x": values(6, 10).astype(np.float16), "codebook": "dynamic_signed", "block_size": 16},
        "0-d": lambda: {"x": values()},
        "empty": lambda: {"x": values(0, 3)},
    },
    "quantize_double": {
        "plain": lambda: {"x": values(6, 100), "block_size": 2},
        "0-d": lambda: {"x": values()},
        "empty": lambda: {"x": values(0, 3)},
    },
    "quantize_int8": {
        "plain": lambda: {"x": values(6, 10), "granularity": "row"},
        "block": lambda: {"x": values(6, 10).astype(np.float16), "granularity": "block", "block_size": 7},
        "0-d": lambda: {"x": values()},
        "empty": lambda: {"x": values(0, 3), "granularity": "row"},
    },
    "quantize_like": {"plain": lambda: {"x": values(5, 7), "like": double()},
                      "rows": lambda: {"x": values(5, 7), "like": rows(), "scales": "kept"}},
    "quantize_symmetric": {
        "plain": lambda: {"x": values(6, 10), "clip": np.full(6, 1.5, np.float32), "granularity": "row"},
        "0-d": lambda: {"x": values(), "clip": np.array(1.5, np.float32)},
    },
    "quantized_matmul": {"plain": lambda: {"x": values(4, 7), "weight": double(), "bias": values(5)},
                         "affine": lambda: {"x": values(4, 7), "weight": affine()}},
    "quantized_tensors": {"plain": lambda: {"tensors": tensors()}},
    "relative_error": {"plain": lambda: {"x": values(6, 10), "codebook": "nf4", "block_size": 7}},
    "round_to": {
        "plain": lambda: {"values": values(6, 10), "fmt": "float16", "rounding": "toward_positive"},
        "0-d": lambda: {"values": values(), "fmt": "bfloat16"},
        "empty": lambda: {"values": values(0, 3), "fmt": "bfloat16"},
    },
    "scale_int8_matmul": {
        "plain": lambda: {"acc": integers(-1000, 1000, "int32", 4, 5), "row_absmax": np.abs(values(4)),
                          "column_absmax": np.abs(values(5)), "bias": values(5)},
        "empty": lambda: {"acc": np.zeros((0, 5), np.int32), "row_absmax": values(0),
                          "column_absmax": np.abs(values(5))},
    },
    "scheme_named": {"plain": lambda: {"name": "nf4", "block_size": 32}},
    "select_targets": {"plain": lambda: {"names": ["h.0.q", "h.1.q", "h.1.v"], "targets": ["q"], "layers": [1]},
                       "linear": lambda: {"names": ["a", "b"], "targets": "all-linear", "linear": [True, False]}},
    "state_bytes": {"plain": lambda: {"sizes": [5, 300], "optimizer": "adamw_8bit"}},
    "storage_bytes": {"plain": lambda: {"stored": values(6)}, "empty": lambda: {"stored": values(0)}},
    "storage_view": {"plain": lambda: {"packed": integers(0, 256, "uint8", 8), "storage": "float16"},
                     "empty": lambda: {"packed": np.zeros(0, np.uint8), "storage": "float32"}},
    "stored_bytes": {"plain": lambda: {"quantized": blocks()}, "double": lambda: {"quantized": double()}},
    "symmetric_scale": {"plain": lambda: {"clip": np.abs(values(6)), "qmax": 127},
                        "0-d": lambda: {"clip": np.array(2, np.float32), "qmax": 7}},
    "table_bytes": {"plain": lambda: {"scheme": "nf4"}},
    "tensor_bytes": {"plain": lambda: {"shape": (5, 7), "scheme": "nf4_double"},
                     "0-d": lambda: {"shape": (), "scheme": "affine4"}},
    "trainable_biases": {"plain": lambda: {"biases": mask(6), "adapted": ~mask(6), "bias": "lora_only"}},
    "training_memory": {"plain": lambda: {"tensors": tensors(), "method": "qlora", "rank": 2}},
    "unpack_4bit": {
        "plain": lambda: {"packed": integers(0, 256, "uint8", 8), "size": 15},
        "empty": lambda: {"packed": np.zeros(0, np.uint8), "size": 0},
    },
    "weight_only_backward": {"plain": lambda: {**GRADIENT, "weight": affine()}},
    "weight_only_forward": {"plain": lambda: {"x": values(4, 7), "weight": rows(), "bias": values(5)}},
    "weight_values": {"plain": lambda: {"weight": affine()}, "rows": lambda: {"weight": rows()}},
}  # fmt: skip


def matrices() -> Arguments:
    """The matrices of an adapter."""
    return {"lora_a": values(3, 7), "lora_b": values(5, 3), "alpha": 6.0}


CALLS = [PublicCall(name, variant, make) for name, made in VALID.items() for variant, make in made.items()]
