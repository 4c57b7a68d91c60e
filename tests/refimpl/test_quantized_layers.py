"""[qlora.weight], [quantized.matmul] and the layers on a quantized weight, for every quantizer of the specification."""

from collections.abc import Callable
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from qloracle import (
    dora_backward,
    dora_forward,
    lora_backward,
    lora_forward,
    qdora_backward,
    qdora_forward,
    qlora_backward,
    qlora_forward,
    quantize_affine,
    quantize_blockwise,
    quantize_double,
    quantize_int8,
    quantized_matmul,
)
from qloracle.affine import QuantizedAffine
from qloracle.blockwise import QuantizedBlocks
from qloracle.double_quant import DoubleQuantized
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array
from qloracle.int8 import QuantizedInt8
from qloracle.qlora import QuantizedWeight, qlora_weight
from qloracle.tables import CODEBOOKS

from .rational_dora import Dora, norms_of
from .rational_dora import derivative as dora_derivative
from .rational_dora import forward as dora_rational
from .rational_layers import Layer, derivative, forward, kept_matrix, matrix, require_equal
from .rationals import exact, rounded

Quantize = Callable[[Array], QuantizedWeight]
QUANTIZERS: dict[str, Quantize] = {
    **{name: lambda w, name=name: quantize_blockwise(w, codebook=name, block_size=8) for name in CODEBOOKS},
    "nf4 double": lambda w: quantize_double(w, block_size=8),
    "fp4 double": lambda w: quantize_double(w, codebook="fp4", block_size=8),
    **{f"int8 {g}": lambda w, g=g: quantize_int8(w, granularity=g) for g in ("tensor", "row", "column")},
    "int8 block": lambda w: quantize_int8(w, granularity="block", block_size=8),
    **{f"affine {g}": lambda w, g=g: quantize_affine(w, granularity=g) for g in ("tensor", "row", "column")},
    "affine 4 bits": lambda w: quantize_affine(w, qmin=0, qmax=15, granularity="group", group_size=8),
}
# The published words of NF4, in code order (Dettmers et al. 2023, appendix E).
NF4_WORDS = ("bf800000 bf3239b1 bf066b30 beca32a0 be91a24d be3d353f bdba7871 00000000 "
             "3da2faff 3e24cae3 3e7c04dd 3ead033a 3ee1a4b8 3f1007ab 3f3913b3 3f800000")  # fmt: skip
NF4_ENTRIES = np.array([int(word, 16) for word in NF4_WORDS.split()], np.uint32).view(np.float32)


def weight_of(seed: int, *shape: int) -> Array:
    return np.random.default_rng([161, seed]).standard_normal(shape).astype(np.float32)


def nf4_codes(quantized: QuantizedBlocks | DoubleQuantized) -> Array:
    return np.stack([quantized.data >> 4, quantized.data & 15], axis=1).reshape(-1)[: np.prod(quantized.shape)]


@pytest.mark.proof("qlora.weight", by="exact rationals")
@pytest.mark.parametrize("rounding", ["float32", "float16", "bfloat16"])
def test_weights_are_the_rationals_of_their_rules_rounded_to_the_declared_format(rounding: str) -> None:
    w = weight_of(1, 3, 7)
    blocks = quantize_blockwise(w, block_size=4)
    spread = np.repeat(blocks.absmax, 4)[:21]
    products = zip(NF4_ENTRIES[nf4_codes(blocks)].tolist(), spread.tolist(), strict=True)
    reals: dict[str, tuple[QuantizedWeight, list[Fraction]]] = {
        "nf4": (blocks, [exact(e) * exact(a) for e, a in products])
    }
    int8 = quantize_int8(w, granularity="row")
    pairs = zip(int8.codes.reshape(-1).tolist(), np.repeat(int8.absmax, 7).tolist(), strict=True)
    reals["int8"] = int8, [q * exact(a) / 127 for q, a in pairs]
    affine = quantize_affine(w, granularity="row")
    steps = (affine.codes.astype(int) - affine.zero_point[:, np.newaxis]).reshape(-1).tolist()
    reals["affine"] = affine, [q * exact(s) for q, s in zip(steps, np.repeat(affine.scale, 7).tolist(), strict=True)]
    for name, (quantized, expected) in reals.items():
        got = qlora_weight(quantized, weight_rounding=rounding)
        assert (got.shape, got.dtype) == ((3, 7), np.float32), f"{name}: {got.shape}, {got.dtype}"
        for value, real in zip(got.flat, expected, strict=True):
            assert exact(value) == rounded(rounded(real), rounding), (
                f"{name}: {float(real)!r} to {rounding}, got {value!r}"
            )


