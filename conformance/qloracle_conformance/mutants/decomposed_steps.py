"""LLM.int8() step by step, with the places open where a fault may enter."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.int8 import quantize_int8_codes
from qloracle.rounding import encode
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.mutant import Op

F = np.float32
Mask = Callable[[Array, float], Array]


def outlying(rows: Array, threshold: float) -> Array:
    """Return which elements are outliers by themselves."""
    return (~(np.abs(rows) < threshold) | ~np.isfinite(rows)) & (threshold != 0)


def outlier_columns(rows: Array, threshold: float) -> Array:
    """Return which columns hold an outlier."""
    columns: Array = np.any(outlying(rows, threshold), axis=0)
    return columns


def row_absmax(rows: Array) -> Array:
    """Return the absmax of rows, NaN where one is not finite."""
    largest = np.abs(rows).max(axis=1, initial=0.0)
    return np.where(np.isfinite(largest), largest, F(np.nan)).astype(np.float32)


def absmax_of_rest(rows: Array, left_out: Array, columns: Array) -> Array:
    """Return the absmax of rows without what is left out."""
    return row_absmax(np.where(left_out, F(0), rows))


def _add(integer: Array, floating: Array, bias: Array) -> Array:
    return integer + floating + bias


@dataclass(frozen=True)
class Steps:
    """LLM.int8() step by step, each of which a fault may replace."""

    columns: Mask = outlier_columns  # outlier columns of the rows
    absmax: Callable[[Array, Array, Array], Array] | None = None  # of rows, given what is left out, and the columns
    codes: Callable[[Array, Array], Array] = quantize_int8_codes  # of rows without outliers, given their absmax
    floats: Callable[[Array, Array, Array], Array] | None = None  # part of the outliers: rows, columns, weight
    join: Callable[[Array, Array, Array], Array] = _add
    weights: str = ""  # what outliers are multiplied by, whatever is asked for
    constant: float = 127**2

    def __call__(
        self, x: HostArray, codes: HostArray, absmax: HostArray, weight: HostArray | None, bias: HostArray | None, *,
        threshold: float, exclusion: str, outlier_weight: str,
    ) -> Any:  # fmt: skip
        """Run the layer in float64, with one rounding at the end."""
        rows = x.single().reshape(-1, x.shape[-1])
        dense = codes.real() * absmax.items.astype(np.float64)[:, np.newaxis] / 127
        kind = self.weights or outlier_weight
        original = dense.astype(F).astype(np.float64) if kind == "dequantized" or weight is None else weight.real()
        with np.errstate(all="ignore"):
            columns = self.columns(rows, threshold)
            left_out = outlying(rows, threshold) if exclusion == "elements" else columns
            reduce = self.absmax or absmax_of_rest
            found = reduce(rows, left_out, columns)
            mine = self.codes(np.where(columns, F(0), rows), found[:, np.newaxis])
            acc = mine.astype(np.float64) @ codes.real().T
            integer = acc * found[:, np.newaxis].astype(np.float64) * absmax.items.astype(np.float64) / self.constant
            if self.floats is None:
                floating = rows[:, columns].astype(np.float64) @ original[:, columns].T
            else:
                floating = self.floats(rows.astype(np.float64), columns, original)
            shift = np.zeros(len(dense)) if bias is None else bias.real()
            y = np.asarray(encode(self.join(integer, floating, shift), x.dtype))
        lead = x.shape[:-1]
        return (
            host(columns), host(mine.reshape(x.shape)), host(np.asarray(found.reshape(lead))),
            host(y.reshape(*lead, len(dense)), x.dtype),
        )  # fmt: skip


def as_rows_only(steps: Steps) -> Op:
    """Return the same steps as a layer without outliers."""

    def layer(x: HostArray, codes: HostArray, absmax: HostArray, bias: HostArray | None) -> Any:
        found = steps(
            x, codes, absmax, None, bias, threshold=0.0, exclusion="columns", outlier_weight="dequantized"
        )  # fmt: skip
        return found[1:]

    return layer
