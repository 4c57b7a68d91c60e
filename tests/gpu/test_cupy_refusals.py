"""Bad input to quantizers, adapters and optimizers gives the errors of the reference, message by message."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import qloracle
import qloracle_gpu.cupy as backend
from qloracle_gpu.cupy.launcher import using

from .emulator.building import has_compiler
from .emulator.launching import EmulatedLauncher

pytestmark = pytest.mark.skipif(not has_compiler(), reason="NOT RUN: the emulator needs g++")

ONE, PAIR, MATRIX = np.float32(1), np.ones(2, np.float32), np.ones((4, 3), np.float32)
A, B, ZERO = np.ones((1, 3), np.float32), np.ones((4, 1), np.float32), np.zeros(4, np.float32)
IDS, TABLE = np.array([0, 2]), np.ones((3, 4), np.float32)
NAN = np.array([[1, np.nan, 1]], np.float32)


def scalar(value: float, dtype: str = "float32") -> Any:
    return np.array(value, dtype)


def affine(q: Any, **changes: Any) -> Any:
    return replace(q.quantize_affine(MATRIX, qmin=-8, qmax=7, granularity="row"), **changes)


def dora(q: Any, **changes: Any) -> Any:
    operands = {"x": MATRIX, "weight": MATRIX, "lora_a": A, "lora_b": B, "magnitude": PAIR.repeat(2), "alpha": 1}
    return q.dora_forward(**(operands | changes))


def merged(q: Any, **changes: Any) -> Any:
    return q.lora_merge(**({"weight": MATRIX, "lora_a": A, "lora_b": B, "alpha": 1} | changes))


def states(q: Any) -> Any:
    return q.page_states({"a": {"m": PAIR}, "b": {"m": PAIR}}, 8)


def step(q: Any, **changes: Any) -> Any:
    given = {"p": PAIR, "gradient": PAIR, "state": q.AdamwState(PAIR, PAIR, 0), "options": q.AdamwOptions()}
    return q.adamw_step(**(given | changes))


CALLS: dict[str, Callable[[Any], Any]] = {
    "a range the wrong way round": lambda q: q.affine_parameters(PAIR, 0 * PAIR, qmin=0, qmax=15),
    "a range of float64": lambda q: q.affine_parameters(scalar(0, "float64"), scalar(1), qmin=0, qmax=15),
    "ends of two shapes": lambda q: q.affine_parameters(PAIR, scalar(1), qmin=0, qmax=15),
    "codes of nine bits": lambda q: q.affine_parameters(PAIR, PAIR, qmin=-1, qmax=200),
    "two codes": lambda q: q.quantize_affine(PAIR, qmin=0, qmax=1),
    "codes that are no integers": lambda q: q.quantize_affine(PAIR, qmin=0.5, qmax=15),
    "affine by block": lambda q: q.quantize_affine(PAIR, granularity="block", group_size=2),
    "affine by group without a size": lambda q: q.quantize_affine(PAIR, granularity="group"),
    "affine by row with a size": lambda q: q.quantize_affine(MATRIX, granularity="row", group_size=2),
    "affine by row of a number": lambda q: q.quantize_affine(scalar(1), granularity="row"),
    "affine with half a range": lambda q: q.quantize_affine(PAIR, value_range=(scalar(0),)),
    "affine with a range of another shape": lambda q: q.quantize_affine(PAIR, value_range=(0 * PAIR, PAIR)),
    "affine codes of uint8": lambda q: q.dequantize_affine(affine(q, codes=MATRIX.astype(np.uint8))),
    "affine codes out of range": lambda q: q.dequantize_affine(affine(q, codes=(9 * MATRIX).astype(np.int8))),
    "a zero point out of range": lambda q: q.dequantize_affine(affine(q, zero_point=np.full(4, 8, np.int32))),
    "scales of another shape": lambda q: q.dequantize_affine(affine(q, scale=PAIR)),
    "scales of float64": lambda q: q.dequantize_affine(affine(q, scale=np.ones(4))),
    "affine values of float64": lambda q: q.dequantize_affine(affine(q), dtype="float64"),
    "a negative clipping range": lambda q: q.symmetric_scale(np.float32([1, -2]), qmax=7),
    "a clipping range of float64": lambda q: q.symmetric_scale(np.ones(2), qmax=7),
    "symmetric codes up to 0": lambda q: q.symmetric_scale(PAIR, qmax=0),
    "symmetric codes from 1": lambda q: q.quantize_symmetric(PAIR, clip=scalar(1), qmin=1, qmax=7),
    "clipping ranges of another shape": lambda q: q.quantize_symmetric(PAIR, clip=PAIR),
    "a zero point that is no code": lambda q: q.fake_quantize(PAIR, scalar(1), np.array(99, np.int32), qmin=-8, qmax=7),
    "a gradient of another format": lambda q: q.fake_quantize_backward(
        PAIR.astype(np.float16), PAIR, scalar(1), np.array(0, np.int32)
    ),
    "a gradient of another shape": lambda q: q.fake_quantize_backward(MATRIX, PAIR, scalar(1), np.array(0, np.int32)),
    "an unknown interval": lambda q: q.fake_quantize_backward(
        PAIR, PAIR, scalar(1), np.array(0, np.int32), interval="all"
    ),
    "percentiles the wrong way round": lambda q: q.percentile_range(PAIR, 9, 1),
    "a percentile of 101": lambda q: q.percentile_range(PAIR, 0, 101),
    "a percentile that is a text": lambda q: q.percentile_range(PAIR, "0", 1),
    "a weight of 2": lambda q: q.moving_range((PAIR, PAIR), (PAIR, PAIR), 2),
    "ranges of two shapes": lambda q: q.moving_range((PAIR, PAIR), (scalar(1), scalar(1)), 0.5),
    "a range of one end": lambda q: q.moving_range((PAIR,), (PAIR, PAIR), 0.5),
    "values of a plain weight": lambda q: q.weight_values(MATRIX),
    "values of a quantized vector": lambda q: q.weight_values(q.quantize_int8(PAIR)),
    "activations too wide for a weight": lambda q: q.weight_only_forward(np.ones((1, 5), np.float32), affine(q)),
    "a long bias of a weight": lambda q: q.weight_only_forward(MATRIX, affine(q), bias=PAIR),
    "gradients too wide for a weight": lambda q: q.weight_only_backward(PAIR, affine(q)),
    "INT8 rows of a weight by tensor": lambda q: q.int8_linear_forward(MATRIX, q.quantize_int8(MATRIX)),
    "a magnitude of another length": lambda q: dora(q, magnitude=PAIR),
    "a magnitude of integers": lambda q: dora(q, magnitude=np.ones(4, np.int32)),
    "DoRA with dropout but no mask": lambda q: dora(q, dropout=0.5),
    "DoRA with a weight that is a vector": lambda q: dora(q, weight=PAIR),
    "the norm of a weight that is a vector": lambda q: q.dora_norm(PAIR, A, B, alpha=1),
    "a merge of an adapter too wide": lambda q: merged(q, lora_a=np.ones((1, 5), np.float32)),
    "a merge of a B too short": lambda q: merged(q, lora_b=B[:2]),
    "a merge into float64": lambda q: merged(q, weight=np.ones((4, 3))),
    "a merge that is asked for safety by a number": lambda q: merged(q, safe=1),
    "a merge that is not finite": lambda q: merged(q, lora_a=NAN, safe=True),
    "a merge beyond float16": lambda q: merged(q, weight=MATRIX.astype(np.float16), alpha=1e6, safe=True),
    "a bias that is a matrix": lambda q: q.merge_bias(MATRIX, PAIR, alpha=1, rank=1),
    "biases of two lengths": lambda q: q.merge_bias(PAIR, ZERO, alpha=1, rank=1),
    "a DoRA merge that is none": lambda q: q.dora_unmerge(MATRIX, A, B, ZERO, alpha=1),
    "a magnitude of 0 to be unmerged": lambda q: q.dora_unmerge(
        q.MergedDora(MATRIX, np.float32([0, 1, 1, 1])), A, B, ZERO, alpha=1
    ),
    "norms of another length": lambda q: q.dora_unmerge(q.MergedDora(MATRIX, PAIR), A, B, ZERO + 1, alpha=1),
    "a requantized weight that is none": lambda q: q.merge_requantize(MATRIX, A, B, alpha=1),
    "a requantized vector": lambda q: q.merge_requantize(q.quantize_int8(PAIR), A, B, alpha=1),
    "scales that are neither": lambda q: q.merge_requantize(q.quantize_int8(MATRIX), A, B, alpha=1, scales="old"),
    "an original of another format": lambda q: q.merge_into_original(
        MATRIX.astype(np.float16), q.quantize_blockwise(MATRIX), A, B, alpha=1
    ),
    "quantized like another shape": lambda q: q.quantize_like(PAIR, q.quantize_int8(MATRIX)),
    "quantized like an array": lambda q: q.quantize_like(PAIR, PAIR),
    "draws that are not finite": lambda q: q.lora_init(NAN, 4),
    "draws beyond 1": lambda q: q.lora_init(2 * A, 4),
    "draws of float64": lambda q: q.lora_init(np.ones((1, 3)) / 2, 4),
    "a rank that is too large": lambda q: q.lora_init(MATRIX / 2, 4),
    "a standard deviation for kaiming": lambda q: q.lora_init(A / 2, 4, std=0.5),
    "a standard deviation of 0": lambda q: q.lora_init(A / 2, 4, initialization="gaussian", std=0),
    "an initialization that is none": lambda q: q.lora_init(A / 2, 4, initialization="zeros"),
    "an embedding of no rows": lambda q: q.embedding_init(B / 2, 0),
    "an index beyond the table": lambda q: q.embedding_lora_forward(IDS + 1, TABLE, A, B, alpha=1),
    "a negative index": lambda q: q.embedding_lora_forward(-IDS, TABLE, A, B, alpha=1),
    "indices that are numbers": lambda q: q.embedding_lora_forward(PAIR, TABLE, A, B, alpha=1),
    "a table that is a vector": lambda q: q.embedding_lora_forward(IDS, PAIR, A, B, alpha=1),
    "a gradient of another width": lambda q: q.embedding_lora_backward(MATRIX, IDS, TABLE, A, B, alpha=1),
    "no adapter": lambda q: q.combine_adapters([], []),
    "an adapter without a weight": lambda q: q.combine_adapters([q.LoraAdapter(A, B, 1.0)], []),
    "an infinite weight": lambda q: q.combine_adapters([q.LoraAdapter(A, B, 1.0)], [np.inf]),
    "adapters of two layers": lambda q: q.combine_adapters(
        [q.LoraAdapter(A, B, 1.0), q.LoraAdapter(A, B[:2], 1.0)], [1, 1]
    ),
    "an adapter that is an array": lambda q: q.combine_adapters([A], [1]),
    "a format too narrow for B": lambda q: q.concatenate_adapters(
        [q.LoraAdapter(A, B + np.float32(2**-20), 1.0)], [1], fmt="float16"
    ),
    "a norm of 0": lambda q: q.clip_by_norm([PAIR], 0),
    "gradients that are one array": lambda q: q.clip_by_norm(PAIR, 1),
    "gradients of float64": lambda q: q.clip_by_norm([np.ones(2)], 1),
    "counts that are numbers": lambda q: q.accumulate_gradients(MATRIX, ZERO),
    "counts below 0": lambda q: q.accumulate_gradients(MATRIX, np.array([1, -1, 2, 0])),
    "counts of 0": lambda q: q.accumulate_gradients(MATRIX, np.zeros(4, np.int64)),
    "too few counts": lambda q: q.accumulate_gradients(MATRIX, np.ones(3, np.int64)),
    "an unknown reduction": lambda q: q.accumulate_gradients(MATRIX, np.ones(4, np.int64), reduction="max"),
    "a step of another shape": lambda q: step(q, gradient=MATRIX),
    "moments of another shape": lambda q: q.adamw_moments(PAIR, MATRIX, MATRIX, q.AdamwOptions()),
    "moments of float64": lambda q: q.adamw_parameter(PAIR, np.ones(2), PAIR, q.AdamwOptions(), step=1),
    "a step number of 0": lambda q: q.adamw_parameter(PAIR, PAIR, PAIR, q.AdamwOptions(), step=0),
    "options that are none": lambda q: q.adamw_moments(PAIR, PAIR, PAIR, {}),
    "a budget below a state": lambda q: q.page_plan({"a": 5}, 4),
    "a negative size": lambda q: q.page_plan({"a": -1}, 4),
    "a plan for a list": lambda q: q.page_plan([1], 4),
    "a state that is not there": lambda q: q.fetch_state(states(q), "c"),
    "a state that is not on the device": lambda q: q.store_state(states(q), "a", {"m": PAIR}),
    "a state of another dtype": lambda q: q.store_state(
        q.fetch_state(states(q), "a")[0], "a", {"m": PAIR.astype(np.float16)}
    ),
    "a buffer of another size": lambda q: q.page_states({"a": {"m": PAIR}}, 8, {"a": np.empty(7, np.uint8)}),
    "a buffer of another dtype": lambda q: q.page_states({"a": {"m": PAIR}}, 8, {"a": np.empty(8, np.int8)}),
    "arrays of no state": lambda q: q.state_from_arrays({"m": PAIR}),
    "a state that is a mapping": lambda q: q.state_arrays({"m": PAIR}),
    "a step that is no number": lambda q: q.state_from_arrays({"m": PAIR, "v": PAIR, "step": np.ones(1, np.int64)}),
}


@pytest.fixture
def emulator() -> Iterator[EmulatedLauncher]:
    launcher = EmulatedLauncher()
    with using(launcher):
        yield launcher


@pytest.mark.parametrize("name", CALLS)
def test_a_bad_argument_gives_the_message_of_the_reference(name: str, emulator: EmulatedLauncher) -> None:
    messages = []
    for module in (qloracle, backend):
        with np.errstate(all="ignore"), pytest.raises(qloracle.errors.QloracleError) as caught:
            CALLS[name](module)
        messages.append(f"{caught.type.__name__}: {caught.value}")
    assert messages[1] == messages[0]
