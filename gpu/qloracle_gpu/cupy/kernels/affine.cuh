// Affine quantization, exactly. Clauses: [affine.scale], [affine.zero_point], [affine.quantize], [affine.dequantize].
#pragma once
#include "divisors.cuh"

constexpr int MOST_STEPS = 1024;  // beyond the distance of any code from any zero point

HOST_DEVICE i32 clipped(i32 code, i32 qmin, i32 qmax) { return max(qmin, min(code, qmax)); }

// The integer nearest to the real number x/scale, ties to even; 0 where there is no quotient.
HOST_DEVICE i32 steps_of(float x, const SignedDivisor& scale) {
    return nearest_integer<1, MOST_STEPS>(scale.turned(x), scale.magnitude);
}

// RN_float32((code − zero point)·scale); the code of zero is +0.
HOST_DEVICE float affine_value(i32 code, i32 zero_point, float scale) {
    float product = __fmul_rn((float)(code - zero_point), scale);
    return magnitude_of(product) == 0 ? 0.0f : product;
}

// RN_float32((max(hi, 0) − min(lo, 0))/steps), 0 where an end is not finite. The float64 difference is rounded to odd,
// so that the quotient rounds as the real one does: it keeps the side of every middle of two float32 numbers.
HOST_DEVICE float width_over(float lo, float hi, i32 steps) {
    if (magnitude_of(lo) >= INFINITY_WORD || magnitude_of(hi) >= INFINITY_WORD) return 0.0f;
    double top = hi > 0.0f ? (double)hi : 0.0, bottom = lo < 0.0f ? -(double)lo : 0.0;
    double total = __dadd_rn(top, bottom), kept = __dsub_rn(total, top);
    double lost = __dadd_rn(__dsub_rn(top, __dsub_rn(total, kept)), __dsub_rn(bottom, kept));
    i64 word = __double_as_longlong(total);
    if ((word & 1) == 0 && lost != 0.0) word += lost > 0.0 ? 1 : -1;
    return __double2float_rn(__ddiv_rn(__longlong_as_double(word), (double)steps));
}

// The scale of a range: 1 where the quotient rounds to 0, NaN where an end is not finite.
HOST_DEVICE float scale_of_range(float lo, float hi, i32 steps) {
    if (magnitude_of(lo) >= INFINITY_WORD || magnitude_of(hi) >= INFINITY_WORD) return float_of(NAN_WORD);
    float scale = width_over(lo, hi, steps);
    return magnitude_of(scale) == 0 ? 1.0f : scale;
}

// clip(RN_int(qmin − min(lo, 0)/scale)): the integer and the fraction of the float64 quotient decide exactly.
HOST_DEVICE i32 zero_point_of(float lo, float hi, float scale, i32 qmin, i32 qmax) {
    if (!(width_over(lo, hi, qmax - qmin) > 0.0f) || !is_nonzero_finite(scale)) return clipped(0, qmin, qmax);
    double quotient = lo < 0.0f ? __ddiv_rn(-(double)lo, (double)scale) : 0.0;
    double whole = floor(quotient), fraction = __dsub_rn(quotient, whole);
    i32 below = (i32)whole + qmin;
    return clipped(below + (fraction > 0.5 || (fraction == 0.5 && (below & 1)) ? 1 : 0), qmin, qmax);
}
