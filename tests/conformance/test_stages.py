"""Stage by stage: one fault shows as one failing stage, and every judge bears any output."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qloracle.affine import quantize_affine
from qloracle.tracking.interval import Interval
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.adapters.reference import backend as reference
from qloracle_conformance.arrays import STORAGE, HostArray, host
from qloracle_conformance.execution import InProcess, Outcome, run_call
from qloracle_conformance.operations.requantizing import affine_stages
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.run import judge_case, run_task
from qloracle_conformance.tally import Tally
from qloracle_conformance.task import call_of
from qloracle_conformance.verdicts import PropertyResult, TaskState, verdicts

from .claims import case_of, each, task_of

Op = Callable[..., Any]


def verdicts_of(operation: str, family: str, function: Op, **restricted: Any) -> dict[str, PropertyResult]:
    """The verdicts by stage on a backend with one replaced function."""
    executor = InProcess(replace(reference(), ops={**OPS, OPERATIONS[operation].function: function}))
    results = run_task(executor, task_of(operation, family, cases=6, **restricted))
    return {r.stage: r for r in results if r.stage not in ("inputs", "repeat")}


def statuses(results: dict[str, PropertyResult]) -> dict[str, str]:
    return {stage: result.status for stage, result in results.items()}


def changing(name: str, output: int, change: Callable[[HostArray], HostArray]) -> Op:
    """The reference's function with one of its outputs changed afterwards."""

    def function(*args: Any, **options: Any) -> Any:
        outputs = list(OPS[name](*args, **options))
        outputs[output] = change(outputs[output])
        return tuple(outputs)

    return function


def doubled_first(array: HostArray) -> HostArray:
    items = array.items.copy()
    items.reshape(-1)[:1] *= 2
    return HostArray(items, array.dtype)


def test_a_wrong_absmax_blocks_the_codes_of_its_block_and_of_no_other() -> None:
    results = verdicts_of(
        "nf4.quantize", "normal", changing("quantize_blockwise", 1, doubled_first), block_sizes=(64,)
    )  # fmt: skip
    assert statuses(results) == {"absmax": "differs", "packing": "blocked", "codes": "blocked"}
    assert results["absmax"].tally.failing == 6
    assert results["packing"].tally.blocked == 6 * 32
    assert results["codes"].tally.blocked == 6 * 64


def test_codes_of_a_wrong_absmax_are_judged_where_the_absmax_is_claimed_to_be_loose() -> None:
    def function(x: HostArray, *, codebook: str, block_size: int) -> Any:
        data, absmax = OPS["quantize_blockwise"](x, codebook=codebook, block_size=block_size)
        codes = data.items.copy()
        codes[-1:] ^= 0x10
        return host(codes), absmax

    results = verdicts_of("nf4.quantize", "normal", function)
    assert statuses(results) == {"absmax": "pass", "packing": "pass", "codes": "differs"}
    assert results["codes"].message.startswith("element "), results["codes"].message


def test_swapped_nibbles_are_a_fault_of_the_packing_and_not_of_the_codes() -> None:
    def swapped(data: HostArray) -> HostArray:
        return host(((data.items << 4) | (data.items >> 4)).astype(np.uint8))

    results = verdicts_of("nf4.quantize", "normal", changing("quantize_blockwise", 0, swapped))
    assert statuses(results) == {"absmax": "pass", "packing": "differs", "codes": "pass"}
    assert "the first code in the low nibble" in results["packing"].message


def test_a_wrong_pad_nibble_is_a_fault_of_the_packing() -> None:
    def unpadded(x: HostArray, **options: Any) -> Any:
        data, absmax = OPS["quantize_blockwise"](x, **options)
        items = data.items.copy()
        if x.items.size % 2:
            items[-1] &= 0xF0
        return host(items), absmax

    results = verdicts_of("nf4.quantize", "shapes", unpadded)
    assert results["packing"].status == "differs"
    assert "the low nibble after the last code must be 7" in results["packing"].message
    assert results["codes"].status == "pass"


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (2, {"offset": "differs", "nested_absmax": "blocked", "nested_codes": "blocked"}),
        (1, {"offset": "pass", "nested_absmax": "differs", "nested_codes": "blocked"}),
    ],
)
def test_a_wrong_offset_or_nested_absmax_blocks_what_follows(output: int, expected: dict[str, str]) -> None:
    results = verdicts_of("absmax.quantize", "normal", changing("quantize_absmax", output, doubled_first))
    assert statuses(results) == expected


def test_nested_codes_are_judged_given_an_offset_that_keeps_its_looser_claim() -> None:
    def neighbour(absmax: HostArray, **options: Any) -> Any:
        from qloracle.mean_offset import mean_offset
        from qloracle.nested_absmax import quantize_absmax

        exact = mean_offset(absmax.items)
        nested = quantize_absmax(absmax.items, **options, offset=np.nextafter(exact, np.float32(np.inf)))
        return host(nested.codes), host(nested.absmax), host(np.asarray(nested.offset))

    levels = {"offset": "bound", "nested_absmax": "exact", "nested_codes": "exact"}
    results = verdicts_of("absmax.quantize", "normal", neighbour, levels=levels)
    assert statuses(results) == {"offset": "pass", "nested_absmax": "pass", "nested_codes": "pass"}
    assert results["offset"].tally.attained in ("tie", "bound")


def test_a_wrong_shape_of_the_values_fails_the_shape_and_not_the_values() -> None:
    def flattened(*args: Any, **options: Any) -> Any:
        values = OPS["dequantize_blockwise"](*args, **options)
        return HostArray(values.items.reshape(-1), values.dtype)

    results = verdicts_of("nf4.dequantize", "ramps", flattened, ndims=(2,))
    assert statuses(results) == {"unpacking": "pass", "values": "pass", "shape": "differs"}
    assert "the original had shape (33, 130), got (4290,)" in results["shape"].message


