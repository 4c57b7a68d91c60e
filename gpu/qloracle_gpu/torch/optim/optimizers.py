"""The optimizers, with arguments as in `torch.optim.AdamW` and bitsandbytes."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from qloracle_gpu.torch.optim.pager import require_paging
from qloracle_gpu.torch.optim.quantized_moments import STATE_BLOCK_SIZE
from qloracle_gpu.torch.optim.stepping import SteppingOptimizer

MIN_8BIT_SIZE = 4096  # elements; as in bitsandbytes


class AdamW(SteppingOptimizer):
    """AdamW with moments in float32, whatever the format of the parameters; the rule is that of `adamw_step`.

    Parameters
    ----------
    params : iterable of tensors, of named tensors, or of groups
        Dense, of float32, float16 or bfloat16, any strides.
    lr : float, or a tensor with `capturable`
        Learning rate: 0, or from 2^−126.
    betas : pair of float
        Decay of the mean and of the mean square.
    eps : float
        Added to the root, after the bias correction.
    weight_decay : float
        Decoupled: a step begins with p·(1 − lr·weight_decay).
    nonfinite : {"propagate", "skip", "reset"}
        What an element does whose gradient is NaN or infinite, see `AdamwOptions`.
    max_update_norm : float, optional
        Largest norm of a parameter's update before lr, relative to the norm of the parameter.
    stochastic_rounding : bool
        Round 16-bit parameters stochastically, so that updates below half a unit are not lost. float32 parameters are
        rounded to nearest as ever.
    seed : int
        Of the random bits, which depend on the parameter's index and the number of the step besides.
    capturable : bool
        A CUDA graph may hold steps, after one that was made outside: the number of the step lies on the device, and
        `lr` may be a tensor of one float64 (or float32) there, which is read in every step and never looked at by the
        host. All other hyperparameters are what they were at the capture. Bits are those of a step that is not
        captured. Not with `stochastic_rounding`, nor with betas above 0.99999.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a parameter's format or a hyperparameter is out of its range. All arguments but `params` may differ from
        group to group, and are checked again in every step, before any parameter moves.

    Notes
    -----
    Clauses ``[adamw.moments]``, ``[adamw.parameter]``, ``[adamw.nonfinite]``, ``[adamw.stochastic]``,
    ``[optim.state]``. `state_dict` holds plain tensors and Python's numbers, for `torch.save` and
    ``torch.load(weights_only=True)``: training goes on from it with the same bits, on the same kind of device. A step
    number is a Python integer, or with `capturable` a tensor of int64, so that no step waits for a device.

    Examples
    --------
    >>> import torch
    >>> p = torch.nn.Parameter(torch.ones(2))
    >>> optimizer = AdamW([p], lr=0.125, weight_decay=0)
    >>> p.grad = torch.tensor([1.0, 0.0])
    >>> optimizer.step()
    >>> p.detach(), optimizer.state[p]["step"]
    (tensor([0.8750, 1.0000]), 1)
    """

    def __init__(
        self, params: Iterable[Any], lr: float | Tensor = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 1e-2, *, nonfinite: str = "propagate",
        max_update_norm: float | None = None, stochastic_rounding: bool = False, seed: int = 0,
        capturable: bool = False,
    ) -> None:  # fmt: skip
        """Take the parameters and their hyperparameters."""
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "nonfinite": nonfinite,
            "max_update_norm": max_update_norm, "stochastic_rounding": stochastic_rounding, "seed": seed,
            "capturable": capturable,
        }  # fmt: skip
        super().__init__(params, defaults)


class AdamW8bit(SteppingOptimizer):
    """AdamW with moments of 8 bits in flat blocks; the rule is that of `adamw8bit_step`.

    Parameters
    ----------
    params, lr, betas, eps, weight_decay, nonfinite, max_update_norm, stochastic_rounding, seed, capturable
        As for `AdamW`.
    min_8bit_size : int
        Parameters with fewer elements keep states in 32 bits; 0: none does.
    block_size : int
        Elements that share an absmax.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `AdamW`.

    Notes
    -----
    Clauses ``[adamw8bit.dequantize]``, ``[adamw8bit.quantize]``, and those of `AdamW`. Both moments take
    2 + 8/256 bytes an element instead of 8. A state in 32 bits that is loaded, such as one of `AdamW`, goes on in 32
    bits.

    Examples
    --------
    >>> import torch
    >>> p = torch.nn.Parameter(torch.ones(4096))
    >>> optimizer = AdamW8bit([p], lr=0.125)
    >>> p.grad = torch.ones(4096)
    >>> optimizer.step()
    >>> optimizer.state[p]["codes_m"].dtype, optimizer.state[p]["absmax_m"].shape
    (torch.uint8, torch.Size([16]))
    """

    def __init__(
        self, params: Iterable[Any], lr: float | Tensor = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 1e-2, *, min_8bit_size: int = MIN_8BIT_SIZE,
        block_size: int = STATE_BLOCK_SIZE, nonfinite: str = "propagate", max_update_norm: float | None = None,
        stochastic_rounding: bool = False, seed: int = 0, capturable: bool = False,
    ) -> None:  # fmt: skip
        """Take the parameters and their hyperparameters."""
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "nonfinite": nonfinite,
            "max_update_norm": max_update_norm, "stochastic_rounding": stochastic_rounding, "seed": seed,
            "min_8bit_size": min_8bit_size, "block_size": block_size, "capturable": capturable,
        }  # fmt: skip
        super().__init__(params, defaults)


class PagedAdamW(SteppingOptimizer):
    """`AdamW` whose states wait on the host while others are worked on, beyond a budget of bytes.

    Parameters
    ----------
    params, lr, betas, eps, weight_decay, nonfinite, max_update_norm, stochastic_rounding, seed
        As for `AdamW`.
    page_budget : int, optional
        Bytes that states may take on the device; by default 2^30, or what the largest state needs if that is more.
    page_folder : path, optional
        Folder for a temporary file in which states wait, mapped into memory; by default they wait in host memory,
        which is pinned where the parameters are on a CUDA device. The file goes away with the optimizer.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `AdamW`, and if one state alone exceeds the budget or the folder does not exist.

    Notes
    -----
    Clauses ``[paged.plan]``, ``[paged.states]``. The least recently used states make room. Trajectories are those of
    `AdamW`, bit for bit, whatever the budget.

    Examples
    --------
    >>> import torch
    >>> layers = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
    >>> optimizer = PagedAdamW(layers, lr=0.125, page_budget=16)
    >>> for p in layers:
    ...     p.grad = torch.ones(2)
    >>> optimizer.step()
    >>> layers[2].detach()
    tensor([0.8737, 0.8737])
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 1e-2, *, page_budget: int | None = None, page_folder: str | Path | None = None,
        nonfinite: str = "propagate", max_update_norm: float | None = None, stochastic_rounding: bool = False,
        seed: int = 0,
    ) -> None:  # fmt: skip
        """Take the parameters and their hyperparameters."""
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "nonfinite": nonfinite,
            "max_update_norm": max_update_norm, "stochastic_rounding": stochastic_rounding, "seed": seed,
        }  # fmt: skip
        super().__init__(params, defaults, require_paging(page_budget, page_folder))