@pytest.mark.proof("qlora.weight", by="NumPy's float32")
def test_weights_are_single_products_in_float32() -> None:
    w = weight_of(2, 3, 7)
    blocks, double = quantize_blockwise(w, block_size=4), quantize_double(w, block_size=4)
    expected = NF4_ENTRIES[nf4_codes(blocks)] * np.repeat(blocks.absmax, 4)[:21]
    assert qlora_weight(blocks).reshape(-1).tolist() == expected.tolist(), "NF4"
    nested = double.absmax
    table = CODEBOOKS["dynamic_signed"].entries
    absmax = table[nested.codes] * np.repeat(nested.absmax, 256)[: nested.codes.size] + nested.offset
    expected = NF4_ENTRIES[nf4_codes(double)] * np.repeat(absmax, 4)[:21]
    assert qlora_weight(double).reshape(-1).tolist() == expected.tolist(), "NF4 with quantized absmax"


@pytest.mark.proof("quantized.matmul", by="exact rationals")
@pytest.mark.parametrize("name", QUANTIZERS)
def test_products_are_the_sums_of_the_dequantized_weight(name: str) -> None:
    q = QUANTIZERS[name](weight_of(3, 4, 7))
    x, bias = np.random.default_rng(162).integers(-3, 4, (5, 7)).astype(np.float32), np.arange(4, dtype=np.float32)
    w = matrix(qlora_weight(q))
    expected = [[sum((a * v for a, v in zip(row, line, strict=True)), exact(b)) for row, b in zip(w, bias, strict=True)]
                for line in matrix(x)]  # fmt: skip
    require_equal(quantized_matmul(x, q, bias=bias), expected, f"y of {name}")


@pytest.mark.proof("quantized.matmul", by="torch")
@pytest.mark.parametrize("name", QUANTIZERS)
@pytest.mark.parametrize("rows", [1, 2, 17])
def test_products_with_an_identity_give_the_weight_and_others_are_torchs(
    torch: ModuleType, name: str, rows: int
) -> None:
    q = QUANTIZERS[name](weight_of(4, 4, 9))
    w = torch.tensor(qlora_weight(q), dtype=torch.float64)
    assert quantized_matmul(np.eye(9, dtype=np.float32), q).tolist() == w.T.tolist(), f"{name}: x = I gives Wᵀ"
    x = np.random.default_rng(163).integers(-3, 4, (rows, 9)).astype(np.float32)
    expected = torch.nn.functional.linear(torch.tensor(x, dtype=torch.float64), w)
    assert quantized_matmul(x, q).tolist() == expected.tolist(), f"{name}: {rows} rows"


def integers(seed: int, *shape: int) -> Array:
    return np.random.default_rng([164, seed]).integers(-3, 4, shape).astype(np.float32)


def parts(rank: int = 2) -> dict[str, Array]:
    shapes = {"x": (3, 8), "lora_a": (rank, 8), "lora_b": (4, rank), "dy": (3, 4), "bias": (4,), "lora_bias": (4,)}
    return {name: integers(seed, *shape) for seed, (name, shape) in enumerate(shapes.items())}


@pytest.mark.proof("qlora.forward", by="exact rationals")
@pytest.mark.proof("qlora.backward", by="exact rational differences")
@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_layer_on_a_quantized_weight_is_the_layer_on_the_dequantized_one(name: str) -> None:
    q, a = QUANTIZERS[name](weight_of(5, 4, 8)), parts()
    x, w, lora_a, lora_b, dy = (matrix(m) for m in (a["x"], qlora_weight(q), a["lora_a"], a["lora_b"], a["dy"]))
    kept = kept_matrix(None, Fraction(0), (3, 8))
    biases = (matrix(a[n].reshape(1, 4)) for n in ("bias", "lora_bias"))
    layer = Layer(x, w, lora_a, lora_b, Fraction(3, 2), next(biases), kept, next(biases))
    operands = (a["x"], q, a["lora_a"], a["lora_b"])
    require_equal(qlora_forward(*operands, alpha=3, bias=a["bias"], lora_bias=a["lora_bias"]), forward(layer), "y")
    gradients = qlora_backward(a["dy"], *operands, alpha=3)
    for field in ("x", "lora_a", "lora_b"):
        require_equal(getattr(gradients, field), derivative(layer, dy, field), f"the gradient of {field}")


# Codes of −1, 0 and 1 times a power of two, rows of a norm that is one too.
QUARTERED = np.array(
    [[1, 1, 1, 1, 0, 0, 0, 0], [0, 4, 0, 0, 0, 0, 0, 0], [2, 0, -2, 2, 0, 0, 2, 0], [0] * 8], np.float32
)


