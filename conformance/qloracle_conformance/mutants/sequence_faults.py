"""Faults of state that a backend keeps between calls: every call alone is right."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.mutant import Mutant, Op

Made = dict[str, Op]


def _stale_absmax() -> Made:
    """Keep the absmax of the last quantize, and restore with it whatever has as many blocks."""
    last: dict[int, HostArray] = {}

    def quantize(x: HostArray, **options: Any) -> Any:
        data, absmax = OPS["quantize_blockwise"](x, **options)
        last[absmax.items.size] = host(absmax.items.copy())
        return data, absmax

    def dequantize(data: HostArray, absmax: HostArray, **options: Any) -> Any:
        return OPS["dequantize_blockwise"](data, last.pop(absmax.items.size, absmax), **options)

    return {"quantize_blockwise": quantize, "dequantize_blockwise": dequantize}


def _absmax_as_scratch() -> Made:
    """Use the absmax that quantize returned last as scratch space of dequantize."""
    last: list[Array] = []

    def quantize(x: HostArray, **options: Any) -> Any:
        data, absmax = OPS["quantize_blockwise"](x, **options)
        last[:] = [absmax.items]
        return data, absmax

    def dequantize(data: HostArray, absmax: HostArray, **options: Any) -> Any:
        restored = OPS["dequantize_blockwise"](data, absmax, **options)
        for scratch in last:
            np.multiply(scratch, np.float32(0.5), out=scratch)
        last.clear()
        return restored

    return {"quantize_blockwise": quantize, "dequantize_blockwise": dequantize}


def _block_size_of_quantize() -> Made:
    """Let quantize set the block size in a constant of the kernel, which dequantize then reads."""
    constant: list[int] = []

    def quantize(x: HostArray, *, block_size: int, **options: Any) -> Any:
        constant[:] = [block_size]
        return OPS["quantize_blockwise"](x, block_size=block_size, **options)

    def dequantize(data: HostArray, absmax: HostArray, *, block_size: int, **options: Any) -> Any:
        used = constant[0] if constant else block_size
        enough = -(-int(np.prod(options["shape"])) // used)
        scales = host(np.resize(absmax.items, enough) if absmax.items.size else absmax.items)
        return OPS["dequantize_blockwise"](data, scales, block_size=used, **options)

    return {"quantize_blockwise": quantize, "dequantize_blockwise": dequantize}


def _first_table() -> Made:
    """Upload the codebook at the first call alone."""
    first: dict[bool, str] = {}

    def table(codebook: str) -> str:
        four_bit = codebook in ("nf4", "fp4", "linear_signed_4bit", "linear_unsigned_4bit")
        return first.setdefault(four_bit, codebook)

    def quantize(x: HostArray, *, codebook: str, **options: Any) -> Any:
        return OPS["quantize_blockwise"](x, codebook=table(codebook), **options)

    def dequantize(data: HostArray, absmax: HostArray, *, codebook: str, **options: Any) -> Any:
        return OPS["dequantize_blockwise"](data, absmax, codebook=table(codebook), **options)

    return {"quantize_blockwise": quantize, "dequantize_blockwise": dequantize}


def _nested_flag() -> Made:
    """Remember that the absmax were quantized, and add their offset when a plain weight is restored next."""
    offset: list[np.float32] = []

    def quantize_absmax(absmax: HostArray, **options: Any) -> Any:
        codes, nested, mean = OPS["quantize_absmax"](absmax, **options)
        offset[:] = [np.float32(mean.items)]
        return codes, nested, mean

    def dequantize(data: HostArray, absmax: HostArray, **options: Any) -> Any:
        with np.errstate(all="ignore"):
            given = host(absmax.items + offset.pop()) if offset else absmax
        return OPS["dequantize_blockwise"](data, given, **options)

    return {"quantize_absmax": quantize_absmax, "dequantize_absmax": OPS["dequantize_absmax"],
            "quantize_blockwise": OPS["quantize_blockwise"], "dequantize_blockwise": dequantize}  # fmt: skip


def _shared_buffer() -> Made:
    """Write merged and unmerged weights of one size into the same buffer, and return it."""
    buffers: dict[tuple[str, tuple[int, ...], bool], HostArray] = {}
    previous: list[bool] = []

    def into_buffer(name: str) -> Op:
        def op(**arguments: Any) -> HostArray:
            result = OPS[name](**arguments)
            changed = bool(previous) and previous[0] != (name == "lora_merge")
            previous[:] = [name == "lora_merge"]
            buffer = buffers.get((result.dtype, result.shape, True))
            if buffer is not None and changed:
                buffer.items[...] = result.items
                return buffer
            buffers[result.dtype, result.shape, True] = result
            return result  # type: ignore[no-any-return]

        return op

    return {name: into_buffer(name) for name in ("lora_merge", "lora_unmerge")}


def _merged_flag() -> Made:
    """Mark an adapter of these sizes as merged, so that the layer leaves it out; unmerging forgets to unmark it."""
    merged: set[tuple[int, ...]] = set()

    def merge(**arguments: Any) -> Any:
        result = OPS["lora_merge"](**arguments)
        merged.add(arguments["weight"].shape)
        return result

    def forward(**arguments: Any) -> Any:
        left_out = arguments["weight"].shape in merged
        return OPS["lora_forward"](**{**arguments, **({"alpha": 0.0} if left_out else {})})

    return {"lora_merge": merge, "lora_unmerge": OPS["lora_unmerge"], "lora_forward": forward}


def _stale_weight() -> Made:
    """Keep the weight that the forward pass restored, and multiply the gradient by it, whatever is given."""
    kept: dict[tuple[Any, ...], tuple[HostArray, HostArray]] = {}

    def key(arguments: Mapping[str, Any]) -> tuple[Any, ...]:
        return arguments["shape"], arguments["block_size"], arguments["codebook"]

    def forward(**arguments: Any) -> Any:
        kept[key(arguments)] = (host(arguments["data"].items.copy()), host(arguments["absmax"].items.copy()))
        return OPS["qlora_forward"](**arguments)

    def backward(**arguments: Any) -> Any:
        data, absmax = kept.pop(key(arguments), (arguments["data"], arguments["absmax"]))
        return OPS["qlora_backward"](**{**arguments, "data": data, "absmax": absmax})

    return {"qlora_forward": forward, "qlora_backward": backward}


def _stored_length() -> Made:
    """Keep the length of the weight that was saved last, and cut what is loaded at it."""
    length: list[int] = []

    def store(packed: HostArray, *, storage: str) -> Any:
        length[:] = [packed.items.size]
        return OPS["storage_view"](packed, storage=storage)

    def restore(stored: HostArray, *, storage: str) -> Any:
        plain = OPS["storage_bytes"](stored, storage=storage)
        return host(plain.items[: length.pop()]) if length else plain

    return {"storage_view": store, "storage_bytes": restore, "quantize_blockwise": OPS["quantize_blockwise"]}


def _moments_inside() -> Made:
    """Keep the moments of the last step, and go on from them where sizes and step number seem to follow."""
    last: dict[tuple[int, ...], tuple[int, HostArray, HostArray]] = {}

    def step(**arguments: Any) -> Any:
        shape, number = arguments["p"].shape, arguments["step"]
        known = last.get(shape)
        if known is not None and known[0] == number - 1:
            arguments = {**arguments, "m": known[1], "v": known[2]}
        p, m, v = OPS["adamw_step"](**arguments)
        last[shape] = (number, m, v)
        return p, m, v

    return {"adamw_step": step, "lora_merge": OPS["lora_merge"], "lora_backward": OPS["lora_backward"]}


def _unpacked_in_place() -> Made:
    """Bring the bytes into the order of the matmul kernel, in place, when the merge after a product reads them."""
    seen: list[Array] = []

    def matmul(**arguments: Any) -> Any:
        seen[:] = [arguments["data"].items]
        return OPS["quantized_matmul"](**arguments)

    def dequantize(data: HostArray, absmax: HostArray, **options: Any) -> Any:
        restored = OPS["dequantize_blockwise"](data, absmax, **options)
        for packed in seen:
            if packed is not data.items and packed.flags.writeable:
                packed[...] = packed << 4 | packed >> 4
        seen.clear()
        return restored

    return {"quantized_matmul": matmul, "dequantize_blockwise": dequantize,
            "quantize_blockwise": OPS["quantize_blockwise"]}  # fmt: skip


def _int8_workspace() -> Made:
    """Keep the absmax workspace of the largest tensor and return its first part again and again."""
    work: dict[int, HostArray] = {}

    def quantize(x: HostArray, **options: Any) -> Any:
        codes, absmax = OPS["quantize_int8"](x, **options)
        work[codes.items.size] = host(codes.items.copy())
        return codes, absmax

    def dequantize(codes: HostArray, absmax: HostArray, **options: Any) -> Any:
        stale = work.pop(codes.items.size, None)
        given = codes if stale is None else HostArray(stale.items.reshape(codes.shape), codes.dtype)
        return OPS["dequantize_int8"](given, absmax, **options)

    return {"quantize_int8": quantize, "dequantize_int8": dequantize}


STARTS: tuple[tuple[str, str, Callable[[], Made], tuple[str, ...], str], ...] = (
    ("stale-absmax", "a weight is restored with the absmax of the weight that was quantized last", _stale_absmax,
     ("dequantize", "other"), "nf4"),
    ("absmax-as-scratch", "dequantize writes into the absmax that quantize returned", _absmax_as_scratch,
     ("kept",), "nf4"),
    ("block-size-of-quantize", "dequantize uses the block size of the last quantize", _block_size_of_quantize,
     ("dequantize", "other"), "fp4"),
    ("first-table", "the codebook of the first call serves all later ones", _first_table,
     ("quantize", "dequantize", "other"), "nf4"),
    ("nested-flag", "an offset of quantized absmax is added to plain ones later", _nested_flag,
     ("dequantize", "other"), "nf4"),
    ("shared-buffer", "unmerge overwrites what merge returned", _shared_buffer, ("kept",), "lora"),
    ("merged-flag", "after a merge the layer leaves every adapter of these sizes out", _merged_flag,
     ("forward", "other"), "lora"),
    ("stale-weight", "the gradient is that of the weight of the forward pass before", _stale_weight,
     ("backward", "other"), "nf4"),
    ("stored-length", "what is loaded is cut at the length of what was saved last", _stored_length,
     ("restore", "other"), "nf4"),
    ("moments-inside", "a step goes on from the moments of another parameter", _moments_inside,
     ("train", "other"), "lora"),
    ("unpacked-in-place", "the packed weight of a product is reordered later, in place", _unpacked_in_place,
     ("kept", "inputs"), "nf4"),
    ("int8-workspace", "INT8 codes of the last quantize are restored instead of those given", _int8_workspace,
     ("dequantize", "other"), "int8"),
)  # fmt: skip


def sequence_faults() -> list[Mutant]:
    """Return the faults; each begins anew, with nothing kept, whenever it is run."""
    return [
        Mutant(f"sequence-{name}", fault, start(), stages, operations=f"{group}.sequence", start=start)
        for name, fault, start, stages, group in STARTS
    ]
