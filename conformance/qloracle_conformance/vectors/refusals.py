"""Arguments that the reference refuses: one vector for each way in which a call that it admits can be spoilt."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.generators.case import Case
from qloracle_conformance.vectors.locating import reference_outputs
from qloracle_conformance.vectors.vector import Refusal

FAMILY = "refused"  # with the name of the change; no property of that name exists
# Values that no rule admits, by option; a call that survives one makes no vector.
_SPOILT: dict[str, tuple[tuple[str, Any], ...]] = {
    "block_size": (("zero", 0), ("negative", -1)),
    "group_size": (("zero", 0), ("negative", -1)),
    "codebook": (("unknown", "unknown"),),
    "nested_codebook": (("unknown", "unknown"),),
    "granularity": (("unknown", "unknown"),),
    "fmt": (("unknown", "unknown"),),
    "dtype": (("unknown", "unknown"),),
    "storage": (("unknown", "unknown"),),
    "rounding": (("unknown", "unknown"),),
    "scheme": (("unknown", "unknown"),),
    "size": (("negative", -1),),
    "dropout": (("negative", -0.5), ("above_one", 1.5)),
    "lower": (("negative", -1.0),),
    "upper": (("above_all", 101.0),),
    "threshold": (("negative", -1.0),),
    "cycles": (("negative", -1),),
    "rank": (("zero", 0),),
    "lr": (("negative", -1.0),),
    "beta1": (("one", 1.0),),
    "beta2": (("one", 1.0),),
    "eps": (("negative", -1.0),),
    "step": (("zero", 0),),
    "max_norm": (("negative", -1.0),),
    "num_embeddings": (("negative", -1),),
}


def refusals(case: Case) -> Iterator[tuple[str, Case, Refusal]]:
    """Yield the name of a change, the spoilt case, and how the reference refuses it."""
    for name, spoilt in _changes(case):
        refusal = refusal_of(spoilt)
        if refusal is not None:
            yield name, spoilt, refusal


def refusal_of(case: Case) -> Refusal | None:
    """Return how the reference refuses a case; None where it does not, or not by one of its own errors."""
    try:
        reference_outputs(case)
    except ArgumentTypeError as error:
        return Refusal("type", str(error).split()[0])
    except ArgumentValueError as error:
        return Refusal("value", str(error).split()[0])
    except Exception:  # noqa: BLE001  # the adapter of the reference fell over, which says nothing of a rule
        return None
    return None


def _changes(case: Case) -> Iterator[tuple[str, Case]]:
    for option in case.options:
        for name, value in _SPOILT.get(option, ()):
            yield f"{option}_{name}", replace(case, options={**case.options, option: value})
    for name, array in case.inputs.items():
        if array is not None and array.items.size and array.items.ndim:
            short = HostArray(array.items[:-1].copy(), array.dtype)
            yield f"{name}_short", replace(case, inputs={**case.inputs, name: short})
