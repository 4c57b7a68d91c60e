"""Malformed calls of every public function: a typed error that names argument, rule and value, or a legal result."""

import re
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import pytest

from qloracle.errors import QloracleError

from .public_calls import CALLS, Arguments, PublicCall

PLAIN = [call for call in CALLS if call.variant not in ("empty", "0-d")]


class Strange:
    """Nothing that any rule admits, and unwilling to be compared."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("compared")

    def __hash__(self) -> int:
        raise RuntimeError("hashed")

    def __repr__(self) -> str:
        return "Strange()"


# What may stand where an argument, or a field of a record, is expected.
MALFORMED: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 2**31, 2**63, -(2**70), 0.5, -0.0, 1e308, float("nan"), float("inf"), 1j,
    "", "nf4", "float64", "bfloat17", "tensor", b"nf4", [], [1, 2], ["a"], (), (3, "x"), {}, {"a": 1}, {1, 2}, object(),
    Strange(), int, np.float32(1.5), np.int64(-3), np.array(1.0), np.zeros(3), np.zeros((2, 3), np.float32),
    np.zeros((5, 7)), np.zeros((4, 7), np.complex64), np.zeros((5, 7), np.bool_), np.full(4, np.nan, np.float32),
    np.zeros((0, 7), np.float32), np.full((5, 7), 255, np.uint8), np.full(300, 200, np.uint8), np.zeros((4, 7), "i8"),
    np.array([1, "a", None], object), np.array(["x", "y"]), np.array("2024-01-01", np.datetime64),
    np.zeros(3, [("a", np.float32)]), range(3),
)  # fmt: skip

DTYPES = ("float64", "float32", "float16", "int8", "uint8", "int32", "uint16", "bool", "complex128", "object")


def variations(value: Any) -> Iterator[Any]:
    """What is close to a valid value: other dtypes, shapes and contents; records and sequences with another part."""
    if isinstance(value, np.ndarray):
        yield from other_arrays(value)
    elif is_dataclass(value) and not isinstance(value, type):
        yield from other_records(value)
    elif isinstance(value, list | tuple):
        yield from (type(value)(value[:-1]), type(value)([*value, *value]), type(value)([*value, None]))
        for index, item in enumerate(value):
            for other in (None, "x", -1, *variations(item)):
                yield type(value)([*value[:index], other, *value[index + 1 :]])
    elif isinstance(value, dict):
        for key, item in value.items():
            for other in (None, "x", -1, 2.5, *variations(item)):
                yield {**value, key: other}


def other_arrays(value: Any) -> Iterator[Any]:
    """The same array as other dtypes, of other shapes, and full of extremes."""
    for dtype in DTYPES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield value.astype(dtype)
    yield from (value[..., np.newaxis], np.stack([value, value]), value.tolist())
    if value.ndim:
        yield from (value[:-1], value.reshape(-1), value[..., :0], np.concatenate([value, value]))
    extremes: dict[str, tuple[Any, ...]] = {"f": (-1, np.nan, np.inf, -np.inf)}
    if value.dtype.kind in "iu":
        extremes = {value.dtype.kind: (np.iinfo(value.dtype).max, np.iinfo(value.dtype).min)}
    yield from (np.full_like(value, extreme) for extreme in extremes.get(value.dtype.kind, (True,)))


def other_records(value: Any) -> Iterator[Any]:
    """The same record with one field replaced, unless it refuses that itself."""
    for f in fields(value):
        for other in (*MALFORMED, *variations(getattr(value, f.name))) if f.init else ():
            with suppress(QloracleError):
                yield replace(value, **{f.name: other})


def calls(call: PublicCall) -> Iterator[tuple[str, Any, Arguments]]:
    """Every call with one argument replaced."""
    valid = call.arguments()  # once: no function changes its arguments, which test_purity shows
    for name, value in valid.items():
        for other in (*MALFORMED, *variations(value)):
            yield name, other, {**valid, name: other}


def shown(value: Any) -> str:
    text = f"{value.dtype} array of shape {value.shape}" if isinstance(value, np.ndarray) else repr(value)
    return text[:300]


def wrong_outcomes(call: PublicCall, step: int) -> str:
    """What malformed calls give that they must not give: one line for each kind, of every `step`-th call."""
    wrong: dict[str, str] = {}
    for name, other, arguments in islice(calls(call), 0, None, step):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                call.run(arguments)
            except QloracleError as error:
                if not re.search(r"\bmust be\b.*, got ", str(error), re.DOTALL):
                    wrong.setdefault(f"says {error}", f"{name} = {shown(other)}")
            except Exception as error:  # noqa: BLE001  # that is what must not happen
                wrong.setdefault(f"{name}: {type(error).__name__}: {error}"[:160], shown(other))
    return "\n".join(f"{call.id}: {what}   [{example}]" for what, example in wrong.items())


@pytest.mark.parametrize("call", PLAIN, ids=lambda call: call.id)
def test_a_malformed_argument_gives_a_typed_error_or_a_legal_result(call: PublicCall) -> None:
    wrong = wrong_outcomes(call, step=11)
    assert not wrong, wrong


@pytest.mark.exhaustive
@pytest.mark.parametrize("call", PLAIN, ids=lambda call: call.id)
def test_every_malformed_argument_gives_a_typed_error_or_a_legal_result(call: PublicCall) -> None:
    wrong = wrong_outcomes(call, step=1)
    assert not wrong, wrong


@pytest.mark.parametrize("call", PLAIN, ids=lambda call: call.id)
def test_an_unknown_name_in_place_of_an_option_is_refused(call: PublicCall) -> None:
    for name, value in call.arguments().items():
        if isinstance(value, str):
            with pytest.raises(QloracleError, match="must be"):
                call.run({**call.arguments(), name: "no such name"})
