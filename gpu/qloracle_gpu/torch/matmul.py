"""Matrix products in float32, and of INT8 codes exactly. Clause: ``[int8.matmul]``."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from qloracle.errors import QloracleError, reject_value
from qloracle_gpu.torch.autocast import ignores_autocast
from qloracle_gpu.torch.compiling import compiles_as_operator
from qloracle_gpu.torch.formats import require_device, require_dtype
from qloracle_gpu.torch.kernels.availability import kernels_run_on

# The largest inner dimension whose int32 accumulation cannot overflow: ⌊(2^31 − 1) / 127²⌋, and with −128 in play.
LARGEST_INNER = (2**31 - 1) // 127**2
LARGEST_INNER_WITH_MINUS_128 = (2**31 - 1) // 128**2
FEWEST_ROWS = 17  # that cuBLAS takes; and multiples of 8 elsewhere
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


@compiles_as_operator
@ignores_autocast
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
    codes fit TF32 and bfloat16). Only for K from 131072 on, codes have to be looked at, which waits for the device.

    Examples
    --------
    >>> int8_matmul(torch.tensor([[1, 2]], dtype=torch.int8), torch.tensor([[3, 4], [-127, 127]], dtype=torch.int8))
    tensor([[ 11, 127]], dtype=torch.int32)
    """
    require_int8_operands(a, b)
    inner = a.shape[-1]
    if inner > LARGEST_INNER_WITH_MINUS_128:
        extreme = any(bool((operand == -128).any()) for operand in (a, b))
        largest = LARGEST_INNER_WITH_MINUS_128 if extreme else LARGEST_INNER
        if inner > largest:
            reject_value("K", f"at most {largest} for an exact int32 accumulation", inner)
    rows = a.reshape(a.shape[:-1].numel(), inner)
    return _product(rows, b).contiguous().reshape(*a.shape[:-1], b.shape[0])


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Return a bᵀ as int32 by what multiplies integers on the device."""
    kernels = kernels_run_on(a.device.type)
    if a.is_cuda and a.shape[1] and not (kernels and _needs_filling(a, b)):
        return _integer_product(a, b)
    if kernels:
        from qloracle_gpu.torch.kernels.int8_product import exact_product

        return exact_product(a, b)
    return _float32_product(a, b)


def _needs_filling(a: Tensor, b: Tensor) -> bool:
    """Return whether cuBLAS would take copies of the operands only, filled with zeros."""
    return a.shape[0] < FEWEST_ROWS or a.shape[1] % 8 != 0 or b.shape[0] % 8 != 0


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
    left = pad(a, (0, -inner % 8, 0, max(0, FEWEST_ROWS - rows)))
    right = pad(b, (0, -inner % 8, 0, -columns % 8))
    return torch._int_mm(left, right.T)[:rows, :columns]  # noqa: SLF001 - torch has no public name for it


def require_int8_operands(a: Tensor, b: Tensor) -> None:
    """Raise unless the operands are INT8 matrices on one device that can be multiplied."""
    for argument, operand in (("a", a), ("b", b)):
        require_dtype(argument, operand, torch.int8)
    if a.ndim < 1 or b.ndim != 2 or a.shape[-1] != b.shape[1]:
        reject_value("b", f"of shape (N, K) with K the last dimension of a {tuple(a.shape)}", tuple(b.shape))
    require_device("b", b, a.device)
