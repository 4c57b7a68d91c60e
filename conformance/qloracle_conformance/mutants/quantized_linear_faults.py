"""Faults of layers with quantized weights: operands, scales, zero points, tails, biases."""

from collections.abc import Callable
from functools import partial

import numpy as np

from qloracle.formats import Array
from qloracle.rounding import decode, encode
from qloracle_conformance.mutants.kernels import to_bfloat16, to_tf32
from qloracle_conformance.mutants.linear_kernels import (
    bias_without_last_row,
    columns_unwritten,
    each,
    first_row_only,
    flushed,
    groups_in_rows,
    last_missing,
    mean_bias,
    rows_of_zeros_skipped,
    scales_of_the_first,
    square_transposed,
    tail_cut,
    to_float16,
    transposed_scales,
    with_bias,
    with_input,
    with_weight,
)
from qloracle_conformance.mutants.mutant import Mutant

F = np.float32
LENGTHS = (64, 1024, 11008)
LAYERS = ("int8_weight_forward", "affine_weight_forward")
BACKWARDS = ("int8_weight_backward", "affine_weight_backward", "llm_int8_backward")


def quantized_linear_faults() -> list[Mutant]:
    """Return the mutants."""
    last = ("last-k-dropped", "the last element of the inner dimension is not multiplied", last_missing)
    operands: list[tuple[str, str, Callable[[Array], Array]]] = [
        ("operands-bfloat16", "activations are rounded to bfloat16", to_bfloat16),
        ("operands-tf32", "activations are rounded to TF32", to_tf32),
        ("tail-of-8-dropped", "the inner dimension is cut to a multiple of 8", tail_cut),
        ("operands-float16", "activations pass through float16", to_float16),
        ("subnormals-flushed", "subnormal activations are 0", flushed),
    ]
    biases: list[tuple[str, str, Callable[[Array, Array], Array]]] = [
        ("bias-twice", "the bias is added twice", lambda y, b: y + 2 * b),
        ("bias-lost", "the bias is forgotten", lambda y, b: y),
        ("bias-first-row", "the bias reaches the first row only", first_row_only),
        ("bias-float16", "the bias passes through float16", lambda y, b: y + b.astype(np.float16)),
    ]
    lattice, both = ("y",), ("x", "bias")
    return [
        Mutant(f"weight-only-{last[0]}", last[1], each(LAYERS, partial(with_input, change=last[2])), lattice, LENGTHS),
        Mutant(f"weight-backward-{last[0]}", last[1],
               each(BACKWARDS, partial(with_input, change=last[2])), both, LENGTHS),
        *(Mutant(f"weight-only-{name}", fault, each(LAYERS, partial(with_input, change=change)), lattice)
          for name, fault, change in operands),
        *(Mutant(f"weight-backward-{name}", fault, each(BACKWARDS[:2], partial(with_input, change=change)), both)
          for name, fault, change in operands),
        *(Mutant(f"llm-backward-{name}", fault, each(BACKWARDS[2:], partial(with_input, change=change)), both)
          for name, fault, change in (last, *operands)),
        *(Mutant(f"weight-only-{name}", fault,
                 each(LAYERS, with_bias(change)), lattice) for name, fault, change in biases),
        Mutant("weight-only-absmax-half", "the absmax passes through float16",
               {LAYERS[0]: with_weight(LAYERS[0], "absmax", lambda a: a.astype(np.float16))}, lattice),
        Mutant("weight-only-scale-bfloat16", "the scale passes through bfloat16",
               {LAYERS[1]: with_weight(LAYERS[1], "scale", lambda a: decode(encode(a, "bfloat16"), "bfloat16"))},
               lattice),
        Mutant("weight-only-by-128", "codes are divided by 128",
               {LAYERS[0]: with_weight(LAYERS[0], "absmax", lambda a: a * F(127 / 128))}, lattice),
        Mutant("weight-only-zero-point-lost", "the zero points are taken for 0",
               {LAYERS[1]: with_weight(LAYERS[1], "zero_point", np.zeros_like)}, lattice,
               operations="affine_weight"),
        Mutant("weight-only-nan-scale-dropped", "a poisoned row of the weight counts as zeros",
               {LAYERS[0]: with_weight(LAYERS[0], "absmax", np.nan_to_num)}, lattice),
        Mutant("weight-only-square-as-stored", "a square weight is not transposed",
               each(LAYERS, square_transposed), lattice),
        Mutant("weight-only-scale-axis", "a square weight is scaled by column",
               {LAYERS[0]: transposed_scales(LAYERS[0])}, lattice),
        Mutant("weight-only-zeros-skipped", "rows of zeros hide what is not finite in the weight",
               each(LAYERS, rows_of_zeros_skipped), lattice),
        Mutant("weight-only-groups-in-rows", "every row starts a new group", {LAYERS[1]: groups_in_rows(LAYERS[1])},
               lattice),
        Mutant("weight-only-tile-unwritten", "outputs from 64 on are never written",
               each(LAYERS, columns_unwritten), lattice),
        Mutant("weight-backward-square-as-stored", "a square weight is transposed once too often",
               each(BACKWARDS, square_transposed), both),
        Mutant("weight-backward-absmax-half", "the absmax passes through float16",
               {BACKWARDS[0]: with_weight(BACKWARDS[0], "absmax", lambda a: a.astype(np.float16))}, both),
        Mutant("weight-backward-bias-mean", "the gradient of the bias is a mean", each(BACKWARDS[:2], mean_bias), both),
        Mutant("weight-backward-bias-last-row", "the last row is missing from the gradient of the bias",
               each(BACKWARDS[:2], bias_without_last_row), both),
        Mutant("llm-backward-bias-mean", "the gradient of the bias is a mean", each(BACKWARDS[2:], mean_bias), both),
        Mutant("llm-backward-by-128", "codes are divided by 128",
               {BACKWARDS[2]: with_weight(BACKWARDS[2], "absmax", lambda a: a * F(127 / 128))}, both),
        Mutant("llm-backward-codes-alone", "the gradient goes through the codes without their scale",
               {BACKWARDS[2]: with_weight(BACKWARDS[2], "absmax", lambda a: np.full(a.shape, 127))}, both),
        Mutant("llm-backward-first-scale", "every row of the weight has the scale of the first",
               {BACKWARDS[2]: scales_of_the_first}, both),
        Mutant("llm-backward-absmax-half", "the absmax passes through float16",
               {BACKWARDS[2]: with_weight(BACKWARDS[2], "absmax", lambda a: a.astype(np.float16))}, both),
    ]  # fmt: skip
