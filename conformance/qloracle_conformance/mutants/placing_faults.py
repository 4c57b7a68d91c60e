"""Faults of placing adapters by name, of their settings, and of counting parameters."""

import re
from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.mutant import Mutant, Op

SELECTED = ("selected",)


def _select(linear: HostArray | None, **options: Any) -> Array:
    found: HostArray = OPS["select_targets"](linear, **options)
    return found.items


def _excluded(linear: HostArray | None, options: dict[str, Any]) -> Array:
    """Return which names the right selection drops because they are excluded."""
    return _select(linear, **{**options, "exclude": ()}) & ~_select(linear, **options)


def _names_by(rule: Callable[[str, str], bool]) -> Op:
    """Return a selection that compares listed names another way."""

    def select(linear: HostArray | None, **options: Any) -> HostArray:
        if isinstance(options["targets"], str) or options["layers"] is not None:
            return host(_select(linear, **options))
        found = np.array([any(rule(name, target) for target in options["targets"]) for name in options["names"]])
        return host(found & ~_excluded(linear, options))

    return select


def _expressions_by(match: Callable[[str, str], object]) -> Op:
    """Return a selection that matches expressions another way."""

    def select(linear: HostArray | None, **options: Any) -> HostArray:
        pattern = options["targets"]
        if not isinstance(pattern, str) or pattern == "all-linear":
            return host(_select(linear, **options))
        return host(np.array([bool(match(pattern, name)) for name in options["names"]]))

    return select


def _layers_by(number: Callable[[str], int | None]) -> Op:
    """Return a selection that finds the number of a layer another way."""

    def select(linear: HostArray | None, **options: Any) -> HostArray:
        if options["layers"] is None or options["layers_pattern"] is not None:
            return host(_select(linear, **options))
        everywhere = _select(linear, **{**options, "layers": None, "layers_pattern": None})
        inside = [number(name) in options["layers"] or name in options["targets"] for name in options["names"]]
        return host(everywhere & np.array(inside))

    return select


def _last_number(name: str) -> int | None:
    found = re.findall(r"\.([0-9]+)(?=\.)", name)
    return int(found[-1]) if found else None


def _first_digit(name: str) -> int | None:
    found = re.search(r"\.([0-9])[0-9]*\.", name)
    return int(found.group(1)) if found else None


def _with(change: dict[str, Any]) -> Op:
    return lambda linear, **options: host(_select(linear, **{**options, **change}))


def _anything_else_unmarked(linear: HostArray | None, **options: Any) -> HostArray:
    """Take all names for linear layers."""
    if linear is None:
        return host(_select(linear, **options))
    return host(_select(host(np.ones(linear.shape, np.bool_)), **options))


