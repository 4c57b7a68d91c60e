"""[double_quant.quantize], [double_quant.dequantize]: the whole pipeline against exact rationals."""

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from qloracle import (
    CODEBOOKS,
    DYNAMIC_SIGNED,
    FLOAT8,
    FP4,
    LINEAR_SIGNED,
    NF4,
    QuantizedAbsmax,
    dequantize_absmax,
    dequantize_blockwise,
    dequantize_double,
    quantize_absmax,
    quantize_blockwise,
    quantize_double,
    stored_bytes,
)
from qloracle.codebooks import Codebook
from qloracle.double_quant import restore_absmax
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array

from .compare import hex_of, require_same_codes, require_same_words
from .rationals import exact, nearest_entry, round_word, rounded

TABLES = pytest.mark.parametrize("table", [DYNAMIC_SIGNED, NF4, FP4, LINEAR_SIGNED, FLOAT8], ids=lambda t: t.name)


def lognormal(blocks: int) -> Array:
    return np.random.default_rng([61, blocks]).lognormal(0, 2, blocks).astype(np.float32)


def expected_nested(absmax: Array, offset: np.float32, table: Codebook) -> tuple[list[int], list[float], list[int]]:
    """Codes, nested absmax and words of the restored absmax, every step exact and rounded where the rule says so."""
    order = sorted(table.value_order.tolist(), key=lambda code: exact(table.entries[code]))
    ascending = [exact(table.entries[code]) for code in order]
    residual = [rounded(exact(a) - exact(offset)) for a in absmax]
    codes, nested, restored = [], [], []
    for start in range(0, len(residual), 256):
        group = residual[start : start + 256]
        scale = max(abs(r) for r in group)
        nested.append(float(scale))
        for r in group:
            code = order[nearest_entry(r / scale, ascending)] if scale else table.zero_code
            codes.append(code)
            restored.append(round_word(rounded(exact(table.entries[code]) * scale) + exact(offset), "float32"))
    return codes, nested, restored


@pytest.mark.proof("double_quant.quantize", by="exact rationals")
@pytest.mark.proof("double_quant.dequantize", by="exact rationals")
@TABLES
@pytest.mark.parametrize("blocks", [1, 2, 255, 256, 257, 1000])
def test_every_step_of_the_pipeline_is_the_rule(blocks: int, table: Codebook) -> None:
    absmax = lognormal(blocks)
    q = quantize_absmax(absmax, codebook=table.name)
    codes, nested, restored = expected_nested(absmax, q.offset, table)
    assert q.absmax.tolist() == nested, f"nested absmax of {blocks} blocks: {q.absmax}, expected {nested}"
    require_same_codes(q.codes, codes, f"nested codes of {blocks} blocks", hex_of(absmax))
    got = dequantize_absmax(q, codebook=table.name).view(np.uint32)
    require_same_words(got, np.array(restored, np.uint32), "float32", "restored absmax", hex_of(absmax))


@pytest.mark.proof("double_quant.quantize", by="torch")
@TABLES
def test_torch_finds_the_same_residuals_scales_and_codes(table: Codebook, torch: ModuleType) -> None:
    absmax = lognormal(700)
    q = quantize_absmax(absmax, codebook=table.name)
    residual = torch.from_numpy(absmax) - float(q.offset)
    groups = [residual[start : start + 256] for start in range(0, 700, 256)]
    assert q.absmax.tolist() == [float(group.abs().max()) for group in groups]
    entries = torch.tensor(table.entries).double().nan_to_num(9.0)
    for start, group, scale in zip((0, 256, 512), groups, q.absmax.tolist(), strict=True):
        distance = (group.double()[:, None] - entries * scale).abs()
        got = torch.from_numpy(q.codes[start : start + 256].astype(np.int64))
        chosen = distance[torch.arange(len(group)), got]
        assert torch.equal(chosen, distance.min(dim=1).values), f"a nearer entry exists in the group from {start}"


