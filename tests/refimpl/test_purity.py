"""Every public function is pure: its result depends on values alone, and its arguments stay as they were."""

import numpy as np
import pytest

from qloracle.errors import QloracleError

from .layouts import LAYOUTS, arrays_in, bits_of, changed
from .public_calls import CALLS, PublicCall

BYTES_ARE_KEPT = {"page_states", "store_state", "fetch_state"}  # they move bytes, whatever these mean


def by_id(call: PublicCall) -> str:
    return call.id


@pytest.mark.parametrize("call", CALLS, ids=by_id)
def test_the_layout_of_the_arguments_changes_no_bit_of_the_result(call: PublicCall) -> None:
    expected = bits_of(call.run(call.arguments()))
    for name, change in LAYOUTS.items():
        arguments = changed(call.arguments(), change)
        try:
            got = bits_of(call.run(arguments))
        except QloracleError:
            # A dtype that the rule names is in the machine's byte order; nothing else may be refused.
            assert name == "byte_swapped", f"{call.id} refuses {name} arrays"
            continue
        if name == "byte_swapped" and call.function in BYTES_ARE_KEPT:
            continue
        assert got == expected, f"{call.id} gives other bits for {name} arrays"


@pytest.mark.parametrize("call", CALLS, ids=by_id)
def test_no_argument_is_modified(call: PublicCall) -> None:
    for name, change in LAYOUTS.items():
        arguments = changed(call.arguments(), change)
        arrays = arrays_in(arguments)
        before = [np.array(array) for array in arrays]
        try:
            call.run(arguments)
        except QloracleError:
            assert name == "byte_swapped", f"{call.id} refuses {name} arrays"
        for array, copy in zip(arrays, before, strict=True):
            assert array.tobytes() == copy.tobytes(), f"{call.id} changes its arguments ({name})"


@pytest.mark.parametrize("call", CALLS, ids=by_id)
def test_a_result_is_not_changed_by_the_next_call(call: PublicCall) -> None:
    first = call.run(call.arguments())
    before = bits_of(first)
    second = call.run(call.arguments())
    assert bits_of(first) == bits_of(second) == before, f"{call.id} keeps something between calls"
