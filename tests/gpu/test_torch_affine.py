"""Affine quantization on tensors: the bits of the reference, on inputs beside every rounding, in any layout."""

from typing import Any

import numpy as np
import pytest
import torch

import qloracle
import qloracle_gpu.torch as backend
from qloracle.bounds import lora_backward_bound, lora_forward_bound
from qloracle.formats import Array
from qloracle.groups import group_shape, spread_groups
from qloracle.qlora import qlora_weight
from qloracle_gpu.torch.affine import affine_values
from qloracle_gpu.torch.groups import GRANULARITIES
from qloracle_gpu.torch.modules import FakeQuantize

from .affine_inputs import (
    CODE_RANGES,
    FORMATS,
    GROUPS,
    any_words,
    beside_codes,
    groups_of,
    in_format,
    scales,
)
from .layers import as_tensors, random_operands, reference_record, require_inside, require_same_record
from .test_torch_layouts import LAYOUTS
from .words import require_same, words

SHAPE = (11, 26)


def parameters(rng: np.random.Generator, granularity: str, size: int | None, codes: tuple[int, int]) -> tuple[Any, ...]:
    """Any scales and any zero points of the groups of SHAPE, and the scale of every element."""
    shape = group_shape(SHAPE, granularity, size, GRANULARITIES)
    count = int(np.prod(shape))
    scale = scales(rng, count).reshape(shape)
    zero_point = rng.integers(codes[0], codes[1] + 1, shape).astype(np.int32)
    return scale, zero_point, np.broadcast_to(spread_groups(scale, SHAPE, granularity, size), SHAPE)


def tensors(*arrays: Any) -> list[torch.Tensor]:
    return [torch.from_numpy(np.array(array)) for array in arrays]


