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
