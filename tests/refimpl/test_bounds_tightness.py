"""One number for each bound: its half width over the largest error that a right evaluation is seen to make.

A number below 1 would be an unsound bound. The first is for sums of thousands of terms, all of which round one way,
where the constants of a derivation hardly count; the second for sums of one or two terms, where nothing else does:
there the roundings that are counted rarely all go one way, and more ways are counted than one evaluation can take.
They change only together with a derivation: a looser bound fails, and so does one that is tighter by the margin.
"""

import inspect
import pkgutil
from collections.abc import Callable
from fractions import Fraction
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import qloracle
from qloracle import LoraAdapter, decompose, quantize_blockwise, quantize_int8
from qloracle.bounds import Interval
from qloracle.dora_merging import MergedDora
from qloracle.optim.options import AdamwOptions

from .worst_cases import LAYERS, Worst
from .worst_merges import MERGES
from .worst_products import PRODUCTS
from .worst_steps import STEPS, code_width

MARGIN = Fraction(1, 100)
FACTORS: dict[str, dict[str, float]] = {
    "lora_forward_bound": {"long": 1.002, "short": 1.807},
    "lora_backward_bound[x]": {"long": 1.002, "short": 1.879},
    "lora_backward_bound[lora_a]": {"long": 1.004, "short": 2.518},
    "lora_backward_bound[lora_b]": {"long": 1.004, "short": 3.675},
    "lora_backward_bound[bias]": {"long": 1.001, "short": 1.135},
    "lora_backward_bound[lora_bias]": {"long": 1.003, "short": 2.732},
    "dora_forward_bound": {"long": 13.023, "short": 6.666},
    "dora_backward_bound[x]": {"long": 6.354, "short": 6.788},
    "dora_backward_bound[lora_a]": {"long": 3.029, "short": 27.627},
    "dora_backward_bound[lora_b]": {"long": 3.029, "short": 7.326},
    "dora_backward_bound[magnitude]": {"long": 1.011, "short": 6.854},
    "dora_backward_bound[bias]": {"long": 1.001, "short": 1.135},
    "quantized_matmul_bound": {"long": 1.004, "short": 5.007},
    "weight_only_forward_bound": {"long": 1.004, "short": 1.556},
    "weight_only_backward_bound[x]": {"long": 1.004, "short": 1.489},
    "weight_only_backward_bound[bias]": {"long": 1.001},
    "llm_int8_forward_bound": {"long": 1.002, "short": 1.435},
    "scale_int8_matmul_bound": {"short": 1.32},
    "lora_merge_bound": {"long": 1.001, "short": 2.064},
    "merged_values_bound": {"short": 2.279},
    "merge_bias_bound": {"short": 2.493},
    "merge_cycles_bound": {"short": 4.169},
    "dora_merge_bound[0]": {"long": 1.014, "short": 11.44},
    "dora_merge_bound[1]": {"long": 1.009, "short": 8.029},
    "dora_unmerge_bound": {"short": 2.715},
    "combine_bound": {"long": 1.005, "short": 3.758},
    "concatenate_bound": {"short": 2.843},
    "embedding_lora_forward_bound": {"long": 1.001, "short": 1.414},
    "embedding_lora_backward_bound[lora_a]": {"long": 1.004, "short": 2.52},
    "embedding_lora_backward_bound[lora_b]": {"long": 1.004, "short": 2.553},
    "adamw_moments_bound[0]": {"short": 2.249},
    "adamw_moments_bound[1]": {"short": 2.213},
    "adamw_parameter_bound": {"short": 2.955},
    "clip_by_norm_bound": {"long": 1.007, "short": 2.143},
    "accumulate_gradients_bound": {"long": 1.003, "short": 1.408},
    "absmax_bound": {"short": 2.348},
    "requantize_cycles_bound": {"short": 1.283},
    "code_bound": {"codes": 1.0},
}
CASES: dict[str, dict[str, Callable[[], Worst]]] = {**LAYERS, **PRODUCTS, **MERGES, **STEPS}


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in FACTORS.items() for kind in kinds])
def test_a_bound_is_as_tight_as_committed(name: str, kind: str) -> None:
    committed = Fraction(FACTORS[name][kind])
    measured = code_width() if name == "code_bound" else CASES[name][kind]().factor()
    assert measured <= committed, f"{name}, {kind} sums: {float(measured):.5f} times the largest error, {committed}"
    assert measured >= committed * (1 - MARGIN), (
        f"{name}, {kind} sums: {float(measured):.5f} times the largest error, {float(committed)} are committed: "
        "a tighter bound needs its derivation, and this number"
    )


