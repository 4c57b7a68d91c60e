"""Where optimizer states are under a budget of bytes: which wait, and which move when one is needed.

The least recently used states make room. Clause: ``[paged.plan]``; the states themselves are moved in `paged`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from qloracle.errors import reject_value, require_integer, require_mapping, require_one_of, require_record


@dataclass(frozen=True)
class PagePlan:
    """Where the states of tensors are; the order of `resident` is that of their last use."""

    sizes: Mapping[str, int]  # bytes of each tensor's state
    budget: int  # bytes that the device has for states
    resident: tuple[str, ...] = ()  # names of those on the device, the least recently used first

    @property
    def used(self) -> int:
        """Bytes on the device; never more than the budget."""
        return sum(self.sizes[name] for name in self.resident)


@dataclass(frozen=True)
class Move:
    """The copy of one state."""

    name: str
    direction: str  # "out" of the device, or "in"
    size: int  # bytes


def page_plan(sizes: Mapping[str, int], budget: int) -> PagePlan:
    """Return the plan with which all states wait.

    Parameters
    ----------
    sizes : mapping of str to int
        Bytes of each tensor's state.
    budget : int
        Bytes that the device has for states.

    Returns
    -------
    PagePlan

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a number is no integer or negative, or one state alone exceeds the budget.

    Notes
    -----
    Clause ``[paged.plan]``.

    Examples
    --------
    >>> plan = page_plan({"a": 3, "b": 4}, 5)  # either state fits, both together do not
    >>> plan.resident, page_in(page_in(plan, "a")[0], "b")[0].resident
    ((), ('b',))
    """
    room = _require_bytes("budget", budget)
    given = require_mapping("sizes", sizes, "a mapping of names to bytes")
    checked = {name: _require_bytes(f"sizes[{name!r}]", size) for name, size in given.items()}
    for name, size in checked.items():
        if size > room:
            reject_value("budget", f"at least the {size} bytes of the state of {name!r}", room)
    return PagePlan(checked, room)


def page_in(plan: PagePlan, name: str) -> tuple[PagePlan, tuple[Move, ...]]:
    """Return the plan with a state on the device, and the moves that lead there, in order.

    While used + size(name) > budget the least recently used state moves out; then `name` moves in. A state that is on
    the device already moves nothing and becomes the most recently used one.

    Parameters
    ----------
    plan : PagePlan
    name : str

    Returns
    -------
    tuple of PagePlan and tuple of Move
        In between, and after each move, the budget is kept: what has to go goes before anything comes.

    Raises
    ------
    ArgumentValueError
        If there is no state of that name.

    Notes
    -----
    Clause ``[paged.plan]``. Integers only.

    Examples
    --------
    >>> plan, _ = page_in(page_plan({"a": 3, "b": 4, "c": 2}, 6), "a")
    >>> plan, moves = page_in(page_in(plan, "c")[0], "b")
    >>> [(move.name, move.direction) for move in moves], plan.resident, plan.used
    ([('a', 'out'), ('b', 'in')], ('c', 'b'), 6)
    """
    require_record("plan", plan, PagePlan)
    require_one_of("name", name, plan.sizes)
    others = [other for other in plan.resident if other != name]
    if name in plan.resident:
        return replace(plan, resident=(*others, name)), ()
    moves, room = [], plan.budget - plan.sizes[name]
    if room < 0:
        reject_value("budget", f"at least the {plan.sizes[name]} bytes of the state of {name!r}", plan.budget)
    for oldest in plan.resident:
        if sum(plan.sizes[other] for other in others) <= room:
            break
        others.remove(oldest)
        moves.append(Move(oldest, "out", plan.sizes[oldest]))
    moves.append(Move(name, "in", plan.sizes[name]))
    return replace(plan, resident=(*others, name)), tuple(moves)


def _require_bytes(argument: str, value: object) -> int:
    number = require_integer(argument, value, "a number of bytes, 0 or more")
    if number < 0:
        reject_value(argument, "a number of bytes, 0 or more", number)
    return number
