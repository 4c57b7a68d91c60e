"""The tensors of a transformer from its configuration (``config.json``).

Clause: ``[footprint.config]``. Buffers are those that PyTorch's modules register: they count in a model's printed
footprint although nobody trains them.
"""

from collections.abc import Callable, Mapping
from typing import Any

from qloracle.errors import reject_type, reject_value, require_positive_integer
from qloracle.footprint.families import Settings, Tensors, bert, decoder, distilbert, gpt2
from qloracle.footprint.tensors import ModelTensor

# What a configuration leaves out has the default of its family; None: derived from the others.
_GPT2 = {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_inner": None,
         "tie_word_embeddings": True}  # fmt: skip
_LLAMA = {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
          "num_attention_heads": 32, "num_key_value_heads": None, "head_dim": None, "tie_word_embeddings": False,
          "attention_bias": False, "mlp_bias": False}  # fmt: skip
_QWEN = {**_LLAMA, "vocab_size": 151936, "intermediate_size": 22016}
_GEMMA = {**_LLAMA, "vocab_size": 256000, "hidden_size": 3072, "intermediate_size": 24576, "num_hidden_layers": 28,
          "num_attention_heads": 16, "head_dim": 256, "tie_word_embeddings": True}  # fmt: skip
_BERT = {"vocab_size": 30522, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
         "max_position_embeddings": 512, "type_vocab_size": 2}  # fmt: skip
_DISTILBERT = {"vocab_size": 30522, "dim": 768, "hidden_dim": 3072, "n_layers": 6, "max_position_embeddings": 512}
_FLAGS = ("tie_word_embeddings", "attention_bias", "mlp_bias")


_FAMILIES: dict[str, tuple[Callable[[Settings], Tensors], Mapping[str, Any]]] = {
    "gpt2": (gpt2, _GPT2),
    "llama": (decoder, _LLAMA),
    "mistral": (decoder, {**_LLAMA, "intermediate_size": 14336, "num_key_value_heads": 8}),
    "qwen2": (lambda c: decoder(c, qkv_bias=True), {**_QWEN}),
    "qwen3": (lambda c: decoder(c, head_norms=True), {**_QWEN, "head_dim": 128}),
    "gemma": (decoder, _GEMMA),
    "gemma2": (lambda c: decoder(c, norms=4), {**_GEMMA, "hidden_size": 2304, "intermediate_size": 9216,
               "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4}),
    "phi3": (lambda c: decoder(c, fused=True), {**_LLAMA, "vocab_size": 32064, "hidden_size": 3072,
             "intermediate_size": 8192}),
    "bert": (bert, _BERT),
    "roberta": (bert, {**_BERT, "vocab_size": 50265}),
    "xlm-roberta": (bert, _BERT),
    "distilbert": (distilbert, _DISTILBERT),
}  # fmt: skip
MODEL_TYPES = tuple(_FAMILIES)


def config_tensors(config: Mapping[str, Any]) -> tuple[ModelTensor, ...]:
    """Return the tensors of the model that a configuration describes.

    Parameters
    ----------
    config : mapping
        The contents of a ``config.json``: "model_type" (one of MODEL_TYPES) and the sizes that differ from its
        defaults. A decoder has its language-model head, tied or not; an encoder has its pooler and no head.

    Returns
    -------
    tuple of ModelTensor

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If the model type is unknown (the message lists the known ones), or a size is no positive integer.

    Notes
    -----
    Clause ``[footprint.config]``. GPT-2's causal masks are buffers of booleans, with one scalar each, as in the
    versions of its implementation that the published footprints were measured with. Integers only.

    Examples
    --------
    >>> tensors = config_tensors({"model_type": "gpt2"})
    >>> sum(t.size for t in tensors if t.kind != "buffer"), sum(t.size for t in tensors if t.kind == "linear")
    (124439808, 84934656)
    """
    if not isinstance(config, Mapping):
        reject_type("config", "a mapping, the contents of a config.json", type(config).__name__)
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in _FAMILIES:
        reject_value("model_type", f"one of {', '.join(MODEL_TYPES)}", repr(model_type))
    build, defaults = _FAMILIES[model_type]
    return tuple(build({name: _setting(name, config.get(name), default) for name, default in defaults.items()}))


def _setting(name: str, given: object, default: object) -> object:
    if given is None:
        return default
    if name not in _FLAGS:
        return require_positive_integer(name, given)
    if not isinstance(given, bool):
        reject_type(name, "true or false", repr(given))
    return given
