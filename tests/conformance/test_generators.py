"""The generators: deterministic, and never beyond what a claim admits."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from qloracle_conformance.arrays import LAYOUTS, HostArray
from qloracle_conformance.generators.case import Case
from qloracle_conformance.operations.operation import INPUTS, REPEAT
from qloracle_conformance.registry import OPERATIONS

from .claims import case_of, cases_of, each, same_bits

SOME = 13  # as many as the longest list of options but for lengths
# Arrays whose type the operation fixes, whatever the claim says of weights and activations.
FIXED_TYPES = {
    "stored", "absmax", "nested_absmax", "offset", "row_absmax", "column_absmax", "values", "bits", "draws", "norms",
    "scale", "m", "v", "lo", "hi", "clip", "previous_lo", "previous_hi", "current_lo", "current_hi", "absmax_m",
    "absmax_v",
}  # fmt: skip
# The array that `ndims` of a claim speaks of; operations that are not listed fix its number of axes.
MAIN_INPUT = {
    "encode": "values",
    "decode": "bits",
    "block_absmax": "x",
    "pack_4bit": "codes",
    "storage_view": "packed",
    "quantize_blockwise": "x",
    "quantize_double": "x",
    "quantize_int8": "x",
    "dequantize_int8": "codes",
    "int8_matmul": "a",
    "lora_forward": "x",
    "lora_backward": "x",
    "qlora_forward": "x",
    "qlora_backward": "x",
    **{
        f"{kind}_{way}": "x"
        for kind in ("qlora_double", "qlora_int8", "qlora_affine", "dora", "qdora")
        for way in ("forward", "backward")
    },
    "quantized_matmul": "x",
    "double_quantized_matmul": "x",
    "embedding_lora_forward": "ids",
    "embedding_lora_backward": "ids",
}
SHAPED = ("dequantize_blockwise", "dequantize_double")  # its shape is an option
# Functions whose main input has a fixed number of axes, and its name: one axis, and two.
FLAT = {
    "unpack_4bit": "packed",
    "storage_bytes": "stored",
    "quantize_absmax": "absmax",
    "dequantize_absmax": "absmax_codes",
}
MATRIX = {"scale_int8_matmul": "acc"}
# What shows a table, or counts bits and the tensors of a configuration, has no array among its inputs.
TABLES = {name for name, op in OPERATIONS.items() if op.function in ("codebook_entries", "codebook_midpoints")}
PLAIN = ("bits_per_weight", "config_tensors")
# Gradients that are not finite go through the function of adamw.step, whose own families try layouts and second calls.
OF_ANOTHER = {"adamw.nonfinite": "adamw.step"}
WITH_ARRAYS = [
    name
    for name, op in OPERATIONS.items()
    if name not in TABLES and op.function not in PLAIN and name not in OF_ANOTHER
]
LARGE = {"wide_lattice", "extents", "tiles", "sweep", "ties"}  # families whose cases take long to generate
NEVER_EMPTY = {"footprint.tensor"}  # its input is the shape of a tensor
ALWAYS_THE_SAME = {("int8.matmul", "ramps")}  # one fixed pair of matrices


def main_shape(case: Case) -> tuple[int, ...]:
    """The shape of the array that `ndims` of a claim speaks of."""
    function = OPERATIONS[case.operation].function
    if function in SHAPED:
        shape: tuple[int, ...] = case.options["shape"]
        return shape
    return case.array(MAIN_INPUT[function]).shape


def tensors(case: Case) -> dict[str, HostArray]:
    """The floating-point weights and activations among the inputs."""
    floats = {name: a for name, a in case.inputs.items() if a is not None and a.is_float}
    return {name: a for name, a in floats.items() if name not in FIXED_TYPES}


def generated(operation: str, count: int, **restricted: Any) -> Iterator[tuple[str, Case]]:
    """Cases of every family of an operation, each with the family's name; few of those that are large."""
    for family in OPERATIONS[operation].families:
        number = min(count, 2) if family in LARGE else count
        for index, case in enumerate(cases_of(operation, family, number, **restricted)):
            yield f"{operation}.{family}, case {index}", case


