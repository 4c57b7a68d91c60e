"""[blockwise.dequantize]: RN_out(fl32(entry · absmax)), +0 where absmax is 0, NaN where it is NaN."""

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from qloracle import dequantize_blockwise, quantize_blockwise
from qloracle.blockwise import dequantize_codes
from qloracle.codebooks import Codebook
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array
from qloracle.nearest import quantize_codes
from qloracle.tables import CODEBOOKS

from .codebook_cases import EVERY
from .compare import require_same_words
from .rationals import FIELDS, decode_word, exact, random_float32, round_word

ALL = pytest.mark.parametrize("codebook", EVERY.values(), ids=EVERY.keys())
WORD = {"float32": np.uint32, "float16": np.uint16, "bfloat16": np.uint16}


def stepwise_word(entry: np.float32, absmax: np.float32, fmt: str) -> int:
    """Product rounded to float32, then to `fmt`, each from the exact number."""
    negative = bool(np.signbit(entry)) != bool(np.signbit(absmax))
    single = round_word(exact(entry) * exact(absmax), "float32", negative=negative)
    real = decode_word(single, "float32")
    if isinstance(real, float):  # overflow to infinity
        width, digits = FIELDS[fmt]
        return ((2**width - 1) << digits) | ((real < 0) << (width + digits))
    return round_word(real, fmt, negative=negative)  # type: ignore[arg-type]


@pytest.mark.proof("blockwise.dequantize", by="exact rationals")
@ALL
@pytest.mark.parametrize("fmt", ["float32", "float16", "bfloat16"])
def test_every_code_times_any_absmax_is_rounded_twice_in_order(codebook: Codebook, fmt: str) -> None:
    scales = random_float32(
        np.random.default_rng(21), (8000 if codebook.name == "nf4" else 1600) // codebook.entries.size
    )
    scales[:6] = np.array([1, 0x80000001, 0x00800000, 0x7F7FFFFF, 0x477FE000, 0x33800000], np.uint32).view(np.float32)
    numbers = np.flatnonzero(~np.isnan(codebook.entries)).astype(np.uint8)
    count = numbers.size
    codes, absmax = np.tile(numbers, scales.size), np.repeat(scales, count)
    got = dequantize_codes(codes, scales, codebook, count, fmt).view(WORD[fmt])
    expected = [stepwise_word(codebook.entries[c], a, fmt) if a else 0 for c, a in zip(codes, absmax, strict=True)]
    require_same_words(
        got, np.array(expected, WORD[fmt]), fmt, f"{codebook.name} to {fmt}", lambda i: f"{codes[i]} {absmax[i]!r}"
    )


@pytest.mark.proof("blockwise.dequantize", by="torch")
@ALL
def test_torch_multiplies_and_casts_to_the_same_words(codebook: Codebook, torch: ModuleType) -> None:
    rng = np.random.default_rng(23)
    codes = rng.integers(0, codebook.entries.size, 30000, np.uint8)
    scales = random_float32(rng, 300)
    product = torch.tensor(codebook.entries)[torch.from_numpy(codes.astype(np.int64))] * torch.from_numpy(
        np.repeat(scales, 100)
    )
    for fmt, dtype in (("float32", torch.float32), ("float16", torch.float16), ("bfloat16", torch.bfloat16)):
        got = dequantize_codes(codes, scales, codebook, 100, fmt).view(WORD[fmt])
        expected = product.to(dtype).view(torch.int32 if fmt == "float32" else torch.int16).numpy().view(WORD[fmt])
        require_same_words(got, expected, fmt, f"{codebook.name} to {fmt}", lambda i: f"code {codes[i]}")


@pytest.mark.parametrize(("name", "codes"), [("float8", [0x7F, 0xFF]), ("gaps", [1, 4, 7, 10, 13])])
def test_codes_of_nan_read_as_nan_unless_the_block_is_zero(name: str, codes: list[int]) -> None:
    both = np.array([codes, codes], np.uint8).reshape(-1)
    got = dequantize_codes(both, np.array([2, 0], np.float32), EVERY[name], len(codes), "float32")
    assert np.isnan(got).tolist() == [True] * len(codes) + [False] * len(codes), f"{name}: {got}"


@pytest.mark.parametrize(("name", "code"), [("fp4", 8), ("float8", 0x80)])
def test_the_second_zero_reads_as_minus_zero(name: str, code: int) -> None:
    got = dequantize_codes(np.array([code, 0], np.uint8), np.ones(1, np.float32), CODEBOOKS[name], 2, "float32")
    assert got.view(np.uint32).tolist() == [0x80000000, 0], f"{name}: codes {code} and 0 read as {got}"


