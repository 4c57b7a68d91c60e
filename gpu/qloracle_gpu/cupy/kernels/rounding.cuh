// Rounding exact numbers to a format, once. Clauses: [format.encode], [format.rounding], [format.stochastic],
// [format.overflow], [format.nan].
#pragma once
#include "generated.cuh"

// What the host chooses; the numbers are generated from the names of the rules.
struct Rule {
    i32 rounding;
    i32 saturate;
    i32 nan;
};

// Where a number lies between two codes of a format.
struct Place {
    u64 below;       // the code below it, counted on beyond the end of the format
    i32 half;        // −1, 0, 1: the part above `below` is less than, exactly, more than half a step
    bool exact;      // nothing lies above `below`
    u64 fraction;    // ⌊part · 2^32⌋, and
    bool remainder;  // whether that cut anything off
};

HOST_DEVICE bool goes_up(const Place& place, bool negative, i32 rounding, u32 random) {
    switch (rounding) {
        case TIES_TO_EVEN: return place.half > 0 || (place.half == 0 && (place.below & 1) != 0);
        case TIES_TO_AWAY: return place.half >= 0;
        case TOWARD_POSITIVE: return !place.exact && !negative;
        case TOWARD_NEGATIVE: return !place.exact && negative;
        case STOCHASTIC: return random < place.fraction || (random == place.fraction && place.remainder);
        default: return false;
    }
}

// Split 64 bits with the leading one set at the bit `dropped`, at least 11: what is kept, and what the rest amounts to.
HOST_DEVICE Place place_of(u64 significand, i32 dropped) {
    Place place;
    place.below = dropped < 64 ? significand >> dropped : 0;
    u64 rest = significand & low_bits(dropped);
    u64 half = dropped <= 64 ? 1ull << (dropped - 1) : ~0ull;  // beyond 64 bits the rest is always less
    place.half = dropped > 64 || rest < half ? -1 : rest > half ? 1 : 0;
    place.exact = rest == 0;
    i32 shift = dropped - 32;
    place.fraction = shift <= 0 ? rest << -shift : shift < 64 ? rest >> shift : 0;
    place.remainder = shift > 0 && (rest & low_bits(shift)) != 0;
    return place;
}

// The code of a finite number other than zero, as if the exponent range had no end.
HOST_DEVICE u64 counted_code(const Number& number, const Format& target, i32 rounding, u32 random) {
    i32 under = target.minimum_exponent - number.exponent;
    if (under > 0 && !target.subnormals) return 0;  // raised to the smallest number
    Place place = place_of(number.significand, 63 - target.mantissa_bits + (under > 0 ? under : 0));
    u64 binade = (u64)(under > 0 ? 0 : -under) << target.mantissa_bits;
    u64 first = target.subnormals ? 0 : 1ull << target.mantissa_bits;
    place.below += binade - first;
    return place.below + (goes_up(place, number.negative, rounding, random) ? 1 : 0);
}

HOST_DEVICE u64 nan_word(u64 payload, bool negative, const Format& target, i32 rule) {
    if (!target.has_nan) return (rule == NAN_LARGEST ? target.finite_magnitude : 0) << target.padding;
    u64 word = target.quiet_nan;
    if (rule == NAN_PAYLOAD && target.payloads) word |= (payload >> (52 - target.mantissa_bits)) << target.padding;
    if (rule != NAN_CANONICAL && target.has_sign && negative) word |= 1ull << (target.code_bits - 1 + target.padding);
    return word;
}

// The word of a code that may lie beyond the end of the format.
HOST_DEVICE u64 ended_word(u64 code, const Number& number, const Format& target, const Rule& rule) {
    if (code > target.finite_magnitude) {
        bool inward = rule.rounding == TOWARD_ZERO || rule.rounding == (number.negative ? TOWARD_POSITIVE : TOWARD_NEGATIVE);
        if (rule.saturate || (inward && !number.infinite)) code = target.finite_magnitude;
        else if (target.infinities) code = target.finite_magnitude + 1;
        else return nan_word(0, number.negative, target, rule.nan == NAN_CANONICAL ? NAN_CANONICAL : NAN_SIGN);
    }
    bool minus = number.negative && target.has_sign && (target.negative_zero || code != 0);
    return (code | ((minus ? 1ull : 0ull) << (target.code_bits - 1))) << target.padding;
}

HOST_DEVICE u64 rounded_word(const Number& number, const Format& target, const Rule& rule, u32 random) {
    bool zero = number.significand == 0;
    bool lost = number.nan || (!target.has_sign && (number.negative || (zero && !number.infinite)));
    if (lost) return nan_word(number.nan ? number.payload : 0, number.negative, target, rule.nan);
    if (number.infinite) return ended_word(target.finite_magnitude + 1, number, target, rule);
    return ended_word(zero ? 0 : counted_code(number, target, rule.rounding, random), number, target, rule);
}

// float32 to a narrower format with subnormals and at most its exponents, ties to even, beyond the end infinity or
// NaN: what dequantizing needs, in 32 bits. The compiler folds the constants of the format.
HOST_DEVICE u32 nearest_word(float value, const Format& target) {
    u32 word = word_of(value), magnitude = word & ~SIGN, sign = word >> 31 << (target.code_bits - 1);
    const u32 dropped = 23 - target.mantissa_bits, gap = target.minimum_exponent + 126;
    const u32 largest = (u32)target.finite_magnitude;
    if (magnitude > INFINITY_WORD) {
        u32 payload = target.payloads ? (magnitude & 0x7fffffu) >> dropped : 0;
        return sign | (u32)target.quiet_nan | payload;
    }
    u32 field = max(magnitude >> 23, 1u);
    u32 count = magnitude - (gap << 23), shift = dropped;
    if (field <= gap) {  // below the target's normal numbers: the significand itself, by ever longer steps
        count = magnitude - ((field - 1) << 23);
        shift = min(dropped + gap + 1 - field, 26u);
    }
    if (shift != 0) count = (count + (1u << (shift - 1)) - 1 + ((count >> shift) & 1)) >> shift;
    u32 outside = target.infinities ? largest + 1 : (u32)target.quiet_nan;
    return sign | (count > largest ? outside : count);
}
