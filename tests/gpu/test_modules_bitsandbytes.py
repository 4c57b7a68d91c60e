"""A config from what transformers calls a BitsAndBytesConfig: every field is honoured, or refused by name."""

import warnings
from typing import Any

import pytest
import torch

from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle_gpu.torch.modules import QuantizationConfig, quantization_config

FOUR, EIGHT = {"load_in_4bit": True}, {"load_in_8bit": True}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (FOUR, QuantizationConfig(codebook="fp4", compute_dtype="float32")),
        (FOUR | {"bnb_4bit_quant_type": "nf4"}, QuantizationConfig(codebook="nf4", compute_dtype="float32")),
        (
            FOUR | {"bnb_4bit_compute_dtype": torch.bfloat16, "bnb_4bit_use_double_quant": True},
            QuantizationConfig(codebook="fp4", double_quant=True, compute_dtype="bfloat16"),
        ),
        (
            FOUR | {"bnb_4bit_compute_dtype": "float16", "bnb_4bit_quant_storage": torch.bfloat16},
            QuantizationConfig(codebook="fp4", storage="bfloat16", compute_dtype="float16"),
        ),
        (
            FOUR | {"llm_int8_skip_modules": ["lm_head"]},
            QuantizationConfig(codebook="fp4", compute_dtype="float32", skip_modules=["lm_head"]),
        ),
        (EIGHT, QuantizationConfig("int8", threshold=6.0)),
        (
            EIGHT | {"llm_int8_threshold": 0.0, "llm_int8_skip_modules": ["a.b", "c"]},
            QuantizationConfig("int8", threshold=0.0, skip_modules=["a.b", "c"]),
        ),
    ],
    ids=str,
)
def test_every_field_that_is_honoured_arrives(fields: dict[str, Any], expected: QuantizationConfig) -> None:
    assert quantization_config(fields) == expected


def test_the_compute_dtype_of_8_bits_is_an_argument_of_its_own() -> None:
    expected = QuantizationConfig("int8", threshold=6.0, compute_dtype="bfloat16")
    assert quantization_config(EIGHT, compute_dtype="bfloat16") == expected
    with pytest.raises(ArgumentValueError, match=r"^compute_dtype must be None with load_in_4bit"):
        quantization_config(FOUR, compute_dtype="bfloat16")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"load_in_4bit": False}, r"^load_in_4bit must be set, or load_in_8bit, and not both, got False and False$"),
        (FOUR | EIGHT, r"^load_in_4bit must be set, or load_in_8bit, and not both, got True and True$"),
        (FOUR | {"bnb_4bit_quant_type": "int4"}, r"^bnb_4bit_quant_type must be one of nf4, fp4, got 'int4'$"),
        (FOUR | {"bnb_4bit_compute_dtype": torch.float64}, r"^compute_dtype must be one of .*, got 'float64'$"),
        (FOUR | {"bnb_4bit_quant_storage": "int8"}, r"^bnb_4bit_quant_storage must be one of .*, got 'int8'$"),
        (
            FOUR | {"bnb_4bit_quant_storage": torch.float64},
            r"^bnb_4bit_quant_storage must be one of .*, got 'float64'$",
        ),
        (FOUR | {"llm_int8_threshold": 3.0}, r"^llm_int8_threshold must be its default 6.0 with load_in_4bit"),
        (
            EIGHT | {"bnb_4bit_use_double_quant": True},
            r"^bnb_4bit_use_double_quant must be its default False with load",
        ),
        (EIGHT | {"bnb_4bit_quant_type": "nf4"}, r"^bnb_4bit_quant_type must be its default 'fp4' with load_in_8bit"),
        (EIGHT | {"bnb_4bit_compute_dtype": "bfloat16"}, r"^bnb_4bit_compute_dtype must be its default 'float32' with"),
        (EIGHT | {"llm_int8_threshold": -1.0}, r"^threshold must be a number of at least 0, got -1.0$"),
        (EIGHT | {"llm_int8_has_fp16_weight": True}, r"^llm_int8_has_fp16_weight must be False: no rule"),
        (FOUR | {"llm_int8_enable_fp32_cpu_offload": True}, r"^llm_int8_enable_fp32_cpu_offload must be False: no la"),
        (FOUR | {"llm_int8_skip_modules": ["h.*"]}, r"^llm_int8_skip_modules must be names of modules, no regular ex"),
        (FOUR | {"bnb_4bit_blocksize": 128}, r"^source must be made of the fields .*, got bnb_4bit_blocksize$"),
        (FOUR | {"quant_method": "gptq"}, r"^quant_method must be bitsandbytes, got 'gptq'$"),
        (FOUR | {"_load_in_4bit": False}, r"^load_in_4bit must be what _load_in_4bit says, got True$"),
    ],
    ids=str,
)
def test_what_cannot_be_honoured_is_refused_by_name(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentValueError, match=message):
        quantization_config(fields)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, r"^source must be a BitsAndBytesConfig or its dict, got NoneType$"),
        ({}, r"^source must be a BitsAndBytesConfig or its dict, got dict$"),
        ({"load_in_4bit": 1}, r"^load_in_4bit must be True or False, got 1$"),
        (FOUR | {"bnb_4bit_use_double_quant": "yes"}, r"^bnb_4bit_use_double_quant must be True or False, got 'yes'$"),
        (FOUR | {"llm_int8_skip_modules": "lm_head"}, r"^llm_int8_skip_modules must be a list of names of modules"),
        (EIGHT | {"llm_int8_threshold": "6"}, r"^llm_int8_threshold must be a number, got '6'$"),
    ],
    ids=str,
)
def test_a_field_of_another_type_is_refused_by_name(source: Any, message: str) -> None:
    with pytest.raises(ArgumentTypeError, match=message):
        quantization_config(source)


@pytest.mark.slow
def test_the_class_of_transformers_and_its_dict_give_the_same() -> None:
    pytest.importorskip("transformers", reason="NOT RUN: transformers is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import BitsAndBytesConfig

    for fields, expected in (
        (FOUR, QuantizationConfig(codebook="fp4", compute_dtype="float32")),
        (
            FOUR | {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16,
                    "bnb_4bit_use_double_quant": True, "bnb_4bit_quant_storage": torch.float16},
            QuantizationConfig(codebook="nf4", double_quant=True, storage="float16", compute_dtype="bfloat16"),
        ),
        (EIGHT, QuantizationConfig("int8", threshold=6.0)),
    ):  # fmt: skip
        made = BitsAndBytesConfig(**fields)
        assert quantization_config(made) == quantization_config(made.to_dict()) == expected
    with pytest.raises(ArgumentValueError, match=r"^llm_int8_has_fp16_weight must be False"):
        quantization_config(BitsAndBytesConfig(load_in_8bit=True, llm_int8_has_fp16_weight=True))
