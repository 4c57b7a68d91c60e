"""Quantization-aware training: gradients pass straight through, ranges are observed as the reference does."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import qloracle
import qloracle_gpu.torch as backend
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array
from qloracle_gpu.torch.modules import FakeQuantize, QuantizedTensor

from .affine_inputs import FORMATS, beside_codes
from .layers import require_same_record
from .suite_runs import passed_operations
from .words import require_same

OPERATORS = torch.ops.qloracle
CONFIGS: dict[str, dict[str, Any]] = {
    "the widest range": {},
    "4 bits by row": {"qmin": 0, "qmax": 15, "granularity": "row"},
    "symmetric, by column": {"qmin": -7, "qmax": 7, "granularity": "column", "symmetric": True},
    "a moving range": {"momentum": 0.1},
    "percentiles by group": {"granularity": "group", "group_size": 7, "percentiles": (1, 99.5)},
    "moving percentiles": {"percentiles": (5, 95), "momentum": 0.3, "qmin": -8, "qmax": 7},
}


def batch(seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal((6, 10)).astype(np.float32)


def reference_range(config: dict[str, Any], batches: list[Array]) -> tuple[Array, Array]:
    """The range that the reference's observers give for batches."""
    how = {name: config.get(name, default) for name, default in (("granularity", "tensor"), ("group_size", None))}
    found = None
    for x in batches:
        percentiles = config.get("percentiles")
        new = qloracle.percentile_range(x, *percentiles, **how) if percentiles else qloracle.minmax_range(x, **how)
        if found is None:
            found = new
        elif "momentum" in config:
            found = qloracle.moving_range(found, new, config["momentum"])
        else:
            found = np.minimum(found[0], new[0]), np.maximum(found[1], new[1])
    assert found is not None
    return np.asarray(found[0]), np.asarray(found[1])


@pytest.mark.parametrize("name", CONFIGS)
def test_what_passes_is_fake_quantized_with_the_observed_range(name: str) -> None:
    config, batches = CONFIGS[name], [batch(seed) for seed in range(3)]
    layer, codes = FakeQuantize(**config), (config.get("qmin", -128), config.get("qmax", 127))
    groups = {key: config[key] for key in ("granularity", "group_size") if key in config}
    for count, x in enumerate(batches, 1):
        t = torch.from_numpy(x).requires_grad_()
        y = layer(t)
        lo, hi = reference_range(config, batches[:count])
        require_same(layer.lo, lo, "float32", f"lo of {name}")
        require_same(layer.hi, hi, "float32", f"hi of {name}")
        scale, zero_point = qloracle.affine_parameters(lo, hi, qmin=codes[0], qmax=codes[1])
        if config.get("symmetric"):
            scale = qloracle.symmetric_scale(np.maximum(np.abs(lo), np.abs(hi)), qmax=codes[1])
            zero_point = np.zeros(scale.shape, np.int32)
        how = {"qmin": codes[0], "qmax": codes[1], **groups}
        require_same(y.detach(), qloracle.fake_quantize(x, scale, zero_point, **how), "float32", name)
        y.backward(torch.from_numpy(batch(9)))
        assert t.grad is not None
        expected = qloracle.fake_quantize_backward(batch(9), x, scale, zero_point, **how)
        require_same(t.grad, expected, "float32", f"gradient of {name}")
    before = layer.lo.clone()
    layer.eval()(torch.full((6, 10), 99.0))
    assert torch.equal(layer.lo, before), "evaluation moves the range"


