"""Operations that count bytes."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from qloracle.footprint.configs import MODEL_TYPES
from qloracle.footprint.model import TABLES
from qloracle.footprint.schemes import PLAIN, SCHEMES
from qloracle.footprint.training import METHODS, OPTIMIZERS
from qloracle_conformance.generators import footprint as cases
from qloracle_conformance.generators.case import Generator
from qloracle_conformance.operations import footprint as counts
from qloracle_conformance.operations.operation import Operation

_SCHEMES = tuple(SCHEMES)


def _families(case: Callable[..., Any], names: tuple[str, ...]) -> dict[str, Generator]:
    return {name: partial(case, family=name) for name in names}


def _counting(
    name: str, function: str, clauses: Mapping[str, str], expected: counts.Expected, families: dict[str, Generator],
    options: Mapping[str, tuple[object, ...]],
) -> Operation:  # fmt: skip
    stages = {stage: f"footprint.{clause}" for stage, clause in clauses.items()}
    judge = counts.judge_by(expected)
    return Operation(f"footprint.{name}", function, len(stages), stages, judge, families, expected, options=options)


def operations() -> list[Operation]:
    """Return the operations."""
    parts = {"codes": "codes", "scales": "scales", "offsets": "offsets"}
    by_scheme: dict[str, tuple[object, ...]] = {"scheme": _SCHEMES}
    plain = ("random", "memory")
    return [
        _counting("tensor", "tensor_bytes", parts, counts.tensor,
                  _families(cases.tensor_case, cases.TENSOR_FAMILIES), by_scheme),
        _counting("bits", "bits_per_weight", {"bits": "bits"}, counts.bits,
                  _families(cases.bits_case, ("schemes",)), by_scheme),
        _counting("tables", "table_bytes", {"tables": "tables"}, counts.tables, _families(cases.tables_case, plain),
                  {**by_scheme, "tables": TABLES}),
        _counting("tensors", "tensor_kinds", {"kinds": "tensors"}, counts.tensors,
                  _families(cases.kinds_case, plain), {}),
        _counting("selection", "quantized_tensors", {"selection": "selection"}, counts.selection,
                  _families(cases.selection_case, (*plain, "skipped")), {}),
        _counting("model", "model_footprint", {"total": "model", "printed": "printed"}, counts.model,
                  _families(cases.model_case, (*plain, "large")), {**by_scheme, "other": PLAIN, "tables": TABLES}),
        _counting("config", "config_tensors", {"elements": "config"}, counts.config,
                  _families(cases.config_case, ("sizes", "flags", "defaults")), {"model_type": MODEL_TYPES}),
        _counting("adapters", "adapter_shapes", {"shapes": "adapters"}, counts.adapters,
                  _families(cases.adapters_case, plain), {}),
        _counting("states", "state_bytes", {"states": "states"}, counts.states,
                  _families(cases.states_case, (*plain, "large")), {"optimizer": OPTIMIZERS}),
        _counting("training", "training_memory", {"parts": "training"}, counts.training,
                  _families(cases.training_case, plain),
                  {"method": METHODS, "adapter_format": PLAIN, "optimizer": OPTIMIZERS}),
    ]  # fmt: skip