@pytest.mark.parametrize("codes", CODE_RANGES)
def test_scale_and_zero_point_of_any_range_are_those_of_the_reference(codes: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    near = np.stack([groups_of(rng, 2, codes[1] - codes[0]) for _ in range(4000)])
    anything = any_words(rng, 4000, 2)
    with np.errstate(invalid="ignore"):
        ends = np.sort(np.concatenate([near, anything]), axis=1)
    lo, hi = ends[:, 0].copy(), ends[:, 1].copy()
    how = {"qmin": codes[0], "qmax": codes[1]}
    expected = qloracle.affine_parameters(lo, hi, **how)
    got = backend.affine_parameters(*tensors(lo, hi), **how)
    require_same(got[0], expected[0], "float32", f"scale of codes {codes}")
    require_same(got[1], expected[1], None, f"zero point of codes {codes}")


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize(("granularity", "size"), GROUPS)
def test_quantized_and_restored_tensors_are_those_of_the_reference(
    granularity: str, size: int | None, dtype: str
) -> None:
    rng = np.random.default_rng(2)
    for codes in CODE_RANGES:
        x = np.stack([groups_of(rng, SHAPE[1], codes[1] - codes[0]) for _ in range(SHAPE[0])])
        x[3, rng.integers(0, SHAPE[1])] = rng.choice([np.nan, np.inf, -np.inf])
        x[5], x[6, ::2] = 0, -0.0
        mine, theirs = in_format(x, dtype)
        how = {"qmin": codes[0], "qmax": codes[1], "granularity": granularity, "group_size": size}
        expected = qloracle.quantize_affine(theirs, **how, fmt=dtype)
        got = backend.quantize_affine(mine, **how)
        require_same_record(got, expected, f"{granularity} with codes {codes}")
        for out in FORMATS:
            restored, wanted = (
                backend.dequantize_affine(got, dtype=out),
                qloracle.dequantize_affine(expected, dtype=out),
            )
            require_same(restored, wanted, out, f"{granularity} with codes {codes} as {out}")
        assert backend.dequantize_affine(got).dtype is mine.dtype


@pytest.mark.parametrize(("granularity", "size"), GROUPS)
def test_codes_of_a_given_range_saturate_and_are_not_poisoned(granularity: str, size: int | None) -> None:
    rng = np.random.default_rng(3)
    scale, _, each = parameters(rng, granularity, size, (-8, 7))
    with np.errstate(over="ignore"):
        x, hi = beside_codes(rng, each), np.abs(np.asarray(3 * scale, np.float32))
    lo, how = np.asarray(-hi / 2, np.float32), {"qmin": -8, "qmax": 7, "granularity": granularity, "group_size": size}
    expected = qloracle.quantize_affine(x, **how, value_range=(lo, hi))
    got = backend.quantize_affine(torch.from_numpy(x), **how, value_range=tuple(tensors(lo, hi)))
    require_same_record(got, expected, granularity)
    clipped = qloracle.quantize_symmetric(x, clip=hi, **how)
    require_same_record(backend.quantize_symmetric(torch.from_numpy(x), clip=tensors(hi)[0], **how), clipped, "clip")
    narrow = how | {"qmin": -7}
    clipped = qloracle.quantize_symmetric(x, clip=hi, **narrow)
    require_same_record(backend.quantize_symmetric(torch.from_numpy(x), clip=tensors(hi)[0], **narrow), clipped, "clip")


@pytest.mark.parametrize("qmax", [1, 7, 100, 127, 255])
def test_the_scale_of_a_clipping_range_is_rounded_once(qmax: int) -> None:
    clip = np.abs(any_words(np.random.default_rng(qmax), 5000))
    with np.errstate(invalid="ignore"):  # signalling NaN
        expected = qloracle.symmetric_scale(clip, qmax=qmax)
    require_same(backend.symmetric_scale(torch.from_numpy(clip), qmax=qmax), expected, "float32", f"clip/{qmax}")


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize(("granularity", "size"), GROUPS)
def test_fake_quantization_and_its_gradient_are_those_of_the_reference_for_any_scale(
    granularity: str, size: int | None, dtype: str
) -> None:
    rng = np.random.default_rng(4)
    for codes in CODE_RANGES:
        scale, zero_point, each = parameters(rng, granularity, size, codes)
        (x, x_words), (dy, dy_words) = (
            in_format(beside_codes(rng, each), dtype),
            in_format(any_words(rng, *SHAPE), dtype),
        )
        how = {"qmin": codes[0], "qmax": codes[1], "granularity": granularity, "group_size": size}
        given, rule = tensors(scale, zero_point), f"{granularity} with codes {codes}"
        with np.errstate(all="ignore"):
            expected = qloracle.fake_quantize(x_words, scale, zero_point, **how, fmt=dtype)
        require_same(backend.fake_quantize(x, *given, **how), expected, dtype, rule)
        for interval in ("values", "codes"):
            with np.errstate(all="ignore"):
                expected = qloracle.fake_quantize_backward(
                    dy_words, x_words, scale, zero_point, **how, interval=interval, fmt=dtype
                )
            got = backend.fake_quantize_backward(dy, x, *given, **how, interval=interval)
            require_same(got, expected, None, f"gradient by {interval} of {rule}, bit for bit")


@pytest.mark.parametrize("codes", CODE_RANGES[:4])
def test_codes_with_any_scale_restore_to_the_values_of_the_reference(codes: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    for granularity, size in GROUPS:
        scale, zero_point, _ = parameters(rng, granularity, size, codes)
        stored = rng.integers(codes[0], codes[1] + 1, SHAPE).astype(np.int8 if codes[0] < 0 else np.uint8)
        for dtype in FORMATS:
            how = (*codes, granularity, size, dtype)
            with np.errstate(all="ignore"):
                expected = qloracle.dequantize_affine(qloracle.QuantizedAffine(stored, scale, zero_point, *how))
            got = backend.dequantize_affine(backend.QuantizedAffine(*tensors(stored, scale, zero_point), *how))
            require_same(got, expected, dtype, f"{granularity} with codes {codes} as {dtype}")


EVERY_SHAPE = [(), (0,), (1,), (5, 0), (0, 5), (2, 3, 5), (2, 1, 3, 4)]


@pytest.mark.parametrize(("granularity", "size", "shape"), [
    (granularity, size, shape) for granularity, size in GROUPS for shape in EVERY_SHAPE
    if shape or granularity in ("tensor", "group")
])  # fmt: skip
def test_any_shape_comes_back(granularity: str, size: int | None, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(6).standard_normal(shape).astype(np.float32)
    how = {"granularity": granularity, "group_size": size}
    expected = qloracle.quantize_affine(x, **how)
    got = backend.quantize_affine(tensors(x)[0], **how)
    require_same_record(got, expected, f"{granularity} of {shape}")
    require_same(backend.dequantize_affine(got), qloracle.dequantize_affine(expected), "float32", "values")
    for mine, theirs in zip(
        backend.percentile_range(tensors(x)[0], 10, 90, **how), qloracle.percentile_range(x, 10, 90, **how), strict=True
    ):
        require_same(mine, np.asarray(theirs), "float32", f"percentile of {granularity} of {shape}")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("granularity", "size"), GROUPS[:4])
def test_every_layout_gives_the_same_bits_and_stays_as_it_is(granularity: str, size: int | None, layout: str) -> None:
    rng = np.random.default_rng(7)
    plain, dy = torch.from_numpy(rng.standard_normal(SHAPE).astype(np.float32)), torch.ones(SHAPE)
    x, dy = LAYOUTS[layout](plain), LAYOUTS[layout](dy)
    storage = torch.empty(0).set_(x.detach().untyped_storage())
    before = words(storage.clone())
    how = {"granularity": granularity, "group_size": size}
    expected = backend.quantize_affine(plain, **how)
    q = backend.quantize_affine(x, **how)
    require_same_record(q, reference_record(expected), layout)
    spread = backend.QuantizedAffine(
        *(t.repeat_interleave(2, -1)[..., ::2] if t.ndim else t for t in (q.codes, q.scale, q.zero_point)),
        -128, 127, granularity, size, "float32",
    )  # fmt: skip
    given = (spread.scale, spread.zero_point)
    for got, wanted in (
        (backend.dequantize_affine(spread), backend.dequantize_affine(q)),
        (backend.fake_quantize(x, *given, **how), backend.fake_quantize(plain, q.scale, q.zero_point, **how)),
        (backend.fake_quantize_backward(dy, x, *given, **how),
         backend.fake_quantize_backward(torch.ones(SHAPE), plain, q.scale, q.zero_point, **how)),
        (backend.percentile_range(x, 2, 97, **how)[1], backend.percentile_range(plain, 2, 97, **how)[1]),
    ):  # fmt: skip
        require_same(got, wanted.numpy(), "float32", f"{granularity} of a tensor that is {layout}")
        assert got.is_contiguous()
        assert not got.requires_grad
    require_same(storage, before.view(np.float32), None, f"storage of the input, {layout}")


def test_a_large_tensor_worked_through_in_pieces_is_the_same() -> None:
    rng, threads = np.random.default_rng(8), torch.get_num_threads()
    x = rng.standard_normal((3, 400_000)).astype(np.float32)
    x[1, 399_999] = np.nan
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            for granularity, size in (("tensor", None), ("row", None), ("column", None), ("group", 300_001)):
                how = {"granularity": granularity, "group_size": size}
                got, expected = backend.quantize_affine(torch.from_numpy(x), **how), qloracle.quantize_affine(x, **how)
                require_same_record(got, expected, f"{granularity} by {count} threads")
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
def test_the_default_dtype_of_torch_changes_nothing(default: torch.dtype) -> None:
    x = torch.from_numpy(np.random.default_rng(9).standard_normal(SHAPE).astype(np.float32))

    def results() -> list[torch.Tensor]:
        q = backend.quantize_affine(x, qmin=-8, qmax=7, granularity="row")
        clipped = backend.quantize_symmetric(x, clip=backend.block_absmax(x, SHAPE[1]), granularity="row")
        ends = backend.moving_range(backend.percentile_range(x, 1, 98), backend.minmax_range(x), 0.3)
        layer = FakeQuantize()
        return [*vars(q).values(), clipped.scale, *ends, backend.dequantize_affine(q), layer(x), layer.lo]

    expected = results()
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        got = results()
    finally:
        torch.set_default_dtype(before)
    for mine, wanted in zip(got, expected, strict=True):
        if isinstance(wanted, torch.Tensor):
            assert mine.dtype is wanted.dtype
            assert torch.equal(mine, wanted)


def test_ranges_that_are_looked_at_nowhere_are_poisoned_and_codes_read_as_nan() -> None:
    # What another device than a CPU does, where a look would wait for it: the rules behind the functions, called alone.
    from qloracle_gpu.torch.affine import _values_within
    from qloracle_gpu.torch.affine_scale import parameters_of

    scale, zero_point = parameters_of(*tensors(np.float32([1, -1]), np.float32([0, 1])), (-8, 7))
    assert (scale.isnan().tolist(), zero_point[0].item()) == ([True, False], 0)
    stored, one = torch.tensor([[-9, -8, 7, 8]], dtype=torch.int8), torch.ones(1, 1)
    values = _values_within(stored, one, torch.zeros(1, 1, dtype=torch.int32), limits=(-8, 7))
    require_same(values, np.float32([[np.nan, -8, 7, np.nan]]), "float32", "codes outside of their range")
    require_same(affine_values(stored, one, one.int()), np.float32([[-10, -9, 6, 7]]), "float32", "plain values")


def affine_weight(seed: int, shape: tuple[int, int], dtype: str = "float32") -> tuple[Any, Array]:
    """A weight in 4-bit codes by groups, and the reference's float32 values of it."""
    w = random_operands(seed, w=shape)["w"]
    how = {"qmin": 0, "qmax": 15, "granularity": "group", "group_size": 16}
    record = backend.quantize_affine(torch.from_numpy(w), **how)
    return record, qlora_weight(reference_record(record), weight_rounding=dtype)


@pytest.mark.parametrize("rounding", FORMATS)
def test_products_with_an_affine_weight_lie_within_the_bound_of_its_values(rounding: str) -> None:
    record, weight = affine_weight(9, (10, 20), rounding)
    o = random_operands(10, x=(2, 3, 20), lora_a=(3, 20), lora_b=(10, 3), dy=(2, 3, 10), bias=(10,))
    dy, bias = o.pop("dy"), o.pop("bias")
    t = as_tensors(o)
    y = backend.qlora_forward(weight=record, **t, alpha=2, weight_rounding=rounding, bias=torch.from_numpy(bias))
    require_inside(y, lora_forward_bound(weight=weight, **o, alpha=2, bias=bias), "QLoRA")
    gradients = backend.qlora_backward(torch.from_numpy(dy), weight=record, **t, alpha=2, weight_rounding=rounding)
    for part, allowed in lora_backward_bound(dy, weight=weight, **o, alpha=2).items():
        require_inside(getattr(gradients, part), allowed, f"gradient of {part}")
    off = {"lora_a": 0 * o["lora_a"], "lora_b": 0 * o["lora_b"]}
    allowed = lora_forward_bound(o["x"], weight, **off, alpha=2, bias=bias)
    for product in (backend.weight_only_forward, backend.quantized_matmul):
        y = product(t["x"], record, bias=torch.from_numpy(bias), weight_rounding=rounding)
        require_inside(y, allowed, product.__name__)
    dx = backend.weight_only_backward(torch.from_numpy(dy), record, weight_rounding=rounding).x
    require_inside(dx, lora_backward_bound(dy, o["x"], weight, **off, alpha=2)["x"], "gradient of x")
    got = backend.weight_values(record, weight_rounding=rounding)
    require_same(got, weight, "float32", f"values rounded to {rounding}")
