"""Optimizer states as plain arrays, and back: what a checkpoint has to hold. Clause: ``[optim.state]``."""

from collections.abc import Mapping

import numpy as np

from qloracle.errors import reject_type, reject_value, require_mapping
from qloracle_gpu.cupy.adamw import AdamwState
from qloracle_gpu.cupy.adamw8bit import Adamw8bitState
from qloracle_gpu.cupy.arrays import copied, require_dtype
from qloracle_gpu.cupy.launcher import Array, operation

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
        Copies, on the device. The number of steps is part of it, for the bias correction goes on where it was; so is
        the block size.

    Raises
    ------
    ArgumentTypeError
        If `state` is something else.

    Notes
    -----
    Clause ``[optim.state]``: k steps, or some of them, `state_arrays`, `state_from_arrays` and the others, give the
    same bits. Rounding points: none.
    """
    if type(state) not in _ARRAYS:
        reject_type("state", " or ".join(kind.__name__ for kind in _ARRAYS), type(state).__name__)
    dtypes = _ARRAYS[type(state)]
    arrays = {name: require_dtype(name, getattr(state, name), dtype) for name, dtype in dtypes.items()
              if name not in _NUMBERS}  # fmt: skip
    for name in dtypes.keys() - arrays.keys():
        if not 0 <= getattr(state, name) < 2**63:
            reject_value(name, "a number from 0 to 2^63 − 1", getattr(state, name))
    with operation("state_arrays", **arrays) as run:
        made = {name: copied(run, array) for name, array in arrays.items()}
        numbers = {name: np.array(getattr(state, name), dtypes[name]) for name in dtypes.keys() - arrays.keys()}
        made |= {name: run.from_host(number) for name, number in numbers.items()}
        return {name: made[name] for name in dtypes}


def state_from_arrays(arrays: Mapping[str, Array]) -> AdamwState | Adamw8bitState:
    """Return the state that `state_arrays` took apart.

    Parameters
    ----------
    arrays : mapping of str to array
        Exactly the names and dtypes of one kind of state. Reading its numbers waits for the device.

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
    """
    require_mapping("arrays", arrays, "a mapping of names to arrays")
    kinds = [kind for kind, dtypes in _ARRAYS.items() if set(dtypes) == set(arrays)]
    if not kinds:
        known = "; or ".join(", ".join(dtypes) for dtypes in _ARRAYS.values())
        reject_value("arrays", f"those of one state, named {known}", ", ".join(map(str, arrays)) or "none")
    given = {name: require_dtype(name, arrays[name], dtype) for name, dtype in _ARRAYS[kinds[0]].items()}
    for name in _NUMBERS:
        if name in given and given[name].shape != ():
            reject_value(name, "a number, 0-d", given[name].shape)
    with operation("state_from_arrays", **given) as run:
        parts = {name: int(array) if name in _NUMBERS else copied(run, array) for name, array in given.items()}
    state: AdamwState | Adamw8bitState = kinds[0](**parts)
    return state