def _settings_by(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Op:
    def settings(selected: HostArray, **options: Any) -> Any:
        return OPS["adapter_settings"](selected, **{**options, **change(options)})

    return settings


def _global_scale(selected: HostArray, **options: Any) -> tuple[HostArray, HostArray, HostArray]:
    """Scale every layer by the default rank and alpha."""
    rank, alpha, _ = OPS["adapter_settings"](selected, **options)
    unit = sqrt(options["rank"]) if options["rank_stabilized"] else options["rank"]
    return rank, alpha, host(np.where(selected.items, options["alpha"] / unit, 0.0))


def _everywhere(selected: HostArray, **options: Any) -> Any:
    return OPS["adapter_settings"](host(np.ones(selected.shape, np.bool_)), **options)


def _patterns_by_characters(selected: HostArray, **options: Any) -> tuple[HostArray, HostArray, HostArray]:
    """Compare patterns with the end of a name, component or not."""

    def chosen(patterns: dict[str, float], default: float) -> list[float]:
        found = [[v for p, v in patterns.items() if re.search(f"(?:{p})$", name)] for name in options["names"]]
        return [values[0] if values else default for values in found]

    ranks, alphas = (chosen(options[f"{n}_pattern"], options[n]) for n in ("rank", "alpha"))
    units = [sqrt(r) if options["rank_stabilized"] else r for r in ranks]
    scales = [a / u for a, u in zip(alphas, units, strict=True)]
    kept = selected.items
    made = (np.array(ranks, np.int64), np.array(alphas, np.float64), np.array(scales, np.float64))
    return host(made[0] * kept), host(made[1] * kept), host(made[2] * kept)


Counts = tuple[Array, Array, Array]


def _counted(change: Callable[[Array, Array, Array, dict[str, Any], Counts], tuple[Array, ...]]) -> Op:
    """Return counts, some of which are computed another way."""

    def count(shapes: HostArray, ranks: HostArray, biases: HostArray, **options: Any) -> tuple[HostArray, ...]:
        base, adapter, bias = (part.items for part in OPS["count_parameters"](shapes, ranks, biases, **options))
        with np.errstate(all="ignore"):
            found = change(shapes.items, ranks.items, biases.items, options, (base, adapter, bias))
        return tuple(host(np.array(part, np.int64)) for part in found)

    return count


def _modes_by(rule: Callable[[Array, Array, str], Array]) -> Op:
    def trains(biases: HostArray, adapted: HostArray, *, bias: str) -> HostArray:
        return host(np.array(rule(biases.items, adapted.items, bias), np.bool_))

    return trains


def placing_faults() -> list[Mutant]:
    """Return the mutants of placing and counting adapters."""
    selections: list[tuple[str, str, Op]] = [
        ("characters", "a name ends with the characters of a target", _names_by(lambda n, t: n.endswith(t))),
        ("anywhere", "a target occurs anywhere in the name", _names_by(lambda n, t: t in n)),
        ("last-component", "only last components are compared",
         _names_by(lambda n, t: n.rsplit(".", 1)[-1] == t.rsplit(".", 1)[-1])),
        ("whole-names", "only whole names are compared", _names_by(lambda n, t: n == t)),
        ("not-whole-names", "a whole name is no suffix of itself", _names_by(lambda n, t: n.endswith(f".{t}"))),
        ("searched", "an expression matches anywhere in the name", _expressions_by(re.search)),
        ("matched", "an expression matches the beginning of the name", _expressions_by(re.match)),
        ("exclude-ignored", "nothing is excluded", _with({"exclude": ()})),
        ("layers-ignored", "layers of every number are taken", _with({"layers": None, "layers_pattern": None})),
        ("pattern-ignored", "any component before the number will do", _with({"layers_pattern": None})),
        ("last-number", "the last number of a name counts", _layers_by(_last_number)),
        ("first-digit", "the first digit of a number counts", _layers_by(_first_digit)),
        ("not-linear", "modules that are not linear are taken", _anything_else_unmarked),
    ]  # fmt: skip
    settings: list[tuple[str, str, Op, tuple[str, ...]]] = [
        ("selection-ignored", "every layer gets an adapter", _everywhere, ("rank",)),
        ("global-scale", "every layer has the scale of the defaults", _global_scale, ("scale",)),
        ("ranks-ignored", "every layer has the default rank", _settings_by(lambda o: {"rank_pattern": {}}), ("rank",)),
        ("alphas-ignored", "every layer has the default alpha", _settings_by(lambda o: {"alpha_pattern": {}}),
         ("alpha",)),
        ("last-wins", "the last pattern that matches wins",
         _settings_by(lambda o: {"rank_pattern": dict(reversed(list(o["rank_pattern"].items())))}), ("rank",)),
        ("characters", "a pattern matches the end of a name, component or not", _patterns_by_characters,
         ("rank", "alpha")),
        ("root-ignored", "rsLoRA's root is ignored", _settings_by(lambda o: {"rank_stabilized": False}), ("scale",)),
    ]  # fmt: skip
    counts: list[tuple[str, str, Op, tuple[str, ...]]] = [
        ("int32", "counts are kept in int32",
         _counted(lambda s, r, b, o, c: (c[0].astype(np.int32), c[1].astype(np.int32), c[2])), ("base", "adapter")),
        ("float32", "counts are kept in float32",
         _counted(lambda s, r, b, o, c: (c[0].astype(np.float32), *c[1:])), ("base",)),
        ("change", "the elements of B A are counted",
         _counted(lambda s, r, b, o, c: (c[0], (r > 0) * s[:, 0] * s[:, 1], c[2])), ("adapter",)),
        ("one-side", "B is not counted", _counted(lambda s, r, b, o, c: (c[0], r * s[:, 1], c[2])), ("adapter",)),
        ("magnitude", "DoRA has a magnitude for each input",
         _counted(lambda s, r, b, o, c: (c[0], c[1] + (r > 0) * o["dora"] * (s[:, 1] - s[:, 0]), c[2])), ("adapter",)),
        ("base-bias", "biases of the base are not counted",
         _counted(lambda s, r, b, o, c: (s[:, 0] * s[:, 1], *c[1:])), ("base",)),
        ("biases", "lora_only trains every bias",
         _counted(lambda s, r, b, o, c: (*c[:2], b * s[:, 0] * (o["bias"] != "none"))), ("bias",)),
        ("no-adapter", "layers without adapter have a magnitude and a bias of one",
         _counted(lambda s, r, b, o, c: (c[0], c[1] + (r == 0) * (o["dora"] + o["lora_bias"]) * s[:, 0], c[2])),
         ("adapter",)),
    ]  # fmt: skip
    modes: list[tuple[str, str, Callable[[Array, Array, str], Array]]] = [
        ("lora-only-as-all", "lora_only trains every bias", lambda b, a, m: b & (m != "none")),
        ("adapted", "lora_only trains where there is no bias", lambda b, a, m: {"none": b & False, "all": b}.get(m, a)),
        ("none-ignored", "none trains those of adapted layers", lambda b, a, m: b if m == "all" else b & a),
        ("inverted", "lora_only trains the other layers",
         lambda b, a, m: {"none": b & False, "all": b}.get(m, b & ~a)),
    ]  # fmt: skip
    return [
        *(Mutant(f"targets-{n}", fault, {"select_targets": op}, SELECTED) for n, fault, op in selections),
        *(Mutant(f"patterns-{n}", fault, {"adapter_settings": op}, stages) for n, fault, op, stages in settings),
        *(Mutant(f"count-{n}", fault, {"count_parameters": op}, stages) for n, fault, op, stages in counts),
        *(Mutant(f"biases-{n}", fault, {"trainable_biases": _modes_by(rule)}, ("trains",))
          for n, fault, rule in modes),
    ]  # fmt: skip
