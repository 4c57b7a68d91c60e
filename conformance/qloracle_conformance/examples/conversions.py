"""Examples of conversions, packing and blocks."""

from qloracle.formats import FORMATS
from qloracle_conformance.examples.example import Example

NUMBERS = "x=1.2,-0.5,-4.3,1.2,-3.1,0.8,2.4,5.4"  # the worked example of absmax INT8

_WIDE = ("float64", "float32")  # nothing is widened to


def _encoded(fmt: str) -> str:
    """Return numbers about the limits of a format: a tie, the largest number and what overflows, a subnormal."""
    if fmt in _WIDE:
        return "values:float64=1,0.1,1e40,1e-50,-0"
    named = FORMATS[fmt]
    tie, largest = 1 + 2.0**-named.significand_bits, named.largest_finite
    small = 0.75 * 2.0 ** (named.minimum_exponent - named.mantissa_bits)
    numbers = (
        [1.2, tie, largest, largest * 1.25, small, -0.0] if largest < 2.0**127 else [1.2, tie, largest, small, -0.0]
    )
    return f"values={','.join(repr(number) for number in numbers)}{',nan' if named.has_nan else ''}"


def _words(fmt: str) -> str:
    """Return the words of one, of the smallest number, of minus one, and of the largest magnitude."""
    named = FORMATS[fmt]
    one = (named.bias << named.mantissa_bits) << named.padding
    words = [one, 1 << named.padding, one | named.sign_bit, named.largest_magnitude << named.padding]
    return f"bits:{fmt}={','.join(f'{word:#x}' for word in words)}"


EXAMPLES = {
    **{f"{fmt}.encode": Example((_encoded(fmt),), {"fmt": fmt}) for fmt in FORMATS},
    **{f"{fmt}.decode": Example((_words(fmt),), {"dtype": "float32"}) for fmt in FORMATS if fmt not in _WIDE},
    "packing.pack": Example(("codes:uint8=0,15,7",), {"pad_code": 7}),
    "packing.unpack": Example(("packed:uint8=0x0f,0x77",), {"size": 3}),
    "packing.store": Example(("packed:uint8=0x00,0x3c,0x66,0x2e",), {"storage": "float16"}),
    "packing.restore": Example(("stored:float16=0x3c00,0x2e66",), {"storage": "float16"}),
    "blocks.absmax": Example((NUMBERS,), {"block_size": 4}),
}