@pytest.mark.parametrize("dtype", FORMATS)
def test_values_and_gradients_are_those_of_torch_itself_where_the_scale_is_a_power_of_two(dtype: str) -> None:
    # Torch multiplies by a reciprocal; with a power of two that is a division.
    rng = np.random.default_rng(2)
    x = torch.from_numpy(beside_codes(rng, np.full((40, 50), 0.25, np.float32))).to(getattr(torch, dtype))
    x = x.nan_to_num(0.0, 0.0, 0.0).clamp(-400, 400).requires_grad_()
    dy = torch.from_numpy(batch(3)[:1, :1]).to(x.dtype).expand_as(x)
    theirs = torch.fake_quantize_per_tensor_affine(x.float(), 0.25, 3, -8, 7)
    (expected,) = torch.autograd.grad(theirs, x, dy.float())
    mine = OPERATORS.fake_quantize(
        x, torch.tensor(0.25), torch.tensor(3, dtype=torch.int32), -8, 7, "tensor", None, "codes"
    )
    (got,) = torch.autograd.grad(mine, x, dy)
    assert torch.equal(mine.float(), theirs)
    assert torch.equal(got, expected)
    assert 0 < int((got == 0).sum()) < got.numel()


def trained(**config: Any) -> FakeQuantize:
    layer = FakeQuantize(**config)
    layer(torch.from_numpy(batch(1)))
    return layer


@pytest.mark.parametrize("name", CONFIGS)
def test_a_state_restores_the_range_and_refuses_other_settings(name: str) -> None:
    layer, x = trained(**CONFIGS[name]), torch.from_numpy(batch(2))
    again = FakeQuantize(**CONFIGS[name])
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again.eval()(x), layer.eval()(x))
    with pytest.raises(ArgumentValueError, match=r"the state of FakeQuantize must be .*-100"):
        FakeQuantize(qmin=-100).load_state_dict(layer.state_dict())
    fresh = FakeQuantize(**CONFIGS[name])
    fresh.load_state_dict(FakeQuantize(**CONFIGS[name]).state_dict())
    with pytest.raises(ArgumentValueError, match="must be observed in training mode"):
        fresh.eval()(x)


def test_a_range_stays_float32_in_a_model_of_another_format_and_moves_with_it() -> None:
    layer = nn.Sequential(nn.Linear(10, 10), trained()).half()
    assert layer[1].lo.dtype is torch.float32
    assert layer(torch.from_numpy(batch(1)).half()).dtype is torch.float16
    assert layer.to("meta")[1].hi.device.type == "meta"


def test_a_batch_that_is_not_finite_makes_nan_until_the_range_is_reset() -> None:
    layer, x = trained(), torch.from_numpy(batch(3))
    poisoned = x.clone()
    poisoned[2, 3] = torch.inf
    assert layer(poisoned).isnan().all()
    assert layer(x).isnan().all()
    layer.reset()
    assert layer(x).isfinite().all()


def test_it_is_copied_mapped_and_differentiated_like_any_module() -> None:
    layer, x = copy.deepcopy(trained()).eval(), torch.from_numpy(np.stack([batch(4), batch(5)]))
    assert torch.equal(torch.func.vmap(layer)(x), torch.stack([layer(x[0]), layer(x[1])]))
    inside = (layer.lo <= x[0]) & (x[0] <= layer.hi)
    gradient = torch.func.grad(lambda t: layer(t).sum())(x[0])
    assert torch.equal(gradient[inside & (x[0].abs() < 1)], torch.ones(int((inside & (x[0].abs() < 1)).sum())))


@pytest.mark.parametrize(("config", "message"), [
    ({"qmin": 0, "qmax": 300}, "^qmin and qmax must be within"),
    ({"granularity": "layer"}, "^granularity must be one of"),
    ({"granularity": "group"}, "^group_size must be a positive integer"),
    ({"group_size": 4}, "^group_size must be None for granularity 'tensor'"),
    ({"symmetric": 1}, "^symmetric must be True or False"),
    ({"symmetric": True, "qmin": 1}, "^qmin must be not positive"),
    ({"momentum": 1.5}, "^momentum must be from 0 to 1"),
    ({"percentiles": (90, 10)}, "^percentiles must be a pair with"),
    ({"percentiles": 99}, "^percentiles must be a pair"),
    ({"interval": "open"}, "^interval must be one of values, codes"),
])  # fmt: skip
def test_bad_settings_are_refused_when_it_is_made(config: dict[str, Any], message: str) -> None:
    with pytest.raises((ArgumentTypeError, ArgumentValueError), match=message):
        FakeQuantize(**config)


