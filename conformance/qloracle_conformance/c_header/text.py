"""Writing the header: C89 and C++, `<stdint.h>` alone, every number by its bits."""

from collections.abc import Iterable, Iterator
from importlib.resources import files

import numpy as np

from qloracle import SPECIFICATION_VERSION
from qloracle.codebooks import Codebook
from qloracle.formats import FORMATS, Array, Format
from qloracle.int8 import LARGEST_CODE
from qloracle.int8_product import LARGEST_INNER, LARGEST_INNER_WITH_MINUS_128
from qloracle.nested_absmax import NESTED_BLOCK_SIZE, NESTED_CODEBOOK
from qloracle.optim.adamw8bit import CODEBOOKS_OF_MOMENTS, STATE_BLOCK_SIZE
from qloracle.tables import CODEBOOKS

NAME = "qloracle.h"

_HEAD = f"""\
/* The tables and constants of the qloracle specification {SPECIFICATION_VERSION}: generated from the reference by
 * `qloracle header`, never edited. C89 and C++; nothing but <stdint.h> is needed.
 *
 * Codebook NAME, of 16 or 256 codes:
 *   qloracle_NAME_words[code]       the entry, the bits of a float32; the bytes of an array of float on any machine
 *                                   whose float is IEEE 754
 *   qloracle_NAME_position[code]    its place in value order; equal values share one, NaN comes last
 *   qloracle_NAME_codes[position]   the code that is written for a value, in value order
 *   qloracle_NAME_midpoints[i]      where x/absmax passes from position i to i + 1, exactly (17 digits fix a double);
 *                                   x/absmax equal to a midpoint belongs to position i
 *   qloracle_NAME_midpoint_words[i] the same, as the high and the low half of the bits of a double
 *   QLORACLE_NAME_ZERO_CODE         the code of a zero input, and of what pads an odd length
 * The quotient is that of real numbers: (double)x / (double)absmax decides every code rightly, a float does not.
 */
#ifndef QLORACLE_H
#define QLORACLE_H

#include <stdint.h>

#define QLORACLE_SPECIFICATION "{SPECIFICATION_VERSION}"
"""

_FORMATS = """
/* Floating-point formats, by their fields. A word is sign | exponent | mantissa | PADDING_BITS bits that are 0.
 * LARGEST_FINITE_BITS, INFINITY_BITS, QUIET_NAN_BITS: words without a sign; the last two only where the format has one.
 * Ordinals, in which limits are given: the magnitude m = (word without sign) >> PADDING_BITS of a number that is not
 * negative, -m - 1 of a negative one (of -0 too); 9223372036854775807 of every NaN. */
"""

_INTEGERS = f"""
/* Integers. Packed 4-bit codes: the first code of a byte in its high nibble. */
#define QLORACLE_INT8_LARGEST_CODE {LARGEST_CODE} /* codes are -{LARGEST_CODE} to {LARGEST_CODE} */
#define QLORACLE_INT8_LARGEST_INNER {LARGEST_INNER} /* longest sum of products of codes that int32 surely holds */
#define QLORACLE_INT8_LARGEST_INNER_MINUS_128 {LARGEST_INNER_WITH_MINUS_128} /* the same where -128 may occur */
#define QLORACLE_NESTED_BLOCK_SIZE {NESTED_BLOCK_SIZE} /* absmax in a group of double quantization */
#define QLORACLE_NESTED_CODEBOOK "{NESTED_CODEBOOK}"
#define QLORACLE_STATE_BLOCK_SIZE {STATE_BLOCK_SIZE} /* elements in a block of an 8-bit optimizer state */
#define QLORACLE_FIRST_MOMENT_CODEBOOK "{CODEBOOKS_OF_MOMENTS["m"].name}"
#define QLORACLE_SECOND_MOMENT_CODEBOOK "{CODEBOOKS_OF_MOMENTS["v"].name}"
"""