@pytest.mark.proof("qdora.forward", by="exact rationals")
@pytest.mark.proof("qdora.backward", by="exact rational differences")
@pytest.mark.parametrize("name", ["nf4", "fp4", "int8 row", "int8 block"])
def test_dora_on_a_quantized_weight_takes_the_norms_of_the_dequantized_one(name: str) -> None:
    q, a = QUANTIZERS[name](QUARTERED), parts()
    a["lora_b"][...], magnitude = 0, np.array([6, 2, -4, 5], np.float32)
    x, w, lora_a, lora_b = (matrix(m) for m in (a["x"], qlora_weight(q), a["lora_a"], a["lora_b"]))
    one, kept = Fraction(1), kept_matrix(None, Fraction(0), (3, 8))
    rows = (matrix(v.reshape(1, 4)) for v in (magnitude, a["bias"]))
    layer = Dora(x, w, lora_a, lora_b, *rows, one, kept, norms_of(w, lora_a, lora_b, one))
    operands = (a["x"], q, a["lora_a"], a["lora_b"], magnitude)
    require_equal(qdora_forward(*operands, alpha=2, bias=a["bias"]), dora_rational(layer), "y")
    gradients, dy = qdora_backward(a["dy"], *operands, alpha=2), matrix(a["dy"])
    for field in ("x", "lora_a", "lora_b"):
        require_equal(getattr(gradients, field), dora_derivative(layer, dy, field), f"the gradient of {field}")
    expected = dora_derivative(layer, dy, "magnitude")
    require_equal(gradients.magnitude.reshape(1, -1), expected, "the gradient of the magnitude")


@pytest.mark.proof("qdora.forward", by="a plain weight")
@pytest.mark.proof("qdora.backward", by="a plain weight")
@pytest.mark.parametrize("rounding", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_quantized_weight_may_be_given_dequantized(name: str, rounding: str) -> None:
    q, a, m = QUANTIZERS[name](weight_of(6, 4, 8)), parts(), np.ones(4, np.float32)
    options: dict[str, Any] = {"alpha": 3, "rank_stabilized": True, "mask": a["x"] > 0, "dropout": 0.5}
    plain = (a["x"], qlora_weight(q, weight_rounding=rounding), a["lora_a"], a["lora_b"])
    stored = (a["x"], q, a["lora_a"], a["lora_b"])
    pairs = [
        (qlora_forward(*stored, **options, weight_rounding=rounding), lora_forward(*plain, **options)),
        (qdora_forward(*stored, m, **options, weight_rounding=rounding), dora_forward(*plain, m, **options)),
    ]
    gradients = [
        (
            qlora_backward(a["dy"], *stored, **options, weight_rounding=rounding),
            lora_backward(a["dy"], *plain, **options),
        ),
        (
            qdora_backward(a["dy"], *stored, m, **options, weight_rounding=rounding),
            dora_backward(a["dy"], *plain, m, **options),
        ),
    ]
    pairs += [pair for both in gradients for pair in zip(vars(both[0]).values(), vars(both[1]).values(), strict=True)]
    for got, expected in pairs:
        assert got.tolist() == expected.tolist(), f"{name}, weight rounded to {rounding}"


def test_a_square_weight_is_never_turned() -> None:
    w = weight_of(7, 8, 8)
    y = quantized_matmul(np.eye(8, dtype=np.float32), quantize_int8(w, granularity="row"))
    assert y.tolist() == qlora_weight(quantize_int8(w, granularity="row")).T.astype(float).tolist(), "y = I Wᵀ"


Q = quantize_blockwise(np.ones((4, 3), np.float32))
X = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: quantized_matmul(X.T, Q), ArgumentValueError, r"^weight must .* \(d_out, 2\) .*, got \(4, 3\)$"),
        (lambda: quantized_matmul(X, X), ArgumentTypeError, "^weight must be QuantizedBlocks, .*, got ndarray$"),
        (lambda: quantized_matmul(X, Q, bias=X[0]), ArgumentValueError, r"^bias must be of shape \(4,\), got \(3,\)$"),
        (lambda: quantized_matmul(X.astype(float), Q), ArgumentTypeError, "^x must be .*, got float64$"),
        (lambda: quantized_matmul(X[0, 0], Q), ArgumentValueError, "^x must be at least 1-d, got 0-d$"),
        (lambda: quantized_matmul(X, Q, weight_rounding="int8"), ArgumentValueError, "^weight_rounding must be one of"),
        (
            lambda: qlora_weight(quantize_int8(X[0])),
            ArgumentValueError,
            r"^weight must be a quantized 2-d .*, got shape \(3,\)$",
        ),
        (
            lambda: qlora_weight(QuantizedInt8(np.zeros((2, 3), np.int8), X[0], "row", None, "float32")),
            ArgumentValueError,
            "^absmax must be",
        ),
        (
            lambda: qlora_weight(
                QuantizedAffine(
                    np.zeros((2, 3), np.int8), np.ones((), np.float32), np.int32(9), -8, 7, "tensor", None, "float32"
                )
            ),
            ArgumentValueError,
            "^zero_point must be",
        ),
    ],
)
def test_a_rejected_argument_is_named_with_its_rule_and_value(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
