"""Restoring kernels that are wrong on one of their paths, and faults at the edges of nested groups."""

from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.nested_absmax import NESTED_BLOCK_SIZE
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.mutant import Mutant, Op
from qloracle_conformance.mutants.path_block_faults import PASS
from qloracle_conformance.mutants.two_paths import Arguments, if_element, odd_last, places, with_changed


def _of_first_pass(absmax: HostArray, arguments: Arguments) -> HostArray:
    blocks = max(1, PASS // arguments["block_size"])
    return host(absmax.items.reshape(-1)[np.arange(absmax.items.size) % blocks])


def _restored_from_low(**arguments: Any) -> Any:
    """Take the code of the last byte's low nibble."""
    data = arguments["data"].items
    return OPS["dequantize_blockwise"](**{**arguments, "data": host((data << 4) | (data & 0xF))})


def _cut_bfloat16(**arguments: Any) -> Any:
    if arguments["dtype"] != "bfloat16":
        return OPS["dequantize_blockwise"](**arguments)
    single = OPS["dequantize_blockwise"](**{**arguments, "dtype": "float32"})
    return host(OPS["encode"](single, fmt="bfloat16", rounding="toward_zero").items, "bfloat16")


def _low_nibbles(shape: tuple[int, ...], arguments: Arguments) -> Array:
    marked: Array = places(shape) % 2 == 1
    return marked


def _blocks_of_64(absmax: HostArray, arguments: Arguments) -> HostArray:
    """Find the block of an element by a shift of 6 bits, where blocks are smaller."""
    size = arguments["block_size"]
    place = np.arange(absmax.items.size) * size // 64
    return host(absmax.items.reshape(-1)[place]) if size < 64 else absmax


def _rearranged(place: Any) -> Op:
    """Return a restorer of absmax whose element takes the nested absmax of another place."""

    def restore(*, absmax_codes: HostArray, nested_absmax: HostArray, offset: HostArray, codebook: str) -> HostArray:
        right: HostArray = OPS["dequantize_absmax"](absmax_codes, nested_absmax, offset, codebook=codebook)
        count, groups = absmax_codes.items.size, nested_absmax.items.size
        group = np.clip(place(np.arange(count), count), 0, max(0, groups - 1))
        parts = [OPS["dequantize_absmax"](host(absmax_codes.items[i : i + 1]), host(nested_absmax.items[g : g + 1]),
                                          offset, codebook=codebook).items
                 for i, g in enumerate(group) if g != i // NESTED_BLOCK_SIZE]  # fmt: skip
        items = np.array(right.items)
        items[group != np.arange(count) // NESTED_BLOCK_SIZE] = np.concatenate(parts) if parts else items[:0]
        return host(items)

    return restore


def _last_group_of_before(**arguments: Any) -> Any:
    codes, nested, offset = OPS["quantize_absmax"](**arguments)
    items = np.array(nested.items)
    if items.size > 1 and arguments["absmax"].items.size % NESTED_BLOCK_SIZE:
        items[-1] = items[-2]
    return codes, host(items), offset


def _first_half_of_groups(absmax: Array) -> Array:
    """Return absmax of which only those that 128 threads read count for the maximum of their group."""
    return np.where(np.arange(absmax.size) % NESTED_BLOCK_SIZE < 128, absmax, np.float32(0))


def _groups_of_128(**arguments: Any) -> Any:
    codes, nested, offset = OPS["quantize_absmax"](**arguments)
    residual = arguments["absmax"].items - np.float32(offset.items)
    kept = _first_half_of_groups(residual)
    groups = [kept[i : i + NESTED_BLOCK_SIZE] for i in range(0, kept.size, NESTED_BLOCK_SIZE)]
    found = np.array([np.max(np.abs(g)) if np.all(np.isfinite(g)) else np.nan for g in groups], np.float32)
    return codes, host(np.where(np.isnan(nested.items), nested.items, found)), offset


def _offset_without_last(**arguments: Any) -> Any:
    absmax = arguments["absmax"]
    codes, nested, offset = OPS["quantize_absmax"](**arguments)
    if absmax.items.size % 2 and absmax.items.size > 1:
        offset = OPS["quantize_absmax"](host(absmax.items[:-1]), codebook=arguments["codebook"])[2]
    return codes, nested, offset


def _next_group_early(absmax_codes: HostArray, arguments: Arguments) -> HostArray:
    """Shift the codes by one at the end of each nested group, as an index that runs ahead does."""
    items = np.array(absmax_codes.items)
    ends = np.arange(NESTED_BLOCK_SIZE - 1, items.size - 1, NESTED_BLOCK_SIZE)
    items[ends] = items[ends + 1]
    return host(items)


def _short_last(absmax: HostArray, arguments: Arguments) -> HostArray:
    """Scale the last full block like the short one after it."""
    items, size = np.array(absmax.items), int(np.prod(arguments["shape"]))
    if items.size > 1 and size % arguments["block_size"]:
        items[-2] = items[-1]
    return host(items)


def path_restore_faults() -> list[Mutant]:
    """Return the mutants."""
    restore = "dequantize_blockwise"
    values = {
        "last-from-low": ("the last code of an odd number is read from the low nibble",
                          if_element(restore, odd_last, _restored_from_low)),
        "low-cut-bfloat16": ("bfloat16 values of low nibbles are cut off",
                             if_element(restore, _low_nibbles, _cut_bfloat16)),
        "second-pass": ("elements from 2^15 on are scaled by the absmax of the first pass",
                        with_changed(restore, absmax=_of_first_pass)),
        "blocks-below-64": ("blocks below 64 are found by a shift of 6 bits",
                            with_changed(restore, absmax=_blocks_of_64)),
        "short-last": ("the last full block is scaled like the short one after it",
                       with_changed(restore, absmax=_short_last)),
    }  # fmt: skip
    stages = {"last-from-low": ("values", "unpacking")}
    return [
        *(Mutant(f"restored-{name}", fault, {restore: op}, stages.get(name, ("values",)))
          for name, (fault, op) in values.items()),
        Mutant("nested-group-late", "the first code of a nested group is scaled like the group before",
               {"dequantize_absmax": _rearranged(lambda i, _: (i - 1) // NESTED_BLOCK_SIZE)}, ("absmax",)),
        Mutant("nested-group-early", "the last code of a nested group is scaled like the group after it",
               {"dequantize_absmax": _rearranged(lambda i, _: (i + 1) // NESTED_BLOCK_SIZE)}, ("absmax",)),
        Mutant("nested-last-of-before", "a short last nested group takes the absmax of the one before",
               {"quantize_absmax": _last_group_of_before}, ("nested_absmax",)),
        Mutant("nested-first-128", "nested groups are reduced by 128 threads",
               {"quantize_absmax": _groups_of_128}, ("nested_absmax",)),
        Mutant("offset-without-last", "the last of an odd number of absmax is not in the mean",
               {"quantize_absmax": _offset_without_last}, ("offset",)),
        Mutant("double-group-early", "the last block of a nested group reads the code of the next group",
               {"dequantize_double": with_changed("dequantize_double", absmax_codes=_next_group_early)}, ("values",)),
    ]  # fmt: skip