def header_text() -> str:
    """Return the header."""
    parts = [_HEAD, _FORMATS, *(_format(fmt) for fmt in FORMATS.values()), _INTEGERS]
    parts += [_codebook(table) for table in CODEBOOKS.values()]
    return "".join([*parts, "\n#endif /* QLORACLE_H */\n"])


def shipped_text() -> str:
    """Return the header that is part of the package."""
    return files(__package__).joinpath(NAME).read_text(encoding="utf-8")


def _format(fmt: Format) -> str:
    name = fmt.name.upper()
    numbers = {
        "BITS": 8 * fmt.word.itemsize,
        "EXPONENT_BITS": fmt.exponent_bits,
        "MANTISSA_BITS": fmt.mantissa_bits,
        "PADDING_BITS": fmt.padding,
        "BIAS": fmt.bias,
        "HAS_SIGN": int(fmt.signed),
        "HAS_NEGATIVE_ZERO": int(fmt.negative_zero),
        "HAS_SUBNORMALS": int(fmt.subnormals),
        "HAS_INFINITY": int(fmt.infinities),
        "HAS_NAN": int(fmt.has_nan),
    }
    words = {"SIGN_BITS": fmt.sign_bit, "LARGEST_FINITE_BITS": fmt.finite_magnitude << fmt.padding}
    words |= {"INFINITY_BITS": fmt.infinity_bits} if fmt.infinities else {}
    words |= {"QUIET_NAN_BITS": fmt.quiet_nan_bits} if fmt.has_nan else {}
    lines = [f"#define QLORACLE_{name}_{key} {value}\n" for key, value in numbers.items()]
    return "".join(
        [*lines, *(f"#define QLORACLE_{name}_{k} {_word(v, fmt.word.itemsize)}\n" for k, v in words.items())]
    )


def _word(bits: int, width: int) -> str:
    text = f"0x{bits:0{2 * width}x}"
    return f"UINT64_C({text})" if width == 8 else f"{text}u"


def _codebook(table: Codebook) -> str:
    name, midpoints = table.name, table.midpoints
    halves = np.stack(
        [midpoints.view(np.uint64) >> np.uint64(32), midpoints.view(np.uint64) & np.uint64(0xFFFFFFFF)], 1
    )
    return "".join([
        f"\n#define QLORACLE_{name.upper()}_ZERO_CODE {table.zero_code}\n",
        _array("uint32_t", f"{name}_words[{table.entries.size}]", (f"0x{w:08x}u" for w in _words(table.entries)), 6),
        _array("uint8_t", f"{name}_position[{table.position.size}]", map(str, table.position.tolist()), 16),
        _array("uint8_t", f"{name}_codes[{table.value_order.size}]", map(str, table.value_order.tolist()), 16),
        _array("double", f"{name}_midpoints[{midpoints.size}]", (f"{m:.17g}" for m in midpoints.tolist()), 4,
               real=True),
        _array("uint32_t", f"{name}_midpoint_words[{midpoints.size}][2]",
               (f"{{0x{high:08x}u, 0x{low:08x}u}}" for high, low in halves.tolist()), 4),
    ])  # fmt: skip


def _words(values: Array) -> list[int]:
    words: list[int] = values.view(np.uint32).tolist()
    return words


def _array(kind: str, declared: str, items: Iterable[str], on_a_line: int, *, real: bool = False) -> str:
    return f"static const {kind} qloracle_{declared} = {{\n{''.join(_rows(list(items), on_a_line, real=real))}}};\n"


def _rows(items: list[str], on_a_line: int, *, real: bool) -> Iterator[str]:
    """Yield lines of items; a double must not look like an integer, which C would convert too, but readers not."""
    shown = [item if not real or set(item) & set(".en") else f"{item}.0" for item in items]
    for start in range(0, len(shown), on_a_line):
        last = start + on_a_line >= len(shown)
        yield f"    {', '.join(shown[start : start + on_a_line])}{'' if last else ','}\n"
