"""Conversions between formats: `decode` and `widen` are exact, `encode` and `round_to` round exactly once.

Formats are data (`formats`). A conversion reads exact numbers as positions between the numbers of the target
(`positions`), a rule of rounding picks a neighbour (`directions`), and the ends of the range and NaN have rules of
their own (`encoding`).
"""

from qloracle.decoding import decode, format_table, widen
from qloracle.directions import ROUNDINGS
from qloracle.encoding import OVERFLOWS, encode, nan_rules_of, overflows_of, round_to

__all__ = [
    "OVERFLOWS",
    "ROUNDINGS",
    "decode",
    "encode",
    "format_table",
    "nan_rules_of",
    "overflows_of",
    "round_to",
    "widen",
]