@pytest.mark.parametrize("operation", each())
def test_a_case_is_the_same_whatever_was_generated_before(operation: str) -> None:
    forwards = dict(generated(operation, 3))
    for family in reversed(OPERATIONS[operation].families):
        for index in reversed(range(2)):
            name = f"{operation}.{family}, case {index}"
            assert same_bits(forwards[name], case_of(operation, family, index)), f"{name} depends on what came before"


@pytest.mark.parametrize("operation", each())
def test_another_index_and_another_seed_give_other_cases(operation: str) -> None:
    for family in OPERATIONS[operation].families:
        if (operation, family) in ALWAYS_THE_SAME or operation in TABLES:
            continue
        first = case_of(operation, family)
        indices = (case_of(operation, family, index) for index in range(1, 7))
        assert not all(same_bits(first, case) for case in indices), f"{operation}.{family}: seven indices give one case"
        seeds = (case_of(operation, family, 0, seed) for seed in range(1, 7))
        assert not all(same_bits(first, case) for case in seeds), f"{operation}.{family}: seven seeds give one case"


@pytest.mark.parametrize("operation", each())
def test_a_case_is_a_call_of_its_own_operation(operation: str) -> None:
    for name, case in generated(operation, SOME):
        assert case.operation == operation, name
        assert case.repeat == (".memory," in name), name
        assert set(case.layouts) <= set(case.inputs), name


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("operation", each(name for name, op in OPERATIONS.items() if "float32" in op.dtypes))
def test_weights_and_activations_have_the_claimed_type(operation: str, dtype: str) -> None:
    for name, case in generated(operation, 2, dtypes=(dtype,), out_dtypes=(dtype,)):
        found = {n: a.dtype for n, a in tensors(case).items()}
        assert set(found.values()) <= {dtype}, f"{name}: claimed {dtype}, generated {found}"
        assert case.options.get("dtype", dtype) == dtype, f"{name}: claimed {dtype}, asked for {case.options['dtype']}"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_stochastic_rounding_of_parameters_has_the_claimed_type(dtype: str) -> None:
    for name, case in generated("adamw.stochastic", 2, dtypes=(dtype, "float32")):
        assert case.array("p").dtype == case.array("gradient").dtype == dtype, name


@pytest.mark.parametrize("block_size", [7, 4096])
@pytest.mark.parametrize("operation", each())
def test_blocks_have_the_claimed_size(operation: str, block_size: int) -> None:
    for name, case in generated(operation, 2, block_sizes=(block_size,)):
        assert case.options.get("block_size") in (None, block_size), name


@pytest.mark.parametrize("ndims", [(1,), (2,), (3,), (1, 4)], ids=str)
@pytest.mark.parametrize(
    "operation",
    each(n for n, op in OPERATIONS.items() if op.function in {*MAIN_INPUT, *SHAPED}),
)
def test_the_main_input_has_a_claimed_number_of_axes(operation: str, ndims: tuple[int, ...]) -> None:
    for name, case in generated(operation, 2, ndims=ndims):
        found = len(main_shape(case))
        assert found in ndims, f"{name}: claimed {ndims} axes, generated {found}"


@pytest.mark.parametrize("operation", each(n for n, op in OPERATIONS.items() if op.function in FLAT | MATRIX.keys()))
def test_operations_that_fix_the_number_of_axes_do_so(operation: str) -> None:
    function = OPERATIONS[operation].function
    main, axes = (FLAT[function], 1) if function in FLAT else (MATRIX[function], 2)
    for name, case in generated(operation, SOME):
        assert case.array(main).items.ndim == axes, name


@pytest.mark.parametrize("operation", each())
def test_no_empty_array_is_generated_where_none_is_claimed(operation: str) -> None:
    shapes = cases_of(operation, "shapes", 40, empty=False) if "shapes" in OPERATIONS[operation].families else []
    for name, case in [*((f"{operation}.shapes", case) for case in shapes), *generated(operation, 3, empty=False)]:
        empty = [n for n, a in case.inputs.items() if a is not None and a.items.size == 0]
        assert not empty, f"{name}: {', '.join(empty)} without elements"
        assert 0 not in case.options.get("shape", (1,)), name
        assert case.options.get("size", 1) > 0, name


