"""Bytes of single tensors: against the arrays that the quantizers really make, and by counting elements one by one."""

from collections.abc import Iterable
from fractions import Fraction
from math import prod

import numpy as np
import pytest

from qloracle.affine import quantize_affine
from qloracle.blockwise import quantize_blockwise
from qloracle.double_quant import quantize_double
from qloracle.footprint.schemes import SCHEMES, Scheme, scheme_named
from qloracle.footprint.storage import TensorBytes, bits_per_weight, table_bytes, tensor_bytes
from qloracle.int8 import quantize_int8
from qloracle.packing import pack_4bit
from qloracle.tables import CODEBOOKS

SHAPES = [(), (0,), (1,), (63,), (64,), (65,), (3, 43), (0, 7), (5, 0), (2, 3, 5), (257, 64), (16384 + 1,), (300, 301)]
BLOCK_SIZES = (1, 7, 64, 256)


def cases() -> Iterable[tuple[tuple[int, ...], Scheme]]:
    """Every shape under every scheme, in blocks of every size where there are blocks."""
    for name, scheme in SCHEMES.items():
        for shape in SHAPES:
            if scheme.group != "block":
                yield shape, scheme
            else:
                yield from ((shape, scheme_named(name, block_size)) for block_size in BLOCK_SIZES)


def arrays_of(shape: tuple[int, ...], scheme: Scheme) -> TensorBytes | None:
    """The bytes of the arrays that quantizing zeros of this shape gives; None where the quantizer wants an axis."""
    zeros, block_size = np.zeros(shape, np.float32), scheme.block_size
    family, _, group = scheme.name.partition("_")
    group = "row" if scheme.name == "llm_int8" else group
    if scheme.group in ("row", "column") and not shape:
        return None
    if family in ("int8", "llm"):
        int8 = quantize_int8(zeros, granularity=group, block_size=block_size)
        return TensorBytes(int8.codes.nbytes, int8.absmax.nbytes, 0)
    if family.startswith("affine"):
        four = family == "affine4"
        affine = quantize_affine(
            zeros, qmin=-8 if four else -128, qmax=7 if four else 127, granularity=group, group_size=block_size
        )
        stored = pack_4bit(affine.codes.astype(np.uint8) & 15) if four else affine.codes
        return TensorBytes(stored.nbytes, affine.scale.nbytes, affine.zero_point.nbytes)
    assert block_size is not None
    codebook = scheme.name.removesuffix("_double")
    if not scheme.nested:
        plain = quantize_blockwise(zeros, codebook=codebook, block_size=block_size)
        return TensorBytes(plain.data.nbytes, plain.absmax.nbytes, 0)
    double = quantize_double(zeros, codebook=codebook, block_size=block_size)
    absmax = double.absmax
    return TensorBytes(double.data.nbytes, absmax.codes.nbytes + absmax.absmax.nbytes, absmax.offset.nbytes)


