"""Faults of the plan that says which states are on the device."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.mutant import Mutant

Choice = Callable[[list[int]], int]  # place in the order of use of the state that moves out


def oldest(order: list[int]) -> int:
    """Choose the least recently used state."""
    return 0


def planned(choose: Choice, *, touch: bool = True, late: bool = False, all_out: bool = False) -> Callable[..., Any]:
    """Return ``page_in`` with a list in order of use.

    Parameters
    ----------
    choose : function
        Picks what moves out.
    touch : bool
        Whether a use of what is there already counts.
    late : bool
        Whether room is made only where the budget is exceeded already.
    all_out : bool
        Whether everything moves out at once.
    """

    def page_in(sizes: HostArray, accesses: HostArray, *, budget: int) -> HostArray:
        bytes_of, order = sizes.items.tolist(), list[int]()
        resident = np.zeros((accesses.items.size, len(bytes_of)), np.bool_)
        for row, access in zip(resident, accesses.items.tolist(), strict=True):
            if access not in order:
                needed = 0 if late else bytes_of[access]
                while order and sum(bytes_of[i] for i in order) + needed > budget:
                    order = [] if all_out else [i for place, i in enumerate(order) if place != choose(order)]
                order.append(access)
            elif touch:
                order = [*(i for i in order if i != access), access]
            row[order] = True
        return host(resident)

    return page_in


def paging_faults() -> list[Mutant]:
    """Return the faults of plans."""
    plans: dict[str, tuple[str, Callable[..., Any]]] = {
        "first-come": (
            "the state that came first moves out, not the least recently used",
            planned(oldest, touch=False),
        ),
        "newest": ("the most recently used state moves out", planned(lambda order: len(order) - 1)),
        "lowest": ("the state of the lowest number moves out", planned(lambda order: order.index(min(order)))),
        "late": ("room is made once the budget is exceeded", planned(oldest, late=True)),
        "all": ("everything moves out when something does not fit", planned(oldest, all_out=True)),
    }
    return [Mutant(f"paging-{n}", fault, {"page_in": op}, ("resident",)) for n, (fault, op) in plans.items()]
