"""The record of a mutant, and the backend that it makes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from inspect import signature
from typing import Any

import numpy as np

from qloracle.bounds import Roundings
from qloracle_conformance.adapters.reference import backend as reference
from qloracle_conformance.backend import Backend, Claim, Level
from qloracle_conformance.out_arrays import with_out
from qloracle_conformance.registry import OPERATIONS

Op = Callable[..., Any]


@dataclass(frozen=True)
class Mutant:
    """One plausible kernel fault: it changes a computation, not an output, and knows nothing of any generator."""

    name: str
    fault: str  # what is wrong, as a reviewer would say it
    ops: Mapping[str, Op]  # functions that replace the reference's
    stages: tuple[str, ...]  # where the fault is: the report must name one of them
    lengths: tuple[int, ...] = ()  # inner dimensions at each of which it must be caught
    operations: str = ""  # prefix of the operations that read the change, where not all that call the function
    start: Callable[[], Mapping[str, Op]] | None = None  # makes `ops` anew, where they keep something between calls

    def fresh_ops(self) -> Mapping[str, Op]:
        """Return the functions that replace the reference's, with nothing kept from an earlier run."""
        return self.ops if self.start is None else self.start()


@dataclass(frozen=True)
class Rewrite:
    """A right implementation that differs from the reference: it must keep every claim."""

    name: str
    what: str
    ops: Mapping[str, Op]
    levels: Mapping[str, Level]  # claimed levels by stage; empty for those of the reference
    roundings: Roundings | None = None  # declared; None for those of the reference


def backend_of(
    ops: Mapping[str, Op], name: str, levels: Mapping[str, Level] | None = None, roundings: Roundings | None = None
) -> Backend:
    """Return the reference with some functions replaced, claiming only what those functions serve."""
    base = reference()
    claims = tuple(
        _changed(claim, levels or {}, roundings) for claim in base.claims if OPERATIONS[claim.operation].function in ops
    )
    quiet = {name: _quiet(op) for name, op in ops.items()}
    served = {name: op if "out" in signature(op).parameters else with_out(op) for name, op in quiet.items()}
    return replace(base, name=name, ops={**base.ops, **served}, claims=claims)


def _quiet(op: Op) -> Op:
    """Return a function that does not warn of infinities and NaN: wrong kernels meet them where right ones do not."""

    @wraps(op)
    def silent(*arrays: Any, **arguments: Any) -> Any:
        with np.errstate(all="ignore"):
            return op(*arrays, **arguments)

    return silent


def _changed(claim: Claim, levels: Mapping[str, Level], roundings: Roundings | None) -> Claim:
    return replace(claim, levels={**claim.levels, **levels}, roundings=roundings or claim.roundings)
