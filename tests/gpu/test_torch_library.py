"""The operators registered with torch: schemas, shapes, gradients, and what torch's transformations make of them."""

import doctest
import importlib
import pkgutil
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import qloracle
import qloracle_gpu.torch as backend
from qloracle.codebooks import Codebook
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array
from qloracle.qlora import qlora_weight
from qloracle_gpu.torch import library, quantize_int8
from qloracle_gpu.torch.library import calls
from qloracle_gpu.torch.library.codebook_text import codebook_text
from qloracle_gpu.torch.library.flat_weight import flat_weight, record_of

from .adapted_layers import CONFIGS, HALVES, quantized_layer, rough_operands
from .layers import (
    as_tensors,
    lattice,
    quantizers,
    reference_record,
    require_number,
    require_same_record,
    small_integers,
)
from .operator_cases import operands, operator_cases, stored_weights, values
from .words import require_same, words

OPERATORS = torch.ops.qloracle
CASES = operator_cases()
# The rest is checked with the slow tests.
QUICK = ("encode, stochastic", "quantize_blockwise, nf4", "int8_matmul", "lora_forward", "qlora_forward, NF4")
EXCEPT = {"decode, float8_e4m3fn": "test_schema"}  # which would multiply the argument, and torch has no such product
UTILITIES = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


def opcheck(case: str) -> None:
    name, arguments = CASES[case]
    chosen = tuple(utility for utility in UTILITIES if utility != EXCEPT.get(case))
    found = torch.library.opcheck(getattr(OPERATORS, name).default, arguments, test_utils=chosen)
    assert found == dict.fromkeys(chosen, "SUCCESS")


@pytest.mark.parametrize("case", QUICK)
def test_opcheck_finds_nothing(case: str) -> None:
    opcheck(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case not in QUICK])
def test_opcheck_finds_nothing_in_any_operator(case: str) -> None:
    opcheck(case)


def test_every_operator_is_checked_and_listed() -> None:
    registered = {
        name.removeprefix("qloracle::") for name in torch._C._dispatch_get_all_op_names() if "qloracle" in name
    }
    listed = set(re.findall(r"\w+", " ".join(re.findall("``(.+?)``", library.__doc__ or "", re.DOTALL))))
    assert {name for name, _ in CASES.values()} == registered
    assert listed == registered


def small_layer() -> tuple[dict[str, Array], Array]:
    """Operands and a gradient of small integers, whose sums are exact in any order."""
    return lattice(), small_integers(11, 2, 3, 7)


@pytest.mark.parametrize("bias_dtype", [torch.float32, torch.bfloat16])
def test_gradients_of_a_layer_are_those_of_the_reference(bias_dtype: torch.dtype) -> None:
    arrays, dy = small_layer()
    t = {name: tensor.requires_grad_() for name, tensor in as_tensors(arrays).items()}
    bias, own = (t["bias"].detach().to(bias_dtype).requires_grad_() for _ in range(2))
    y = OPERATORS.lora_forward(t["x"], t["weight"].detach(), t["lora_a"], t["lora_b"], 8.0, None, bias, own)
    y.backward(torch.from_numpy(dy))
    del arrays["bias"]
    expected = qloracle.lora_backward(dy, **arrays, alpha=8)
    for name in ("x", "lora_a", "lora_b"):
        require_number(t[name].grad, getattr(expected, name), "float32", f"gradient of {name}")
    for tensor, real in ((bias, expected.bias), (own, expected.lora_bias)):
        require_number(tensor.grad, real, str(bias_dtype).removeprefix("torch."), "gradient of a bias")