@pytest.mark.parametrize(
    "operation", each(n for n, op in OPERATIONS.items() if "shapes" in op.families and n not in NEVER_EMPTY)
)
def test_empty_arrays_are_generated_where_they_are_claimed(operation: str) -> None:
    def is_empty(case: Case) -> bool:
        sizes = [a.items.size for a in case.inputs.values() if a is not None]
        return 0 in sizes or 0 in case.options.get("shape", (1,))

    assert any(map(is_empty, cases_of(operation, "shapes", 40))), f"{operation}: no empty case among 40"


@pytest.mark.slow
@pytest.mark.parametrize("operation", each())
def test_no_feature_is_used_that_is_not_claimed(operation: str) -> None:
    for name, case in generated(operation, 12, features=()):
        assert case.inputs.get("bias") is None, name
        assert case.inputs.get("mask") is None, name
        assert case.options.get("dropout", 0.0) == 0.0, name
        assert not case.options.get("rank_stabilized", False), name
        assert operation != "int8.matmul" or -128 not in case.array("a").items, name


@pytest.mark.parametrize("feature", ["bias", "dropout", "rank_stabilized"])
def test_a_claimed_feature_is_used(feature: str) -> None:
    used: dict[str, Any] = {
        "bias": lambda case: case.inputs.get("bias") is not None,
        "dropout": lambda case: case.inputs.get("mask") is not None and case.options["dropout"] > 0,
        "rank_stabilized": lambda case: case.options["rank_stabilized"],
    }
    cases = list(cases_of("lora.forward", "small_lattice", 24, features=(feature,)))
    assert any(used[feature](case) for case in cases)


@pytest.mark.parametrize("operation", each())
def test_inputs_have_a_claimed_layout(operation: str) -> None:
    for layout in LAYOUTS:
        for name, case in generated(operation, 1, layouts=(layout,)):
            assert set(case.layouts.values()) <= {layout, "contiguous"}, name


@pytest.mark.parametrize("operation", each(WITH_ARRAYS))
def test_the_family_memory_uses_every_claimed_layout(operation: str) -> None:
    used = {layout for case in cases_of(operation, "memory", 4 * len(LAYOUTS)) for layout in case.layouts.values()}
    assert used == set(LAYOUTS), f"{operation}: its cases have only the layouts {sorted(used)}"


@pytest.mark.parametrize("operation", each(WITH_ARRAYS))
def test_every_operation_is_tried_in_every_layout_and_called_twice(operation: str) -> None:
    assert {INPUTS, REPEAT} <= set(OPERATIONS[operation].stages_of("memory"))
    assert "memory" in OPERATIONS[operation].families


@pytest.mark.parametrize(("operation", "tried"), OF_ANOTHER.items())
def test_what_is_tried_by_another_operation_is_the_same_function(operation: str, tried: str) -> None:
    assert OPERATIONS[operation].function == OPERATIONS[tried].function
    assert "memory" in OPERATIONS[tried].families


@pytest.mark.parametrize("operation", each(n for n in OPERATIONS if "quantize" in n and "absmax" not in n))
def test_quantizers_see_every_claimed_type_and_block_size(operation: str) -> None:
    cases = [case for family in OPERATIONS[operation].families for case in cases_of(operation, family, 24)]
    formats = {case.options.get("dtype") or case.array("x").dtype for case in cases}
    assert formats == {"float32", "float16", "bfloat16"}
    if cases[0].options.get("block_size") is not None:
        sizes = {case.options["block_size"] for case in cases}
        assert sizes == {1, 2, 7, 32, 64, 100, 128, 256, 1024, 4096}


def test_sweeps_cover_every_high_half_of_float32() -> None:
    for fmt in ("bfloat16", "float16"):
        words = np.concatenate([case.array("values").words() for case in cases_of(f"{fmt}.encode", "sweep", 16)])
        assert np.array_equal(np.unique(words >> 16), np.arange(1 << 16)), f"{fmt}: a high half is missing"


@pytest.mark.parametrize("fmt", ["bfloat16", "float16"])
def test_decoding_covers_every_word(fmt: str) -> None:
    words = case_of(f"{fmt}.decode", "words").array("bits").words()
    assert np.array_equal(np.sort(words), np.arange(1 << 16))
