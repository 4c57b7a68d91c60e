"""Layers with quantized weights or activations that are wrong on one of their paths: columns, rows, tiles."""

from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.rounding import decode, encode
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.mutant import Mutant, Op
from qloracle_conformance.mutants.two_paths import (
    Arguments,
    if_call,
    if_element,
    places,
    row_from,
    with_changed,
    with_items,
    without_inputs_from,
)

F = np.float32
LLM = "llm_int8_forward"
WEIGHT_ONLY = ("int8_weight_forward", "affine_weight_forward")


def _llm(change: Any) -> Op:
    """Return LLM.int8() that looks for outliers in a changed input: what it misses stays in the 8-bit part."""

    def forward(**arguments: Any) -> Any:
        seen = OPS["llm_int8_forward"](**{**arguments, "x": change(arguments["x"])})[0].items
        right = OPS["llm_int8_forward"](**arguments)
        missed = right[0].items & ~seen
        if not missed.any():
            return right
        other = OPS["int8_linear_forward"](arguments["x"], arguments["codes"], arguments["absmax"], arguments["bias"])
        return (host(seen), *other)

    return forward


def _without_columns_from(first: int) -> Any:
    return lambda x: with_items(x, np.where(np.arange(x.shape[-1] if x.items.ndim else 0) >= first, 0, x.items))


def _without_odd_last(x: HostArray) -> HostArray:
    inner = x.shape[-1]
    return with_items(x, np.where((np.arange(inner) == inner - 1) & (inner % 2 == 1), 0, x.items))


def _half_strictly(**arguments: Any) -> Any:
    """Compare float16 activations by `>`."""
    x = arguments["x"]
    if x.dtype != "float16" or not arguments["threshold"]:
        return OPS["llm_int8_forward"](**arguments)
    return OPS["llm_int8_forward"](**{**arguments, "threshold": float(np.nextafter(arguments["threshold"], np.inf))})


def _no_threshold(**arguments: Any) -> Any:
    return OPS["llm_int8_forward"](**{**arguments, "threshold": 0.0})


def _one_row_bfloat16(function: str) -> Op:
    """Return a layer that rounds x to bfloat16 where it has one row."""

    def narrowed(x: HostArray, arguments: Arguments) -> HostArray:
        one = x.items.ndim and x.items.size == x.shape[-1]
        return host(decode(encode(x.single(), "bfloat16"), "bfloat16").astype(F)) if one else x

    def layer(**arguments: Any) -> Any:
        y = with_changed(function, x=narrowed)(**arguments)
        return host(np.asarray(encode(y.real(), arguments["x"].dtype)), arguments["x"].dtype)

    return layer


def _absmax_rows_from_32(shape: tuple[int, ...], arguments: Arguments) -> Array:
    return places(shape) >= 32


def _without_last(function: str) -> Op:
    """Return a layer that drops the last element of the inner dimension."""

    def layer(**arguments: Any) -> Any:
        x = arguments["x"]
        items = np.array(x.items)
        items[..., -1:] = 0
        return OPS[function](**{**arguments, "x": with_items(x, items)})

    return layer


def _wrapped_columns(function: str) -> Op:
    """Return a layer whose outputs from 64 on have the scale of the output 64 before."""

    def wrapped(absmax: HostArray, arguments: Arguments) -> HostArray:
        items = absmax.items
        return host(items[np.arange(items.size) % 64].reshape(items.shape)) if items.ndim == 1 else absmax

    by_row = lambda a: a.get("granularity", "row") == "row"  # noqa: E731
    return if_call(function, by_row, with_changed(function, absmax=wrapped))


def _sum_without(**arguments: Any) -> Any:
    right = OPS["int8_linear_forward"](**arguments)
    return right if right[0].shape[-1] <= 1024 else (*right[:2], _by_codes(right, arguments, 1024))


def _by_codes(right: tuple[HostArray, ...], arguments: Arguments, first: int) -> HostArray:
    """Return y with the products from an input on left out, given the right codes."""
    codes, absmax, dtype = right[0].items.astype(np.float64), right[1].items.astype(np.float64), right[2].dtype
    kept = np.arange(codes.shape[-1]) < first
    acc = (codes * kept) @ arguments["codes"].items.astype(np.float64).T
    bias = 0.0 if arguments["bias"] is None else arguments["bias"].real()
    with np.errstate(all="ignore"):
        y = acc * absmax[..., np.newaxis] * arguments["absmax"].items.astype(np.float64) / 127**2 + bias
        return host(np.asarray(encode(y, dtype)), dtype)


def _rows_wrapped(**arguments: Any) -> Any:
    codes, absmax, y = OPS["int8_linear_forward"](**arguments)
    flat = absmax.items.reshape(-1)
    return codes, host(np.asarray(flat[np.arange(flat.size) % 32].reshape(absmax.shape), F)), y


def path_linear_faults() -> list[Mutant]:
    """Return the mutants."""
    return [
        Mutant("llm-columns-from-256", "outliers are looked for in the first 256 columns",
               {LLM: _llm(_without_columns_from(256))}, ("outliers",)),
        Mutant("llm-odd-last", "the last column of an odd number is not looked at",
               {LLM: _llm(_without_odd_last)}, ("outliers",)),
        Mutant("llm-half-strictly", "float16 activations at the threshold are no outliers", {LLM: _half_strictly},
               ("outliers",)),
        Mutant("llm-rows-from-32", "outliers count for the absmax of rows from 32 on",
               {LLM: if_element(LLM, _absmax_rows_from_32, _no_threshold, output=2)}, ("absmax",)),
        Mutant("weight-only-one-row-bfloat16", "a single row is rounded to bfloat16",
               {f: _one_row_bfloat16(f) for f in WEIGHT_ONLY}, ("y",)),
        Mutant("weight-only-rows-from-64", "the last element of the inner dimension is left out in rows from 64 on",
               {f: if_element(f, row_from(64), _without_last(f)) for f in WEIGHT_ONLY},
               ("y",)),
        Mutant("weight-only-inputs-from-512", "inputs from 512 on are left out in rows from 16 on",
               {f: if_element(f, row_from(16), without_inputs_from(512)(f)) for f in WEIGHT_ONLY}, ("y",)),
        Mutant("weight-only-scales-modulo-64", "outputs from 64 on have the scales of the first 64",
               {"int8_weight_forward": _wrapped_columns("int8_weight_forward")}, ("y",)),
        Mutant("int8-linear-inputs-from-1024", "inputs from 1024 on are left out of the sum",
               {"int8_linear_forward": _sum_without}, ("y",)),
        Mutant("int8-linear-scales-modulo-64", "outputs from 64 on have the scales of the first 64",
               {"int8_linear_forward": _wrapped_columns("int8_linear_forward")}, ("y",)),
        Mutant("int8-linear-rows-from-32", "rows from 32 on have the absmax of the row 32 before",
               {"int8_linear_forward": _rows_wrapped}, ("absmax",)),
    ]  # fmt: skip
