"""Optimizer states as plain arrays, and back: what a checkpoint has to hold. Clause: ``[optim.state]``."""

from collections.abc import Mapping

import numpy as np

from qloracle.errors import reject_type, reject_value, require_dtype, require_mapping
from qloracle.formats import Array
from qloracle.optim.adamw import AdamwState
from qloracle.optim.adamw8bit import Adamw8bitState

_ARRAYS: dict[type, dict[str, str]] = {
    AdamwState: {"m": "float32", "v": "float32", "step": "int64"},
    Adamw8bitState: {
        "codes_m": "uint8", "absmax_m": "float32", "codes_v": "uint8", "absmax_v": "float32", "step": "int64",
        "block_size": "int64",
    },
}  # fmt: skip
_NUMBERS = ("step", "block_size")


def state_arrays(state: AdamwState | Adamw8bitState) -> dict[str, Array]:
    """Return everything that a state holds as arrays by name, for a file format that knows nothing else.

    Parameters
    ----------
    state : AdamwState or Adamw8bitState

    Returns
    -------
    dict of str to array
        Copies. The number of steps is part of it, for the bias correction goes on where it was; so is the block size.

    Raises
    ------
    ArgumentTypeError
        If `state` is something else.

    Notes
    -----
    Clause ``[optim.state]``: k steps, or some of them, `state_arrays`, `state_from_arrays` and the others, give the
    same bits. Rounding points: none.

    Examples
    --------
    >>> from qloracle.optim.adamw import adamw_init
    >>> state_arrays(adamw_init((1,)))
    {'m': array([0.], dtype=float32), 'v': array([0.], dtype=float32), 'step': array(0)}
    """
    if type(state) not in _ARRAYS:
        reject_type("state", " or ".join(kind.__name__ for kind in _ARRAYS), type(state).__name__)
    dtypes = _ARRAYS[type(state)]
    for name, dtype in dtypes.items():
        if name not in _NUMBERS:
            require_dtype(name, getattr(state, name), dtype)
        elif not 0 <= getattr(state, name) < 2**63:
            reject_value(name, "a number from 0 to 2^63 − 1", getattr(state, name))
    return {name: np.array(getattr(state, name), dtype) for name, dtype in dtypes.items()}


def state_from_arrays(arrays: Mapping[str, Array]) -> AdamwState | Adamw8bitState:
    """Return the state that `state_arrays` took apart.

    Parameters
    ----------
    arrays : mapping of str to array
        Exactly the names and dtypes of one kind of state.

    Returns
    -------
    AdamwState or Adamw8bitState

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a name is missing or unknown, or a dtype is another: nothing is filled in and nothing is cast.

    Notes
    -----
    Clause ``[optim.state]``.

    Examples
    --------
    >>> from qloracle.optim.adamw import AdamwOptions, adamw_init, adamw_step
    >>> options, g = AdamwOptions(lr=0.125, beta1=0.5), np.float32([4])
    >>> p, state = adamw_step(np.float32([1]), g, adamw_init((1,)), options)
    >>> restored = state_from_arrays(state_arrays(state))
    >>> adamw_step(p, -g, restored, options) == adamw_step(p, -g, state, options)
    True
    """
    require_mapping("arrays", arrays, "a mapping of names to arrays")
    kinds = [kind for kind, dtypes in _ARRAYS.items() if set(dtypes) == set(arrays)]
    if not kinds:
        known = "; or ".join(", ".join(dtypes) for dtypes in _ARRAYS.values())
        reject_value("arrays", f"those of one state, named {known}", ", ".join(map(str, arrays)) or "none")
    for name, dtype in _ARRAYS[kinds[0]].items():
        require_dtype(name, arrays[name], dtype)
        if name in _NUMBERS and arrays[name].shape != ():
            reject_value(name, "a number, 0-d", arrays[name].shape)
    parts = {n: int(arrays[n]) if n in _NUMBERS else np.array(arrays[n]) for n in _ARRAYS[kinds[0]]}
    state: AdamwState | Adamw8bitState = kinds[0](**parts)
    return state
