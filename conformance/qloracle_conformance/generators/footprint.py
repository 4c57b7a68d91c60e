"""Models to count: shapes around whole blocks and groups, names that look alike, configurations of every family."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from qloracle.footprint.configs import MODEL_TYPES
from qloracle.footprint.schemes import PLAIN, SCHEMES
from qloracle.footprint.training import METHODS, OPTIMIZERS
from qloracle.formats import Array
from qloracle.nested_absmax import NESTED_BLOCK_SIZE
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.generators.draw import Draw

TENSOR_FAMILIES = ("shapes", "blocks", "nested", "large", "memory")
_SIDES = (1, 2, 3, 7, 43, 63, 64, 65, 96, 127, 128, 255, 256, 257, 1000)
_PARTS = ("lm_head", "head", "lm_head2", "xlm_head", "mlp", "fc", "fc1", "layers", "0", "10", "model", "embed_tokens",
          "wte", "wpe", "attn", "shared", "unshared", "word_embeddings", "norm", "relative_attention_bias")  # fmt: skip
_LAST = ("weight", "bias", "masked_bias", "inv_freq", "weights", "scale")


def _case(name: str, draw: Draw, claim: Claim, family: str, arrays: dict[str, Array], options: dict[str, Any]) -> Case:
    inputs: dict[str, HostArray | None] = {key: host(array) for key, array in arrays.items()}
    memory = family == "memory"
    layouts = {key: draw.choice(claim.layouts) if memory else "contiguous" for key in inputs}
    return Case(name, inputs, options, layouts=layouts, repeat=memory)


def _option(draw: Draw, claim: Claim, name: str, known: Sequence[object]) -> Any:
    return draw.choice(tuple(claim.options.get(name, tuple(known)[:1])))


def tensor_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Shapes of zero to four axes; around whole blocks; around whole nested groups; of more elements than 2^31."""
    random, block_size = draw.random(), draw.choice(claim.block_sizes)
    scheme = _option(draw, claim, "scheme", tuple(SCHEMES))
    rows = []
    for _ in range(12):
        axes = [int(random.choice(_SIDES)) for _ in range(draw.integer(0, 4))]
        if family == "blocks":
            axes = [block_size * int(random.integers(1, 9)) + int(random.integers(-1, 2))]
        elif family == "nested":
            groups = NESTED_BLOCK_SIZE * int(random.integers(1, 4)) + int(random.integers(-1, 2))
            axes = [max(block_size * groups + int(random.integers(-1, 2)), 1)]
        elif family == "large":
            axes = [int(random.integers(2**15, 2**20)), int(random.integers(2**16, 2**20))]
        elif claim.empty and random.integers(8) == 0 and axes:
            axes[int(random.integers(len(axes)))] = 0
        rows.append([-1] * (4 - len(axes)) + axes)
    return _case("footprint.tensor", draw, claim, family, {"shapes": np.array(rows, np.int64)},
                 {"scheme": scheme, "block_size": block_size})  # fmt: skip


def bits_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Nothing but a scheme and a block size; schemes of one kind take turns."""
    kinds: dict[tuple[object, ...], list[str]] = {}
    for name in map(str, claim.options.get("scheme", tuple(SCHEMES)[:1])):
        scheme = SCHEMES[name]
        kinds.setdefault((scheme.group, scheme.nested, scheme.zero_point_bytes), []).append(name)
    chosen = draw.choice(draw.choice([*kinds.values()]))
    return Case("footprint.bits", {}, {"scheme": chosen, "block_size": draw.choice(claim.block_sizes)})


def tables_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """No tensor, one, or several stored as codes."""
    count = draw.choice((5, 1, 0, 12))
    quantized = draw.random().integers(0, 2, max(count, 1)).astype(np.bool_) & (count > 0)
    options = {"scheme": _option(draw, claim, "scheme", tuple(SCHEMES)),
               "tables": _option(draw, claim, "tables", ("shared", "per_tensor"))}  # fmt: skip
    return _case("footprint.tables", draw, claim, family, {"quantized": quantized}, options)


def _names(random: np.random.Generator, count: int) -> tuple[str, ...]:
    found: dict[str, None] = {}
    while len(found) < count:
        parts = random.choice(_PARTS, int(random.integers(1, 5))).tolist()
        found[".".join([*parts, str(random.choice(_LAST, p=(0.7, 0.1, 0.05, 0.05, 0.05, 0.05)))])] = None
    return tuple(found)


def kinds_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Names put together from parts that look alike, and masks of attention; one to four axes."""
    random = draw.random()
    names = (*_names(random, 30), "h.0.attn.bias", "h.1.attn.bias", "attn.bias")
    rows = []
    for index in range(len(names)):
        axes = int(random.choice((1, 2, 2, 2, 3, 4))) if index < len(names) - 2 else (4, 1)[index % 2]
        rows.append([-1] * (4 - axes) + [int(size) for size in random.integers(1, 50, axes)])
    return _case("footprint.tensors", draw, claim, family, {"shapes": np.array(rows, np.int64)}, {"names": names})


