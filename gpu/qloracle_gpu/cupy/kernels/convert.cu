// Conversions between formats. Clauses: [format.decode], [format.encode].
#include "outputs.cuh"

// Kinds of source items.
constexpr int WORDS = 0, SIGNED_INTEGERS = 1, UNSIGNED_INTEGERS = 2;

HOST_DEVICE u64 item_bits(const void* items, i64 i, i32 bytes) {
    switch (bytes) {
        case 1: return reinterpret_cast<const u8*>(items)[i];
        case 2: return reinterpret_cast<const u16*>(items)[i];
        case 4: return reinterpret_cast<const u32*>(items)[i];
        default: return reinterpret_cast<const u64*>(items)[i];
    }
}

HOST_DEVICE void store_word(void* out, i64 i, i32 bytes, u64 word) {
    switch (bytes) {
        case 1: reinterpret_cast<u8*>(out)[i] = (u8)word; break;
        case 2: reinterpret_cast<u16*>(out)[i] = (u16)word; break;
        case 4: reinterpret_cast<u32*>(out)[i] = (u32)word; break;
        default: reinterpret_cast<u64*>(out)[i] = word;
    }
}

HOST_DEVICE Number number_of_item(u64 bits, i32 bytes, i32 kind, const Format& source) {
    if (kind == WORDS) return number_of_word(bits, source);
    if (kind == UNSIGNED_INTEGERS) return normalised(bits, 63, false);
    int above = 64 - 8 * bytes;
    return number_of_integer((i64)(bits << above) >> above);
}

// From any source to any format under any rule.
extern "C" __global__ void encode(
    const void* items, i64 size, i32 bytes, i32 kind, i32 source, i32 target, i32 rounding, i32 saturate, i32 nan,
    const u32* random_bits, void* out, i32 out_bytes
) {
    Rule rule = {rounding, saturate, nan};
    Format from = FORMATS[source], to = FORMATS[target];
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {
        Number number = number_of_item(item_bits(items, i, bytes), bytes, kind, from);
        u32 random = rounding == STOCHASTIC ? random_bits[i] : 0;
        store_word(out, i, out_bytes, rounded_word(number, to, rule, random));
    }
}

// The conversions of training under their default rules: ties to even, infinity (else NaN) beyond the end, payloads kept.
template <class In, class W> __device__ __forceinline__ void narrow(
    const typename In::Item* items, i64 size, const Format& target, W* out
) {
    i64 step = (i64)gridDim.x * blockDim.x * ITEMS;
    for (i64 first = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * ITEMS; first < size; first += step) {
        float values[ITEMS];
        load_values<In>(items, first, size, values);
        W words[ITEMS];
#pragma unroll
        for (int k = 0; k < ITEMS; ++k) words[k] = (W)nearest_word(values[k], target);
        store_items(out, first, size, words);
    }
}

#define NARROW_KERNEL(IN, SOURCE, TARGET, W)                                                                         \
    extern "C" __global__ void narrow_##SOURCE##_##TARGET(const IN::Item* items, i64 size, W* out) {                 \
        narrow<IN>(items, size, format_##TARGET(), out);                                                             \
    }
#define NARROW_KERNELS(IN, SOURCE)                                                                                   \
    NARROW_KERNEL(IN, SOURCE, float8_e4m3fn, u8)                                                                     \
    NARROW_KERNEL(IN, SOURCE, float8_e5m2, u8)

NARROW_KERNELS(Float32, float32)
NARROW_KERNELS(Float16, float16)
NARROW_KERNELS(Bfloat16, bfloat16)
NARROW_KERNEL(Float32, float32, float16, u16)
NARROW_KERNEL(Float32, float32, bfloat16, u16)

// float16 and bfloat16 as float32: exact.
template <class In> __device__ __forceinline__ void widen(const typename In::Item* items, i64 size, float* out) {
    i64 step = (i64)gridDim.x * blockDim.x * ITEMS;
    for (i64 first = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * ITEMS; first < size; first += step) {
        float values[ITEMS];
        load_values<In>(items, first, size, values);
        store_items(out, first, size, values);
    }
}

extern "C" __global__ void widen_float16(const u16* items, i64 size, float* out) { widen<Float16>(items, size, out); }
extern "C" __global__ void widen_bfloat16(const u16* items, i64 size, float* out) { widen<Bfloat16>(items, size, out); }

// The exact value of every word, as float64.
extern "C" __global__ void decode(const void* words, i64 size, i32 bytes, i32 source, u64* out) {
    Format from = FORMATS[source];
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {
        out[i] = float64_word(number_of_word(item_bits(words, i, bytes), from));
    }
}
