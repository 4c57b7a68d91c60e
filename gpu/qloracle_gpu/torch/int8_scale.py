"""The scales of a product of INT8 codes. Clause: ``[int8.scale]``."""

import torch
from torch import Tensor

from qloracle.errors import reject_type, reject_value
from qloracle_gpu.torch.compiling import compiles_as_operator
from qloracle_gpu.torch.formats import dtype_named, float64_device, require_device, require_dtype
from qloracle_gpu.torch.int8 import LARGEST_CODE
from qloracle_gpu.torch.kernels.availability import kernels_run_on
from qloracle_gpu.torch.matmul import LARGEST_INNER_WITH_MINUS_128, int8_matmul, require_int8_operands


@compiles_as_operator
def scale_int8_matmul(
    acc: Tensor, row_absmax: Tensor, column_absmax: Tensor, bias: Tensor | None = None, *, out_dtype: str = "float32"
) -> Tensor:
    """Turn an int32 accumulator into real numbers: y = acc · row · column / 127² + bias.

    Parameters
    ----------
    acc : tensor of int32, shape (M, N)
    row_absmax : tensor of float32, shape (M,)
    column_absmax : tensor of float32, shape (N,)
    bias : tensor of float32, shape (N,), optional
    out_dtype : {"float32", "float16", "bfloat16"}

    Returns
    -------
    tensor of `out_dtype`, shape (M, N)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a dtype or shape is another, or `out_dtype` is unknown.

    Notes
    -----
    Clause ``[int8.scale]``. Computed in float64, whose range no intermediate result leaves; then rounded to float32
    and once more to `out_dtype`.

    Examples
    --------
    >>> two, three = torch.tensor([2.0]), torch.tensor([3.0])
    >>> scale_int8_matmul(torch.tensor([[16129]], dtype=torch.int32), two, three)
    tensor([[6.]])
    """
    acc, target = require_dtype("acc", acc, torch.int32), dtype_named(out_dtype, "out_dtype")
    if acc.ndim != 2:
        reject_type("acc", "a 2-d int32 tensor", f"{acc.ndim}-d")
    scales = require_scales(acc, row_absmax, column_absmax, bias)
    if kernels_run_on(acc.device.type):
        from qloracle_gpu.torch.kernels.int8_product import scale

        found = torch.empty(acc.shape, dtype=target, device=acc.device)
        scale(acc.contiguous(), *scales, found, out_dtype)
        return found
    capable = float64_device(acc.device)
    row, column = (part.to(capable).to(torch.float64) for part in scales[:2])
    y = acc.to(capable).to(torch.float64).mul_(row[:, None]).mul_(column).div_(LARGEST_CODE**2)
    if scales[2] is not None:
        y += scales[2].to(capable)
    return y.to(torch.float32).to(target).to(acc.device)


def scaled_int8_matmul(
    a: Tensor, b: Tensor, row_absmax: Tensor, column_absmax: Tensor, bias: Tensor | None = None, *,
    out_dtype: str = "float32",
) -> Tensor:  # fmt: skip
    """Return `scale_int8_matmul` of `int8_matmul`; where kernels run, the accumulator never stands in memory.

    Parameters
    ----------
    a : tensor of int8, shape (M, K)
    b : tensor of int8, shape (N, K)
    row_absmax, column_absmax, bias, out_dtype
        As for `scale_int8_matmul`.

    Returns
    -------
    tensor of `out_dtype`, shape (M, N)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As the two functions.
    """
    if not kernels_run_on(a.device.type) or a.ndim != 2 or a.shape[1] > LARGEST_INNER_WITH_MINUS_128:
        return scale_int8_matmul(int8_matmul(a, b), row_absmax, column_absmax, bias, out_dtype=out_dtype)
    from qloracle_gpu.torch.kernels.int8_product import product

    target = dtype_named(out_dtype, "out_dtype")
    require_int8_operands(a, b)
    found = torch.empty(a.shape[0], b.shape[0], dtype=target, device=a.device)
    row, column, shift = require_scales(found, row_absmax, column_absmax, bias)
    product(a.contiguous(), b.contiguous(), found, out_dtype, (row, column), shift)
    return found


def require_scales(
    like: Tensor, row_absmax: Tensor, column_absmax: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the scales of a matrix and its bias, contiguous, after checking them."""
    rows, columns = like.shape
    row, column = (
        _require_vector("row_absmax", row_absmax, rows),
        _require_vector("column_absmax", column_absmax, columns),
    )
    shift = None if bias is None else _require_vector("bias", bias, columns)
    for argument, part in (("row_absmax", row), ("column_absmax", column), ("bias", shift)):
        if part is not None:
            require_device(argument, part, like.device)
    return row, column, shift


def _require_vector(argument: str, vector: Tensor, length: int) -> Tensor:
    vector = require_dtype(argument, vector, torch.float32)
    if vector.shape != (length,):
        reject_value(argument, f"of shape ({length},)", tuple(vector.shape))
    return vector.contiguous()
