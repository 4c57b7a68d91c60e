// float32 words as integers in the order of their values: −0 below +0, NaN and infinities at the ends.
#pragma once
#include "words.cuh"

constexpr i32 MOST_KEY = 0x7fffffff, LEAST_KEY = -MOST_KEY - 1;

HOST_DEVICE i32 key_of(float value) {
    i32 word = (i32)word_of(value);
    return word < 0 ? word ^ MOST_KEY : word;
}

HOST_DEVICE float value_of_key(i32 key) { return float_of((u32)(key < 0 ? key ^ MOST_KEY : key)); }
