"""[adapters.targets], [adapters.patterns]: layers by name, and what each of them gets."""

import itertools
import re
from fractions import Fraction
from math import isqrt

import numpy as np
import pytest

from qloracle import adapter_settings, select_targets
from qloracle.errors import ArgumentTypeError, ArgumentValueError

NAMES = [
    "model.embed_tokens",
    "model.layers.0.self_attn.q_proj",
    "model.layers.0.self_attn.v_proj",
    "model.layers.0.mlp.up_proj",
    "model.layers.1.self_attn.q_proj",
    "model.layers.1.self_attn.v_proj",
    "model.layers.10.self_attn.q_proj",
    "model.layers.10.mlp.experts.3.q_proj",
    "vision.blocks.1.attn.q_proj",
    "q_proj",
    "xq_proj",
    "model.q_proj.norm",
    "lm_head",
]


def chosen(*arguments: object, **options: object) -> list[str]:
    mask = select_targets(NAMES, *arguments, **options)  # type: ignore[arg-type]
    return [name for name, taken in zip(NAMES, mask, strict=True) if taken]


def components(name: str) -> list[str]:
    return name.split(".")


@pytest.mark.proof("adapters.targets", by="lists of components")
def test_a_listed_name_selects_by_whole_components() -> None:
    pieces = sorted({".".join(components(n)[k:]) for n in NAMES for k in range(len(components(n)))})
    for target in pieces:
        expected = [n for n in NAMES if components(n)[-len(components(target)) :] == components(target)]
        assert chosen([target]) == expected, target
    generator = np.random.default_rng(4)
    for _ in range(100):
        several = [str(piece) for piece in generator.choice(pieces, 3, replace=False)]
        union = [n for n in NAMES if any(components(n)[-len(components(t)) :] == components(t) for t in several)]
        assert chosen(several) == union, several


@pytest.mark.proof("adapters.targets", by="literal cases")
@pytest.mark.parametrize(
    ("targets", "options", "expected"),
    [
        (["q_proj"], {}, [1, 4, 6, 7, 8, 9]),
        (["v_proj", "lm_head"], {}, [2, 5, 12]),
        (["self_attn.q_proj"], {}, [1, 4, 6]),
        (r".*\.q_proj", {}, [1, 4, 6, 7, 8]),
        (r"model\.layers\.\d\..*_proj", {}, [1, 2, 3, 4, 5]),
        (r"q_proj", {}, [9]),
        (["q_proj"], {"exclude": ["vision.blocks.1.attn.q_proj"]}, [1, 4, 6, 7, 9]),
        (["q_proj"], {"exclude": r".*experts.*"}, [1, 4, 6, 8, 9]),
        (["q_proj", "v_proj"], {"exclude": ["q_proj"]}, [2, 5]),
        (["q_proj"], {"layers": [1]}, [4, 8, 9]),
        (["q_proj"], {"layers": [1], "layers_pattern": "layers"}, [4, 9]),
        (["q_proj"], {"layers": [1], "layers_pattern": "layers|blocks"}, [4, 8, 9]),
        (["q_proj"], {"layers": [10]}, [6, 7, 9]),
        (["q_proj"], {"layers": [3]}, [9]),
        (["q_proj"], {"layers": [3], "layers_pattern": "experts"}, [7, 9]),
        (["q_proj"], {"layers": [10], "layers_pattern": "layers"}, [6, 7, 9]),
        (["self_attn.q_proj", "model.embed_tokens"], {"layers": [0, 10]}, [0, 1, 6]),
    ],
)
def test_names_are_selected(targets: object, options: dict[str, object], expected: list[int]) -> None:
    assert chosen(targets, **options) == [NAMES[i] for i in expected]


@pytest.mark.proof("adapters.targets", by="literal cases")
def test_all_linear_takes_what_is_marked() -> None:
    linear = np.array(["proj" in n and "norm" not in n for n in NAMES])
    assert chosen("all-linear", linear=linear) == [n for n in NAMES if "proj" in n and "norm" not in n]
    assert chosen("all-linear", linear=linear, exclude=["q_proj", "v_proj"]) == [
        "model.layers.0.mlp.up_proj",
        "xq_proj",
    ]


@pytest.mark.proof("adapters.patterns", by="lists of components")
def test_plain_patterns_are_suffixes_and_the_first_that_matches_wins() -> None:
    layers = [NAMES[i] for i in (1, 2, 4, 5, 6, 9, 10)]
    for first, second in itertools.permutations(["q_proj", "self_attn.q_proj", "1.self_attn.v_proj", "v_proj"], 2):
        found = adapter_settings(layers, rank=8, alpha=16, rank_pattern={first: 2, second: 4})
        suffixes = [(components(re.sub(r"\\", "", p)), r) for p, r in ((first, 2), (second, 4))]
        expected = [next((r for s, r in suffixes if components(n)[-len(s) :] == s), 8) for n in layers]
        assert found.rank.tolist() == expected, (first, second)
        assert found.scale.tolist() == [float(Fraction(16, r)) for r in expected]


