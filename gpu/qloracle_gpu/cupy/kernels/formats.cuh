// A floating-point format as data; the tables are generated from `qloracle.formats`. Clause: [format.decode].
#pragma once
#include "words.cuh"

struct Format {
    int mantissa_bits;
    int minimum_exponent;  // of the smallest normal number
    int code_bits;         // of a word, without the padding
    int padding;           // low bits of a word that are always 0
    u64 finite_magnitude;  // the code of the largest finite number
    u64 quiet_nan;         // the word of the canonical NaN; 0 where there is none
    bool has_sign;
    bool negative_zero;
    bool subnormals;
    bool infinities;
    bool has_nan;
    bool payloads;  // whether there is more than one NaN of a sign
};

// A number as its leading bits: value = significand · 2^(exponent − 63), bit 63 set unless it is zero.
struct Number {
    u64 significand;
    i32 exponent;
    bool negative;
    bool infinite;
    bool nan;
    u64 payload;  // mantissa field of a NaN, moved to the 52 bits of float64
};

// Return integer · 2^(exponent − 63), normalised; a zero keeps the significand 0.
HOST_DEVICE Number normalised(u64 integer, i32 exponent, bool negative) {
    Number number = {0, 0, negative, false, false, 0};
    if (integer != 0) {
        int leading = __clzll((i64)integer);
        number.significand = integer << leading;
        number.exponent = exponent - leading;
    }
    return number;
}

HOST_DEVICE Number number_of_integer(i64 value) {
    return normalised(value < 0 ? 0 - (u64)value : (u64)value, 63, value < 0);
}

HOST_DEVICE bool is_nan_magnitude(u64 magnitude, bool negative, const Format& format) {
    if (format.has_sign && !format.negative_zero) return negative && magnitude == 0;
    return format.has_nan && magnitude > format.finite_magnitude + (format.infinities ? 1 : 0);
}

HOST_DEVICE Number number_of_word(u64 word, const Format& format) {
    u64 code = word >> format.padding;
    bool negative = format.has_sign && (code >> (format.code_bits - 1)) != 0;
    u64 magnitude = code & low_bits(format.code_bits - (format.has_sign ? 1 : 0));
    u64 mantissa = magnitude & low_bits(format.mantissa_bits);
    i32 field = (i32)(magnitude >> format.mantissa_bits);
    bool implicit = field != 0 || !format.subnormals;
    i32 exponent = format.minimum_exponent + field - (implicit && format.subnormals ? 1 : 0);
    u64 significand = mantissa | ((implicit ? 1ull : 0ull) << format.mantissa_bits);
    Number number = normalised(significand, exponent + 63 - format.mantissa_bits, negative);
    number.nan = is_nan_magnitude(magnitude, negative, format);
    number.infinite = format.infinities && magnitude == format.finite_magnitude + 1;
    number.payload = mantissa << (52 - format.mantissa_bits);
    return number;
}

// The float64 word of a number, exact: every number of a narrower format is a normal float64.
HOST_DEVICE u64 float64_word(const Number& number) {
    u64 sign = number.negative ? 1ull << 63 : 0;
    if (number.nan) return sign | 0x7ff8000000000000ull | number.payload;
    if (number.infinite) return sign | 0x7ff0000000000000ull;
    if (number.significand == 0) return sign;
    return sign | ((u64)(number.exponent + 1023) << 52) | (number.significand << 1 >> 12);
}

// float16 and bfloat16 as float32, exactly; a NaN keeps its payload.
HOST_DEVICE float widened_bfloat16(u16 word) { return float_of((u32)word << 16); }

HOST_DEVICE float widened_float16(u16 word) {
    u32 sign = (u32)(word & 0x8000u) << 16;
    u32 shifted = (u32)(word & 0x7fffu) << 13;
    // Read as float32 the word is off by the difference of the biases, 112, in subnormals too: the product is exact.
    u32 real = shifted >= 0x0f800000u ? shifted | INFINITY_WORD : word_of(__fmul_rn(float_of(shifted), 0x1p112f));
    return float_of(sign | real);
}
