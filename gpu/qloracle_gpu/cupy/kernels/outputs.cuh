// The three formats that results are rounded to: ties to even, infinity beyond the end, NaN kept.
#pragma once
#include "rounding.cuh"
#include "vectors.cuh"

struct ToFloat32 {
    typedef float Item;
    static HOST_DEVICE float rounded(float value) { return value; }
};

struct ToFloat16 {
    typedef u16 Item;
    static HOST_DEVICE u16 rounded(float value) { return (u16)nearest_word(value, format_float16()); }
};

struct ToBfloat16 {
    typedef u16 Item;
    static HOST_DEVICE u16 rounded(float value) { return (u16)nearest_word(value, format_bfloat16()); }
};

// What the dequantized weight is rounded to before the product.
HOST_DEVICE float rounded_weight(float weight, i32 rounding) {
    if (rounding == 1) return widened_float16((u16)nearest_word(weight, format_float16()));
    if (rounding == 2) return widened_bfloat16((u16)nearest_word(weight, format_bfloat16()));
    return weight;
}
