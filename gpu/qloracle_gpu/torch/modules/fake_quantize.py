"""Quantization-aware training: a module that observes the range of what passes through it and quantizes it in place."""

import json
from typing import Any

import torch
from torch import Tensor, nn

from qloracle.errors import (
    reject_value,
    require_flag,
    require_number,
    require_one_of,
    require_pair,
    require_positive_integer,
)
from qloracle_gpu.torch.affine_scale import affine_parameters, require_code_range
from qloracle_gpu.torch.fake_quant import require_interval
from qloracle_gpu.torch.formats import require_dtype, require_tensor_format
from qloracle_gpu.torch.groups import GRANULARITIES
from qloracle_gpu.torch.library.affine import fake_quantize_with_gradient
from qloracle_gpu.torch.observers import minmax_range
from qloracle_gpu.torch.percentiles import moving_range, percentile_range
from qloracle_gpu.torch.symmetric import symmetric_scale

ENDS = ("lo", "hi")


class FakeQuantize(nn.Module):
    """Quantize and dequantize what passes through, with the range that was observed while training.

    y = `fake_quantize`(x); its gradient passes straight through where x is within the range of the codes, and is 0
    elsewhere.

    Parameters
    ----------
    qmin, qmax, granularity, group_size
        As for `quantize_affine`. Other granularities than "tensor" ask for inputs of one shape.
    symmetric : bool
        The range is [−c, c] with c = max(|lo|, |hi|), the scale c/qmax and the zero point 0.
    momentum : float, optional
        What a batch counts for, see `moving_range`, after the first one. None: the range is the widest of all batches.
    percentiles : (float, float), optional
        The range of a batch is between these percentiles, see `percentile_range`. None: from minimum to maximum.
    interval : {"values", "codes"}
        See `fake_quantize_backward`.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If an argument is of another type or out of its range; on use, if x is none of the three formats or does not go
        with the granularity or the range, or nothing was observed before evaluation.

    Notes
    -----
    Clauses ``[observers.minmax]``, ``[observers.percentile]``, ``[observers.moving]``, ``[affine.scale]``,
    ``[affine.zero_point]``, ``[symmetric.scale]``, ``[fake_quant.forward]``, ``[fake_quant.backward]``. A NaN or an
    infinity in a batch makes the range NaN, and all that passes afterwards, until `reset`. Nothing waits for the device
    but percentiles. A state_dict holds the range and the settings; loading refuses other settings.

    References
    ----------
    Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
    section 3.

    Examples
    --------
    >>> layer = FakeQuantize(qmin=0, qmax=15)
    >>> x = torch.tensor([-1.0, 0.3, 2.0], requires_grad=True)
    >>> layer(x)
    tensor([-1.0000,  0.4000,  2.0000], grad_fn=<fake_quantizeBackward>)
    >>> layer.eval()(torch.tensor([5.0]))
    tensor([2.])
    """

    lo: Tensor
    hi: Tensor

    def __init__(
        self, *, qmin: int = -128, qmax: int = 127, granularity: str = "tensor", group_size: int | None = None,
        symmetric: bool = False, momentum: float | None = None, percentiles: tuple[float, float] | None = None,
        interval: str = "values",
    ) -> None:  # fmt: skip
        super().__init__()
        self.qmin, self.qmax = require_code_range(qmin, qmax)
        self.granularity = require_one_of("granularity", granularity, GRANULARITIES)
        self.group_size = _group_size(granularity, group_size)
        if require_flag("symmetric", symmetric) and self.qmin > 0:
            reject_value("qmin", "not positive, or 0 had no code", self.qmin)
        if momentum is not None and not 0 <= require_number("momentum", momentum) <= 1:
            reject_value("momentum", "from 0 to 1", momentum)
        require_interval(interval)
        self.symmetric, self.momentum, self.interval = symmetric, momentum, interval
        self.percentiles = None if percentiles is None else _percentiles(percentiles)
        self.observed = False
        for name in ENDS:
            self.register_buffer(name, torch.empty(0, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Return the values of the codes of x; while training, x widens the range first."""
        values = require_tensor_format("x", x)
        if self.training:
            self.observe(values)
        scale, zero_point = self.parameters_of_range()
        how = (self.qmin, self.qmax, self.granularity, self.group_size, self.interval)
        return fake_quantize_with_gradient(x, scale, zero_point, *how)

    def observe(self, x: Tensor) -> None:
        """Take a batch into the range."""
        groups: dict[str, Any] = {"granularity": self.granularity, "group_size": self.group_size}
        if self.percentiles is None:
            lo, hi = minmax_range(x, **groups)
        else:
            lo, hi = percentile_range(x, *self.percentiles, **groups)
        if self.observed:
            self._require_same_groups(lo)
            if self.momentum is None:
                lo, hi = torch.minimum(self.lo, lo), torch.maximum(self.hi, hi)
            else:
                lo, hi = moving_range((self.lo, self.hi), (lo, hi), self.momentum)
        self.lo, self.hi, self.observed = lo, hi, True

    def reset(self) -> None:
        """Forget the range."""
        self.lo, self.hi, self.observed = self.lo.new_empty(0), self.hi.new_empty(0), False

    def parameters_of_range(self) -> tuple[Tensor, Tensor]:
        """Return scale and zero point of the range, as `quantize_affine` and `quantize_symmetric` have them."""
        if not self.observed:
            reject_value("the range of FakeQuantize", "observed in training mode, or loaded, before it is used", None)
        if not self.symmetric:
            return affine_parameters(self.lo, self.hi, qmin=self.qmin, qmax=self.qmax)
        scale = symmetric_scale(torch.maximum(self.lo.abs(), self.hi.abs()), qmax=self.qmax)
        return scale, torch.zeros_like(scale, dtype=torch.int32)

    def get_extra_state(self) -> Tensor:
        """Return the settings as bytes, in a tensor because files of tensors hold nothing else."""
        return torch.tensor(list(self._text(self.observed).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Any) -> None:
        """Raise unless the settings of a state are this module's own."""
        got = bytes(require_dtype("the settings of FakeQuantize", state, torch.uint8).tolist())
        observed = got == self._text(True).encode()
        if not observed and got != self._text(False).encode():
            reject_value("the state of FakeQuantize", self._text(self.observed), got.decode(errors="replace"))
        self.observed = observed

    def extra_repr(self) -> str:
        """Return the settings."""
        return ", ".join(f"{name}={value!r}" for name, value in self._settings().items())

    def _settings(self) -> dict[str, Any]:
        names = ("qmin", "qmax", "granularity", "group_size", "symmetric", "momentum", "percentiles", "interval")
        return {name: getattr(self, name) for name in names}

    def _text(self, observed: bool) -> str:
        """Return the settings, and whether there is a range."""
        return json.dumps({**self._settings(), "observed": observed})

    def _require_same_groups(self, lo: Tensor) -> None:
        if lo.shape != self.lo.shape:
            reject_value("x", f"of as many groups as before, {tuple(self.lo.shape)}", tuple(lo.shape))

    def _apply(self, fn: Any, recurse: bool = True) -> "FakeQuantize":
        # A range stays float32, whatever the module around it becomes.
        super()._apply(lambda buffer: buffer.to(fn(buffer).device), recurse)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        for name in ENDS:
            if (prefix + name) in state_dict:
                end = require_dtype(prefix + name, state_dict[prefix + name], torch.float32)
                setattr(self, name, getattr(self, name).new_empty(end.shape))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _group_size(granularity: str, group_size: int | None) -> int | None:
    if granularity == "group":
        return require_positive_integer("group_size", group_size)
    if group_size is not None:
        reject_value("group_size", f"None for granularity {granularity!r}", group_size)
    return None


def _percentiles(percentiles: tuple[float, float]) -> tuple[float, float]:
    lower, upper = (require_number("percentiles", p) for p in require_pair("percentiles", percentiles))
    if not 0 <= lower <= upper <= 100:
        reject_value("percentiles", "a pair with 0 <= lower <= upper <= 100", percentiles)
    return lower, upper
