"""LLM.int8() and layers with an INT8 weight on tensors."""

import numpy as np
import pytest
import torch

import qloracle
import qloracle_gpu.torch as backend
from qloracle.bounds import (
    Roundings,
    llm_int8_forward_bound,
    scale_int8_matmul_bound,
    weight_only_backward_bound,
    weight_only_forward_bound,
)
from qloracle.formats import Array

from .layers import FORMATS, random_operands, reference_record, require_inside, require_number
from .words import require_same


def activations() -> Array:
    """Rows with outliers in columns 3 and 7, one of them small elsewhere in its column, and one not finite."""
    x = random_operands(1, x=(2, 4, 30))["x"]
    x[:, :, 3] *= 40
    x[0, 1, 7], x[1, 2, 11] = 6.0, -np.inf
    return x


def row_weight() -> tuple[Array, backend.QuantizedInt8]:
    weight = random_operands(2, w=(20, 30))["w"]
    return weight, backend.quantize_int8(torch.from_numpy(weight), granularity="row")


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("threshold", [0.0, 2.5, 6.0, float(np.nextafter(np.float64(6), 7)), 1e30, 1e300])
def test_outlier_columns_are_those_of_the_reference(threshold: float, dtype: str) -> None:
    x = torch.from_numpy(activations()).to(getattr(torch, dtype))
    wide = x.to(torch.float32).numpy()
    expected = qloracle.outlier_columns(wide, threshold)
    require_same(backend.outlier_columns(x, threshold), expected, None, f"outliers at {threshold}")


@pytest.mark.parametrize("exclusion", ["columns", "elements"])
@pytest.mark.parametrize("threshold", [0.0, 2.5, 6.0])
def test_the_decomposition_has_the_bits_of_the_reference(threshold: float, exclusion: str) -> None:
    expected = qloracle.decompose(activations(), threshold, exclusion=exclusion)
    got = backend.decompose(torch.from_numpy(activations()), threshold, exclusion=exclusion)
    require_same(got.outliers, expected.outliers, None, "outliers")
    require_same(got.codes, expected.codes, None, "codes")
    require_same(got.absmax, expected.absmax, "float32", "absmax")


def test_the_parts_of_somebody_else_are_used() -> None:
    x, absmax = activations()[0], np.full(4, 0.5, np.float32)
    outliers = np.arange(30) % 4 == 3
    expected = qloracle.decompose(x, 6.0, outliers=outliers, absmax=absmax)
    got = backend.decompose(
        torch.from_numpy(x), 6.0, outliers=torch.from_numpy(outliers), absmax=torch.from_numpy(absmax)
    )
    require_same(got.codes, expected.codes, None, "codes that saturate")


@pytest.mark.parametrize("outlier_weight", ["original", "dequantized"])
@pytest.mark.parametrize("threshold", [0.0, 2.5, 6.0])
def test_forward_stays_within_the_bound_of_the_reference(threshold: float, outlier_weight: str) -> None:
    (original, quantized), x = row_weight(), activations()
    x[1, 2, 11] = 1.0
    bias = random_operands(3, b=(20,))["b"]
    parts = qloracle.decompose(x, threshold)
    allowed = llm_int8_forward_bound(
        x, reference_record(quantized), parts, original, outlier_weight=outlier_weight, bias=bias
    )
    got = backend.llm_int8_forward(
        torch.from_numpy(x), quantized, torch.from_numpy(original), threshold=threshold,
        outlier_weight=outlier_weight, bias=torch.from_numpy(bias),
    )  # fmt: skip
    require_inside(got, allowed, f"threshold {threshold}, {outlier_weight}")


def test_forward_is_exact_where_every_product_is() -> None:
    weight = np.float32([[127, 1, 4], [2, 254, -8]])
    x = np.float32([[127, 3, 256], [-127, 5, 512]])
    stored = backend.quantize_int8(torch.from_numpy(weight), granularity="row")
    expected = qloracle.llm_int8_forward(x, reference_record(stored), weight, threshold=256)
    got = backend.llm_int8_forward(torch.from_numpy(x), stored, torch.from_numpy(weight), threshold=256)
    require_number(got, expected, "float32", "y")


@pytest.mark.parametrize("weight_rounding", FORMATS)
def test_floating_point_activations_stay_within_the_bounds(weight_rounding: str) -> None:
    (_, quantized), operands = row_weight(), random_operands(4, x=(2, 4, 30), dy=(2, 4, 20), b=(20,))
    how = {"weight_rounding": weight_rounding}
    roundings = Roundings(weight=weight_rounding)
    x, dy, bias = (torch.from_numpy(operands[name]) for name in ("x", "dy", "b"))
    record = reference_record(quantized)
    y = backend.weight_only_forward(x, quantized, bias=bias, **how)
    require_inside(y, weight_only_forward_bound(operands["x"], record, bias=operands["b"], roundings=roundings), "y")
    allowed = weight_only_backward_bound(operands["dy"], record, roundings=roundings)
    for backward in (backend.weight_only_backward, backend.llm_int8_backward):
        for name, interval in allowed.items():
            require_inside(getattr(backward(dy, quantized, **how), name), interval, f"{backward.__name__}, {name}")


def test_activations_quantized_by_row_stay_within_the_bound_of_scaling() -> None:
    (_, quantized), x = row_weight(), random_operands(5, x=(6, 30))["x"]
    codes = qloracle.quantize_int8(x, granularity="row")
    acc = qloracle.int8_matmul(codes.codes, quantized.codes.numpy())
    allowed = scale_int8_matmul_bound(acc, codes.absmax, quantized.absmax.numpy())
    require_inside(backend.int8_linear_forward(torch.from_numpy(x), quantized), allowed, "y")


@pytest.mark.parametrize("weight_rounding", FORMATS)
def test_values_of_a_weight_have_the_bits_of_the_reference(weight_rounding: str) -> None:
    _, quantized = row_weight()
    expected = qloracle.weight_values(reference_record(quantized), weight_rounding=weight_rounding)
    require_same(backend.weight_values(quantized, weight_rounding=weight_rounding), expected, "float32", "values")
