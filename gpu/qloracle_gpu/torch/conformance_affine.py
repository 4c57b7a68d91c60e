"""The affine family of the torch backend as the conformance suite sees it: a backend of its own, `torch-affine`.

Affine and symmetric quantization, observers, fake quantization, and layers and merges of weights in affine codes.
"""

from collections.abc import Callable
from typing import Any

import torch

import qloracle_gpu.torch as q
from qloracle_conformance import Backend, Claim, Roundings
from qloracle_conformance.adapters.torch_arrays import LAYOUTS, Placer, environment, fetch
from qloracle_gpu.torch.fake_quant import INTERVALS
from qloracle_gpu.torch.groups import GRANULARITIES
from qloracle_gpu.torch.quantizing_like import SCALES

Tensor = torch.Tensor
Options = dict[str, tuple[object, ...]]

CODES: Options = {"code_range": ("-128..127", "0..255", "-8..7", "0..15", "-127..127", "-7..7")}
GROUPS: Options = {"granularity": GRANULARITIES}
MERGES: Options = {"scales": SCALES, "fan_in_fan_out": (False, True)}
EXACT: dict[str, Options] = {
    "affine.parameters": CODES,
    **{f"affine_{granularity}.{verb}": CODES for granularity in GRANULARITIES for verb in ("quantize", "dequantize")},
    "symmetric.quantize": CODES | GROUPS,
    "minmax.observe": GROUPS,
    "percentile.observe": GROUPS,
    "moving.observe": {},
    "fake_quantize.forward": CODES | GROUPS,
    "fake_quantize.backward": CODES | GROUPS | {"interval": INTERVALS},
}
SUMS: dict[str, Options] = {
    "affine_weight.forward": CODES | GROUPS,
    "affine_weight.backward": CODES | GROUPS,
    "qlora_affine.forward": CODES | GROUPS,
    "qlora_affine.backward": CODES | GROUPS,
    "affine.merge": CODES | GROUPS | MERGES,
}
SOURCE = "qloracle_gpu.torch documents the reference's rules as its own"


def backend(device: str = "cpu") -> Backend:
    """Return the affine family on a device, with everything that it promises."""
    placer = Placer(device)
    claims = tuple(
        Claim(
            operation=name,
            levels={"*": "exact" if name in EXACT else "bound"},
            layouts=LAYOUTS,
            options=options,
            features=("bias", "dropout", "rank_stabilized", "fan_in_fan_out"),
            roundings=Roundings(accumulate="float32", intermediate="float32", weight="float32"),
            basis="promised",
            source=SOURCE,
        )
        for name, options in (EXACT | SUMS).items()
    )
    around = environment(placer.device)
    return Backend("torch-affine", torch.__version__, placer.place, fetch, OPS, claims, around)


def _quantize_affine(x: Tensor, **options: Any) -> tuple[Tensor, ...]:
    return _parts(q.quantize_affine(x, **options))


def _dequantize_affine(codes: Tensor, scale: Tensor, zero_point: Tensor, *, dtype: str, **how: Any) -> Tensor:
    return q.dequantize_affine(q.QuantizedAffine(codes, scale, zero_point, **how, dtype=dtype))


def _quantize_symmetric(x: Tensor, clip: Tensor, **options: Any) -> tuple[Tensor, ...]:
    return _parts(q.quantize_symmetric(x, clip=clip, **options))[:2]


def _percentile_range(x: Tensor, *, lower: float, upper: float, **options: Any) -> tuple[Tensor, Tensor]:
    return q.percentile_range(x, lower, upper, **options)


def _moving_range(
    previous_lo: Tensor, previous_hi: Tensor, current_lo: Tensor, current_hi: Tensor, *, weight: float
) -> tuple[Tensor, Tensor]:
    return q.moving_range((previous_lo, previous_hi), (current_lo, current_hi), weight)


def _parts(quantized: Any) -> tuple[Tensor, ...]:
    return quantized.codes, quantized.scale, quantized.zero_point


def _weight(arguments: dict[str, Any], dtype: str = "float32") -> q.QuantizedAffine:
    """Take the parts of an affine weight out of the arguments."""
    names = ("codes", "scale", "zero_point", "qmin", "qmax", "granularity", "group_size")
    return q.QuantizedAffine(**{name: arguments.pop(name) for name in names}, dtype=dtype)


def _weight_forward(x: Tensor, *, bias: Tensor | None, **arguments: Any) -> Tensor:
    return q.weight_only_forward(x, _weight(arguments), bias=bias)


def _weight_backward(dy: Tensor, **arguments: Any) -> tuple[Tensor, Tensor]:
    found = q.weight_only_backward(dy, _weight(arguments))
    return found.x, found.bias.to(dy.dtype)  # a bias is no argument there, so that its gradient is rounded here


def _qlora_forward(x: Tensor, **arguments: Any) -> Tensor:
    return q.qlora_forward(x, _weight(arguments), **arguments)


def _qlora_backward(dy: Tensor, x: Tensor, **arguments: Any) -> tuple[Tensor, ...]:
    found = q.qlora_backward(dy, x, _weight(arguments), **arguments)
    return found.x, found.lora_a, found.lora_b, found.bias.to(dy.dtype)


def _merge_affine(*, scales: str, dtype: str, **arguments: Any) -> tuple[Tensor, ...]:
    weight = _weight(arguments, dtype)
    del arguments["shape"]  # that of the codes
    return _parts(q.merge_requantize(weight, scales=scales, **arguments))


OPS: dict[str, Callable[..., Any]] = {
    "affine_parameters": q.affine_parameters,
    "quantize_affine": _quantize_affine,
    "dequantize_affine": _dequantize_affine,
    "quantize_symmetric": _quantize_symmetric,
    "minmax_range": q.minmax_range,
    "percentile_range": _percentile_range,
    "moving_range": _moving_range,
    "fake_quantize": q.fake_quantize,
    "fake_quantize_backward": q.fake_quantize_backward,
    "affine_weight_forward": _weight_forward,
    "affine_weight_backward": _weight_backward,
    "qlora_affine_forward": _qlora_forward,
    "qlora_affine_backward": _qlora_backward,
    "merge_affine": _merge_affine,
}