def test_a_zero_code_takes_the_sign_of_a_negative_absmax() -> None:
    codes, absmax = np.full(2, 7, np.uint8), np.array([-1, 1], np.float32)
    got = dequantize_codes(codes, absmax, CODEBOOKS["nf4"], 1, "float32").view(np.uint32).tolist()
    assert got == [0x80000000, 0], f"+0 times -1 and 1, got words {got}"


def test_the_product_is_rounded_to_float32_before_the_output_format() -> None:
    # Where the float32 product is a tie between two bfloat16 numbers, but the real product lies beside it, one rounding
    # and two disagree for about half of the scales.
    entry = CODEBOOKS["nf4"].entries[1]
    scales = np.random.default_rng(22).random(1 << 20).astype(np.float32) + np.float32(1)
    product = entry * scales
    ties = np.flatnonzero((product.view(np.uint32) & 0xFFFF) == 0x8000)
    twice = dequantize_codes(np.ones(ties.size, np.uint8), scales[ties], CODEBOOKS["nf4"], 1, "bfloat16")
    stepwise = [stepwise_word(entry, a, "bfloat16") for a in scales[ties]]
    once = [round_word(exact(entry) * exact(a), "bfloat16") for a in scales[ties]]
    assert once != stepwise, "no example tells one rounding from two"
    assert twice.tolist() == stepwise, "the product must be rounded to float32 first"


@pytest.mark.parametrize("scale", [0.0, -0.0])
@ALL
def test_absmax_zero_dequantizes_to_plus_zero(codebook: Codebook, scale: float) -> None:
    codes = np.arange(codebook.entries.size, dtype=np.uint8)
    got = dequantize_codes(codes, np.array([scale], np.float32), codebook, 256, "float32").view(np.uint32)
    assert not got.any(), f"{codebook.name}: absmax {scale} must give +0 everywhere, got words {np.unique(got)}"


@ALL
@pytest.mark.parametrize("fmt", ["float32", "float16", "bfloat16"])
def test_absmax_nan_dequantizes_to_nan_in_its_block_alone(codebook: Codebook, fmt: str) -> None:
    codes, scales = np.full(9, 3, np.uint8), np.array([1, np.nan, 1], np.float32)
    words = dequantize_codes(codes, scales, codebook, 3, fmt).view(WORD[fmt])
    infinity = {"float32": 0x7F800000, "float16": 0x7C00, "bfloat16": 0x7F80}[fmt]
    sign = {"float32": 0x7FFFFFFF, "float16": 0x7FFF, "bfloat16": 0x7FFF}[fmt]
    nans = ((words & sign) > infinity).tolist()
    assert nans == [False] * 3 + [True] * 3 + [False] * 3, f"{codebook.name} to {fmt}: NaN at {nans}"