@pytest.mark.parametrize("name", [*quantizers(), "a table of one's own"])
@pytest.mark.parametrize("rounding", ["float32", "bfloat16"])
def test_the_gradient_of_a_quantized_product_is_the_dequantized_weight(name: str, rounding: str) -> None:
    # One nonzero in each row of dy: each row of the gradient is one of the weight, to the last bit.
    record = stored_weights()[name]
    x, bias = torch.zeros(5, 6, requires_grad=True), torch.zeros(5, requires_grad=True)
    flat = flat_weight(record).arguments
    OPERATORS.quantized_matmul(x, *flat, bias, rounding).backward(torch.eye(5))
    weight = qlora_weight(reference_record(record), weight_rounding=rounding)
    assert x.grad is not None
    require_same(x.grad + 0.0, weight + 0.0, "float32", f"the gradient of x with a weight in {name}")
    assert bias.grad is not None
    assert bias.grad.tolist() == [1] * 5


def test_the_gradient_of_llm_int8_is_that_of_the_dequantized_weight() -> None:
    record = quantize_int8(operands()["weight"].detach(), granularity="row")
    x = torch.full((5, 6), 8.0, requires_grad=True)  # every column is an outlier
    y = OPERATORS.llm_int8_forward(x, record.codes, record.absmax, None, 6.0, "columns", "dequantized")
    y.backward(torch.eye(5))
    assert x.grad is not None
    require_same(x.grad + 0.0, qlora_weight(reference_record(record)) + 0.0, "float32", "the gradient of x")


def test_an_operator_without_a_gradient_says_so() -> None:
    _, absmax = OPERATORS.quantize_blockwise(torch.ones(4, requires_grad=True))
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        absmax.sum().backward()


def test_a_table_of_ones_own_travels_as_text() -> None:
    x = values(9, 5)
    data, absmax = OPERATORS.quantize_blockwise(x, codebook_text(HALVES), 7)
    expected = qloracle.quantize_blockwise(x.numpy(), codebook=HALVES, block_size=7)
    assert words(data).tolist() == expected.data.tolist()
    require_same(absmax, expected.absmax, "float32", "absmax")
    y = OPERATORS.dequantize_blockwise(data, absmax, codebook_text(HALVES), 7, (9, 5), "float32")
    require_same(y, qloracle.dequantize_blockwise(expected), "float32", "values")


@pytest.mark.parametrize(("codebook", "message"), [
    ("nf5", "codebook must be one of .*'nf5'"), ("mine: 3f80", "codebook must be a name, or a text of codebook_text"),
    ("mine: " + "3f800000 " * 2 + "00000000", "entries must be a table of 16 or 256 entries, got 3"),
])  # fmt: skip
def test_a_text_of_no_codebook_is_refused(codebook: str, message: str) -> None:
    with pytest.raises(ArgumentValueError, match=message):
        OPERATORS.quantize_blockwise(torch.ones(4), codebook)


