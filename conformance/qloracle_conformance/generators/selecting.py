"""Names of layers as models have them, and the targets and patterns that select among them; sizes to count."""

from itertools import product
from typing import Any

import numpy as np

from qloracle.counting import BIAS_MODES
from qloracle.errors import QloracleError
from qloracle.targets import select_targets
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.merging import option

TARGET_FAMILIES = ("suffixes", "expressions", "layers", "excluded", "all_linear", "memory")
PATTERN_FAMILIES = ("patterns", "defaults", "memory")
COUNT_FAMILIES = ("shapes", "large", "memory")
_SUFFIXES = ("q_proj", "v_proj", "xq_proj", "q_proj_2", "up_proj", "c_attn", "proj", "query")
_PARENTS = ("attn", "self_attn", "mlp", "attn.inner")
_STEMS = ("model.layers", "transformer.h", "encoder.blocks", "model.decoder.layers", "layers")
_LISTS = (("q_proj",), ("q_proj", "v_proj"), ("attn.q_proj",), ("proj",), ("c_attn", "up_proj"), ("query", "q_proj"))
_OF_EXPERTS = (("q_proj",), ("q_proj", "v_proj"), ("c_attn", "up_proj"), ("query", "q_proj"))  # names with two numbers
_EXPRESSIONS = (r".*q_proj", r".*\.q_proj", r"model\..*", r".*\.(1|2)\..*", r".*[0-9]\.self_attn\.\w+", r"(?i).*Q_PROJ")


def names_of(draw: Draw) -> tuple[str, ...]:
    """Return the names of a model's modules: near misses of every target are among them."""
    stem, random = draw.choice(_STEMS), draw.random()
    found = []
    for layer in (0, 1, 2, 10, 11, 21):
        for parent in _PARENTS:
            found += [f"{stem}.{layer}.{parent}.{suffix}" for suffix in random.permutation(_SUFFIXES)[:3]]
        found.append(f"{stem}.{layer}.experts.3.mlp.up_proj")
        found += [f"{stem}.{layer}.experts.{expert}.{suffix}" for expert in (1, 10) for suffix in ("q_proj", "c_attn")]
    found += ["q_proj", "q_projector", "lm_head", "embed.q_proj", "visual.blocks.1.attn.q_proj"]
    found += [
        f"{stem}.1.attn.Q_PROJ",
        f"{stem}.2.MLP.v_proj",
        f"{stem}.1.attn_q_proj",
        f"{stem}.2.attn.c-attn",
        "proj.out",
    ]
    return tuple(str(name) for name in random.permutation(found))