@pytest.mark.proof("blockwise.shape", by="literal shapes")
@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (4, 96), (2, 3, 5), (0, 5), (2, 1, 3, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_shape_and_dtype_come_back(shape: tuple[int, ...], dtype: str) -> None:
    x = np.ones(shape, dtype)
    got = dequantize_blockwise(quantize_blockwise(x))
    assert (got.shape, got.dtype.name) == (shape, dtype), f"{dtype} {shape} came back as {got.dtype} {got.shape}"
    assert np.all(got == 1), f"ones of shape {shape} came back as {got}"


@pytest.mark.proof("blockwise.shape", by="the flat tensor, reshaped by NumPy")
@pytest.mark.parametrize("shape", [(105,), (3, 5, 7), (1, 105), (105, 1), (5, 21), (1, 3, 1, 35)])
def test_the_elements_of_any_shape_are_those_of_the_flat_tensor(shape: tuple[int, ...]) -> None:
    flat = np.random.default_rng(24).standard_normal(105).astype(np.float32)
    got = dequantize_blockwise(quantize_blockwise(flat.reshape(shape), block_size=8))
    expected = dequantize_blockwise(quantize_blockwise(flat, block_size=8)).reshape(shape)
    assert (got.shape, got.tolist()) == (expected.shape, expected.tolist()), f"shape {shape} came back as {got.shape}"


@pytest.mark.parametrize("name", ["fp4", "float8", "spread_out_0"])
def test_a_table_of_ones_own_serves_as_a_named_one(name: str) -> None:
    x = np.random.default_rng(25).standard_normal((7, 9)).astype(np.float32)
    quantized = quantize_blockwise(x, codebook=EVERY[name], block_size=5)
    assert quantized.codebook is EVERY[name], "the record keeps the table"
    got = dequantize_blockwise(quantized)
    codes = quantize_codes(x, quantized.absmax, EVERY[name], 5)
    expected = dequantize_codes(codes, quantized.absmax, EVERY[name], 5, "float32").reshape(7, 9)
    assert got.tolist() == expected.tolist()


@pytest.mark.parametrize("block_size", [1, 7, 64, 1 << 16, 1 << 20])
def test_values_do_not_depend_on_how_many_are_handled_at_once(block_size: int) -> None:
    rng = np.random.default_rng(26)
    codes = rng.integers(0, 16, 150001, np.uint8)
    absmax = rng.standard_normal(-(-codes.size // block_size)).astype(np.float32)
    got = dequantize_codes(codes, absmax, CODEBOOKS["nf4"], block_size, "float32")
    expected = CODEBOOKS["nf4"].entries[codes] * absmax[np.arange(codes.size) // block_size]
    assert got.tobytes() == expected.tobytes(), f"blocks of {block_size}"


LAYOUTS = {
    "reversed": lambda x: x[::-1, ::-1],
    "transposed": lambda x: x.T,
    "strided": lambda x: x[::2, 1::3],
    "fortran": np.asfortranarray,
    "byte-swapped": lambda x: x.astype(">f4"),
    "0-d": lambda x: x[3, 4],
    "array of no axes": lambda x: np.array(x[3, 4]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layout_and_byte_order_do_not_matter_and_inputs_stay(layout: str) -> None:
    x = np.random.default_rng(27).standard_normal((20, 30)).astype(np.float32)
    view = LAYOUTS[layout](x)
    if isinstance(view, np.ndarray):
        view.setflags(write=False)
    before = view.tobytes()
    got = quantize_blockwise(view, block_size=16)
    dense = quantize_blockwise(np.array(view, np.float32), block_size=16)
    assert (got.data.tolist(), got.absmax.tolist()) == (dense.data.tolist(), dense.absmax.tolist())
    assert dequantize_blockwise(got).shape == view.shape
    assert view.tobytes() == before, "the input was changed"
    swapped = replace(got, absmax=got.absmax.astype(">f4"))
    assert dequantize_blockwise(swapped).tolist() == dequantize_blockwise(got).tolist(), "byte-swapped absmax"


def test_bfloat16_words_come_back_as_words() -> None:
    got = dequantize_blockwise(quantize_blockwise(np.array([0xBF80, 0x4000], np.uint16), fmt="bfloat16"))
    assert (got.dtype, got.tolist()) == (np.uint16, [0xBF86, 0x4000]), f"bfloat16 [-1, 2] came back as {got}"


@pytest.mark.parametrize("where", [0, 63, 64, 100, 127, 128])
def test_a_poisoned_block_is_nan_and_no_other_value_changes(where: int) -> None:
    x = np.linspace(-1, 1, 130, dtype=np.float32)
    clean = dequantize_blockwise(quantize_blockwise(x))
    x[where] = -np.inf
    got, block = dequantize_blockwise(quantize_blockwise(x)), np.arange(130) // 64 == where // 64
    assert np.isnan(got).tolist() == block.tolist(), f"-inf at {where}: NaN at {np.flatnonzero(np.isnan(got))}"
    assert got[~block].tolist() == clean[~block].tolist(), f"-inf at {where} changed another block"


def test_zero_blocks_beside_others_stay_plus_zero() -> None:
    x = np.concatenate([np.zeros(64), np.ones(64), np.full(3, -0.0)]).astype(np.float32)
    got = dequantize_blockwise(quantize_blockwise(x)).view(np.uint32).tolist()
    assert got == [0] * 64 + [0x3F800000] * 64 + [0] * 3, "zeros(64), ones(64), -0 must come back as +0, 1, +0"


GOOD = quantize_blockwise(np.ones((2, 3), np.float32), block_size=4)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"absmax": np.ones(1, np.float32)}, ArgumentValueError, r"^absmax must be of shape \(2,\), .*, got \(1,\)$"),
        ({"absmax": np.ones(2)}, ArgumentTypeError, "^absmax must be float32, got float64$"),
        ({"data": np.zeros(4, np.uint8)}, ArgumentValueError, "^packed must be 3 bytes for 6 codes, got 4 bytes$"),
        ({"data": np.zeros(3, np.int8)}, ArgumentTypeError, "^data must be uint8, got int8$"),
        ({"codebook": "fp5"}, ArgumentValueError, "^codebook must be one of nf4, .*, got 'fp5'$"),
        ({"codebook": "dynamic_signed"}, ArgumentValueError, r"^data must be 6 codes for shape \(2, 3\), got 3$"),
        ({"codebook": 4}, ArgumentTypeError, "^codebook must be a .* Codebook.*, got (4|int)$"),
        ({"dtype": "float64"}, ArgumentValueError, "^dtype must be one of float32, .*, got 'float64'$"),
        ({"block_size": 0}, ArgumentValueError, "^block_size must be a positive integer, got 0$"),
    ],
)
def test_parts_that_do_not_belong_together_are_named(
    change: dict[str, Array], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        dequantize_blockwise(replace(GOOD, **change))  # type: ignore[arg-type]
