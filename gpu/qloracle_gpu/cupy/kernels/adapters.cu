// Adapters: what they start from, and their sum with a weight. Clauses: [lora.init], [lora.init_embedding],
// [lora.merge], [lora.unmerge], [lora.merge_bias].
#include "outputs.cuh"

// RN_Out(weight + low·scale): the product and the sum in float32, then to the format of the weight.
template <class In, class Out> __device__ __forceinline__ void merge(
    const typename In::Item* weight, const float* low, i64 size, float scale, typename Out::Item* out
) {
    i64 step = (i64)gridDim.x * blockDim.x * ITEMS;
    for (i64 first = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * ITEMS; first < size; first += step) {
        float values[ITEMS], changes[ITEMS];
        load_values<In>(weight, first, size, values);
        load_values<Float32>(low, first, size, changes);
        typename Out::Item merged[ITEMS];
#pragma unroll
        for (int k = 0; k < ITEMS; ++k) merged[k] = Out::rounded(__fadd_rn(values[k], __fmul_rn(changes[k], scale)));
        store_items(out, first, size, merged);
    }
}

// value · (high + low) rounded to odd in float64: halves of at most 26 bits, so that both products are exact, and the
// sign of the error of their sum tells on which side the real product lies.
HOST_DEVICE double odd_product(float value, double high, double low) {
    double large = __dmul_rn((double)value, high), small = __dmul_rn((double)value, low);
    double total = __dadd_rn(large, small), back = __dsub_rn(total, large);
    double error = __dadd_rn(__dsub_rn(large, __dsub_rn(total, back)), __dsub_rn(small, back));
    if (magnitude_of(value) == 0) return large;  // a zero keeps its sign
    i64 word = __double_as_longlong(total);
    if (error != 0.0 && (word & 1) == 0) word += (error > 0.0) == (total > 0.0) ? 1 : -1;
    return __longlong_as_double(word);
}

// RN(factor·z), or RN(factor·RN_float32(2u − 1)) for uniform numbers, in one rounding.
template <class W> __device__ __forceinline__ void initialize(
    const float* draws, i64 size, i32 uniform, double high, double low, const Format& target, W* out
) {
    Rule rule = {TIES_TO_EVEN, 0, NAN_PAYLOAD};
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {
        float number = uniform ? __double2float_rn(__dsub_rn(__dmul_rn(2.0, (double)draws[i]), 1.0)) : draws[i];
        u64 word = (u64)__double_as_longlong(odd_product(number, high, low));
        out[i] = (W)rounded_word(number_of_word(word, format_float64()), target, rule, 0);
    }
}

#define ADAPTER_KERNELS(IN, OUT, W, NAME)                                                                            \
    extern "C" __global__ void merge_##NAME(                                                                         \
        const IN::Item* weight, const float* low, i64 size, float scale, OUT::Item* out                              \
    ) { merge<IN, OUT>(weight, low, size, scale, out); }                                                             \
    extern "C" __global__ void initialize_##NAME(                                                                    \
        const float* draws, i64 size, i32 uniform, double high, double low, W* out                                   \
    ) { initialize(draws, size, uniform, high, low, format_##NAME(), out); }

ADAPTER_KERNELS(Float32, ToFloat32, u32, float32)
ADAPTER_KERNELS(Float16, ToFloat16, u16, float16)
ADAPTER_KERNELS(Bfloat16, ToBfloat16, u16, bfloat16)