def test_bad_input_is_refused_and_leaves_the_range_as_it_was() -> None:
    layer = trained(granularity="row")
    before = layer.lo
    with pytest.raises(ArgumentValueError, match=r"^x must be of as many groups as before, \(6,\), got \(7,\)"):
        layer(torch.ones(7, 10))
    with pytest.raises(ArgumentTypeError, match=r"^x must be float32, float16 or bfloat16, got torch\.float64"):
        layer(torch.ones(6, 10, dtype=torch.float64))
    assert layer.lo is before


@pytest.mark.slow
@pytest.mark.parametrize("config", [{}, {"momentum": 0.1, "symmetric": True}])
def test_it_compiles_to_one_graph_with_the_bits_of_the_eager_module(config: dict[str, Any]) -> None:
    torch._dynamo.reset()
    with torch.compiler.set_stance("default"):
        eager, layer = FakeQuantize(**config), FakeQuantize(**config)
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        for seed in range(3):
            x, same = (torch.from_numpy(batch(seed)).requires_grad_() for _ in range(2))
            got, expected = compiled(x), eager(same)
            got.sum().backward()
            expected.sum().backward()
            assert torch.equal(got, expected)
            assert x.grad is not None
            assert same.grad is not None
            assert torch.equal(x.grad, same.grad)
        assert torch.equal(layer.hi, eager.hi)
    torch._dynamo.reset()


def test_training_with_it_moves_weights_that_round_to_fewer_codes() -> None:
    torch.manual_seed(0)
    target = torch.from_numpy(batch(6))
    weight, layer = nn.Parameter(torch.zeros(10, 10)), FakeQuantize(qmin=-8, qmax=7)
    optimizer, losses = torch.optim.SGD([weight], lr=0.05), []
    x = torch.randn(6, 10)
    for _ in range(40):
        optimizer.zero_grad()
        loss = ((x @ layer(weight) - target) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert len(layer(weight).unique()) <= 16


@pytest.mark.parametrize("codes", [(-128, 127), (0, 15)])
def test_an_affine_record_is_kept_in_a_module_bit_for_bit(codes: tuple[int, int]) -> None:
    how = {"qmin": codes[0], "qmax": codes[1], "granularity": "row"}
    record = backend.quantize_affine(torch.from_numpy(batch(7)), **how)
    stored = QuantizedTensor(record).to(torch.bfloat16)
    expected = qloracle.quantize_affine(batch(7), **how)
    require_same_record(stored.record(), expected, "stored")
    other = QuantizedTensor(backend.quantize_affine(torch.zeros(6, 10), **how))
    other.load_state_dict(stored.state_dict())
    require_same_record(other.record(), expected, "loaded")
    y = OPERATORS.quantized_matmul(torch.eye(10), *other.flat().arguments)
    require_same(y, qloracle.dequantize_affine(expected).T, "float32", "a product with the identity")
    state = stored.state_dict()
    state["zero_point"] = torch.full_like(state["zero_point"], codes[1] + 1)
    with pytest.raises(ArgumentValueError, match=f"^zero_point must be from {codes[0]} to {codes[1]}, got"):
        other.load_state_dict(state)


def test_an_operator_refuses_affine_codes_without_limits_or_zero_points() -> None:
    flat = list(QuantizedTensor(backend.quantize_affine(torch.ones(2, 4), granularity="row")).flat().arguments)
    for place, value in ((4, "affine"), (2, None)):
        wrong = [*flat[:place], value, *flat[place + 1 :]]
        with pytest.raises(ArgumentValueError, match=r"^codebook must be .*QMIN\.\.QMAX for affine codes"):
            OPERATORS.quantized_matmul(torch.ones(1, 4), *wrong)


@pytest.mark.slow
def test_the_suite_finds_no_fault_of_the_affine_family(tmp_path: Path) -> None:
    passed = passed_operations("qloracle_gpu.torch.conformance_affine:backend", tmp_path)
    assert {"affine.parameters", "affine_group.quantize", "fake_quantize.backward", "affine.merge"} <= passed
