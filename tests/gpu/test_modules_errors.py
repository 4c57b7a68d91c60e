"""Every bad argument of the functions behind the modules gives the error of the reference: type and argument."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import qloracle
import qloracle_gpu.torch as backend
from qloracle.errors import QloracleError


class Side:
    """One implementation and the arrays that it takes."""

    def __init__(self, module: Any, make: Callable[[np.ndarray], Any]) -> None:
        self.module, self.make = module, make

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)

    def ones(self, *shape: int, dtype: str = "float32") -> Any:
        return self.make(np.ones(shape, dtype))

    def factors(self, **changes: Any) -> dict[str, Any]:
        operands = {"weight": self.ones(4, 3), "lora_a": self.ones(1, 3), "lora_b": self.ones(4, 1), "alpha": 1}
        return operands | changes

    def adapter(self) -> dict[str, Any]:
        return {"lora_a": self.ones(1, 3), "lora_b": self.ones(4, 1), "alpha": 1}

    def dora(self, **changes: Any) -> dict[str, Any]:
        return {"x": self.ones(2, 3), "magnitude": self.ones(4)} | self.factors() | changes

    def table(self, **changes: Any) -> dict[str, Any]:
        operands = {"ids": self.make(np.array([0, 1])), "weight": self.ones(4, 3)}
        return operands | {"lora_a": self.ones(1, 4), "lora_b": self.ones(3, 1), "alpha": 1} | changes

    def int8(self, granularity: str = "row") -> Any:
        return self.quantize_int8(self.ones(4, 3), granularity=granularity)


CALLS: dict[str, Callable[[Side], Any]] = {
    "a merge of integers": lambda s: s.lora_merge(**s.factors(weight=s.ones(4, 3, dtype="int32"))),
    "a merge of a vector": lambda s: s.lora_merge(**s.factors(weight=s.ones(4))),
    "a merge of a narrow A": lambda s: s.lora_merge(**s.factors(lora_a=s.ones(1, 2))),
    "a merge of a 1-d A": lambda s: s.lora_merge(**s.factors(lora_a=s.ones(3))),
    "a merge of a short B": lambda s: s.lora_merge(**s.factors(lora_b=s.ones(3, 1))),
    "a merge of a turned weight": lambda s: s.lora_merge(**s.factors(fan_in_fan_out=True)),
    "a merge with a turn that is no bool": lambda s: s.lora_merge(**s.factors(fan_in_fan_out=1)),
    "a merge that is safe by 1": lambda s: s.lora_merge(**s.factors(safe=1)),
    "a merge with an infinite alpha": lambda s: s.lora_merge(**s.factors(alpha=float("inf"))),
    "an unmerge of a short B": lambda s: s.lora_unmerge(**s.factors(lora_b=s.ones(3, 1))),
    "a merge of a matrix as a bias": lambda s: s.merge_bias(s.ones(2, 2), s.ones(2), alpha=1, rank=1),
    "a merge of biases of two lengths": lambda s: s.merge_bias(s.ones(2), s.ones(3), alpha=1, rank=1),
    "a merge of biases at rank 0": lambda s: s.merge_bias(s.ones(2), s.ones(2), alpha=1, rank=0),
    "norms of a narrow A": lambda s: s.dora_norm(**s.factors(lora_a=s.ones(1, 2))),
    "DoRA with a short magnitude": lambda s: s.dora_forward(**s.dora(magnitude=s.ones(3))),
    "DoRA with a magnitude of integers": lambda s: s.dora_forward(**s.dora(magnitude=s.ones(4, dtype="int64"))),
    "DoRA with a narrow x": lambda s: s.dora_forward(**s.dora(x=s.ones(2, 2))),
    "DoRA with dropout and no mask": lambda s: s.dora_forward(**s.dora(dropout=0.5)),
    "gradients of DoRA of a narrow dy": lambda s: s.dora_backward(s.ones(2, 3), **s.dora()),
    "gradients of DoRA with a short magnitude": lambda s: s.dora_backward(s.ones(2, 4), **s.dora(magnitude=s.ones(3))),
    "a DoRA merge with a short magnitude": lambda s: s.dora_merge(**s.factors(magnitude=s.ones(3))),
    "a DoRA unmerge of a tensor": lambda s: s.dora_unmerge(
        s.ones(4, 3), s.ones(1, 3), s.ones(4, 1), s.ones(4), alpha=1
    ),
    "a DoRA unmerge with short norms": lambda s: s.dora_unmerge(
        s.MergedDora(s.ones(4, 3), s.ones(3)), s.ones(1, 3), s.ones(4, 1), s.ones(4), alpha=1
    ),
    "QDoRA with a plain weight": lambda s: s.qdora_forward(**s.dora()),
    "rows of a short A": lambda s: s.embedding_lora_forward(**s.table(lora_a=s.ones(1, 3))),
    "rows of a long B": lambda s: s.embedding_lora_forward(**s.table(lora_b=s.ones(4, 1))),
    "rows of a 1-d A": lambda s: s.embedding_lora_forward(**s.table(lora_a=s.ones(4))),
    "rows of a table of integers": lambda s: s.embedding_lora_forward(**s.table(weight=s.ones(4, 3, dtype="int32"))),
    "rows at indices of float": lambda s: s.embedding_lora_forward(**s.table(ids=s.ones(2))),
    "rows beyond the table": lambda s: s.embedding_lora_forward(**s.table(ids=s.make(np.array([4])))),
    "gradients of rows of a narrow dy": lambda s: s.embedding_lora_backward(s.ones(2, 4), **s.table()),
    "requantizing with unknown scales": lambda s: s.merge_requantize(**s.factors(weight=s.int8(), scales="old")),
    "requantizing a plain weight": lambda s: s.merge_requantize(**s.factors()),
    "requantizing a vector": lambda s: s.merge_requantize(**s.factors(weight=s.quantize_int8(s.ones(3)))),
    "quantizing like a tensor": lambda s: s.quantize_like(s.ones(3), s.ones(3)),
    "quantizing another shape": lambda s: s.quantize_like(s.ones(3, 4), s.int8()),
    "an original of another shape": lambda s: s.merge_into_original(s.ones(3, 4), s.int8(), **s.adapter()),
    "an original of another format": lambda s: s.merge_into_original(
        s.ones(4, 3, dtype="float16"), s.int8(), **s.adapter()
    ),
    "a start from float64": lambda s: s.lora_init(s.ones(2, 3, dtype="float64"), 4),
    "a start from a vector": lambda s: s.lora_init(s.ones(3), 4),
    "a start of too high a rank": lambda s: s.lora_init(0 * s.ones(4, 3), 4),
    "a start of an unknown kind": lambda s: s.lora_init(0 * s.ones(2, 3), 4, initialization="zeros"),
    "a start from a one": lambda s: s.lora_init(s.ones(2, 3), 4),
    "a start from a NaN": lambda s: s.lora_init(s.ones(2, 3) * float("nan"), 4),
    "a start with a std too many": lambda s: s.lora_init(0 * s.ones(2, 3), 4, std=1.0),
    "a start with a std of 0": lambda s: s.lora_init(s.ones(2, 3), 4, initialization="gaussian", std=0.0),
    "a start in float64": lambda s: s.lora_init(0 * s.ones(2, 3), 4, fmt="float64"),
    "a start without outputs": lambda s: s.lora_init(0 * s.ones(2, 3), 0),
    "a start of an embedding of too high a rank": lambda s: s.embedding_init(s.ones(3, 4), 9),
    "outliers of a number": lambda s: s.outlier_columns(s.make(np.array(1, np.float32)), 6.0),
    "outliers of integers": lambda s: s.outlier_columns(s.ones(2, 3, dtype="int32"), 6.0),
    "outliers beyond a negative threshold": lambda s: s.outlier_columns(s.ones(2, 3), -1.0),
    "outliers beyond NaN": lambda s: s.outlier_columns(s.ones(2, 3), float("nan")),
    "a decomposition of an unknown kind": lambda s: s.decompose(s.ones(2, 3), 6.0, exclusion="rows"),
    "a decomposition with short absmax": lambda s: s.decompose(s.ones(2, 3), 6.0, absmax=s.ones(3)),
    "a decomposition with outliers of integers": lambda s: s.decompose(
        s.ones(2, 3), 6.0, outliers=s.ones(3, dtype="int32")
    ),
    "values of a plain weight": lambda s: s.weight_values(s.ones(4, 3)),
    "values in float64": lambda s: s.weight_values(s.int8(), weight_rounding="float64"),
    "a narrow x": lambda s: s.weight_only_forward(s.ones(2, 2), s.int8()),
    "a short bias": lambda s: s.weight_only_forward(s.ones(2, 3), s.int8(), bias=s.ones(3)),
    "gradients of a narrow dy": lambda s: s.weight_only_backward(s.ones(2, 3), s.int8()),
    "INT8 activations on a weight by column": lambda s: s.int8_linear_forward(s.ones(2, 3), s.int8("column")),
    "LLM.int8() on a weight by column": lambda s: s.llm_int8_forward(s.ones(2, 3), s.int8("column"), s.ones(4, 3)),
    "LLM.int8() without the original": lambda s: s.llm_int8_forward(s.ones(2, 3), s.int8()),
    "LLM.int8() with another original": lambda s: s.llm_int8_forward(s.ones(2, 3), s.int8(), s.ones(3, 4)),
    "LLM.int8() with unknown outliers": lambda s: s.llm_int8_forward(s.ones(2, 3), s.int8(), outlier_weight="all"),
    "gradients of LLM.int8() by column": lambda s: s.llm_int8_backward(s.ones(2, 4), s.int8("column")),
}
REFERENCE, TORCH = Side(qloracle, lambda array: array), Side(backend, torch.from_numpy)


def error_of(call: Callable[[Side], Any], side: Side) -> SimpleNamespace:
    """The type of the error that a call raises, and the argument that it names."""
    with pytest.raises(QloracleError) as caught:
        call(side)
    return SimpleNamespace(type=caught.type, argument=str(caught.value).partition(" must be ")[0])


@pytest.mark.parametrize("name", CALLS)
def test_a_bad_argument_gives_the_error_of_the_reference(name: str) -> None:
    expected, got = error_of(CALLS[name], REFERENCE), error_of(CALLS[name], TORCH)
    assert got == expected, f"{name}: {got}, the reference gives {expected}"


def test_a_weight_whose_parts_do_not_belong_together_is_refused() -> None:
    weight = TORCH.int8()
    broken = replace(weight, absmax=weight.absmax[:2])
    with pytest.raises(QloracleError, match=r"^absmax must be of shape \(4,\), got \(2,\)$"):
        backend.weight_only_forward(torch.ones(2, 3), broken)
