"""The torch backend mirrors the reference: names, arguments, records, errors of precision."""

import dataclasses
import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import qloracle
import qloracle_gpu.torch as backend
from qloracle_gpu.torch import optim

# What the reference has and this backend does not; whoever adds one takes it out here.
NOT_OFFERED = set(Path(__file__).with_name("not_offered.txt").read_text(encoding="utf-8").split())
OFFERED = [name for name in qloracle.__all__ if name not in NOT_OFFERED]
FUNCTIONS = [name for name in OFFERED if inspect.isfunction(getattr(qloracle, name))]
RECORDS = [name for name in OFFERED if inspect.isclass(getattr(qloracle, name))]
WITH_OUT_DTYPE = {
    "scale_int8_matmul", "lora_forward", "qlora_forward", "dora_forward", "qdora_forward", "embedding_lora_forward",
    "weight_only_forward", "int8_linear_forward", "llm_int8_forward", "quantized_matmul", "combine_adapters",
}  # fmt: skip
# The modules that build conformance records are the suite's affair.
MODULES = [
    f"{package.__name__}.{info.name}"
    for package in (backend, optim)
    for info in pkgutil.iter_modules(package.__path__)
    if not info.name.startswith("conformance")
]


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    """Name, kind and default of every parameter."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_of_the_reference_that_is_offered_is_there_with_the_same_arguments(name: str) -> None:
    # An optional fmt= or source= names the format of bit patterns; a tensor's dtype tells its own.
    expected = [p for p in parameters(getattr(qloracle, name)) if (p[0], p[2]) not in {("fmt", None), ("source", None)}]
    got = parameters(getattr(backend, name))
    if name in WITH_OUT_DTYPE:
        *got, (last, kind, _) = got
        assert (last, kind) == ("out_dtype", inspect.Parameter.KEYWORD_ONLY), f"{name}: last argument is {last}"
    assert got == expected, f"{name}: arguments differ from the reference's"


@pytest.mark.parametrize("name", RECORDS)
def test_every_record_of_the_reference_is_there_with_the_same_fields(name: str) -> None:
    expected = [field.name for field in dataclasses.fields(getattr(qloracle, name))]
    assert [field.name for field in dataclasses.fields(getattr(backend, name))] == expected, name


def test_what_is_not_offered_exists_in_the_reference_and_not_here() -> None:
    assert set(qloracle.__all__) >= NOT_OFFERED
    assert not NOT_OFFERED & set(backend.__all__)


def test_the_interface_holds_nothing_else() -> None:
    assert sorted({*FUNCTIONS, *RECORDS, "MatmulPrecisionError"}) == sorted(backend.__all__)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_docstrings_hold(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0, f"{name}: {result.failed} of {result.attempted} examples fail"


@pytest.fixture(params=["high", "medium"])
def lowered_precision(request: pytest.FixtureRequest) -> Iterator[str]:
    """A setting with which torch may round the operands of float32 products."""
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision("highest")


ONE = torch.ones(1, 1)
PRODUCTS = {
    "lora_forward": lambda: backend.lora_forward(ONE, ONE, ONE, ONE, alpha=1),
    "lora_backward": lambda: backend.lora_backward(ONE, ONE, ONE, ONE, ONE, alpha=1),
    "qlora_forward": lambda: backend.qlora_forward(ONE, backend.quantize_blockwise(ONE), ONE, ONE, alpha=1),
    "qlora_backward": lambda: backend.qlora_backward(ONE, ONE, backend.quantize_blockwise(ONE), ONE, ONE, alpha=1),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_refuse_a_lowered_float32_precision(name: str, lowered_precision: str) -> None:
    with pytest.raises(backend.MatmulPrecisionError, match="fp32_precision must be 'ieee'"):
        PRODUCTS[name]()


def test_int8_matmul_is_exact_whatever_the_float32_precision(lowered_precision: str) -> None:
    codes = torch.full((2, 3000), 127, dtype=torch.int8)
    assert backend.int8_matmul(codes, -codes).tolist() == [[-48387000] * 2] * 2, lowered_precision
