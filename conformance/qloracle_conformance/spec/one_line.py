"""The rule in a line of those clauses that share a docstring with others, whose first line is not about them."""

RULES = {
    "adamw.nonfinite": "A NaN or infinite gradient propagates, or leaves p as it is and keeps or resets m and v.",
    "adamw.parameter": "p' = p·(1 − lr·wd) − lr·m̂/(√v̂ + eps), with m̂ = m'/(1 − β₁^t) and v̂ = v'/(1 − β₂^t).",
    "codebook.midpoints": "The exact midpoints of neighbouring entries decide between their codes.",
    "footprint.codes": "codes = ⌈n·code_bits/8⌉ bytes.",
    "footprint.offsets": "offsets = zero_point_bytes·G bytes; 4 for double quantization.",
    "footprint.printed": "printed = Σ codes + Σ n·b + buffers: what is summed over parameters and buffers.",
    "footprint.scales": "scales = 4·G bytes; G + 4·⌈G/256⌉ for double quantization.",
    "format.rounding": "A value between two neighbouring numbers of the format becomes the one that the mode says.",
    "llm_int8.absmax": "absmax = max |x| over the row without its outlier columns.",
    "llm_int8.codes": "Codes as for absmax INT8 given the absmax of the row, 0 in outlier columns.",
    "lora.bias": "The bias of an adapter is scaled as the adapter is: y = … + s b_B.",
    "lora.fan_in_fan_out": "With fan_in_fan_out the weight is stored as (d_in, d_out) and read transposed.",
    "lora.merge_safe": "A safe merge whose result is not finite is refused, and the weight stays as it was.",
}