@pytest.mark.proof("double_quant.dequantize", by="torch")
@TABLES
def test_torch_restores_the_same_absmax(table: Codebook, torch: ModuleType) -> None:
    rng = np.random.default_rng(64)
    codes = rng.integers(0, table.entries.size, 1000, np.uint8)
    nested = rng.lognormal(0, 3, 4).astype(np.float32)
    offset = np.float32(0.37)
    got = dequantize_absmax(QuantizedAbsmax(codes, nested, offset), codebook=table.name)
    entries = torch.tensor(table.entries)[torch.from_numpy(codes.astype(np.int64))]
    expected = entries * torch.from_numpy(np.repeat(nested, 256)[:1000]) + torch.tensor(offset)
    require_same_words(got.view(np.uint32), expected.numpy().view(np.uint32), "float32", "restored", lambda i: f"{i}")


def test_a_restored_absmax_below_zero_is_not_clamped() -> None:
    absmax = lognormal(1000)
    restored = dequantize_absmax(quantize_absmax(absmax))
    assert restored.min() < 0, "lognormal absmax of sigma 2 must restore some below zero, or the test is vacuous"
    codes, _, words = expected_nested(absmax, quantize_absmax(absmax).offset, DYNAMIC_SIGNED)
    lowest = int(np.argmin(restored))
    got = int(restored.view(np.uint32)[lowest])
    assert got == words[lowest], f"block {lowest}, code {codes[lowest]}: restored {got:#x}, expected {words[lowest]:#x}"


def test_a_negative_restored_absmax_flips_the_sign_of_its_block() -> None:
    absmax = lognormal(1000)
    q = quantize_double(np.repeat(absmax, 4), block_size=4)
    scale = restore_absmax(q).absmax
    assert scale.min() < 0, "some absmax must restore below zero, or the test is vacuous"
    got, lowest = dequantize_double(q)[::4], int(np.argmin(scale))
    assert got[lowest] == scale[lowest], f"code of 1 times the absmax {scale[lowest]} is that absmax, got {got[lowest]}"


def test_a_zero_block_takes_the_sign_of_its_restored_absmax() -> None:
    absmax = lognormal(1000)
    absmax[::50] = 0
    x = np.repeat(absmax, 4).reshape(1000, 4) * np.array([1, 0, -0.5, 0.25], np.float32)
    q = quantize_double(x, block_size=4)
    scale = restore_absmax(q).absmax[::50]
    assert scale.min() < 0 < scale.max(), "some zero blocks must restore below zero, or the test is vacuous"
    got = dequantize_double(q)[::50]
    assert not got.any(), "a block of zeros gives zeros"
    assert np.signbit(got[:, 0]).tolist() == np.signbit(scale).tolist(), "each of the sign of its restored absmax"


@pytest.mark.parametrize("codebook", CODEBOOKS)
@pytest.mark.parametrize("nested", ["nf4", "dynamic_signed", "fp4", "linear_signed"])
def test_either_codebook_serves_for_values_and_for_absmax(codebook: str, nested: str) -> None:
    x = np.random.default_rng(65).standard_normal((30, 41)).astype(np.float32)
    q = quantize_double(x, codebook=codebook, block_size=8, nested_codebook=nested)
    plain = quantize_blockwise(x, codebook=codebook, block_size=8)
    assert q.data.tolist() == plain.data.tolist(), "the codes of the values do not depend on the nested codebook"
    expected = quantize_absmax(plain.absmax, codebook=nested)
    assert (q.absmax.codes.tolist(), q.absmax.absmax.tolist()) == (expected.codes.tolist(), expected.absmax.tolist())
    restored = dequantize_absmax(expected, codebook=nested)
    got = dequantize_double(q)
    assert got.tolist() == dequantize_blockwise(replace(plain, absmax=restored)).tolist()