def counted(shape: tuple[int, ...], scheme: Scheme) -> TensorBytes:
    """The same by giving every element its bits and every group that an element falls into its scale."""
    indices = list(np.ndindex(shape))
    bits = [scheme.code_bits for _ in indices]
    codes = len(range(0, sum(bits), 8))
    label = {
        "none": lambda place, index: None,
        "tensor": lambda place, index: 0,
        "row": lambda place, index: index[:-1],
        "column": lambda place, index: index[-1:],
        "block": lambda place, index: place // (scheme.block_size or 1),
    }[scheme.group]
    groups = {label(place, index) for place, index in enumerate(indices)} - {None}
    if scheme.nested:
        nested = {group // 256 for group in range(len(groups))}
        return TensorBytes(codes, len(groups) + 4 * len(nested), 4)
    return TensorBytes(codes, sum(4 for _ in groups), sum(scheme.zero_point_bytes for _ in groups))


@pytest.mark.proof("footprint.codes", by="the arrays that the quantizers make")
@pytest.mark.proof("footprint.scales", by="the arrays that the quantizers make")
@pytest.mark.proof("footprint.offsets", by="the arrays that the quantizers make")
def test_the_bytes_are_those_of_the_arrays_that_the_quantizers_make() -> None:
    compared = 0
    for shape, scheme in cases():
        if scheme.group == "none":
            continue
        expected = arrays_of(shape, scheme)
        if expected is not None:
            assert tensor_bytes(shape, scheme) == expected, f"{scheme} of shape {shape}"
            compared += 1
    assert compared > 800


@pytest.mark.proof("footprint.codes", by="counting every element")
@pytest.mark.proof("footprint.scales", by="counting every element")
@pytest.mark.proof("footprint.offsets", by="counting every element")
def test_the_bytes_are_those_of_every_element_and_every_group_counted_one_by_one() -> None:
    for shape, scheme in cases():
        # A scale for a whole tensor, rows of length 0 and columns of height 0 exist though no element falls into them.
        if prod(shape) == 0 and scheme.group in ("tensor", "row", "column"):
            continue
        if prod(shape) > 20000:
            continue
        assert tensor_bytes(shape, scheme) == counted(shape, scheme), f"{scheme} of shape {shape}"


@pytest.mark.proof("footprint.codes", by="element sizes of NumPy")
def test_a_plain_format_takes_the_bytes_of_its_array() -> None:
    for shape in SHAPES:
        assert tensor_bytes(shape, "float32").codes == np.zeros(shape, np.float32).nbytes
        assert tensor_bytes(shape, "float16").codes == np.zeros(shape, np.float16).nbytes
        assert tensor_bytes(shape, "bfloat16").codes == np.zeros(shape, np.uint16).nbytes


@pytest.mark.proof("footprint.tables", by="the tables themselves")
def test_the_tables_take_the_bytes_of_the_codebooks() -> None:
    nested = CODEBOOKS["dynamic_signed"].entries.nbytes
    for name, codebook in CODEBOOKS.items():
        assert table_bytes(name) == codebook.entries.nbytes
        own = codebook.entries.nbytes
        assert table_bytes(f"{name}_double") == (own if name == "dynamic_signed" else own + nested)


@pytest.mark.proof("footprint.tables", by="literal numbers")
def test_the_tables_of_the_common_schemes_take_64_1024_and_1088_bytes() -> None:
    names = ("float32", "int8", "llm_int8", "affine4", "nf4", "fp4", "dynamic_signed", "nf4_double")
    assert [table_bytes(name) for name in names] == [0, 0, 0, 0, 64, 64, 1024, 1088]


@pytest.mark.proof("footprint.bits", by="literal fractions")
def test_the_bits_a_weight_are_the_published_ones() -> None:
    assert bits_per_weight("nf4") == Fraction(9, 2)
    assert bits_per_weight("nf4_double") == Fraction(4) + Fraction(1, 8) + Fraction(1, 512)
    assert bits_per_weight("dynamic_signed") == Fraction(17, 2)
    assert bits_per_weight("affine4_group") == Fraction(5)
    assert bits_per_weight("int8") == 8
    assert bits_per_weight("bfloat16") == 16


@pytest.mark.proof("footprint.bits", by="a tensor of whole nested groups")
def test_a_tensor_of_whole_nested_groups_takes_exactly_the_bits_a_weight() -> None:
    for name, scheme in SCHEMES.items():
        if scheme.group != "block":
            continue
        for block_size in BLOCK_SIZES:
            sized = scheme_named(name, block_size)
            elements = block_size * 256 * 2
            stored = tensor_bytes((elements,), sized)
            once = 4 if sized.nested else 0  # the offset of double quantization is one number for the tensor
            total = 8 * (stored.codes + stored.scales + stored.offsets - once)
            assert bits_per_weight(sized) == Fraction(total, elements), f"{sized}"
