"""A weight as it is stored: the arrays and options of a case that make up a record of the reference."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from qloracle.affine import QuantizedAffine
from qloracle.blockwise import QuantizedBlocks
from qloracle.double_quant import DoubleQuantized
from qloracle.formats import Array
from qloracle.int8 import QuantizedInt8
from qloracle.nested_absmax import QuantizedAbsmax
from qloracle.qlora import QuantizedWeight, qlora_weight
from qloracle_conformance.arrays import HostArray

ARRAYS = ("data", "absmax", "absmax_codes", "nested_absmax", "offset", "codes", "scale", "zero_point")
OPTIONS = ("codebook", "block_size", "shape", "granularity", "group_size", "qmin", "qmax")


def is_stored(inputs: Mapping[str, Any]) -> bool:
    """Return whether arguments hold a quantized weight."""
    return "data" in inputs or "codes" in inputs


def record_of(arrays: Mapping[str, HostArray], options: Mapping[str, Any]) -> QuantizedWeight:
    """Return the record that arrays and options make up."""
    items = {name: arrays[name].items for name in ARRAYS if name in arrays}
    if "absmax_codes" in items:
        nested = QuantizedAbsmax(items["absmax_codes"], items["nested_absmax"], np.float32(items["offset"]))
        return DoubleQuantized(
            items["data"], nested, options["codebook"], options["block_size"], tuple(options["shape"]), "float32"
        )
    if "data" in items:
        return QuantizedBlocks(
            items["data"], items["absmax"], options["codebook"], options["block_size"], tuple(options["shape"]),
            "float32",
        )  # fmt: skip
    if "scale" in items:
        return QuantizedAffine(
            items["codes"], items["scale"], items["zero_point"], options["qmin"], options["qmax"],
            options["granularity"], options["group_size"], "float32",
        )  # fmt: skip
    return QuantizedInt8(items["codes"], items["absmax"], options["granularity"], options["block_size"], "float32")


def restored_weight(arguments: Mapping[str, Any]) -> Array:
    """Return the weight of a layer as float32, restored from what stands for it."""
    if not is_stored(arguments):
        single: Array = arguments["weight"].single()
        return single
    arrays = {name: value for name, value in arguments.items() if isinstance(value, HostArray)}
    return qlora_weight(record_of(arrays, {n: v for n, v in arguments.items() if n not in arrays}))
