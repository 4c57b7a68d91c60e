"""Faults of LLM.int8() and of layers that quantize their activations: outliers, absmax, codes, and the sum."""

from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.rounding import encode
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.decomposed_steps import (
    Steps,
    absmax_of_rest,
    as_rows_only,
    outlier_columns,
    row_absmax,
)
from qloracle_conformance.mutants.mutant import Mutant, Op

F = np.float32


def _first_rows(rows: Array, threshold: float) -> Array:
    """Look for outliers in the first 8 rows only."""
    return outlier_columns(rows[:8], threshold)


def _nan_is_none(rows: Array, threshold: float) -> Array:
    columns: Array = np.any((np.abs(rows) >= threshold) & (threshold != 0), axis=0)
    return columns


def _at_most_eight(rows: Array, threshold: float) -> Array:
    """Have room for 8 outlier columns."""
    columns = outlier_columns(rows, threshold)
    return columns & (np.cumsum(columns) <= 8)


def _with_outliers(rows: Array, left_out: Array, columns: Array) -> Array:
    return row_absmax(rows)


def _of_elements(rows: Array, left_out: Array, columns: Array) -> Array:
    """Keep the small elements of outlier columns."""
    return row_absmax(np.where(columns & (np.abs(rows) >= 2.0), F(0), rows))


def _of_columns(rows: Array, left_out: Array, columns: Array) -> Array:
    return row_absmax(np.where(columns, F(0), rows))


def _of_the_tensor(rows: Array, left_out: Array, columns: Array) -> Array:
    found = absmax_of_rest(rows, left_out, columns)
    return np.full_like(found, found.max(initial=0.0))


def _floored(rows: Array, left_out: Array, columns: Array) -> Array:
    return np.maximum(absmax_of_rest(rows, left_out, columns), F(1e-5))


def _nan_dropped(rows: Array, left_out: Array, columns: Array) -> Array:
    return row_absmax(np.where(left_out | np.isnan(rows), F(0), rows))


def _half_away(rows: Array, absmax: Array) -> Array:
    usable = np.isfinite(absmax) & (absmax != 0)
    quotient = 127 * rows.astype(np.float64) / np.where(usable, absmax, 1)
    codes = np.where(usable, np.copysign(np.floor(np.abs(quotient) + 0.5), quotient), 0)
    return np.asarray(np.clip(np.nan_to_num(codes), -127, 127).astype(np.int8))


def _by_inverse(rows: Array, absmax: Array) -> Array:
    usable = np.isfinite(absmax) & (absmax != 0)
    codes = np.rint(rows * (F(127) / np.where(usable, absmax, F(1))))
    return np.where(usable, np.clip(np.nan_to_num(codes), -127, 127), 0).astype(np.int8)


def _in_half(rows: Array, columns: Array, weight: Array) -> Array:
    """Multiply outliers in float16."""
    left, right = (a.astype(np.float16).astype(np.float64) for a in (rows[:, columns], weight[:, columns]))
    return left @ right.T


def _rounded_to_half(rows: Array, columns: Array, weight: Array) -> Array:
    return (rows[:, columns] @ weight[:, columns].T).astype(np.float16).astype(np.float64)


def _outlying_elements(rows: Array, columns: Array, weight: Array) -> Array:
    """Multiply only those elements of outlier columns that are large themselves."""
    large = np.where(~(np.abs(rows) < 2.0), rows, 0.0)
    return large[:, columns] @ weight[:, columns].T


def _without_last(rows: Array, columns: Array, weight: Array) -> Array:
    chosen = np.flatnonzero(columns)[:-1]
    return rows[:, chosen] @ weight[:, chosen].T


def _bias_only_without(integer: Array, floating: Array, bias: Array) -> Array:
    """Forget the bias where there are outliers."""
    return integer + floating + (0 if np.any(floating) else bias)


def _bias_with_both(integer: Array, floating: Array, bias: Array) -> Array:
    """Add the bias to both parts."""
    y: Array = integer + floating + bias * (2 if np.any(floating) else 1)
    return y


def _half_joined(integer: Array, floating: Array, bias: Array) -> Array:
    return integer.astype(np.float16).astype(np.float64) + floating + bias


def _input_zeroed(x: HostArray, *rest: HostArray | None, **options: Any) -> Any:
    """Zero the outlier columns of the input in place, and leave them so."""
    outputs = OPS["llm_int8_forward"](x, *rest, **options)
    x.items[..., outputs[0].items] = 0
    return outputs


def _through_half(function: str) -> Op:
    """Cast the input to float16 first."""

    def layer(x: HostArray, *rest: HostArray | None, **options: Any) -> Any:
        with np.errstate(all="ignore"):
            *parts, y = OPS[function](host(x.single().astype(np.float16)), *rest, **options)
            return (*parts, host(np.asarray(encode(y.single(), x.dtype)), x.dtype))

    return layer


