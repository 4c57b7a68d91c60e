"""What a sequence does with the parts of a stored weight: storage views of its bytes, absmax that are quantized."""

import numpy as np

from qloracle_conformance.arrays import host
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.sequences.bench import Bench, Slot
from qloracle_conformance.sequences.weights import Weights


def store(bench: Bench, draw: Draw, operation: str, weights: Weights) -> None:
    """Store the bytes of a weight as wider items."""
    storage = str(draw.choice(bench.claims[operation].options.get("storage", ("uint8",))))
    width = {"uint8": 1, "float16": 2, "bfloat16": 2, "float32": 4}[storage]
    source = bench.pick(draw, "stored", lambda: _bytes(bench, draw), lambda s: "data" in s.names and width == 1)
    if width > 1:  # the number of bytes must be a multiple
        source = _bytes(bench, draw)
    (name,) = bench.call("store", operation, {"packed": source.names["data"]}, {"storage": storage}, ["items"])
    names = {**source.names, "items": name}
    bench.slots.append(Slot("packed", names, source.shape, options={**source.options, "storage": storage}))


def _bytes(bench: Bench, draw: Draw) -> Slot:
    size = draw.choice((96, 40, 64, 128))  # a multiple of every storage item
    data = draw.random().integers(0, 256, size).astype(np.uint8)
    return bench.fresh("bytes", {"data": host(data)}, shape=(size,))


def restore(bench: Bench, draw: Draw, operation: str, weights: Weights) -> None:
    """Restore the bytes; where they are those of a weight, it can be used again."""
    claim = bench.claims[operation]

    def make() -> Slot:
        items = host(draw.random().integers(0, 256, 96).astype(np.uint8))
        return bench.fresh("packed", {"items": items}, shape=(96,), options={"storage": "uint8"})

    admitted = claim.options.get("storage", ("uint8",))
    if "uint8" not in admitted:
        raise LookupError("bytes as bytes are not claimed")
    source = bench.pick(draw, "packed", make, lambda s: s.options["storage"] in admitted)
    given, options = {"stored": source.names["items"]}, {"storage": source.options["storage"]}
    (name,) = bench.call("restore", operation, given, options, ["bytes"])
    if "absmax" in source.names or "absmax_codes" in source.names:
        names = {role: name if role == "data" else n for role, n in source.names.items() if role != "items"}
        kept = {option: value for option, value in source.options.items() if option != "storage"}
        bench.slots.append(Slot("stored", names, source.shape, options=kept))


def nest(bench: Bench, draw: Draw, operation: str, weights: Weights) -> None:
    """Quantize the absmax of a stored weight."""
    codebook = str(draw.choice(bench.claims[operation].options.get("codebook", ("dynamic_signed",))))

    def make() -> Slot:
        return _absmax(bench, draw)

    source = bench.pick(draw, "stored", make, lambda s: set(s.names) == {"data", "absmax"})
    made = bench.call("nest", operation, {"absmax": source.names["absmax"]}, {"codebook": codebook},
                      ("absmax_codes", "nested_absmax", "offset"))  # fmt: skip
    names = dict(zip(("absmax_codes", "nested_absmax", "offset"), made, strict=True))
    names |= {"data": source.names["data"]} if "data" in source.names else {}
    bench.slots.append(Slot("nested", names, source.shape, options={**source.options, "nested": codebook}))


def _absmax(bench: Bench, draw: Draw) -> Slot:
    values = draw.random().uniform(0.01, 2.0, 40).astype(np.float32)
    return bench.fresh("scales", {"absmax": host(values)}, shape=(40,))


def unnest(bench: Bench, draw: Draw, operation: str, weights: Weights) -> None:
    """Restore the absmax: the stored weight then has others than the ones it was made with."""
    admitted = bench.claims[operation].options.get("codebook", ("dynamic_signed",))

    def make() -> Slot:
        random = draw.random()
        arrays = {
            "absmax_codes": host(random.integers(0, 256, 40).astype(np.uint8)),
            "nested_absmax": host(random.uniform(0.01, 0.5, 1).astype(np.float32)),
            "offset": host(np.asarray(random.uniform(0.5, 1), np.float32)),
        }
        return bench.fresh("nested", arrays, options={"nested": admitted[0]})

    source = bench.pick(draw, "nested", make, lambda s: s.options["nested"] in admitted)
    given = {role: source.names[role] for role in ("absmax_codes", "nested_absmax", "offset")}
    (name,) = bench.call("unnest", operation, given, {"codebook": source.options["nested"]}, ["absmax"])
    if "data" in source.names:
        kept = {option: value for option, value in source.options.items() if option != "nested"}
        bench.slots.append(Slot("stored", {"data": source.names["data"], "absmax": name}, source.shape, options=kept))
