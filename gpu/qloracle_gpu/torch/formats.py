"""Tensors and their formats: a dtype tells the format by name, and the name is what records and errors carry."""

import torch
from torch import Tensor

from qloracle.errors import reject_type, reject_value
from qloracle.formats import TENSOR_FORMATS

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in ("float64", *TENSOR_FORMATS)}
NAMES: dict[torch.dtype, str] = {dtype: name for name, dtype in DTYPES.items()}
FLOAT8: dict[str, torch.dtype] = {name: getattr(torch, name) for name in ("float8_e4m3fn", "float8_e5m2")}
FLOAT8_NAMES: dict[torch.dtype, str] = {dtype: name for name, dtype in FLOAT8.items()}


def require_tensor(argument: str, value: object) -> Tensor:
    """Return `value` without its gradient history if it is a tensor, else raise `ArgumentTypeError`."""
    if not isinstance(value, Tensor):
        reject_type(argument, "a torch tensor", type(value).__name__)
    return value.detach()


def require_dtype(argument: str, value: object, dtype: torch.dtype) -> Tensor:
    """Return `value` if it is a tensor of `dtype`, else raise `ArgumentTypeError`."""
    tensor = require_tensor(argument, value)
    if tensor.dtype != dtype:
        reject_type(argument, str(dtype).removeprefix("torch."), tensor.dtype)
    return tensor


def require_device(argument: str, tensor: Tensor, device: torch.device) -> Tensor:
    """Return `tensor` if it lies on `device`, else raise `ArgumentValueError`."""
    if tensor.device != device:
        reject_value(argument, f"on {device}, where its companions are", tensor.device)
    return tensor


def require_tensor_format(argument: str, value: object) -> Tensor:
    """Return weights or activations if they are float32, float16 or bfloat16, else raise `ArgumentTypeError`."""
    tensor = require_tensor(argument, value)
    if NAMES.get(tensor.dtype) not in TENSOR_FORMATS:
        reject_type(argument, "float32, float16 or bfloat16", tensor.dtype)
    return tensor


def dtype_named(name: str, argument: str) -> torch.dtype:
    """Return the dtype of an output of weights or activations, or raise `ArgumentValueError`."""
    if name not in TENSOR_FORMATS:
        reject_value(argument, f"one of {', '.join(TENSOR_FORMATS)}", repr(name))
    return DTYPES[name]


def float64_device(device: torch.device) -> torch.device:
    """Return `device`, or the CPU for a device that has no float64 (Apple's)."""
    return torch.device("cpu") if device.type == "mps" else device
