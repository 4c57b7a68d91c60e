"""Operations of affine and symmetric quantization, of observers and of fake quantization."""

from qloracle_conformance.generators import affine as ranges
from qloracle_conformance.generators import fake_quantizing as fakes
from qloracle_conformance.generators import observing as inputs
from qloracle_conformance.generators.restoring import families
from qloracle_conformance.operations import affine, observing
from qloracle_conformance.operations.operation import Operation

CODE_RANGE = {"code_range": tuple(ranges.CODE_RANGES)}
GRANULARITY = {"granularity": inputs.GRANULARITY_ORDER}


def operations() -> list[Operation]:
    """Return the operations."""
    parameters = {"scale": "affine.scale", "zero_point": "affine.zero_point"}
    made = []
    for granularity in ("tensor", "row", "column", "group"):
        quantize, restore = f"affine_{granularity}.quantize", f"affine_{granularity}.dequantize"
        made += [
            Operation(quantize, "quantize_affine", 3, {**parameters, "codes": "affine.quantize"},
                      affine.judge_quantize,
                      families(ranges.quantize_case, ranges.QUANTIZE_FAMILIES, operation=quantize,
                               granularity=granularity), affine.quantize_intermediates, options=CODE_RANGE),
            Operation(restore, "dequantize_affine", 1, {"values": "affine.dequantize"}, affine.judge_dequantize,
                      families(ranges.restore_case, ranges.RESTORE_FAMILIES, operation=restore,
                               granularity=granularity), affine.dequantize_intermediates, options=CODE_RANGE),
        ]  # fmt: skip
    return [
        Operation("affine.parameters", "affine_parameters", 2, parameters, affine.judge_parameters,
                  families(ranges.parameters_case, ranges.PARAMETER_FAMILIES), affine.parameters_intermediates,
                  options=CODE_RANGE),
        *made,
        Operation("symmetric.quantize", "quantize_symmetric", 2,
                  {"scale": "symmetric.scale", "codes": "affine.quantize"}, affine.judge_symmetric,
                  families(inputs.symmetric_case, inputs.SYMMETRIC_FAMILIES), affine.symmetric_intermediates,
                  options={**CODE_RANGE, **GRANULARITY}),
        *_observers(), *_fake_quantization(),
    ]  # fmt: skip


def _observers() -> list[Operation]:
    made = []
    for name, names in (("minmax", inputs.OBSERVE_FAMILIES), ("percentile", inputs.PERCENTILE_FAMILIES)):
        operation, clause = f"{name}.observe", f"observers.{name}"
        made.append(
            Operation(operation, f"{name}_range", 2, {"lo": clause, "hi": clause}, observing.judge_range,
                      families(inputs.observe_case, names, operation=operation), observing.range_intermediates,
                      options=GRANULARITY),
        )  # fmt: skip
    moving = {"lo": "observers.moving", "hi": "observers.moving"}
    return [
        *made,
        Operation("moving.observe", "moving_range", 2, moving, observing.judge_range,
                  families(inputs.moving_case, inputs.MOVING_FAMILIES), observing.range_intermediates),
    ]  # fmt: skip


def _fake_quantization() -> list[Operation]:
    forward, backward = "fake_quantize.forward", "fake_quantize.backward"
    return [
        Operation(forward, "fake_quantize", 1, {"values": "fake_quant.forward"}, observing.judge_fake,
                  families(fakes.fake_case, fakes.FAKE_FAMILIES, operation=forward), observing.fake_intermediates,
                  options={**CODE_RANGE, **GRANULARITY}),
        Operation(backward, "fake_quantize_backward", 1, {"x": "fake_quant.backward"}, observing.judge_fake_backward,
                  families(fakes.fake_case, fakes.FAKE_FAMILIES, operation=backward),
                  observing.gradient_intermediates,
                  options={**CODE_RANGE, **GRANULARITY, "interval": ("values", "codes")}),
    ]  # fmt: skip
