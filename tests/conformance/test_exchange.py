"""The text of cases: options and arrays come back as they went, and what is neither is refused with a rule."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qloracle_conformance.arrays import STORAGE, HostArray
from qloracle_conformance.exchange.options import option_text, option_value
from qloracle_conformance.exchange.reading import CutShortError, TokenLines
from qloracle_conformance.exchange.words import TextError, array_of, array_text, shape_of
from qloracle_conformance.files import FileError

SIMPLE = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text(max_size=12)
)  # fmt: skip
LISTS = st.one_of(
    *(st.lists(s, max_size=4).map(tuple) for s in (st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()))
)
OPTIONS = st.one_of(st.none(), SIMPLE, LISTS, st.dictionaries(st.text(max_size=4), st.integers(), max_size=3),
                    st.lists(st.tuples(st.text(), st.integers()), max_size=3).map(tuple))  # fmt: skip


@given(OPTIONS)
@settings(derandomize=True, max_examples=200)
def test_an_option_comes_back_to_the_last_bit_from_tokens_without_spaces(value: Any) -> None:
    text = option_text(value)
    assert "\n" not in text
    read = option_value(text.split())
    assert (read, type(read)) == (value, type(value))
    assert repr(read) == repr(value)  # the sign of zero too


@pytest.mark.parametrize(
    ("text", "value"),
    [("int -1", -1), ("float 0x1.8p+4", 24.0), ("float 0.1", 0.1), ("bool 1", True), ('text ""', ""),
     ("text a%20b", "a b"),
     ("none", None), ("ints 2 4 96", (4, 96)), ("texts 1 q_proj", ("q_proj",)), ("json %7B%22a%22:1%7D", {"a": 1})],
)  # fmt: skip
def test_options_are_read_as_documented(text: str, value: object) -> None:
    assert option_value(text.split()) == value


@pytest.mark.parametrize(
    "text", ["", "int", "int x", "int 1 2", "bool 2", "ints 3 1 2", "word a", "none 1", "json %7B"]
)
def test_what_is_no_option_is_refused(text: str) -> None:
    with pytest.raises(TextError, match="an option is"):
        option_value(text.split())


@given(
    st.sampled_from([name for name in STORAGE if name != "bool"]), st.lists(st.integers(0, 40), max_size=2), st.data()
)
@settings(derandomize=True, max_examples=150)
def test_an_array_comes_back_bit_for_bit(dtype: str, shape: list[int], data: st.DataObject) -> None:
    width = np.dtype(STORAGE[dtype]).itemsize
    count = int(np.prod(shape, dtype=np.int64))
    words = np.frombuffer(data.draw(st.binary(min_size=count * width, max_size=count * width)), f"u{width}").copy()
    array = HostArray(words.view(STORAGE[dtype]).reshape(shape), dtype)
    lines = TokenLines("text", array_text(array).splitlines())
    tokens = lines.next()
    assert tokens is not None
    read = lines.array(tokens)
    assert (read.dtype, read.shape) == (array.dtype, array.shape)
    assert np.array_equal(read.words(), array.words())
    assert lines.next() is None


def test_words_stand_most_significant_digit_first_and_sixteen_on_a_line() -> None:
    array = HostArray(np.arange(1, 18, dtype=np.float32), "float32")
    lines = array_text(array).splitlines()
    assert lines[0] == "float32 1 17"
    assert lines[1].startswith("3f800000 40000000 40400000")
    assert [len(line.split()) for line in lines[1:]] == [16, 1]


def test_short_words_and_prefixes_are_read() -> None:
    assert array_of("float32", (3,), ["0", "0x3f800000", "3F80"]).words().tolist() == [0, 0x3F800000, 0x3F80]


@pytest.mark.parametrize("words", [["zz"], ["-1"], ["123"], ["1_0"], [""], ["0x"]])
def test_what_is_no_word_is_refused(words: list[str]) -> None:
    with pytest.raises(TextError, match="at most 2 hexadecimal digits"):
        array_of("uint8", (1,), words)


def test_a_bool_is_0_or_1() -> None:
    with pytest.raises(TextError, match="a word of bool is 00 or 01, got 02"):
        array_of("bool", (1,), ["02"])


@pytest.mark.parametrize("text", ["", "float32", "float33 1 2", "float32 1", "float32 2 3", "float32 1 -1",
                                  "float32 9 1 1 1 1 1 1 1 1 1", "float32 1 99999999999"])  # fmt: skip
def test_what_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(TextError, match=r"type must be|a shape is"):
        shape_of(text.split())


def test_messages_name_the_line_and_a_cut_text_is_told_from_a_wrong_one() -> None:
    lines = TokenLines("here", ["", "uint8 1 2", "", "01 02 03"])
    with pytest.raises(FileError, match=r"here, line 4: an array of shape \(2,\) has 2 words"):
        lines.array((lines.next() or [])[:])
    lines = TokenLines("here", ["uint8 1 2", "01"])
    with pytest.raises(CutShortError):
        lines.array(lines.next() or [])