def selection_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """The same names, some of linear layers, with modules to skip that are parts, several parts, or parts of parts."""
    random = draw.random()
    names = _names(random, 30)
    skip: tuple[str, ...] = ("lm_head",)
    if family == "skipped":
        whole = [name.split(".") for name in names if name.count(".") > 1]
        first, second = whole[0], whole[-1]
        skip = draw.choice((("fc",), ("lm_head", "mlp"), (".".join(first[:2]),), (".".join(second[:-1]), "0"), ()))
    linear = random.integers(0, 3, len(names)) > 0
    return _case("footprint.selection", draw, claim, family, {"linear": linear}, {"names": names, "skip": skip})


def model_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Parameters, some quantized, and buffers of their own width or of the model's."""
    random = draw.random()
    count = draw.choice((6, 1, 20))
    shapes = random.choice(_SIDES, (count, 2)).astype(np.int64)
    if family == "large":
        shapes = random.integers(2**14, 2**18, (count, 2))
    item_bytes = random.choice(np.array([0, 0, 0, 1, 2, 4, 8, -1]), count).astype(np.int64)
    item_bytes[0] = 0
    quantized = (random.integers(0, 2, count).astype(np.bool_)) & (item_bytes == 0)
    options = {
        "scheme": _option(draw, claim, "scheme", tuple(SCHEMES)),
        "block_size": draw.choice(claim.block_sizes),
        "other": _option(draw, claim, "other", PLAIN),
        "tables": _option(draw, claim, "tables", ("shared", "per_tensor")),
    }
    arrays = {"shapes": shapes, "quantized": quantized, "item_bytes": item_bytes}
    return _case("footprint.model", draw, claim, family, arrays, options)


def config_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Every family with sizes that differ from each other; its defaults; flags set."""
    random, model_type = draw.random(), _option(draw, claim, "model_type", MODEL_TYPES)
    pairs: list[tuple[str, Any]] = [("model_type", model_type)]
    heads, key_heads, head_dim = draw.choice(((4, 2, 6), (6, 6, 10), (5, 1, 8)))
    width = heads * 2 * int(random.integers(2, 9))
    sizes: dict[str, Any] = {"vocab_size": int(random.integers(50, 90))}
    layers, inner, positions = draw.choice((1, 3)), int(random.integers(20, 40)), int(random.integers(41, 60))
    if model_type == "gpt2":
        sizes |= {"n_embd": width, "n_layer": layers, "n_positions": positions}
    elif model_type == "distilbert":
        sizes |= {"dim": width, "hidden_dim": inner, "n_layers": layers, "max_position_embeddings": positions}
    elif "bert" in model_type:
        sizes |= {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers,
                  "max_position_embeddings": positions, "type_vocab_size": 3}  # fmt: skip
    else:
        sizes |= {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers,
                  "num_attention_heads": heads, "num_key_value_heads": key_heads}  # fmt: skip
    if family == "flags" and "bert" not in model_type:
        sizes["tie_word_embeddings"] = draw.choice((True, False))
        if model_type == "gpt2":
            sizes["n_inner"] = inner
        else:
            sizes |= {"attention_bias": draw.choice((True, False)), "mlp_bias": draw.choice((True, False)),
                      "head_dim": head_dim}  # fmt: skip
    if family == "defaults":
        sizes = {}
    return Case("footprint.config", {}, {"config": (*pairs, *sizes.items())})


def adapters_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Weights of different sides, of which some get adapters of a rank that their smaller side admits."""
    random, rank = draw.random(), draw.choice((4, 1, 3, 64))
    shapes = random.integers(rank, rank + 500, (6, 2))
    targeted = random.integers(0, 2, 6).astype(np.bool_)
    return _case("footprint.adapters", draw, claim, family, {"shapes": shapes, "targeted": targeted}, {"rank": rank})


def states_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Small tensors, tensors around whole blocks of 256, and large ones."""
    random, optimizer = draw.random(), _option(draw, claim, "optimizer", OPTIMIZERS)
    sizes = random.choice(np.array([1, 2, 255, 256, 257, 511, 512, 513, 2047, 2048, 2049, 4095, 4096, 4097]), 8)
    if family == "large":
        sizes = random.integers(2**31, 2**36, 4)
    return _case("footprint.states", draw, claim, family, {"sizes": sizes.astype(np.int64)}, {"optimizer": optimizer})


def training_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Every method with every format, optimizer and budget."""
    random, method = draw.random(), _option(draw, claim, "method", METHODS)
    rank = draw.choice((4, 1, 16))
    shapes = random.integers(16, 600, (5, 2))
    options = {
        "method": method,
        "scheme": draw.choice(("nf4_double", "nf4", "int8_row", "affine4_group") if method == "qlora" else PLAIN),
        "rank": None if method == "full" else rank,
        "adapter_format": _option(draw, claim, "adapter_format", PLAIN),
        "optimizer": _option(draw, claim, "optimizer", OPTIMIZERS),
        "master_weights": draw.choice((True, False)),
        "device_budget": draw.choice((0, 1000, 10**9)),
    }
    return _case("footprint.training", draw, claim, family, {"shapes": shapes}, options)