def test_tensors_that_do_not_belong_together_are_refused_by_the_errors_of_the_functions() -> None:
    data, absmax = OPERATORS.quantize_blockwise(torch.ones(4))
    with pytest.raises(ArgumentValueError, match=r"absmax must be of shape \(2,\), one value a block, got \(1,\)"):
        OPERATORS.dequantize_blockwise(data, absmax, "nf4", 2, (4,), "float32")
    with pytest.raises(ArgumentTypeError, match="x must be float32, float16 or bfloat16, got"):
        OPERATORS.quantize_int8(torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize("name", quantizers())
def test_what_operators_take_holds_the_whole_record(name: str) -> None:
    record = stored_weights()[name]
    again = record_of(flat_weight(record), record.dtype)
    require_same_record(again, reference_record(record), name)


def test_a_fake_tensor_gets_its_shape_without_being_computed() -> None:
    with FakeTensorMode():
        x = torch.empty(3, 5, dtype=torch.bfloat16)
        data, codes, absmax, offset = OPERATORS.quantize_double(x, "nf4", 2)
        y = OPERATORS.dequantize_double(data, codes, absmax, offset, "nf4", 2, (3, 5), "bfloat16")
    shapes = [tuple(part.shape) for part in (data, codes, absmax, offset, y)]
    assert shapes == [(8,), (8,), (1,), (), (3, 5)]
    assert y.dtype is torch.bfloat16


def test_functions_and_layers_under_fake_tensors_compute_nothing_and_leave_nothing_behind() -> None:
    own = Codebook("thirds", np.arange(-8, 8).astype(np.float32) / 4)  # its tables have not been made yet
    layer = quantized_layer(rough_operands(), CONFIGS["NF4"])
    with FakeTensorMode(allow_non_fake_inputs=True):
        q = backend.quantize_blockwise(torch.empty(3, 5), codebook=own)
        assert backend.dequantize_blockwise(q, dtype="float16").shape == (3, 5)
        assert layer(torch.empty(2, 20)).shape == (2, 12)
    x = values(3, 5)
    expected = qloracle.quantize_blockwise(x.numpy(), codebook=own).data
    assert words(backend.quantize_blockwise(x, codebook=own).data).tolist() == expected.tolist()


def test_vmap_quantizes_every_element_of_a_batch_by_itself() -> None:
    x = values(4, 3, 6)
    data, absmax = torch.func.vmap(lambda each: OPERATORS.quantize_blockwise(each, "fp4", 7), in_dims=1)(x)
    for place in range(3):
        expected = qloracle.quantize_blockwise(x[:, place].numpy(), codebook="fp4", block_size=7)
        assert words(data[place]).tolist() == expected.data.tolist()
        require_same(absmax[place], expected.absmax, "float32", "absmax")


def test_vmap_takes_several_adapters_on_one_quantized_weight() -> None:
    o, flat = {n: t.detach() for n, t in operands().items()}, flat_weight(stored_weights()["NF4"]).arguments
    a, b = torch.stack([o["lora_a"], -o["lora_a"]]), torch.stack([o["lora_b"]] * 2)

    def layer(lora_a: torch.Tensor, lora_b: torch.Tensor) -> Any:
        return OPERATORS.qlora_forward(o["x"], *flat, lora_a, lora_b, 4.0)

    got = torch.func.vmap(layer)(a, b)
    assert all(torch.equal(got[place], layer(a[place], b[place])) for place in range(2))


def test_torch_func_grad_is_for_layers_and_not_for_operators() -> None:
    one = torch.ones(1, 1)
    with pytest.raises(RuntimeError, match="must override the setup_context"):
        torch.func.grad(lambda x: OPERATORS.linear(x, one).sum())(one)


TURNED = {
    "columns first": lambda t: t.mT.contiguous().mT,
    "every second element": lambda t: t.repeat_interleave(2, -1)[..., ::2],
    "a part of a longer buffer": lambda t: torch.cat([t.new_zeros(1), t.reshape(-1)])[1:].view(t.shape),
}


@pytest.mark.parametrize("how", TURNED)
def test_arguments_may_have_any_strides(how: str) -> None:
    arrays, dy = small_layer()
    t = {n: TURNED[how](each) if each.ndim > 1 else each for n, each in as_tensors(arrays).items()}
    for name in ("x", "lora_a", "lora_b"):
        t[name].requires_grad_()
    y = OPERATORS.lora_forward(t["x"], t["weight"], t["lora_a"], t["lora_b"], 8.0, None, t["bias"])
    require_number(y, qloracle.lora_forward(**arrays, alpha=8), "float32", "y")
    assert y.is_contiguous()
    y.backward(TURNED[how](torch.from_numpy(dy)))
    del arrays["bias"]
    expected = qloracle.lora_backward(dy, **arrays, alpha=8)
    for name in ("x", "lora_a", "lora_b"):
        require_number(t[name].grad, getattr(expected, name), "float32", f"gradient of {name}")


@pytest.mark.parametrize("name", [info.name for info in pkgutil.iter_modules(library.__path__)])
def test_the_examples_in_the_docstrings_hold(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"qloracle_gpu.torch.library.{name}"))
    assert result.failed == 0, f"{name}: {result.failed} of {result.attempted} examples fail"


def test_every_function_that_compiles_as_an_operator_says_how() -> None:
    decorated = {
        name
        for name, function in vars(backend).items()
        if getattr(function, "__code__", None) is backend.decode.__code__  # that of the decorator
    }
    assert decorated == set(calls.__all__)
