"""Signatures of linear layers with INT8 or affine weights, and of LLM.int8()."""

from typing import Any, Protocol

Native = Any


class Int8WeightForward(Protocol):
    """``int8_weight_forward``: operation int8_weight.forward, floating-point activations. [weight_only.forward]."""

    def __call__(
        self, x: Native, codes: Native, absmax: Native, bias: Native | None, *, granularity: str, block_size: int | None
    ) -> Native:
        """Return y of shape (..., N) in the format of x, from a weight of INT8 codes (N, K) and their absmax."""
        ...


class Int8WeightBackward(Protocol):
    """``int8_weight_backward``: operation int8_weight.backward. Clause [weight_only.backward]."""

    def __call__(
        self, dy: Native, codes: Native, absmax: Native, *, granularity: str, block_size: int | None
    ) -> tuple[Native, Native]:
        """Return the gradients of x and of the bias in the format of dy."""
        ...


class AffineWeightForward(Protocol):
    """``affine_weight_forward``: operation affine_weight.forward. Clause [weight_only.forward]."""

    def __call__(
        self, x: Native, codes: Native, scale: Native, zero_point: Native, bias: Native | None, *, qmin: int,
        qmax: int, granularity: str, group_size: int | None,
    ) -> Native:  # fmt: skip
        """Return y of shape (..., N) in the format of x, from a weight of affine codes (N, K)."""
        ...


class AffineWeightBackward(Protocol):
    """``affine_weight_backward``: operation affine_weight.backward. Clause [weight_only.backward]."""

    def __call__(
        self, dy: Native, codes: Native, scale: Native, zero_point: Native, *, qmin: int, qmax: int, granularity: str,
        group_size: int | None,
    ) -> tuple[Native, Native]:  # fmt: skip
        """Return the gradients of x and of the bias in the format of dy."""
        ...


class Int8LinearForward(Protocol):
    """``int8_linear_forward``: operation int8_linear.forward, activations quantized by row. [int8_linear.forward]."""

    def __call__(self, x: Native, codes: Native, absmax: Native, bias: Native | None) -> tuple[Native, Native, Native]:
        """Return the INT8 codes of x, their absmax (float32, x.shape[:-1]), and y in the format of x.

        The weight is given as INT8 codes (N, K) and one absmax a row (float32, (N,)).
        """
        ...


class LlmInt8Forward(Protocol):
    """``llm_int8_forward``: operation llm_int8.forward. Clause [llm_int8.forward]."""

    def __call__(
        self, x: Native, codes: Native, absmax: Native, weight: Native | None, bias: Native | None, *,
        threshold: float, exclusion: str, outlier_weight: str,
    ) -> tuple[Native, Native, Native, Native]:  # fmt: skip
        """Return outlier columns (bool, (K,)), the INT8 codes of x, their absmax (float32), and y in the format of x.

        The weight is given as INT8 codes (N, K), one absmax a row, and as it was (None for `outlier_weight`
        "dequantized").
        """
        ...


class LlmInt8Backward(Protocol):
    """``llm_int8_backward``: operation llm_int8.backward. Clause [llm_int8.backward]."""

    def __call__(self, dy: Native, codes: Native, absmax: Native) -> tuple[Native, Native]:
        """Return the gradients of x and of the bias in the format of dy."""
        ...


PROTOCOLS: dict[str, type] = {
    "int8_weight_forward": Int8WeightForward,
    "int8_weight_backward": Int8WeightBackward,
    "affine_weight_forward": AffineWeightForward,
    "affine_weight_backward": AffineWeightBackward,
    "int8_linear_forward": Int8LinearForward,
    "llm_int8_forward": LlmInt8Forward,
    "llm_int8_backward": LlmInt8Backward,
}
