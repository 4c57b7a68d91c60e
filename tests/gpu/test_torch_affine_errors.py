"""Bad arguments of the affine family give the error of the reference, before any work: its type and its argument."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import qloracle_gpu.torch as backend
from qloracle.errors import QloracleError

from .test_torch_errors import REFERENCE, TORCH, Side, error_of


def affine(s: Side, **changes: Any) -> Any:
    """A record by row, some of its fields changed."""
    return replace(s.quantize_affine(s.ones(4, 3), qmin=-8, qmax=7, granularity="row"), **changes)


def integers(s: Side, *values: int, dtype: str = "int32") -> Any:
    return s.make(np.array(values, dtype))


def fake(s: Side, **changes: Any) -> dict[str, Any]:
    given = {"x": s.ones(2, 3), "scale": s.ones(2), "zero_point": integers(s, 0, 0), "granularity": "row"}
    return given | changes


CALLS: dict[str, Callable[[Side], Any]] = {
    "float64": lambda s: s.quantize_affine(s.ones(2, dtype="float64")),
    "a list": lambda s: s.quantize_affine([1.0]),
    "an unknown granularity": lambda s: s.quantize_affine(s.ones(2), granularity="block"),
    "groups without a size": lambda s: s.quantize_affine(s.ones(2), granularity="group"),
    "groups of zero": lambda s: s.quantize_affine(s.ones(2), granularity="group", group_size=0),
    "rows with a group size": lambda s: s.quantize_affine(s.ones(2, 2), granularity="row", group_size=2),
    "rows of a scalar": lambda s: s.quantize_affine(s.ones(), granularity="row"),
    "codes of 9 bits": lambda s: s.quantize_affine(s.ones(2), qmin=-129, qmax=127),
    "unsigned codes of 9 bits": lambda s: s.quantize_affine(s.ones(2), qmin=0, qmax=256),
    "signed codes beyond int8": lambda s: s.quantize_affine(s.ones(2), qmin=-1, qmax=128),
    "two codes": lambda s: s.quantize_affine(s.ones(2), qmin=0, qmax=1),
    "codes that are no integers": lambda s: s.quantize_affine(s.ones(2), qmin=0.0, qmax=15),
    "codes that are booleans": lambda s: s.quantize_affine(s.ones(2), qmin=False, qmax=15),
    "a range of one end": lambda s: s.quantize_affine(s.ones(2), value_range=(s.ones(),)),
    "a range of float64": lambda s: s.quantize_affine(s.ones(2), value_range=(s.ones(dtype="float64"), s.ones())),
    "a range of another shape": lambda s: s.quantize_affine(s.ones(2), value_range=(s.ones(3), s.ones(3))),
    "a range whose ends differ": lambda s: s.affine_parameters(s.ones(2), s.ones(3), qmin=0, qmax=15),
    "a range the wrong way round": lambda s: s.affine_parameters(2 * s.ones(2), s.ones(2), qmin=0, qmax=15),
    "a negative clipping range": lambda s: s.symmetric_scale(-s.ones(2), qmax=7),
    "a clipping range of integers": lambda s: s.symmetric_scale(integers(s, 1), qmax=7),
    "symmetric codes up to 0": lambda s: s.symmetric_scale(s.ones(2), qmax=0),
    "symmetric codes up to 256": lambda s: s.symmetric_scale(s.ones(2), qmax=256),
    "symmetric codes without 0": lambda s: s.quantize_symmetric(s.ones(2), clip=s.ones(), qmin=1, qmax=7),
    "a clipping range of another shape": lambda s: s.quantize_symmetric(s.ones(2), clip=s.ones(2)),
    "a plain tensor to restore": lambda s: s.dequantize_affine(s.ones(2)),
    "values of float64": lambda s: s.dequantize_affine(affine(s), dtype="float64"),
    "codes of uint8 that are signed": lambda s: s.dequantize_affine(affine(s, codes=s.ones(4, 3, dtype="uint8"))),
    "a code above qmax": lambda s: s.dequantize_affine(affine(s, codes=8 * s.ones(4, 3, dtype="int8"))),
    "a code below qmin": lambda s: s.dequantize_affine(affine(s, codes=-9 * s.ones(4, 3, dtype="int8"))),
    "a scale of another shape": lambda s: s.dequantize_affine(affine(s, scale=s.ones(3))),
    "a scale of float64": lambda s: s.dequantize_affine(affine(s, scale=s.ones(4, dtype="float64"))),
    "zero points of int64": lambda s: s.dequantize_affine(affine(s, zero_point=s.ones(4, dtype="int64"))),
    "a zero point above qmax": lambda s: s.dequantize_affine(affine(s, zero_point=8 * s.ones(4, dtype="int32"))),
    "tampered limits": lambda s: s.dequantize_affine(affine(s, qmax=300)),
    "a tampered granularity": lambda s: s.dequantize_affine(affine(s, granularity="column")),
    "the range of integers": lambda s: s.minmax_range(integers(s, 1, 2)),
    "a percentile of 101": lambda s: s.percentile_range(s.ones(2), 0, 101),
    "percentiles the wrong way round": lambda s: s.percentile_range(s.ones(2), 60, 40),
    "a percentile that is NaN": lambda s: s.percentile_range(s.ones(2), float("nan"), 40),
    "a percentile that is a text": lambda s: s.percentile_range(s.ones(2), "1", 40),
    "a weight of 2": lambda s: s.moving_range((s.ones(), s.ones()), (s.ones(), s.ones()), 2),
    "a moving range of another shape": lambda s: s.moving_range((s.ones(), s.ones()), (s.ones(2), s.ones()), 0.5),
    "a moving range of float64": lambda s: s.moving_range(
        (s.ones(), s.ones()), (s.ones(), s.ones(dtype="float64")), 0.5
    ),
    "fake quantization of float64": lambda s: s.fake_quantize(**fake(s, x=s.ones(2, 3, dtype="float64"))),
    "fake quantization with a short scale": lambda s: s.fake_quantize(**fake(s, scale=s.ones(3))),
    "fake quantization with a large zero point": lambda s: s.fake_quantize(**fake(s, zero_point=integers(s, 0, 128))),
    "a gradient of another shape": lambda s: s.fake_quantize_backward(s.ones(3, 2), **fake(s)),
    "a gradient of another format": lambda s: s.fake_quantize_backward(s.ones(2, 3, dtype="float16"), **fake(s)),
    "an unknown interval": lambda s: s.fake_quantize_backward(s.ones(2, 3), **fake(s), interval="open"),
    "a layer with a vector of affine codes": lambda s: s.weight_only_forward(
        s.ones(2, 3), s.quantize_affine(s.ones(3))
    ),
    "a layer with a plain weight": lambda s: s.weight_only_forward(s.ones(2, 3), s.ones(4, 3)),
    "a layer with another inner dimension": lambda s: s.weight_only_forward(s.ones(2, 4), affine(s)),
    "a tampered weight": lambda s: s.qlora_forward(**s.layer(weight=affine(s, scale=s.ones(3)))),
    "a merge into tampered codes": lambda s: s.merge_requantize(
        affine(s, codes=8 * s.ones(4, 3, dtype="int8")), s.ones(1, 3), s.ones(4, 1), alpha=1
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_bad_argument_gives_the_error_of_the_reference(name: str) -> None:
    expected, got = error_of(CALLS[name], REFERENCE), error_of(CALLS[name], TORCH)
    assert got == expected, f"{name}: {got}, the reference gives {expected}"


META = torch.ones(4, device="meta")


@pytest.mark.parametrize(("call", "message"), [
    (lambda: backend.dequantize_affine(affine(TORCH, scale=META)), "^scale must be on cpu, where its companions are"),
    (lambda: backend.quantize_affine(torch.ones(4, 3), granularity="row", value_range=(META, META)),
     "^value_range must be on cpu"),
    (lambda: backend.affine_parameters(torch.ones(4), META, qmin=0, qmax=15), "^hi must be on cpu"),
    (lambda: backend.quantize_symmetric(torch.ones(4, 3), clip=META, granularity="row"), "^clip must be on cpu"),
    (lambda: backend.moving_range((META, META), (torch.ones(4), META), 0.5), "^lo of current must be on meta"),
    (lambda: backend.weight_only_forward(torch.ones(1, 3, device="meta"), affine(TORCH)), "^codes must be on meta"),
    (lambda: backend.fake_quantize_backward(META, torch.ones(4), torch.tensor(1.0), torch.tensor(0).int()),
     "^dy must be on cpu"),
])  # fmt: skip
def test_tensors_on_different_devices_are_refused_before_any_work(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(QloracleError, match=message):
        call()
