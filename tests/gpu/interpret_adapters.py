"""Hold LoRA and QLoRA layers against the reference, and print how many results were judged.

Run in a process of its own, with TRITON_INTERPRET=1, or without it where there is a GPU.
"""

from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import torch
from interpret_judging import DEVICE, both, placed, require_exact, require_inside, tensor  # type: ignore[import-not-found]  # run as a script

import qloracle
import qloracle_gpu.torch as backend
from qloracle.bounds import lora_backward_bound, lora_forward_bound
from qloracle.formats import Array
from qloracle.operands import real_operand
from qloracle.qlora import qlora_weight
from qloracle.tracking.roundings import Roundings
from qloracle_gpu.torch import fused_lora
from qloracle_gpu.torch.kernels import adapter_gradients
from qloracle_gpu.torch.kernels.availability import kernels_of

Draw = Callable[[tuple[int, ...]], Array]  # of numbers of a shape
# Rows, d_out, d_in and rank; formats of x and dy, of the adapter, and of the weight, a float one or a rounding.
LAYERS = [
    ((2, 10), 40, 65, 4, "bfloat16", "bfloat16", "bfloat16"), ((70,), 130, 33, 16, "float16", "float16", "float16"),
    ((33,), 20, 70, 17, "bfloat16", "float32", "bfloat16"), ((5,), 7, 64, 1, "float16", "bfloat16", "float16"),
    ((19,), 64, 129, 70, "bfloat16", "bfloat16", "bfloat16"), ((130,), 18, 30, 8, "bfloat16", "bfloat16", "bfloat16"),
]  # fmt: skip
MIXED = [
    ((20,), 40, 65, 4, "float32", "float32", "float32"), ((6,), 12, 30, 3, "bfloat16", "float32", "float32"),
    ((66,), 20, 33, 5, "float32", "bfloat16", "bfloat16"),
]  # fmt: skip
# With these, s is a power of two in the layers whose rank is one, and sums of small integers are exact.
EXACT: list[dict[str, Any]] = [{"alpha": 8}, {"alpha": 8, "dropout": 0.5}, {"alpha": -16, "dropout": 1.0}]
OTHERS: list[dict[str, Any]] = [{"alpha": -3, "rank_stabilized": True}, {"alpha": 0.7, "dropout": 0.25}, {"alpha": 0}]


def operands(draw: Draw, layer: tuple[Any, ...]) -> dict[str, torch.Tensor]:
    """Tensors of a layer in their formats."""
    rows, d_out, d_in, rank, large, small, _ = layer
    shapes = {"x": (*rows, d_in), "dy": (*rows, d_out), "lora_a": (rank, d_in), "lora_b": (d_out, rank)}
    made = {name: tensor(draw(shape), large if name in ("x", "dy") else small) for name, shape in shapes.items()}
    biases = {name: tensor(draw((d_out,)), small) for name in ("bias", "lora_bias")}
    return {**made, **biases}