def test_every_case_is_committed() -> None:
    cases = {(name, kind) for name, kinds in CASES.items() for kind in kinds} | {("code_bound", "codes")}
    assert cases == {(name, kind) for name, kinds in FACTORS.items() for kind in kinds}


ONE = np.ones((1, 1), np.float32)
LAYER, INT8 = (ONE, ONE, ONE, ONE), quantize_int8(ONE, granularity="row")
AROUND = Interval(ONE.astype(float), ONE.astype(float), ONE > 0)
ADAPTERS = ([LoraAdapter(ONE, ONE, alpha=1)], [1.0])
IDS = np.zeros(1, np.int64)
SAMPLES: dict[str, Callable[[Callable[..., Any]], Any]] = {
    "lora_forward_bound": lambda f: f(*LAYER, alpha=1),
    "lora_backward_bound": lambda f: f(ONE, *LAYER, alpha=1),
    "dora_forward_bound": lambda f: f(*LAYER, ONE[0], alpha=1),
    "dora_backward_bound": lambda f: f(ONE, *LAYER, ONE[0], alpha=1),
    "embedding_lora_forward_bound": lambda f: f(IDS, ONE, ONE, ONE, alpha=1),
    "embedding_lora_backward_bound": lambda f: f(ONE, IDS, ONE, ONE, ONE, alpha=1),
    "quantized_matmul_bound": lambda f: f(ONE, INT8),
    "weight_only_forward_bound": lambda f: f(ONE, INT8),
    "weight_only_backward_bound": lambda f: f(ONE, INT8),
    "llm_int8_forward_bound": lambda f: f(ONE, INT8, decompose(ONE, 0.0), ONE),
    "scale_int8_matmul_bound": lambda f: f(ONE.astype(np.int32), ONE[0], ONE[0]),
    "lora_merge_bound": lambda f: f(ONE, ONE, ONE, alpha=1),
    "merge_bias_bound": lambda f: f(ONE[0], ONE[0], alpha=1, rank=1),
    "merge_cycles_bound": lambda f: f(ONE, ONE, ONE, alpha=1, cycles=1),
    "merged_values_bound": lambda f: f(ONE, ONE, ONE, alpha=1, fmt="float32"),
    "absmax_bound": lambda f: f(AROUND, quantize_blockwise(ONE)),
    "code_bound": lambda f: f(AROUND, quantize_blockwise(ONE)),
    "requantize_cycles_bound": lambda f: f(quantize_blockwise(ONE), ONE, ONE, alpha=1, cycles=1),
    "dora_merge_bound": lambda f: f(ONE, ONE, ONE, ONE[0], alpha=1),
    "dora_unmerge_bound": lambda f: f(MergedDora(ONE, ONE[0]), ONE, ONE, ONE[0], alpha=1),
    "combine_bound": lambda f: f(*ADAPTERS),
    "concatenate_bound": lambda f: f(*ADAPTERS),
    "adamw_moments_bound": lambda f: f(ONE, ONE, ONE, AdamwOptions()),
    "adamw_parameter_bound": lambda f: f(ONE, ONE, ONE, AdamwOptions(), step=1),
    "clip_by_norm_bound": lambda f: f([ONE], 1.0),
    "accumulate_gradients_bound": lambda f: f(ONE, np.ones(1, np.int64)),
}


def bounds() -> dict[str, Callable[..., Any]]:
    """Every public function of the reference whose name says that it bounds something."""
    modules = (import_module(m.name) for m in pkgutil.walk_packages(qloracle.__path__, "qloracle."))
    named = [(n, f, m) for m in modules for n, f in inspect.getmembers(m, inspect.isfunction)]
    return {n: f for n, f, m in named if n.endswith("_bound") and not n.startswith("_") and f.__module__ == m.__name__}


def outputs(name: str, result: Any) -> set[str]:
    """The names of the outputs of a bound, found from what it returns."""
    if isinstance(result, dict):
        return {f"{name}[{key}]" for key in result}
    if isinstance(result, tuple) and all(isinstance(part, Interval) for part in result):
        return {f"{name}[{i}]" for i in range(len(result))}
    return {name}


def test_every_output_of_every_bound_has_a_committed_factor() -> None:
    found = bounds()
    assert set(SAMPLES) == set(found), "every bound needs a call that shows its outputs"
    named = set().union(*(outputs(name, SAMPLES[name](function)) for name, function in found.items()))
    assert named == set(FACTORS), f"without a factor: {named - set(FACTORS)}; of no bound: {set(FACTORS) - named}"


def test_no_factor_is_below_one() -> None:
    assert all(factor >= 1 for kinds in FACTORS.values() for factor in kinds.values()), "below 1 a bound is unsound"
