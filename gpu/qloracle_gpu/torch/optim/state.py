"""Optimizer states as plain tensors, and back: what a checkpoint has to hold.

Clauses: ``[optim.state]``, ``[footprint.states]``.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from qloracle.errors import reject_type, reject_value, require_mapping, require_one_of, require_shape
from qloracle_gpu.torch.blocks import block_count
from qloracle_gpu.torch.formats import require_dtype
from qloracle_gpu.torch.optim.adamw import AdamwState
from qloracle_gpu.torch.optim.quantized_moments import STATE_BLOCK_SIZE, Adamw8bitState

OPTIMIZERS = ("adamw_32bit", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit")
FLOAT32_BYTES = 4
_ARRAYS: dict[type, dict[str, torch.dtype]] = {
    AdamwState: {"m": torch.float32, "v": torch.float32, "step": torch.int64},
    Adamw8bitState: {
        "codes_m": torch.uint8, "absmax_m": torch.float32, "codes_v": torch.uint8, "absmax_v": torch.float32,
        "step": torch.int64, "block_size": torch.int64,
    },
}  # fmt: skip
NUMBERS = ("step", "block_size")


def state_arrays(state: AdamwState | Adamw8bitState) -> dict[str, Tensor]:
    """Return everything that a state holds as tensors by name, for a file format that knows nothing else.

    Parameters
    ----------
    state : AdamwState or Adamw8bitState

    Returns
    -------
    dict of str to tensor
        Copies. The number of steps is part of it, for the bias correction goes on where it was; so is the block size.
        Both are on the CPU, the others where they were.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `state` is something else, or a number does not fit int64.

    Notes
    -----
    Clause ``[optim.state]``: k steps, or some of them, `state_arrays`, `state_from_arrays` and the others, give the
    same bits. Rounding points: none.

    Examples
    --------
    >>> from qloracle_gpu.torch.optim.adamw import adamw_init
    >>> state_arrays(adamw_init((1,)))
    {'m': tensor([0.]), 'v': tensor([0.]), 'step': tensor(0)}
    """
    if type(state) not in _ARRAYS:
        reject_type("state", " or ".join(kind.__name__ for kind in _ARRAYS), type(state).__name__)
    found = {}
    for name, dtype in _ARRAYS[type(state)].items():
        value = getattr(state, name)
        if name not in NUMBERS:
            found[name] = require_dtype(name, value, dtype).detach().clone()
        elif not 0 <= value < 2**63:
            reject_value(name, "a number from 0 to 2^63 − 1", value)
        else:
            found[name] = torch.tensor(value, dtype=dtype, device="cpu")
    return found


def state_from_arrays(arrays: Mapping[str, Tensor]) -> AdamwState | Adamw8bitState:
    """Return the state that `state_arrays` took apart.

    Parameters
    ----------
    arrays : mapping of str to tensor
        Exactly the names and dtypes of one kind of state.

    Returns
    -------
    AdamwState or Adamw8bitState
        Of copies.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a name is missing or unknown, or a dtype is another: nothing is filled in and nothing is cast.

    Notes
    -----
    Clause ``[optim.state]``.

    Examples
    --------
    >>> from qloracle_gpu.torch.optim.adamw import AdamwOptions, adamw_init, adamw_step
    >>> options, g = AdamwOptions(lr=0.125, beta1=0.5), torch.tensor([4.0])
    >>> p, state = adamw_step(torch.tensor([1.0]), g, adamw_init((1,)), options)
    >>> restored = state_from_arrays(state_arrays(state))
    >>> adamw_step(p, -g, restored, options) == adamw_step(p, -g, state, options)
    True
    """
    require_mapping("arrays", arrays, "a mapping of names to tensors")
    kinds = [kind for kind, dtypes in _ARRAYS.items() if set(dtypes) == set(arrays)]
    if not kinds:
        known = "; or ".join(", ".join(dtypes) for dtypes in _ARRAYS.values())
        reject_value("arrays", f"those of one state, named {known}", ", ".join(map(str, arrays)) or "none")
    dtypes = _ARRAYS[kinds[0]]
    for name, dtype in dtypes.items():
        require_dtype(name, arrays[name], dtype)
        if name in NUMBERS and arrays[name].shape != ():
            reject_value(name, "a number, 0-d", tuple(arrays[name].shape))
    parts = {n: int(arrays[n]) if n in NUMBERS else arrays[n].detach().clone() for n in dtypes}
    state: AdamwState | Adamw8bitState = kinds[0](**parts)
    return state


def state_bytes(sizes: Sequence[int], optimizer: str = "adamw_32bit") -> int:
    """Return the bytes of AdamW's two moments for trained tensors of the given sizes.

    32 bits: 8·Σ n. 8 bits: Σ 2·(n + 4·⌈n/256⌉) + 2048: codes, a float32 absmax for each block of 256, and the signed
    and the unsigned table once. Paging moves states and changes none.

    Parameters
    ----------
    sizes : sequence of int
        Elements of each trained tensor.
    optimizer : {"adamw_32bit", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"}
        With all states in 8 bits: the smallest tensors, which `AdamW8bit` leaves in 32 bits by default, count as such.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a size is no integer that is 0 or more, or the optimizer is unknown.

    Notes
    -----
    Clause ``[footprint.states]``. Source: Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization", section
    2. Integers only.

    Examples
    --------
    >>> state_bytes([1000, 24]), state_bytes([1000, 24], "adamw_8bit")
    (8192, 4136)
    """
    require_one_of("optimizer", optimizer, OPTIMIZERS)
    counts = require_shape(sizes, "sizes")
    if optimizer.endswith("32bit"):
        return 2 * FLOAT32_BYTES * sum(counts)
    tables = 2 * 256 * FLOAT32_BYTES if counts else 0
    return tables + sum(2 * (n + FLOAT32_BYTES * block_count(n, STATE_BLOCK_SIZE)) for n in counts)