def _named(function: str, layer: Op) -> Op:
    """Pass arguments by position to a layer that is called by name."""
    llm = ("x", "codes", "absmax", "weight", "bias")
    names = llm if function == "llm_int8_forward" else ("x", "codes", "absmax", "bias")

    def called(**arguments: Any) -> Any:
        positional = tuple(arguments.pop(name) for name in names)
        return layer(*positional, **arguments)

    return called


def llm_int8_faults() -> list[Mutant]:
    """Return the mutants."""
    llm, rows = "llm_int8_forward", "int8_linear_forward"
    kinds: dict[str, list[tuple[str, str, Steps]]] = {
        "outliers": [
            ("beyond-threshold", "only elements beyond the threshold are outliers",
             Steps(columns=lambda r, t: np.any((np.abs(r) > t) & (t != 0) | ~np.isfinite(r) & (t != 0), axis=0))),
            ("without-sign", "negative elements are never outliers",
             Steps(columns=lambda r, t: np.any((~(r < t) | ~np.isfinite(r)) & (t != 0), axis=0))),
            ("nan-is-none", "a NaN is no outlier", Steps(columns=_nan_is_none)),
            ("threshold-0-all", "threshold 0 makes every column one of outliers",
             Steps(columns=lambda r, t: np.any(~(np.abs(r) < t), axis=0))),
            ("first-rows", "outliers are looked for in the first 8 rows", Steps(columns=_first_rows)),
            ("at-most-eight", "there is room for 8 outlier columns", Steps(columns=_at_most_eight)),
            ("threshold-half", "the threshold is compared in float16",
             Steps(columns=lambda r, t: outlier_columns(r.astype(np.float16).astype(F), t))),
        ],
        "absmax": [
            ("absmax-with-outliers", "outliers count for the absmax of their row", Steps(absmax=_with_outliers)),
            ("absmax-of-elements", "only outliers themselves are left out of the absmax", Steps(absmax=_of_elements)),
            ("absmax-of-columns", "whole columns are left out of the absmax", Steps(absmax=_of_columns)),
            ("absmax-of-tensor", "all rows share an absmax", Steps(absmax=_of_the_tensor)),
            ("absmax-floored", "the absmax is at least 1e-5", Steps(absmax=_floored)),
            ("absmax-nan-dropped", "a NaN does not reach the absmax of its row", Steps(absmax=_nan_dropped)),
        ],
        "codes": [
            ("codes-half-away", "halves of codes go away from zero", Steps(codes=_half_away)),
            ("codes-by-inverse", "activations are multiplied by float32 127/absmax", Steps(codes=_by_inverse)),
        ],
        "y": [
            ("always-dequantized", "outliers are multiplied by the dequantized weight", Steps(weights="dequantized")),
            ("outliers-in-half", "outliers are multiplied in float16", Steps(floats=_in_half)),
            ("outliers-half-result", "the part of the outliers passes through float16", Steps(floats=_rounded_to_half)),
            ("outliers-elements", "small elements of outlier columns are dropped", Steps(floats=_outlying_elements)),
            ("outliers-without-last", "the last outlier column is forgotten", Steps(floats=_without_last)),
            ("outliers-dropped", "the part of the outliers is never added", Steps(join=lambda i, f, b: i + 0 * f + b)),
            ("bias-without-outliers", "the bias is lost where there are outliers", Steps(join=_bias_only_without)),
            ("bias-with-outliers", "the bias is added to both parts", Steps(join=_bias_with_both)),
            ("integer-part-half", "the INT8 part passes through float16", Steps(join=_half_joined)),
            ("constant-128", "the constant is 1/128²", Steps(constant=128**2)),
        ],
    }  # fmt: skip
    plain = ("absmax-of-tensor", "absmax-floored", "absmax-nan-dropped", "codes-half-away", "codes-by-inverse",
             "integer-part-half", "constant-128")  # fmt: skip
    made = [
        Mutant(f"llm-{name}", fault, {llm: steps}, (stage,))
        for stage, found in kinds.items()
        for name, fault, steps in found
    ]
    return [
        *made,
        *(Mutant(f"int8-linear-{name}", fault, {rows: as_rows_only(steps)}, (stage,))
          for stage, found in kinds.items() for name, fault, steps in found if name in plain),
        Mutant("llm-input-zeroed", "outlier columns of the input are set to 0 and stay so",
               {llm: _named(llm, _input_zeroed)}, ("inputs",)),
        Mutant("llm-through-float16", "the input is cast to float16", {llm: _named(llm, _through_half(llm))},
               ("outliers", "absmax", "codes", "y")),
        Mutant("int8-linear-through-float16", "the input is cast to float16", {rows: _named(rows, _through_half(rows))},
               ("absmax", "codes", "y")),
    ]  # fmt: skip