class PagedAdamW8bit(SteppingOptimizer):
    """`AdamW8bit` whose states wait on the host while others are worked on, beyond a budget of bytes.

    Parameters
    ----------
    params, lr, betas, eps, weight_decay, nonfinite, max_update_norm, stochastic_rounding, seed
        As for `AdamW`.
    min_8bit_size, block_size
        As for `AdamW8bit`.
    page_budget, page_folder
        As for `PagedAdamW`.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `AdamW8bit` and `PagedAdamW`.

    Notes
    -----
    Trajectories are those of `AdamW8bit`, bit for bit, whatever the budget.

    Examples
    --------
    >>> import torch
    >>> p = torch.nn.Parameter(torch.ones(4096))
    >>> optimizer = PagedAdamW8bit([p], page_budget=2 * 4096 + 2 * 4 * 16)
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 1e-2, *, min_8bit_size: int = MIN_8BIT_SIZE, block_size: int = STATE_BLOCK_SIZE,
        page_budget: int | None = None, page_folder: str | Path | None = None, nonfinite: str = "propagate",
        max_update_norm: float | None = None, stochastic_rounding: bool = False, seed: int = 0,
    ) -> None:  # fmt: skip
        """Take the parameters and their hyperparameters."""
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "nonfinite": nonfinite,
            "max_update_norm": max_update_norm, "stochastic_rounding": stochastic_rounding, "seed": seed,
            "min_8bit_size": min_8bit_size, "block_size": block_size,
        }  # fmt: skip
        super().__init__(params, defaults, require_paging(page_budget, page_folder))
