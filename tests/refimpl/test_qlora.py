"""[qlora.weight] and the errors of the layers."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from qloracle import (
    dequantize_blockwise,
    lora_backward,
    lora_forward,
    qlora_backward,
    qlora_forward,
    quantize_blockwise,
    quantize_double,
)
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array
from qloracle.lora import dropout_factor, lora_scale
from qloracle.qlora import qlora_weight

from .rationals import exact, rounded


def ones(*shape: int) -> Array:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize("rounding", ["float32", "float16", "bfloat16"])
def test_the_weight_is_rounded_to_the_declared_format(rounding: str) -> None:
    q = quantize_blockwise(np.random.default_rng(91).standard_normal((3, 50)).astype(np.float32))
    single = dequantize_blockwise(q, dtype="float32")
    got = qlora_weight(q, weight_rounding=rounding)
    assert got.dtype == np.float32, f"the weight must come as float32 numbers, got {got.dtype}"
    for value, real in zip(got.flat, single.flat, strict=True):
        assert exact(value) == rounded(exact(real), rounding), f"{real!r} rounds to {rounding}, got {value!r}"


def test_a_poisoned_block_of_the_weight_reaches_the_rows_that_read_it() -> None:
    w = ones(4, 8)
    w[1, 2] = np.nan
    y = qlora_forward(ones(1, 8), quantize_blockwise(w, block_size=8), ones(1, 8), ones(4, 1), alpha=1)
    assert np.isnan(y).tolist() == [[False, True, False, False]], f"NaN in row 1 of the weight: y = {y}"


def test_the_quantized_weight_is_not_changed_by_training_steps() -> None:
    q = quantize_double(np.random.default_rng(92).standard_normal((4, 8)).astype(np.float32), block_size=8)
    before = (q.data.tobytes(), q.absmax.codes.tobytes(), q.absmax.absmax.tobytes())
    qlora_forward(ones(2, 8), q, ones(1, 8), ones(4, 1), alpha=1)
    qlora_backward(ones(2, 4), ones(2, 8), q, ones(1, 8), ones(4, 1), alpha=1)
    assert before == (q.data.tobytes(), q.absmax.codes.tobytes(), q.absmax.absmax.tobytes()), "the weight changed"


@pytest.mark.proof("lora.dropout", by="closed forms")
@pytest.mark.parametrize(("dropout", "kept"), [(0.0, 1.0), (0.5, 2.0), (0.75, 4.0), (1.0, 0.0)])
def test_kept_elements_are_divided_by_one_minus_p(dropout: float, kept: float) -> None:
    got = dropout_factor(np.array([True, False]), dropout, (2,)).tolist()
    assert got == [kept, 0.0], f"p = {dropout}: [{kept}, 0], got {got}"


X, W, A, B = ones(2, 3), ones(4, 3), ones(1, 3), ones(4, 1)
Q = quantize_blockwise(W)
MASK = np.ones((2, 3), np.bool_)


def run(**changes: object) -> Callable[[], object]:
    arguments = {"x": X, "weight": W, "lora_a": A, "lora_b": B, "alpha": 1.0, **changes}
    return lambda: lora_forward(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (run(x=X.astype(np.float64)), ArgumentTypeError, "^x must be float32, float16 or bfloat16, got float64$"),
        (run(weight=W.astype(np.int8)), ArgumentTypeError, "^weight must be .*, got int8$"),
        (run(lora_a=A.tolist()), ArgumentTypeError, "^lora_a must be a NumPy array, got list$"),
        (run(lora_b=B.astype(np.float64)), ArgumentTypeError, "^lora_b must be .*, got float64$"),
        (run(x=np.array(1, np.float32)), ArgumentValueError, "^x must be at least 1-d, got 0-d$"),
        (run(weight=ones(12)), ArgumentValueError, "^weight must be 2-d, got 1-d$"),
        (run(weight=ones(3, 4)), ArgumentValueError, r"^weight must be of shape \(3, 3\) .*, got \(3, 4\)$"),
        (run(lora_a=ones(3, 1)), ArgumentValueError, r"^lora_a must be of shape \(3, 3\) .*, got \(3, 1\)$"),
        (run(lora_b=ones(1, 4)), ArgumentValueError, r"^lora_b must be of shape \(4, 1\), got \(1, 4\)$"),
        (run(bias=ones(3)), ArgumentValueError, r"^bias must be of shape \(4,\), got \(3,\)$"),
        (run(bias=np.ones(4)), ArgumentTypeError, "^bias must be .*, got float64$"),
        (run(bias=[1, 2, 3, 4]), ArgumentTypeError, "^bias must be a NumPy array, got list$"),
        (run(lora_a=ones(0, 3), lora_b=ones(4, 0)), ArgumentValueError, "^rank must be a positive integer, got 0$"),
        (run(alpha=np.inf), ArgumentValueError, "^alpha must be finite, got inf$"),
        (run(dropout=0.5), ArgumentValueError, "^mask must be given when dropout is positive, got None$"),
        (run(dropout=1.5, mask=MASK), ArgumentValueError, "^dropout must be a probability .*, got 1.5$"),
        (run(dropout=np.nan, mask=MASK), ArgumentValueError, "^dropout must be a probability .*, got nan$"),
        (run(mask=MASK.astype(np.uint8)), ArgumentTypeError, "^mask must be bool, got uint8$"),
        (run(mask=MASK.tolist()), ArgumentTypeError, "^mask must be bool, got list$"),
        (run(mask=MASK[:1]), ArgumentValueError, r"^mask must be of the shape of x \(2, 3\), got \(1, 3\)$"),
        (lambda: lora_backward(ones(2, 3), X, W, A, B, alpha=1), ArgumentValueError, r"^dy .* \(2, 4\), got \(2, 3\)$"),
        (lambda: lora_backward(np.ones((2, 4)), X, W, A, B, alpha=1), ArgumentTypeError, "^dy must .*, got float64$"),
        (lambda: lora_scale(1, 0), ArgumentValueError, "^rank must be a positive integer, got 0$"),
        (lambda: lora_scale(1, 2.0), ArgumentTypeError, "^rank must be a positive integer, got 2.0$"),  # type: ignore[arg-type]
        (lambda: qlora_weight(W), ArgumentTypeError, "^weight must be QuantizedBlocks, .*, got ndarray$"),  # type: ignore[arg-type]
        (
            lambda: qlora_weight(quantize_blockwise(X[0])),
            ArgumentValueError,
            r"^weight must .* 2-d .*, got shape \(3,\)$",
        ),
        (
            lambda: qlora_weight(Q, weight_rounding="int8"),
            ArgumentValueError,
            "^weight_rounding must be .*, got 'int8'$",
        ),
        (lambda: qlora_weight(replace(Q, absmax=ones(2))), ArgumentValueError, r"^absmax must be .*, got \(2,\)$"),
    ],
)
def test_a_rejected_argument_is_named_with_its_rule_and_value(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