def test_a_wrong_int8_absmax_of_a_row_blocks_the_codes_of_that_row() -> None:
    results = verdicts_of(
        "int8_row.quantize", "normal", changing("quantize_int8", 1, doubled_first), ndims=(2,), dtypes=("float32",)
    )  # fmt: skip
    assert statuses(results) == {"absmax": "differs", "codes": "blocked"}
    lengths = [
        case_of("int8_row.quantize", "normal", i, ndims=(2,), dtypes=("float32",)).array("x").shape[1] for i in range(6)
    ]
    assert results["codes"].tally.blocked == sum(lengths)


@pytest.mark.parametrize(
    ("change", "causes"),
    [
        ({"alpha": 2.0}, {"the scale is applied twice", "alpha is used instead of alpha/r"}),
        ({"alpha": 0.0}, {"the adapter is missing"}),
        ({"bias": None}, {"the bias is missing"}),
        ({"mask": None, "dropout": 0.0}, {"the dropout mask is ignored"}),
    ],
)
def test_a_layer_that_leaves_something_out_is_caught_and_the_mistake_is_named(
    change: dict[str, Any], causes: set[str]
) -> None:
    def function(**arguments: Any) -> Any:
        wrong = {k: arguments["alpha"] * v if k == "alpha" else v for k, v in change.items()}
        return OPS["lora_forward"](**{**arguments, **wrong})

    executor = InProcess(replace(reference(), ops={**OPS, "lora_forward": function}))
    results = run_task(executor, task_of("lora.forward", "small_lattice", cases=24))
    named = {r.tally.finding.cause for r in results if r.tally.finding is not None}
    assert named & causes, f"named causes: {named}"


def garbage(outcome: Outcome, kind: str) -> Iterator[tuple[HostArray, ...]]:
    """Outputs of the right types and shapes with any contents; of wrong types, wrong shapes, and too few."""
    random = np.random.Generator(np.random.Philox(1))
    outputs = outcome.outputs
    if kind == "random":
        yield tuple(_with_bytes(o, random.integers(0, 256, o.items.nbytes, np.uint8)) for o in outputs)
    elif kind == "ones":
        yield tuple(_with_bytes(o, np.full(o.items.nbytes, 0xFF, np.uint8)) for o in outputs)
    elif kind == "zeros":
        yield tuple(_with_bytes(o, np.zeros(o.items.nbytes, np.uint8)) for o in outputs)
    for index in range(len(outputs)):
        for wrong in _wrong(outputs[index], kind):
            yield (*outputs[:index], wrong, *outputs[index + 1 :])
        if kind == "few":
            yield outputs[:index]


def _with_bytes(array: HostArray, content: np.ndarray[Any, Any]) -> HostArray:
    return HostArray(content.view(STORAGE[array.dtype]).reshape(array.shape), array.dtype)


def _wrong(array: HostArray, kind: str) -> Iterator[HostArray]:
    if kind == "types":
        for dtype in ("float64", "int32", "bool", "uint8", "float16"):
            if dtype != array.dtype:
                yield HostArray(np.zeros(array.shape, STORAGE[dtype]), dtype)
    if kind == "shapes":
        for shape in ((), (0,), (array.items.size + 1,), (*array.shape, 1), (1, *array.shape)):
            if shape != array.shape:
                yield HostArray(np.zeros(shape, STORAGE[array.dtype]), array.dtype)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["random", "ones", "zeros", "types", "shapes", "few"])
@pytest.mark.parametrize("operation", each())
def test_every_judge_bears_any_output_and_lets_none_of_them_pass(operation: str, kind: str) -> None:
    families = [f for f in OPERATIONS[operation].families if f not in ("wide_lattice", "extents", "tiles", "sweep")]
    for family in families if kind in ("random", "ones", "zeros") else families[:1]:
        task = task_of(operation, family)
        case = case_of(operation, family, 1)
        outcome = run_call(reference(), call_of(case, task.operation))
        for outputs in garbage(outcome, kind):
            if sum(o.items.size for o in outcome.outputs) == 0 and kind in ("random", "ones", "zeros"):
                continue  # nothing in it that could be wrong
            state = TaskState({stage: Tally() for stage in task.operation.stages_of(family)})
            executor = _Answer(replace(outcome, outputs=outputs))
            kept = judge_case(executor, task, case, state).kept
            found = {r.stage: r.status for r in verdicts(task, state, 0.0)}
            if kind not in ("zeros", "ones"):  # zeros, and NaN, are the right answer to many a call
                assert not kept, f"{operation}.{family}, {kind}: passed: {found}"


class _Answer(InProcess):
    """An executor that gives one prepared outcome."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(reference())
        self.outcome = outcome

    def run(self, call: Any, meanwhile: Callable[[], None] | None = None) -> Outcome:
        if meanwhile is not None:
            meanwhile()
        return self.outcome


@pytest.mark.parametrize("value", [1.0, 1.5, 2.0, -1.0, -2.0])
def test_a_scale_may_come_from_any_number_that_a_merged_weight_may_be(value: float) -> None:
    ends = sorted((np.copysign(1.0, value), np.copysign(2.0, value)))
    between = Interval(np.full((1, 1), ends[0]), np.full((1, 1), ends[1]), np.ones((1, 1), np.bool_))
    merged = quantize_affine(np.full((1, 1), value, np.float32), granularity="group", group_size=1)
    outputs = tuple(map(host, (merged.codes, merged.scale, merged.zero_point)))
    assert all(result.failing("bound").sum() == 0 for result in affine_stages(merged, between, outputs))
