"""Faults of reading names and configurations: which tensors are linear, which are skipped, how many there are."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.footprint.tensors import KINDS
from qloracle.formats import Array
from qloracle_conformance import counted
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.mutant import Mutant, Op

Settings = dict[str, Any]


def _kinds_by(change: Callable[[str, tuple[int, ...], str], str]) -> Op:
    """Return a function that tells the kind of a tensor from name, shape and right answer."""

    def kinds(shapes: HostArray, *, names: tuple[str, ...]) -> HostArray:
        right = counted.kinds(shapes.items, names)
        rows = [counted.shape_of(row) for row in shapes.items]
        changed = [change(n, s, KINDS[k]) for n, s, k in zip(names, rows, right, strict=True)]
        return host(np.array([KINDS.index(kind) for kind in changed], np.uint8))

    return kinds


def _embeddings_linear(name: str, shape: tuple[int, ...], kind: str) -> str:
    return "linear" if kind == "embedding" else kind


def _any_weight(name: str, shape: tuple[int, ...], kind: str) -> str:
    return "linear" if kind == "other" and name.endswith(".weight") else kind


def _any_matrix(name: str, shape: tuple[int, ...], kind: str) -> str:
    return "linear" if kind == "other" and len(shape) == 2 else kind


def _buffers_other(name: str, shape: tuple[int, ...], kind: str) -> str:
    return "other" if kind == "buffer" else kind


def _attention_bias_buffer(name: str, shape: tuple[int, ...], kind: str) -> str:
    return "buffer" if name.endswith("attn.bias") else kind


def _parts_of_names(name: str, shape: tuple[int, ...], kind: str) -> str:
    """Look for the names of embeddings anywhere: "unshared" holds "shared"."""
    found = any(word in name for word in ("wte", "wpe", "shared", "embed", "relative_attention_bias"))
    return "embedding" if found and kind == "linear" else kind


def _known_embeddings_only(name: str, shape: tuple[int, ...], kind: str) -> str:
    known = ("embed_tokens", "wte", "wpe")
    return kind if kind != "embedding" or name.split(".")[-2] in known else "linear"


def _selection_by(skips: Callable[[str, str], bool]) -> Op:
    def selection(linear: HostArray, *, names: tuple[str, ...], skip: tuple[str, ...]) -> HostArray:
        skipped = [any(skips(name, module) for module in skip) for name in names]
        return host(linear.items & ~np.array(skipped, np.bool_))

    return selection


def _everything(linear: HostArray, *, names: tuple[str, ...], skip: tuple[str, ...]) -> HostArray:
    skipped = [any(f".{module}." in f".{name}." for module in skip) for name in names]
    return host(~np.array(skipped, np.bool_))


def _config_by(change: Callable[[Settings], Settings]) -> Op:
    """Return a function that reads some settings otherwise."""

    def elements(*, config: tuple[tuple[str, Any], ...]) -> HostArray:
        return host(counted.config(tuple(change(dict(config)).items())))

    return elements


def _dropping(*names: str) -> Callable[[Settings], Settings]:
    return lambda config: {name: value for name, value in config.items() if name not in names}


def _key_heads_as_heads(config: Settings) -> Settings:
    if "num_attention_heads" not in config:
        return config
    return {**config, "num_key_value_heads": config["num_attention_heads"]}


def _elements_by(change: Callable[[Settings, Array], None]) -> Op:
    def elements(*, config: tuple[tuple[str, Any], ...]) -> HostArray:
        right = counted.config(config)
        change(dict(config), right)
        return host(right)

    return elements


def _head_counted(config: Settings, right: Array) -> None:
    width = config.get("n_embd") or config.get("hidden_size")
    if config.get("tie_word_embeddings") and width:
        right[0] += width * config["vocab_size"]


def _masks_forgotten(config: Settings, right: Array) -> None:
    right[3] = 0


def _tables_forgotten(config: Settings, right: Array) -> None:
    right[2] += right[1]
    right[1] = 0


def name_faults() -> list[Mutant]:
    """Return the mutants."""

    def kinds(name: str, fault: str, change: Callable[[str, tuple[int, ...], str], str]) -> Mutant:
        return Mutant(f"footprint-{name}", fault, {"tensor_kinds": _kinds_by(change)}, ("kinds",))

    def selection(name: str, fault: str, op: Op) -> Mutant:
        return Mutant(f"footprint-{name}", fault, {"quantized_tensors": op}, ("selection",))

    def config(name: str, fault: str, op: Op) -> Mutant:
        return Mutant(f"footprint-{name}", fault, {"config_tensors": op}, ("elements",))

    return [
        kinds("embeddings-linear", "embeddings count as linear layers", _embeddings_linear),
        kinds("norms-linear", "the weights of norms and convolutions count as linear layers", _any_weight),
        kinds("matrices-linear", "every matrix counts as the weight of a linear layer", _any_matrix),
        kinds("buffers-trained", "masks and frequencies count as parameters", _buffers_other),
        kinds("biases-as-masks", "the bias of an attention counts as a mask", _attention_bias_buffer),
        kinds("names-within-names", "an embedding's name within another name counts", _parts_of_names),
        kinds("rare-embeddings-linear", "only the common names of embeddings are known", _known_embeddings_only),
        selection("skip-ignored", "skipped modules are quantized", _selection_by(lambda name, module: False)),
        selection("skip-substrings", "a skipped name takes out its namesakes",
                  _selection_by(lambda name, module: module in name)),
        selection("skip-last-part", "a module is skipped only as the last part of a name",
                  _selection_by(lambda name, module: name.rpartition(".")[0].endswith(module))),
        selection("skip-whole-names", "a module is skipped only by its whole name",
                  _selection_by(lambda name, module: name.rpartition(".")[0] == module)),
        selection("skip-first-part", "only the first part of a skipped path is compared",
                  _selection_by(lambda name, module: module.partition(".")[0] in name.split("."))),
        selection("norms-quantized", "what is not linear is quantized too", _everything),
        config("key-heads-ignored", "keys and values have as many heads as queries", _config_by(_key_heads_as_heads)),
        config("head-dim-ignored", "the size of a head is always width / heads", _config_by(_dropping("head_dim"))),
        config("biases-ignored", "linear layers have no biases that the configuration sets",
               _config_by(_dropping("attention_bias", "mlp_bias"))),
        config("inner-size-ignored", "the inner size of GPT-2 is always four times the width",
               _config_by(_dropping("n_inner"))),
        config("positions-ignored", "the number of positions is always the default",
               _config_by(_dropping("max_position_embeddings", "n_positions"))),
        config("tied-head-counted", "a tied head is counted twice", _elements_by(_head_counted)),
        config("untied-head-forgotten", "an untied head is not counted", _config_by(
            lambda c: {**c, "tie_word_embeddings": True} if "tie_word_embeddings" in c else c)),
        config("masks-forgotten", "buffers are not there", _elements_by(_masks_forgotten)),
        config("embeddings-as-other", "embeddings are counted with norms", _elements_by(_tables_forgotten)),
    ]  # fmt: skip
