"""Matrix products in float32, and of INT8 codes exactly. Clauses: ``[int8.matmul]``, ``[int8.scale]``."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from qloracle.errors import QloracleError, reject_type, reject_value
from qloracle_gpu.torch.formats import dtype_named, float64_device, require_dtype
from qloracle_gpu.torch.int8 import LARGEST_CODE

# The largest inner dimension whose int32 accumulation cannot overflow: ⌊(2^31 − 1) / 127²⌋, and with −128 in play.
LARGEST_INNER = (2**31 - 1) // 127**2
LARGEST_INNER_WITH_MINUS_128 = (2**31 - 1) // 128**2
FLOAT32_INNER = 1024  # 1024·128² = 2^24: up to here float32 holds every partial sum
EXACT_PRECISIONS = ("none", "ieee")  # "none": nobody has asked for another one


class MatmulPrecisionError(QloracleError, RuntimeError):
    """Torch is set to multiply float32 matrices with fewer bits than float32 has."""


def require_float32_matmul() -> None:
    """Raise `MatmulPrecisionError` if torch would round the operands of float32 products to TF32 or bfloat16.

    The setting belongs to the whole process, so that it is left alone and refused instead of changed for a moment.
    """
    for name, backend in (("cuda", torch.backends.cuda), ("mkldnn", torch.backends.mkldnn)):
        precision = backend.matmul.fp32_precision
        if precision not in EXACT_PRECISIONS:
            raise MatmulPrecisionError(
                f"torch.backends.{name}.matmul.fp32_precision must be 'ieee', got {precision!r}: operands would lose "
                "bits that the declared roundings keep; torch.set_float32_matmul_precision('highest') restores it"
            )


def int8_matmul(a: Tensor, b: Tensor) -> Tensor:
    """Multiply INT8 matrices with int32 accumulation: acc = a bᵀ, exact.

    Parameters
    ----------
    a : tensor of int8, shape (..., K)
    b : tensor of int8, shape (N, K)

    Returns
    -------
    tensor of int32, shape (..., N)

    Raises
    ------
    ArgumentTypeError
        If an operand is not int8.
    ArgumentValueError
        If the inner dimensions differ, or K is so large that int32 could overflow: above 133144, or above 131071 if
        the code −128 occurs.

    Notes
    -----
    Clause ``[int8.matmul]``. Rounding points: none. On CUDA the integer units multiply; elsewhere float32 does, in
    pieces of K so short that every partial sum is an integer it holds, whatever its operands are rounded to (INT8
    codes fit TF32 and bfloat16).

    Examples
    --------
    >>> int8_matmul(torch.tensor([[1, 2]], dtype=torch.int8), torch.tensor([[3, 4], [-127, 127]], dtype=torch.int8))
    tensor([[ 11, 127]], dtype=torch.int32)
    """
    a, b = require_dtype("a", a, torch.int8), require_dtype("b", b, torch.int8)
    if a.ndim < 1 or b.ndim != 2 or a.shape[-1] != b.shape[1]:
        reject_value("b", f"of shape (N, K) with K the last dimension of a {tuple(a.shape)}", tuple(b.shape))
    inner = a.shape[-1]
    # Only between the two limits do the codes themselves have to be looked at.
    if inner > LARGEST_INNER_WITH_MINUS_128:
        extreme = any(bool((operand == -128).any()) for operand in (a, b))
        largest = LARGEST_INNER_WITH_MINUS_128 if extreme else LARGEST_INNER
        if inner > largest:
            reject_value("K", f"at most {largest} for an exact int32 accumulation", inner)
    rows = a.reshape(a.shape[:-1].numel(), inner)
    product = _integer_product if a.is_cuda and inner else _float32_product
    return product(rows, b).reshape(*a.shape[:-1], b.shape[0])


def _float32_product(a: Tensor, b: Tensor) -> Tensor:
    """Return a bᵀ as int32 from exact float32 products over pieces of K."""
    acc = torch.zeros(a.shape[0], b.shape[0], dtype=torch.int32, device=a.device)
    for start in range(0, a.shape[1], FLOAT32_INNER):
        left, right = (operand[:, start : start + FLOAT32_INNER].to(torch.float32) for operand in (a, b))
        acc += (left @ right.T).to(torch.int32)
    return acc


def _integer_product(a: Tensor, b: Tensor) -> Tensor:
    """Return a bᵀ as int32 from the integer units, zeros filling the shapes that cuBLAS asks for."""
    (rows, inner), columns = a.shape, b.shape[0]
    # At least 17 rows, and multiples of 8 elsewhere.
    left = pad(a, (0, -inner % 8, 0, max(0, 17 - rows)))
    right = pad(b, (0, -inner % 8, 0, -columns % 8))
    return torch._int_mm(left, right.T)[:rows, :columns]  # noqa: SLF001 - torch has no public name for it


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
    capable = float64_device(acc.device)
    rows, columns = acc.shape
    row, column = (
        _require_vector(argument, vector, length).to(capable).to(torch.float64)
        for argument, vector, length in (("row_absmax", row_absmax, rows), ("column_absmax", column_absmax, columns))
    )
    y = acc.to(capable).to(torch.float64).mul_(row[:, None]).mul_(column).div_(LARGEST_CODE**2)
    if bias is not None:
        y += _require_vector("bias", bias, columns).to(capable)
    return y.to(torch.float32).to(target).to(acc.device)


def _require_vector(argument: str, vector: Tensor, length: int) -> Tensor:
    vector = require_dtype(argument, vector, torch.float32)
    if vector.shape != (length,):
        reject_value(argument, f"of shape ({length},)", tuple(vector.shape))
    return vector
