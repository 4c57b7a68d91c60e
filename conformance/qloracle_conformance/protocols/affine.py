"""Signatures of affine quantization, observers and fake quantization.

Where a function takes `granularity` ("tensor", "row", "column", "group") and `group_size` (None but for "group"), the
numbers of the groups have the shape (), x.shape[:-1], x.shape[-1:] or (⌈x.size / group_size⌉,).
"""

from typing import Any, Protocol

Native = Any


class AffineParameters(Protocol):
    """``affine_parameters``: scale and zero point of given ranges. Clauses [affine.scale], [affine.zero_point]."""

    def __call__(self, lo: Native, hi: Native, *, qmin: int, qmax: int) -> tuple[Native, Native]:
        """Return scale (float32) and zero point (int32), both of the shape of lo and hi (float32)."""
        ...


class QuantizeAffine(Protocol):
    """``quantize_affine``: operations affine_tensor, affine_row, affine_column and affine_group .quantize."""

    def __call__(
        self, x: Native, *, qmin: int, qmax: int, granularity: str, group_size: int | None
    ) -> tuple[Native, Native, Native]:
        """Return codes (int8 where qmin < 0, else uint8; one an element), scale (float32), zero point (int32)."""
        ...


class DequantizeAffine(Protocol):
    """``dequantize_affine``: operations affine_tensor, affine_row, affine_column and affine_group .dequantize."""

    def __call__(
        self, codes: Native, scale: Native, zero_point: Native, *, qmin: int, qmax: int, granularity: str,
        group_size: int | None, dtype: str,
    ) -> Native:  # fmt: skip
        """Return values of type `dtype`, of the shape of the codes."""
        ...


class QuantizeSymmetric(Protocol):
    """``quantize_symmetric``: operation symmetric.quantize, with a clipping range for every group."""

    def __call__(
        self, x: Native, clip: Native, *, qmin: int, qmax: int, granularity: str, group_size: int | None
    ) -> tuple[Native, Native]:
        """Return codes (int8 where qmin < 0, else uint8) and scale (float32, the shape of clip)."""
        ...


class MinmaxRange(Protocol):
    """``minmax_range``: operation minmax.observe. Clause [observers.minmax]."""

    def __call__(self, x: Native, *, granularity: str, group_size: int | None) -> tuple[Native, Native]:
        """Return the smallest and the largest value of every group, float32."""
        ...


class PercentileRange(Protocol):
    """``percentile_range``: operation percentile.observe. Clause [observers.percentile]."""

    def __call__(
        self, x: Native, *, lower: float, upper: float, granularity: str, group_size: int | None
    ) -> tuple[Native, Native]:
        """Return two percentiles of every group, float32."""
        ...


class MovingRange(Protocol):
    """``moving_range``: operation moving.observe. Clause [observers.moving]."""

    def __call__(
        self, previous_lo: Native, previous_hi: Native, current_lo: Native, current_hi: Native, *, weight: float
    ) -> tuple[Native, Native]:
        """Return both ends of the moved range, float32."""
        ...


class FakeQuantize(Protocol):
    """``fake_quantize``: operation fake_quantize.forward. Clause [fake_quant.forward]."""

    def __call__(
        self, x: Native, scale: Native, zero_point: Native, *, qmin: int, qmax: int, granularity: str,
        group_size: int | None,
    ) -> Native:  # fmt: skip
        """Return values in the format of x."""
        ...


class FakeQuantizeBackward(Protocol):
    """``fake_quantize_backward``: operation fake_quantize.backward. Clause [fake_quant.backward]."""

    def __call__(
        self, dy: Native, x: Native, scale: Native, zero_point: Native, *, qmin: int, qmax: int, granularity: str,
        group_size: int | None, interval: str,
    ) -> Native:  # fmt: skip
        """Return the gradient of x in its format; `interval` is "values" or the variant "codes"."""
        ...


PROTOCOLS: dict[str, type] = {
    "affine_parameters": AffineParameters,
    "quantize_affine": QuantizeAffine,
    "dequantize_affine": DequantizeAffine,
    "quantize_symmetric": QuantizeSymmetric,
    "minmax_range": MinmaxRange,
    "percentile_range": PercentileRange,
    "moving_range": MovingRange,
    "fake_quantize": FakeQuantize,
    "fake_quantize_backward": FakeQuantizeBackward,
}
