"""The CuPy backend mirrors the reference: names, arguments and records."""

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest

import qloracle
import qloracle_gpu.cupy as backend

# What the reference has and this backend does not; whoever adds one takes it out here.
NOT_OFFERED = set(Path(__file__).with_name("not_offered_cupy.txt").read_text(encoding="utf-8").split())
OFFERED = [name for name in qloracle.__all__ if name not in NOT_OFFERED]
FUNCTIONS = [name for name in OFFERED if inspect.isfunction(getattr(qloracle, name))]
RECORDS = [name for name in OFFERED if inspect.isclass(getattr(qloracle, name))]
ERRORS = {"DeviceMemoryError", "KernelCompileError", "KernelLaunchError", "MatmulPrecisionError", "NoDeviceError"}
WITH_OUT_DTYPE = {
    "scale_int8_matmul", "lora_forward", "qlora_forward", "dora_forward", "qdora_forward", "embedding_lora_forward",
    "quantized_matmul", "weight_only_forward", "int8_linear_forward", "llm_int8_forward", "combine_adapters",
}  # fmt: skip


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    """Name, kind and default of every parameter."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_of_the_reference_that_is_offered_is_there_with_the_same_arguments(name: str) -> None:
    expected, got = parameters(getattr(qloracle, name)), parameters(getattr(backend, name))
    extra = [p for p in got if p[0] not in {q[0] for q in expected}]
    # Sums end in one rounding, and where operands have no format of their own, bit patterns need its name.
    assert {p[0] for p in extra} <= {"out_dtype", "fmt"}, f"{name}: arguments {extra} are not the reference's"
    assert all(p[1] == inspect.Parameter.KEYWORD_ONLY for p in extra), f"{name}: {extra} must go by name"
    assert ("out_dtype" in {p[0] for p in extra}) == (name in WITH_OUT_DTYPE), f"{name}: out_dtype"
    assert [p for p in got if p not in extra] == expected, f"{name}: arguments differ from the reference's"


@pytest.mark.parametrize("name", RECORDS)
def test_every_record_of_the_reference_is_there_with_the_same_fields(name: str) -> None:
    expected = [field.name for field in dataclasses.fields(getattr(qloracle, name))]
    assert [field.name for field in dataclasses.fields(getattr(backend, name))] == expected, name


def test_what_is_not_offered_exists_in_the_reference_and_not_here() -> None:
    assert set(qloracle.__all__) >= NOT_OFFERED
    assert not NOT_OFFERED & set(backend.__all__)


def test_the_interface_holds_nothing_else() -> None:
    assert sorted({*FUNCTIONS, *RECORDS, *ERRORS}) == sorted(backend.__all__)


def test_the_rules_of_conversion_are_those_of_the_reference() -> None:
    from qloracle.directions import ROUNDINGS
    from qloracle.encoding import NAN_BITS, NAN_VALUES, OVERFLOWS
    from qloracle_gpu.cupy import rounding, sources

    assert tuple(ROUNDINGS) == sources.ROUNDINGS
    assert (NAN_BITS, NAN_VALUES, OVERFLOWS) == (sources.NAN_BITS, sources.NAN_VALUES, rounding.OVERFLOWS)