def test_stored_bytes_are_those_of_all_arrays() -> None:
    for size, block_size in ((0, 64), (1, 64), (63, 7), (100_001, 64), (70_000, 1)):
        x = np.ones(size, np.float32)
        blocks = -(-size // block_size)
        half, groups = -(-size // 2), -(-blocks // 256)
        plain, double = (f(x, block_size=block_size) for f in (quantize_blockwise, quantize_double))
        assert stored_bytes(plain) == half + 4 * blocks, f"{size} elements in blocks of {block_size}"
        assert stored_bytes(double) == half + blocks + 4 * groups + 4, f"{size} elements in blocks of {block_size}"
        assert stored_bytes(quantize_blockwise(x, codebook="float8", block_size=block_size)) == size + 4 * blocks


def test_a_byte_swapped_and_a_strided_absmax_are_read_by_value() -> None:
    absmax = lognormal(300)
    plain = quantize_absmax(absmax)
    for other in (absmax.astype(">f4"), np.repeat(absmax, 2)[::2], absmax[::-1][::-1]):
        q = quantize_absmax(other)
        assert (q.codes.tolist(), q.offset) == (plain.codes.tolist(), plain.offset)
        assert q.offset.dtype == np.float32


def test_an_offset_may_be_an_array_of_no_axes() -> None:
    q = quantize_absmax(np.ones(3, np.float32), offset=np.array(0.5, np.float32))  # type: ignore[arg-type]
    assert dequantize_absmax(replace(q, offset=np.array(0.5, np.float32))).tolist() == [1.0] * 3


def test_a_given_offset_is_used_in_place_of_the_mean() -> None:
    q = quantize_absmax(np.array([1, 2, 3], np.float32), offset=np.float32(1))
    assert (float(q.offset), q.codes.tolist(), q.absmax.tolist()) == (
        1.0,
        [127, 219, 255],  # 0.5 lies in the 29th of the 64 pieces of [0.1, 1], which begin with code 191
        [2.0],
    )


def test_equal_absmax_have_no_residual_and_come_back_exactly() -> None:
    q = quantize_absmax(np.full(300, 0.1, np.float32))
    assert q.absmax.tolist() == [0, 0], f"residuals of equal absmax are 0, nested absmax {q.absmax}"
    assert np.all(q.codes == 127), "the code of zero is 127"
    assert np.all(dequantize_absmax(q) == np.float32(0.1)), "equal absmax must come back exactly"


@pytest.mark.parametrize("where", [0, 255, 256, 300, 511, 512, 599])
def test_a_poisoned_block_poisons_its_nested_group_and_no_more(where: int) -> None:
    absmax = lognormal(600)
    absmax[where] = np.nan
    q = quantize_absmax(absmax)
    clean = np.delete(absmax, where)
    assert exact(q.offset) == exact(quantize_absmax(clean).offset), f"block {where} is NaN: it must not enter the mean"
    restored, group = dequantize_absmax(q), np.arange(600) // 256 == where // 256
    nans = np.flatnonzero(np.isnan(restored))
    assert nans.tolist() == np.flatnonzero(group).tolist(), f"NaN at {where}: NaN at {nans[:3]} … {nans[-3:]}"


def test_only_poisoned_blocks_leave_offset_zero_and_nothing_but_nan() -> None:
    q = quantize_absmax(np.full(3, np.nan, np.float32))
    assert (float(q.offset), q.codes.tolist()) == (0.0, [127] * 3), f"offset 0 and codes of zero, got {q}"
    assert np.isnan(dequantize_absmax(q)).all(), "poisoned absmax must come back as NaN"


def test_no_block_at_all_is_legal() -> None:
    q = quantize_double(np.empty((0, 7), np.float32))
    assert (q.absmax.codes.size, q.absmax.absmax.size, float(q.absmax.offset)) == (0, 0, 0.0)
    assert dequantize_double(q).shape == (0, 7)


def test_the_codes_of_the_tensor_come_from_the_exact_absmax() -> None:
    x = np.random.default_rng(62).standard_t(2, 64 * 300).astype(np.float32)
    assert quantize_double(x).data.tolist() == quantize_blockwise(x).data.tolist(), (
        "double quantization changed the codes"
    )


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_values_are_those_of_the_restored_absmax(dtype: str) -> None:
    x = np.random.default_rng(63).standard_t(2, (40, 33)).astype(np.float32)
    q = quantize_double(x, block_size=16)
    got = dequantize_double(q, dtype=dtype)
    assert got.shape == (40, 33), f"shape (40, 33) came back as {got.shape}"
    assert got.tobytes() == dequantize_blockwise(restore_absmax(q), dtype=dtype).tobytes()


def test_poison_of_one_element_reaches_256_blocks_and_no_more() -> None:
    x = np.ones(4 * 600, np.float32)
    x[4 * 300] = np.inf
    nans = np.flatnonzero(np.isnan(dequantize_double(quantize_double(x, block_size=4))))
    assert (nans[0], nans[-1], nans.size) == (1024, 2047, 1024), f"NaN from {nans[0]} to {nans[-1]}, {nans.size} values"


def test_the_codes_are_those_of_bitsandbytes(bitsandbytes_functional: ModuleType, torch: ModuleType) -> None:
    absmax = lognormal(1000)
    q = quantize_absmax(absmax)
    residual = torch.from_numpy(absmax - q.offset)
    codes, state = bitsandbytes_functional.quantize_blockwise(residual, blocksize=256)
    table = np.arange(256)
    difference = np.abs(table[codes.numpy()] - table[q.codes])
    assert state.absmax.numpy().tolist() == q.absmax.tolist(), "bitsandbytes has other nested absmax"
    assert difference.max() <= 1, f"codes differ from bitsandbytes by more than a neighbour: {difference.max()}"


def test_a_block_of_zeros_gives_its_entry_times_the_restored_absmax() -> None:
    q = quantize_double(np.zeros(1, np.float32))
    negative = replace(q, absmax=replace(q.absmax, offset=np.float32(-2)))
    assert np.array_equal(dequantize_double(negative).view(np.uint32), [0x80000000]), "0 times −2 is −0"
    odd = Codebook("odd", (np.arange(-15, 17, 2) / 8).astype(np.float32))  # no entry 0; −1/8 has the lower code
    q = quantize_double(np.repeat(np.float32([0, 4]), 64), codebook=odd)
    absmax, values = restore_absmax(q).absmax, dequantize_double(q)
    assert absmax[0] != 0
    assert np.array_equal(values[:64], np.repeat(-absmax[0] / 8, 64)), f"absmax {absmax}: {values[0]}"


ONE = np.ones(1, np.float32)
STATE = QuantizedAbsmax(np.zeros(1, np.uint8), ONE, np.float32(0))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: quantize_absmax(np.ones(2)), ArgumentTypeError, "^absmax must be float32, got float64$"),
        (lambda: quantize_absmax([1.0]), ArgumentTypeError, "^absmax must be float32, got list$"),  # type: ignore[arg-type]
        (lambda: quantize_absmax(ONE.reshape(1, 1)), ArgumentTypeError, "^absmax must be a 1-d float32 .*, got 2-d$"),
        (
            lambda: quantize_absmax(ONE, offset=np.float64(1)),
            ArgumentTypeError,
            "^offset must be float32, got float64$",
        ),  # type: ignore[arg-type]
        (
            lambda: quantize_absmax(ONE, offset=np.ones(1, np.float32)),  # type: ignore[arg-type]
            ArgumentTypeError,
            "^offset must be one float32 number, got 1-d$",
        ),
        (lambda: stored_bytes(ONE), ArgumentTypeError, "^quantized must be QuantizedBlocks or .*, got ndarray$"),  # type: ignore[arg-type]
        (lambda: quantize_double(ONE, nested_codebook="q"), ArgumentValueError, "^codebook must be one .*, got 'q'$"),
        (lambda: quantize_absmax(ONE, codebook="q"), ArgumentValueError, "^codebook must be one of .*, got 'q'$"),
        (
            lambda: dequantize_absmax(QuantizedAbsmax(np.zeros(257, np.uint8), ONE, np.float32(0))),
            ArgumentValueError,
            r"^absmax must be of shape \(2,\), one value a block, got \(1,\)$",
        ),
        (
            lambda: dequantize_absmax(QuantizedAbsmax(np.zeros(1, np.int8), ONE, np.float32(0))),
            ArgumentTypeError,
            "^codes must be uint8, got int8$",
        ),
        (
            lambda: dequantize_absmax(QuantizedAbsmax(np.full(1, 16, np.uint8), ONE, np.float32(0)), codebook="nf4"),
            ArgumentValueError,
            "^codes must be codes from 0 to 15, got 16$",
        ),
        (lambda: dequantize_absmax(STATE, codebook="q"), ArgumentValueError, "^codebook must be one of .*, got 'q'$"),
    ],
)
def test_a_rejected_argument_is_named_with_its_rule_and_value(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
