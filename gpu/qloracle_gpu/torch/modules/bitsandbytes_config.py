"""A `QuantizationConfig` from what transformers calls a `BitsAndBytesConfig`."""

import re
from collections.abc import Mapping
from typing import Any

import torch

from qloracle.errors import reject_type, reject_value, require_flag, require_names, require_number, require_one_of
from qloracle_gpu.torch.modules.products import format_name
from qloracle_gpu.torch.modules.quantization import QuantizationConfig
from qloracle_gpu.torch.packing import STORAGES

# Every field with what transformers takes where it is not given.
DEFAULTS: dict[str, Any] = {
    "load_in_4bit": False,
    "load_in_8bit": False,
    "llm_int8_threshold": 6.0,
    "llm_int8_skip_modules": None,
    "llm_int8_enable_fp32_cpu_offload": False,
    "llm_int8_has_fp16_weight": False,
    "bnb_4bit_compute_dtype": "float32",
    "bnb_4bit_quant_type": "fp4",
    "bnb_4bit_use_double_quant": False,
    "bnb_4bit_quant_storage": "uint8",
}
# What `to_dict` adds: the method, and two fields again under their private names.
REPEATED = {"_load_in_4bit": "load_in_4bit", "_load_in_8bit": "load_in_8bit"}
ONLY_4BIT = ("bnb_4bit_compute_dtype", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "bnb_4bit_quant_storage")
REFUSED = {
    "llm_int8_enable_fp32_cpu_offload": "no layer is left in float32 on the CPU: skip it by llm_int8_skip_modules",
    "llm_int8_has_fp16_weight": "no rule quantizes 16-bit weights anew at every step",
}


def quantization_config(source: object, *, compute_dtype: str | None = None) -> QuantizationConfig:
    """Return the config that a `BitsAndBytesConfig` of transformers stands for.

    Parameters
    ----------
    source : BitsAndBytesConfig, or the dict that its `to_dict` gives, or a part of it
        What is not given is transformers' default: fp4, float32, threshold 6.
    compute_dtype : {"float32", "float16", "bfloat16"}, optional
        With `load_in_8bit` only, for which transformers has no field; training asks for one.

    Returns
    -------
    QuantizationConfig
        Blocks of 64; with `load_in_8bit` one absmax a row, and LLM.int8() with the threshold.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a field is unknown, has a value that cannot be honoured (16-bit main weights, offloading to the CPU, storage
        in int8 or float64, regular expressions among the modules to skip), or is set for the other number of bits.

    Notes
    -----
    No field is ignored: one that has no effect with the chosen number of bits must have its default. Names of modules
    to skip are whole names, or last components of names, of a module or of what contains it.

    Examples
    --------
    >>> quantization_config({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}).codebook
    'nf4'
    """
    fields = _fields(source)
    for name, reason in REFUSED.items():
        if require_flag(name, fields[name]):
            reject_value(name, f"False: {reason}", True)
    four, eight = (require_flag(name, fields[name]) for name in ("load_in_4bit", "load_in_8bit"))
    if four == eight:
        reject_value("load_in_4bit", "set, or load_in_8bit, and not both", f"{four} and {eight}")
    skip_modules = _plain_names(fields["llm_int8_skip_modules"])
    if eight:
        _require_defaults(fields, ONLY_4BIT, "load_in_8bit")
        threshold = require_number("llm_int8_threshold", fields["llm_int8_threshold"])
        return QuantizationConfig("int8", threshold=threshold, compute_dtype=compute_dtype, skip_modules=skip_modules)
    if compute_dtype is not None:
        reject_value("compute_dtype", "None with load_in_4bit, which has bnb_4bit_compute_dtype", repr(compute_dtype))
    _require_defaults(fields, ("llm_int8_threshold",), "load_in_4bit")
    return QuantizationConfig(
        codebook=require_one_of("bnb_4bit_quant_type", fields["bnb_4bit_quant_type"], ("nf4", "fp4")),
        double_quant=require_flag("bnb_4bit_use_double_quant", fields["bnb_4bit_use_double_quant"]),
        storage=require_one_of("bnb_4bit_quant_storage", _dtype_name(fields["bnb_4bit_quant_storage"]), STORAGES),
        compute_dtype=_dtype_name(fields["bnb_4bit_compute_dtype"]),
        skip_modules=skip_modules,
    )


def _fields(source: object) -> dict[str, Any]:
    """Return every field, those that are not given by their defaults."""
    given = source if isinstance(source, Mapping) else getattr(source, "to_dict", dict)()
    if not isinstance(given, Mapping) or not given:
        reject_type("source", "a BitsAndBytesConfig or its dict", type(source).__name__)
    fields = dict(given)
    method = fields.pop("quant_method", "bitsandbytes")
    if str(getattr(method, "value", method)) != "bitsandbytes":
        reject_value("quant_method", "bitsandbytes", repr(method))
    for private, public in REPEATED.items():
        value = fields.pop(private, None)
        if value is not None and fields.setdefault(public, value) != value:
            reject_value(public, f"what {private} says", fields[public])
    unknown = sorted(set(fields) - set(DEFAULTS))
    if unknown:
        reject_value("source", f"made of the fields {', '.join(DEFAULTS)}", ", ".join(unknown))
    return {name: default if fields.get(name) is None else fields[name] for name, default in DEFAULTS.items()}


def _require_defaults(fields: dict[str, Any], names: tuple[str, ...], other: str) -> None:
    for name in names:
        if _dtype_name(fields[name]) != DEFAULTS[name]:
            reject_value(name, f"its default {DEFAULTS[name]!r} with {other}, where it has no effect", fields[name])


def _dtype_name(value: object) -> Any:
    """Return the name of a torch dtype, and anything else as it is."""
    return format_name(value) if isinstance(value, torch.dtype) else value


def _plain_names(names: object) -> tuple[str, ...] | None:
    if names is None:
        return None
    plain = require_names("llm_int8_skip_modules", names, "a list of names of modules")
    for name in plain:
        if not re.fullmatch(r"[\w.-]+", name):
            reject_value("llm_int8_skip_modules", "names of modules, no regular expressions", repr(name))
    return plain
