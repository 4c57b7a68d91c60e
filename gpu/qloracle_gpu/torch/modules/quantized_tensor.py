"""A quantized tensor as a module: its parts are buffers, and nothing ever casts them."""

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from qloracle.errors import reject_type, reject_value
from qloracle_gpu.torch.affine import QuantizedAffine, require_codes
from qloracle_gpu.torch.blockwise import QuantizedBlocks
from qloracle_gpu.torch.double_quant import DoubleQuantized
from qloracle_gpu.torch.formats import require_dtype
from qloracle_gpu.torch.int8 import QuantizedInt8
from qloracle_gpu.torch.library.codebook_text import codebook_text
from qloracle_gpu.torch.library.flat_weight import FlatWeight, flat_weight
from qloracle_gpu.torch.nested_absmax import QuantizedAbsmax
from qloracle_gpu.torch.packing import storage_bytes, storage_view
from qloracle_gpu.torch.qlora import QuantizedWeight, shape_of


class QuantizedTensor(nn.Module):
    """The record of a quantized tensor, in buffers that a state_dict holds and that move with their module.

    Parameters
    ----------
    record : QuantizedBlocks, DoubleQuantized, QuantizedInt8 or QuantizedAffine
    storage : {"uint8", "float16", "bfloat16", "float32"}
        The dtype that packed bytes are viewed as.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `record` is no such record, or the bytes do not fill whole items of the storage.

    Notes
    -----
    Clause ``[packing.storage]``. `.to(dtype)`, `.half()` and their like move the buffers and change no bit of them. A
    state_dict restores every bit, and holds the settings as the bytes of a JSON text: loading refuses the state of a
    tensor with other settings, other dtypes, or a code that no quantizer writes.

    Examples
    --------
    >>> from qloracle_gpu.torch import quantize_blockwise
    >>> stored = QuantizedTensor(quantize_blockwise(torch.ones(4, 2))).to(torch.bfloat16)
    >>> stored.record().absmax
    tensor([1.])
    """

    def __init__(self, record: QuantizedWeight, storage: str = "uint8") -> None:
        super().__init__()
        shape_of(record)
        self.storage = storage
        self.template = record_without_tensors(record)
        # Once, here: a compiler cannot follow how a table of one's own becomes text.
        self._settings = flat_weight(record).settings
        for name, part in _parts(record, storage).items():
            self.register_buffer(name, part)

    @property
    def device(self) -> torch.device:
        """Where the buffers are."""
        return next(self.buffers()).device

    def record(self) -> QuantizedWeight:
        """Return the record; its tensors are the buffers."""
        parts, settings = dict(self.named_buffers(recurse=False)), self.template
        if "zero_point" in parts:
            return QuantizedAffine(parts["codes"], parts["scale"], parts["zero_point"], **settings)
        if "codes" in parts:
            return QuantizedInt8(parts["codes"], parts["absmax"], **settings)
        data = storage_bytes(parts["data"])
        if "offset" not in parts:
            return QuantizedBlocks(data, parts["absmax"], **settings)
        absmax = QuantizedAbsmax(parts["absmax_codes"], parts["nested_absmax"], parts["offset"])
        return DoubleQuantized(data, absmax, **settings)

    def flat(self) -> FlatWeight:
        """Return the tensor as operators take it; its tensors are the buffers."""
        parts = dict(self.named_buffers(recurse=False))
        if "zero_point" in parts:
            return FlatWeight(parts["codes"], parts["scale"], parts["zero_point"], None, *self._settings)
        if "codes" in parts:
            return FlatWeight(parts["codes"], parts["absmax"], None, None, *self._settings)
        data = storage_bytes(parts["data"])
        if "offset" not in parts:
            return FlatWeight(data, parts["absmax"], None, None, *self._settings)
        return FlatWeight(data, parts["nested_absmax"], parts["absmax_codes"], parts["offset"], *self._settings)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "QuantizedTensor":
        def moved(buffer: Tensor) -> Tensor:
            changed = fn(buffer)
            return changed if changed.dtype == buffer.dtype else buffer.to(changed.device)

        super()._apply(moved, recurse)  # type: ignore[no-untyped-call] # torch does not annotate it
        return self

    def get_extra_state(self) -> Tensor:
        """Return the settings as bytes, in a tensor because files of tensors hold nothing else."""
        return torch.tensor(list(self._text().encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Any) -> None:
        """Raise unless the settings of a state are this tensor's own."""
        got = bytes(require_dtype("the settings of a quantized tensor", state, torch.uint8).tolist())
        if got != self._text().encode():
            reject_value("the state of a quantized tensor", self._text(), got.decode(errors="replace"))

    def _text(self) -> str:
        named = ((name, value) for name, value in self.template.items())
        plain = {name: codebook_text(value) if "codebook" in name else value for name, value in named}
        return json.dumps({"storage": self.storage, **plain}, sort_keys=True)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        for name, own in self.named_buffers(recurse=False):
            if (prefix + name) in state_dict:
                _require_like(prefix + name, state_dict[prefix + name], own, self._limits())
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _limits(self) -> tuple[int, int] | None:
        """Return the smallest and the largest of affine codes, or None for other codes."""
        return (self.template["qmin"], self.template["qmax"]) if "qmin" in self.template else None

    def extra_repr(self) -> str:
        """Return the settings."""
        return ", ".join(f"{name}={value!r}" for name, value in json.loads(self._text()).items())


def record_without_tensors(record: QuantizedWeight) -> dict[str, Any]:
    """Return the settings of a record by field name."""
    if isinstance(record, QuantizedInt8):
        return {"granularity": record.granularity, "block_size": record.block_size, "dtype": record.dtype}
    if isinstance(record, QuantizedAffine):
        names = ("qmin", "qmax", "granularity", "group_size", "dtype")
        return {name: getattr(record, name) for name in names}
    settings = {name: getattr(record, name) for name in ("codebook", "block_size", "dtype")}
    settings["shape"] = tuple(record.shape)
    if isinstance(record, DoubleQuantized):
        settings["nested_codebook"] = record.nested_codebook
    return settings


def _parts(record: QuantizedWeight, storage: str) -> dict[str, Tensor]:
    """Return the tensors of a record by buffer name."""
    if isinstance(record, QuantizedInt8):
        return {"codes": record.codes, "absmax": record.absmax}
    if isinstance(record, QuantizedAffine):
        return {"codes": record.codes, "scale": record.scale, "zero_point": record.zero_point}
    data = storage_view(record.data, storage)
    if isinstance(record, QuantizedBlocks):
        return {"data": data, "absmax": record.absmax}
    nested = record.absmax
    return {"data": data, "absmax_codes": nested.codes, "nested_absmax": nested.absmax, "offset": nested.offset}


def _require_like(argument: str, value: object, own: Tensor, limits: tuple[int, int] | None) -> None:
    """Raise unless a tensor of a state has the dtype and shape of a buffer, and codes that a quantizer writes."""
    if not isinstance(value, Tensor):
        reject_type(argument, "a torch tensor", type(value).__name__)
    if value.dtype != own.dtype:
        reject_type(argument, str(own.dtype).removeprefix("torch."), value.dtype)
    if value.shape != own.shape:
        reject_value(argument, f"of shape {tuple(own.shape)}", tuple(value.shape))
    if value.device.type == "meta":
        return
    if limits is not None and not value.is_floating_point():
        require_codes(argument, value, limits)
    elif value.dtype == torch.int8 and bool((value == -128).any()):
        reject_value(argument, "INT8 codes from -127 to 127", -128)
