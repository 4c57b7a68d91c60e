"""Layers with quantized weights whose operands, scales, biases or indices go wrong."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.rounding import encode
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.mutant import Op

F = np.float32
TILE = 64


def with_input(function: str, change: Callable[[Array], Array]) -> Op:
    """Return a layer whose activations, or whose gradient, go through `change` first."""

    def layer(**arguments: Any) -> Any:
        name = "dy" if "dy" in arguments else "x"
        operand = arguments[name]
        changed = {
            n: host(a.single()) if a is not None and a.is_float else a
            for n, a in arguments.items()
            if isinstance(a, HostArray) or a is None
        }
        with np.errstate(all="ignore"):
            outputs = OPS[function](**{**arguments, **changed, name: host(change(operand.single()))})
        parts = outputs if isinstance(outputs, tuple) else (outputs,)
        back = tuple(p if p.dtype != "float32" or p.items.ndim == 0 else _to(p, operand.dtype) for p in parts)
        return back if isinstance(outputs, tuple) else back[0]

    return layer


def _to(values: HostArray, dtype: str) -> HostArray:
    return host(np.asarray(encode(values.items, dtype)), dtype)


def with_weight(function: str, name: str, change: Callable[[Array], Array]) -> Op:
    """Return a layer one part of whose weight goes through `change` first."""

    def layer(**arguments: Any) -> Any:
        part = arguments[name]
        with np.errstate(all="ignore"):
            changed = np.asarray(change(part.items)).astype(part.items.dtype).reshape(part.shape)
        return OPS[function](**{**arguments, name: host(changed)})

    return layer


def tail_cut(values: Array) -> Array:
    """Leave the inner dimension after the last whole vector of 8 out, where there is more than one."""
    shortened = values.copy()
    inner = values.shape[-1]
    if inner > 8:
        shortened[..., inner - inner % 8 :] = 0
    return shortened


def last_missing(values: Array) -> Array:
    """Leave the last element of the inner dimension out."""
    shortened = values.copy()
    shortened[..., -1:] = 0
    return shortened


def to_float16(values: Array) -> Array:
    """Let numbers pass through float16."""
    return values.astype(np.float16).astype(np.float32)


def flushed(values: Array) -> Array:
    """Flush subnormal numbers to zero."""
    return np.where(np.abs(values) < 2.0**-126, F(0), values)


def with_bias(change: Callable[[Array, Array], Array]) -> Callable[[str], Op]:
    """Return, for a function, a layer whose bias goes through `change`, given the result without it too."""

    def of(function: str) -> Op:
        def layer(**arguments: Any) -> Any:
            bias = arguments["bias"]
            if bias is None:
                return OPS[function](**arguments)
            bare = OPS[function](**{**arguments, "bias": None})
            plain = (bare if not isinstance(bare, tuple) else bare[-1]).real()
            with np.errstate(all="ignore"):
                words = np.asarray(encode(np.asarray(change(plain, bias.real())), arguments["x"].dtype))
            y = host(words, arguments["x"].dtype)
            return (*bare[:-1], y) if isinstance(bare, tuple) else y

        return layer

    return of


def first_row_only(y: Array, bias: Array) -> Array:
    """Add the bias to the first row only."""
    flat = y.reshape(-1, y.shape[-1]).copy()
    flat[:1] += bias
    return flat.reshape(y.shape)


def square_transposed(function: str) -> Op:
    """Take a square matrix of codes for one that is already transposed."""

    def layer(**arguments: Any) -> Any:
        codes = arguments["codes"]
        if codes.items.ndim == 2 and codes.shape[0] == codes.shape[1]:
            arguments = {**arguments, "codes": host(np.ascontiguousarray(codes.items.T))}
        return OPS[function](**arguments)

    return layer


def transposed_scales(function: str, granularity: str = "row") -> Op:
    """Use the scale of a row for the column of a square weight, or the other way round."""

    def layer(**arguments: Any) -> Any:
        codes = arguments["codes"]
        if arguments["granularity"] == granularity and codes.shape[0] == codes.shape[1]:
            arguments = {**arguments, "granularity": "column" if granularity == "row" else "row"}
        return OPS[function](**arguments)

    return layer


def groups_in_rows(function: str) -> Op:
    """Find the flat group of an element by its place in its row and a whole number of groups a row."""

    def layer(**arguments: Any) -> Any:
        codes: HostArray = arguments["codes"]
        name = "group_size" if "group_size" in arguments else "block_size"
        if (size := arguments[name]) is None or not codes.items.size:
            return OPS[function](**arguments)
        (rows, columns), scales = codes.shape, [n for n in ("scale", "zero_point", "absmax") if n in arguments]
        each, last = -(-columns // size), arguments[scales[0]].items.size - 1
        place = np.minimum(np.arange(rows)[:, np.newaxis] * each + np.arange(columns) // size, last).reshape(-1)
        expanded = {n: host(np.ascontiguousarray(arguments[n].items[place])) for n in scales}
        return OPS[function](**(arguments | expanded | {name: 1}))

    return layer


def rows_of_zeros_skipped(function: str) -> Op:
    """Give the rows of zeros no product: only their bias is left."""

    def layer(**arguments: Any) -> Any:
        y, x, bias = OPS[function](**arguments), arguments["x"], arguments["bias"]
        silent = np.all(x.real() == 0, axis=-1, keepdims=True)
        zeros = np.zeros((), y.items.dtype)
        return host(np.where(silent, zeros if bias is None else bias.items, y.items), y.dtype)

    return layer


def scales_of_the_first(**arguments: Any) -> Any:
    """Scale every row of the weight like the first."""
    absmax = arguments["absmax"]
    changed = np.resize(absmax.items.reshape(-1)[:1], absmax.shape) if absmax.items.size else absmax.items
    return OPS["llm_int8_backward"](**{**arguments, "absmax": host(np.asarray(changed, np.float32))})


def columns_unwritten(function: str) -> Op:
    """Never write the outputs from 64 on."""

    def layer(**arguments: Any) -> Any:
        y = OPS[function](**arguments)
        words = np.array(y.words())
        words[..., TILE:] = 0
        return host(words, y.dtype) if y.dtype != "float32" else host(words.view(np.float32))

    return layer


def mean_bias(function: str) -> Op:
    """Average the gradient of the bias over the rows instead of adding it up."""

    def layer(**arguments: Any) -> Any:
        dx, db = OPS[function](**arguments)
        rows = max(1, int(np.prod(arguments["dy"].shape[:-1], dtype=np.int64)))
        return dx, host(np.asarray(encode(db.real() / rows, db.dtype)), db.dtype)

    return layer


def bias_without_last_row(function: str) -> Op:
    """Forget the last row in the gradient of the bias."""

    def layer(**arguments: Any) -> Any:
        dx, _ = OPS[function](**arguments)
        dy = arguments["dy"].real().reshape(-1, arguments["dy"].shape[-1])
        with np.errstate(all="ignore"):
            return dx, host(np.asarray(encode(dy[: max(1, len(dy) - 1)].sum(axis=0), dx.dtype)), dx.dtype)

    return layer


def each(functions: tuple[str, ...], make: Callable[[str], Op]) -> dict[str, Op]:
    """Return one wrong function for each name."""
    return {function: make(function) for function in functions}
