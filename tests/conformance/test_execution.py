"""Calling an operation: what is returned is fetched, what is touched is noticed, what goes wrong is said."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qloracle_conformance.adapters.reference import backend as reference
from qloracle_conformance.arrays import LAYOUTS, HostArray, host
from qloracle_conformance.execution import Call, InProcess, Outcome, run_call

X = host(np.array([[1.0, -2.0, 4.0], [0.5, 0.25, -8.0]], np.float32))


def outcome_of(
    function: Callable[..., Any], *, repeat: bool = False, layout: str = "contiguous", **options: Any
) -> Outcome:
    """Call `function` as a backend's operation with the input `x`."""
    backend = replace(reference(), ops={"function": function})
    return run_call(backend, Call("function", {"x": X}, options, {"x": layout}, repeat))


def doubled(x: HostArray) -> HostArray:
    return host(x.items * np.float32(2))


def test_the_outputs_of_a_call_are_fetched() -> None:
    outcome = outcome_of(lambda x: (doubled(x), host(np.int32([7]))))
    assert (outcome.failure, outcome.changed_inputs, outcome.unstable) == ("", (), False)
    assert [o.dtype for o in outcome.outputs] == ["float32", "int32"]
    assert outcome.outputs[0].items.tolist() == [[2.0, -4.0, 8.0], [1.0, 0.5, -16.0]]
    assert outcome.outputs[1].items.tolist() == [7]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_input_of_a_call_has_the_layout_that_was_asked_for(layout: str) -> None:
    seen = []
    outcome_of(lambda x: (seen.append(x.items.strides), doubled(x))[1], layout=layout)
    item = {
        "contiguous": (12, 4),
        "offset": (12, 4),
        "strided": (24, 8),
        "transposed": (4, 8),
        "reversed": (12, -4),
        "padded": (24, 4),
        "readonly": (12, 4),
    }
    assert seen == [item[layout]]


def test_options_and_left_out_arrays_reach_the_function() -> None:
    seen: dict[str, Any] = {}

    def function(**arguments: Any) -> HostArray:
        seen.update(arguments)
        return X

    backend = replace(reference(), ops={"function": function})
    run_call(backend, Call("function", {"x": X, "bias": None}, {"block_size": 64}, {}))
    assert (seen["bias"], seen["block_size"]) == (None, 64)


def test_a_call_that_writes_into_a_readonly_input_raises() -> None:
    def function(x: HostArray) -> HostArray:
        x.items[1, 2] = 0
        return X

    outcome = outcome_of(function, layout="readonly")
    assert (outcome.failure, "read-only" in outcome.message) == ("raised", True)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "readonly"])
def test_a_call_that_writes_into_its_input_is_noticed(layout: str) -> None:
    def function(x: HostArray) -> HostArray:
        x.items[1, 2] = 0
        return X

    assert outcome_of(function, layout=layout).changed_inputs == ("x",)


def test_a_change_of_the_sign_of_zero_in_an_input_is_noticed() -> None:
    zeros = host(np.zeros(3, np.float32))

    def function(x: HostArray) -> HostArray:
        x.items[1] = np.float32(-0.0)
        return zeros

    backend = replace(reference(), ops={"function": function})
    assert run_call(backend, Call("function", {"x": zeros}, {}, {})).changed_inputs == ("x",)


def test_a_second_call_with_other_bits_is_noticed_only_where_it_is_asked_for() -> None:
    calls = []

    def function(x: HostArray) -> HostArray:
        calls.append(0)
        return host(x.items + np.float32(len(calls)))

    assert outcome_of(function, repeat=True).unstable
    seen = len(calls)
    assert seen > 2
    assert not outcome_of(function).unstable
    assert len(calls) == seen + 1


def test_an_output_that_depends_on_the_call_before_is_judged_as_such() -> None:
    kept: list[HostArray] = []

    def function(x: HostArray) -> HostArray:
        kept.append(doubled(x))
        return kept[0]

    assert outcome_of(function, repeat=True).outputs[0].items.tolist() != doubled(X).items.tolist()
    assert outcome_of(doubled, repeat=True).outputs[0].items.tolist() == doubled(X).items.tolist()


def test_an_output_that_a_later_call_overwrites_is_unstable() -> None:
    shared = np.zeros(X.shape, np.float32)

    def function(x: HostArray) -> HostArray:
        shared[...] = x.items * np.float32(2)
        return host(shared)

    assert outcome_of(function, repeat=True).unstable
    assert not outcome_of(function).unstable


def test_a_second_call_with_the_same_nan_bits_is_stable() -> None:
    assert not outcome_of(lambda x: host(x.items * np.float32(np.nan)), repeat=True).unstable


def test_a_second_call_that_returns_nothing_is_unstable() -> None:
    calls = []

    def function(x: HostArray) -> HostArray | None:
        calls.append(0)
        return doubled(x) if len(calls) <= 2 else None  # the first call has other contents

    assert outcome_of(function, repeat=True).unstable


def test_an_exception_is_a_failure_with_its_message_in_one_line_and_its_traceback_in_the_details() -> None:
    def function(x: HostArray) -> HostArray:
        raise ValueError("no kernel\n  for this shape")

    outcome = outcome_of(function)
    assert (outcome.failure, outcome.message) == ("raised", "ValueError: no kernel for this shape")
    assert "in function" in outcome.details


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "output 0 cannot be fetched: NoneType, "),
        ([X, X], "output 0 cannot be fetched: list, "),
        ((X, 3.5), "output 1 cannot be fetched: float, "),
        ("x", "output 0 cannot be fetched: str, "),
    ],
)
def test_what_is_no_native_array_is_a_failure_that_names_it(result: Any, message: str) -> None:
    outcome = outcome_of(lambda x: result)
    assert outcome.failure == "output"
    assert outcome.message.startswith(message), outcome.message


def test_an_output_of_a_type_that_no_operation_returns_is_a_failure() -> None:
    backend = replace(
        reference(), ops={"function": lambda: np.zeros(2, np.complex64)}, fetch=lambda a: (a, "complex64")
    )
    outcome = run_call(backend, Call("function", {}, {}, {}))
    assert (outcome.failure, outcome.message) == ("output", "output 0 has type complex64, which no operation returns")


def test_items_that_are_not_stored_as_their_type_are_not_cast_but_refused() -> None:
    backend = replace(reference(), ops={"function": lambda: np.full(2, 1 / 3)}, fetch=lambda a: (a, "float32"))
    outcome = run_call(backend, Call("function", {}, {}, {}))
    assert (outcome.failure, outcome.message) == (
        "output", "output 0 was fetched as float64; float32 is stored as f4",
    )  # fmt: skip


def test_a_function_that_is_not_there_is_a_failure() -> None:
    outcome = InProcess(replace(reference(), ops={})).run(Call("encode", {"x": X}, {}, {}))
    assert (outcome.failure, outcome.message) == ("raised", "KeyError: 'encode'")


def test_what_is_to_be_done_meanwhile_is_done_by_an_executor_in_this_process_too() -> None:
    done: list[int] = []
    executor = InProcess(replace(reference(), ops={"function": doubled}))
    outcome = executor.run(Call("function", {"x": X}, {}, {}), lambda: done.append(0))
    assert (outcome.failure, done) == ("", [0])


def test_an_output_is_a_copy_that_later_calls_cannot_change() -> None:
    shared = np.ones(3, np.float32)
    backend = replace(reference(), ops={"function": lambda: host(shared)})
    outcome = run_call(backend, Call("function", {}, {}, {}))
    shared[...] = 0
    assert outcome.outputs[0].items.tolist() == [1.0, 1.0, 1.0]