@pytest.mark.proof("adapters.patterns", by="literal cases")
def test_a_rank_pattern_changes_the_scale_of_its_layer_alone() -> None:
    layers = ["h.0.q", "h.1.q", "h.10.q", "h.1.qq"]
    found = adapter_settings(layers, rank=16, alpha=16, rank_pattern={r"h\.1\.q": 4}, alpha_pattern={r"\d+\.qq": 32.0})
    assert found.rank.tolist() == [16, 4, 16, 16]
    assert found.alpha.tolist() == [16, 16, 16, 32]
    assert found.scale.tolist() == [1, 4, 1, 2]
    root = adapter_settings(layers, rank=16, alpha=16, rank_pattern={r"h\.1\.q": 4}, rank_stabilized=True)
    assert root.scale.tolist() == [16 / isqrt(r) for r in root.rank]
    assert found.rank.dtype == np.int64
    assert found.scale.dtype == np.float64


def test_bad_arguments_are_named() -> None:
    for targets, options, kind, message in [
        (["nothing"], {}, ArgumentValueError, "targets must be such that at least one name is selected"),
        (["q_proj"], {"exclude": ["q_proj"]}, ArgumentValueError, "at least one name"),
        ("(", {}, ArgumentValueError, "targets must be a regular expression"),
        (["q_proj"], {"exclude": "*"}, ArgumentValueError, "exclude must be a regular expression"),
        ([1], {}, ArgumentTypeError, "targets must be a sequence of strings"),
        ("all-linear", {}, ArgumentValueError, "linear must be given"),
        (["q_proj"], {"linear": [True] * 13}, ArgumentValueError, "linear must be given"),
        ("all-linear", {"linear": [True]}, ArgumentTypeError, "linear must be 13 bools"),
        (".*", {"layers": [1]}, ArgumentValueError, "layers must be None"),
        (["q_proj"], {"layers_pattern": "h"}, ArgumentValueError, "layers_pattern must be None"),
        (["q_proj"], {"layers": [1.0]}, ArgumentTypeError, "layers must be a sequence of integers"),
    ]:
        with pytest.raises(kind, match=message):
            select_targets(NAMES, targets, **options)  # type: ignore[arg-type]
    with pytest.raises(ArgumentTypeError, match="names must be a sequence of strings"):
        select_targets("q_proj", ["q_proj"])
    for options, kind, message in [
        ({"rank": 0}, ArgumentValueError, "rank must be a positive integer"),
        ({"rank": 8, "rank_pattern": {"q": 2.5}}, ArgumentTypeError, "rank must be a positive integer"),
        ({"rank": 8, "alpha_pattern": {"q": np.inf}}, ArgumentValueError, "alpha must be finite"),
        ({"rank": 8, "rank_pattern": {"(": 2}}, ArgumentValueError, "rank_pattern must be a regular expression"),
    ]:
        with pytest.raises(kind, match=message):
            adapter_settings(["h.0.q"], alpha=16, **options)  # type: ignore[arg-type]


def test_a_pattern_is_a_regular_expression_of_its_own() -> None:
    names = ["h.0.Q", "h.1.k", "xq", "q"]
    for pattern, expected in [
        ("(?i)q", [4, 8, 8, 4]),
        ("^q", [8, 8, 8, 4]),  # the beginning of the name, not of a component
        (r"(?<=0\.)Q", [4, 8, 8, 8]),
        ("k|q", [8, 4, 8, 4]),
        ("(?x) k  # a comment", [8, 4, 8, 8]),
    ]:
        got = adapter_settings(names, rank=8, alpha=16, rank_pattern={pattern: 4}).rank.tolist()
        assert got == expected, f"{pattern}: ranks {got}"
    layers = ["m.H.0.q", "m.H.1.q", "m.k.1.q", "H.1.2.q"]
    for pattern, chosen in [("(?i)h", [False, True, False, True]), (r"m\.(H|k)", [False, True, True, False])]:
        found = select_targets(layers, ["q"], layers=[1], layers_pattern=pattern).tolist()
        assert found == chosen, f"{pattern}: {found}"
    with pytest.raises(ArgumentValueError, match="rank_pattern must be a regular expression"):
        adapter_settings(["h.0.q"], rank=8, alpha=16, rank_pattern={"a)|(?:q": 4})