def target_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Names and what selects among them; at least one name is selected."""
    layout = draw.choice(claim.layouts) if family == "memory" else "contiguous"
    names = names_of(draw)
    for _ in range(64):
        options = _selection(draw, names, family)
        marks = options.pop("linear")
        try:
            select_targets(names, options["targets"], **{**_given(options), "linear": marks})
        except QloracleError:
            continue
        inputs: dict[str, HostArray | None] = {"linear": None if marks is None else host(marks)}
        layouts = {} if marks is None else {"linear": layout}
        return Case("adapters.targets", inputs, {"names": names, **options}, layouts, repeat=family == "memory")
    raise RuntimeError(f"no selection of family {family} selects anything")


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in ("exclude", "layers", "layers_pattern")}


def _selection(draw: Draw, names: tuple[str, ...], family: str) -> dict[str, Any]:
    random = draw.random()
    options: dict[str, Any] = {"exclude": (), "layers": None, "layers_pattern": None, "linear": None}
    if family == "expressions":
        return {**options, "targets": _EXPRESSIONS[int(random.integers(0, len(_EXPRESSIONS)))]}
    if family in ("all_linear", "memory"):
        marks = np.array(["proj" in n or "attn" in n for n in names]) & (random.integers(0, 3, len(names)) > 0)
        exclude = ((), ("up_proj",), r".*\.1\..*")[int(random.integers(0, 3))]
        return {**options, "targets": "all-linear", "linear": marks, "exclude": exclude}
    listed = _LISTS[int(random.integers(0, len(_LISTS)))] if family != "layers" else draw.choice(_OF_EXPERTS)
    whole = random.choice(names, 2).tolist() if random.integers(0, 2) else []
    options["targets"] = (*listed, *(str(name) for name in whole))
    if family == "layers":
        numbers = ((1, 10), (0,), (1, 2), (21, 3), (11,))
        chosen, pattern = draw.choice([*product(numbers, (None, "layers", "layers|h|blocks", "experts"))])
        return {**options, "layers": chosen, "layers_pattern": pattern}
    if family == "excluded":
        choices = (("v_proj",), ("attn.q_proj",), (str(names[0]),), r".*\.1[01]?\..*", r"embed.*")
        options["exclude"] = choices[int(random.integers(0, len(choices)))]
    return options


def pattern_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Names, and patterns that give some of them another rank or alpha."""
    layout = draw.choice(claim.layouts) if family == "memory" else "contiguous"
    names, random = names_of(draw), draw.random()
    ranks = {"q_proj": 4, r"1\..*\.v_proj": 16, "proj": 64, r"layers\.2\..*": 1, "up_proj": 2}
    alphas = {"v_proj": 32.0, r"10\..*": 4.0, "attn.q_proj": 8.0, r".*xq.*": 1.5}
    keys, others = random.permutation(list(ranks)).tolist(), random.permutation(list(alphas)).tolist()
    count = 0 if family == "defaults" else 3
    options = {
        "names": names,
        "rank": draw.choice((8, 16, 64)),
        "alpha": draw.choice((16.0, 8.0, 3.0)),
        "rank_pattern": {key: ranks[key] for key in keys[:count]},
        "alpha_pattern": {key: alphas[key] for key in others[:count]},
        "rank_stabilized": "rank_stabilized" in claim.features and draw.choice((False, True)),
    }
    selected = host(random.integers(0, 4, len(names)) > 0)
    return Case("adapters.patterns", {"selected": selected}, options, {"selected": layout}, repeat=family == "memory")


def count_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Sizes of layers, ranks of their adapters, and which have a bias."""
    layout = draw.choice(claim.layouts) if family == "memory" else "contiguous"
    random = draw.random()
    count = draw.choice((7, 1, 30, 0) if claim.empty and family == "shapes" else (7, 1, 30))
    shapes = random.integers(1, 5000, (count, 2))
    if family == "large":
        shapes = random.integers(40_000, 1 << 20, (count, 2))
        shapes[0] = (400_000, 100_000)
    ranks = np.minimum(random.integers(0, 65, count) * (random.integers(0, 3, count) > 0), shapes.min(axis=1))
    biases = random.integers(0, 2, count) == 0
    bias = str(option(draw, claim, "bias", "none"))
    own_bias = "lora_bias" in claim.features and draw.choice((False, True))
    extra = {"dora": draw.choice((False, True)), "lora_bias": own_bias}
    inputs: dict[str, HostArray | None] = {
        "shapes": host(shapes.astype(np.int64)), "ranks": host(ranks.astype(np.int64)), "biases": host(biases),
    }  # fmt: skip
    layouts = dict.fromkeys(inputs, layout)
    return Case("adapters.count", inputs, {"bias": bias, **extra}, layouts, repeat=family == "memory")


def bias_mode_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Which layers have a bias, and which an adapter."""
    layout = draw.choice(claim.layouts) if family == "memory" else "contiguous"
    random, count = draw.random(), draw.choice((33, 9, 130))
    inputs: dict[str, HostArray | None] = {
        "biases": host(random.integers(0, 2, count) == 0), "adapted": host(random.integers(0, 2, count) == 0),
    }  # fmt: skip
    mode = str(option(draw, claim, "bias", BIAS_MODES[0]))
    return Case("adapters.biases", inputs, {"bias": mode}, dict.fromkeys(inputs, layout), repeat=family == "memory")