def with_mask(rng: np.random.Generator, options: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    return {**options, "mask": rng.random(shape) < 0.6} if "dropout" in options else options


def arrays(tensors: dict[str, torch.Tensor]) -> dict[str, Array]:
    return {name: value.float().cpu().numpy() for name, value in tensors.items()}


def native(options: dict[str, Any]) -> dict[str, Any]:
    return {name: placed(v) if isinstance(v, np.ndarray) else v for name, v in options.items()}


def by_kernels(work: Callable[[], Any]) -> Any:
    """Return what a layer computes, after checking that a kernel and not the eager code computed it."""
    found = []
    names = ("fused_forward", "fused_backward")
    with (
        mock.patch.multiple("qloracle_gpu.torch.lora", **{n: noting(getattr(fused_lora, n), found) for n in names}),
        mock.patch.multiple("qloracle_gpu.torch.qlora", **{n: noting(getattr(fused_lora, n), found) for n in names}),
    ):
        result = work()
    assert found == [True], f"the eager code computed this: {found}"
    return result


def noting(function: Callable[..., Any], found: list[bool]) -> Callable[..., Any]:
    def noted(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        found.append(result is not None)
        return result

    return noted


def check(
    rng: np.random.Generator, layer: tuple[Any, ...], options: dict[str, Any],
    weight: tuple[Array, Any, dict[str, Any]], draw: Draw,
    functions: tuple[Any, Any], exact: bool,
) -> int:  # fmt: skip
    """Judge one layer, forward and backward: to the last bit, or within its bound."""
    tensors = operands(draw, layer)
    real, given, how = weight
    options = with_mask(rng, options, tuple(tensors["x"].shape))
    dy, biases = tensors.pop("dy"), {name: tensors.pop(name) for name in ("bias", "lora_bias")}
    parts = {name: tensors[name] for name in ("lora_a", "lora_b")}
    forward, backward = functions
    extra = {k: v for k, v in how.items() if k != "roundings"}
    y = by_kernels(lambda: forward(tensors["x"], given, **parts, **biases, **native(options), **extra))
    found = by_kernels(lambda: backward(dy, tensors["x"], given, **parts, **native(options), **extra))
    call = {"x": tensors["x"].float().cpu().numpy(), "weight": real, **arrays(parts), **options}
    rule = f"{layer}, {options.get('alpha')}, dropout {options.get('dropout')}"
    if exact:
        gradients = vars(qloracle.lora_backward(dy.float().cpu().numpy(), **call))
        count = require_exact(y, qloracle.lora_forward(**call, **arrays(biases)), f"y of {rule}")
        return count + sum(require_exact(getattr(found, n), real, f"{n} of {rule}") for n, real in gradients.items())
    count = require_inside(y, lora_forward_bound(**call, **arrays(biases), roundings=how["roundings"]), f"y of {rule}")
    allowed = lora_backward_bound(dy.float().cpu().numpy(), **call, roundings=how["roundings"])
    return count + sum(require_inside(getattr(found, n), each, f"{n} of {rule}") for n, each in allowed.items())


def dense(rng: np.random.Generator, layer: tuple[Any, ...], options: dict[str, Any], exact: bool) -> int:
    """A weight of numbers, as it is or turned."""
    draw = lattice(rng) if exact else rng.standard_normal
    weight = tensor(draw((layer[1], layer[2])), layer[6])
    functions = (backend.lora_forward, backend.lora_backward)
    turned = [functions, tuple(lambda *a, f=f, **k: f(*a, fan_in_fan_out=True, **k) for f in functions)]
    given = [weight, weight.T.contiguous()]
    return sum(
        check(rng, layer, options, (weight.float().cpu().numpy(), w, {"roundings": Roundings()}), draw, f, exact)
        for w, f in zip(given, turned, strict=True)
    )


def quantized(rng: np.random.Generator, layer: tuple[Any, ...], options: dict[str, Any], exact: bool) -> int:
    """A weight in codes."""
    shape, rounding = (layer[1], layer[2]), layer[6]
    if exact:
        draw = lattice(rng)
        values = np.where(draw(shape) > 0, np.float32(2), np.float32(-2))
        ways: list[tuple[str, dict[str, Any]]] = [("quantize_blockwise", {"codebook": "nf4", "block_size": 24})]
    else:
        draw = rng.standard_normal
        values = draw(shape).astype(np.float32)
        ways = [("quantize_double", {"codebook": "nf4"}), ("quantize_int8", {"granularity": "row"})]
    count = 0
    for quantize, how in ways:
        reference, record = both(quantize, values, **how)
        real = tensor_values(reference, rounding)
        stored = (real, record, {"weight_rounding": rounding, "roundings": Roundings(weight=rounding)})
        count += check(rng, layer, options, stored, draw, (backend.qlora_forward, backend.qlora_backward), exact)
    return count


def tensor_values(reference: Any, rounding: str) -> Array:
    """The dequantized weight as float32 numbers of the declared format."""
    return real_operand(qlora_weight(reference, weight_rounding=rounding), "weight").astype(np.float32)


def lattice(rng: np.random.Generator) -> Draw:
    return lambda shape: rng.integers(-1, 2, shape).astype(np.float32)


def many_rows(rng: np.random.Generator) -> int:
    """Gradients over more rows than one program adds up, each row at a power of two of its own."""
    rows, rank, columns = 2 * adapter_gradients.SPAN + 37, 3, 70
    low, x = rng.integers(-2, 3, (rows, rank)).astype(np.float32), rng.integers(-3, 4, (rows, columns))
    mask = rng.random((rows, columns)) < 0.5
    got = adapter_gradients.row_sums(placed(low), tensor(x, "bfloat16"), placed(mask))
    return require_exact(got, low.T.astype(np.float64) @ (x * mask), "sums over many rows")


def main() -> None:
    assert kernels_of(DEVICE).startswith("triton"), "no kernels run here"
    rng = np.random.default_rng(8)
    count = many_rows(rng)
    for number, layer in enumerate([*LAYERS, *MIXED]):
        chosen = [(EXACT[number % 3], True), (EXACT[(number + 1) % 3], True), (OTHERS[number % 3], False)]
        for options, exact in chosen if layer[3] in (1, 4, 8, 16) else chosen[2:]:
            count += dense(rng, layer, options, exact) if layer in LAYERS else 0
            count += quantized(rng, layer, options, exact)
    print(count)  # noqa: T201


if __name__ == "__main__":
    main()
