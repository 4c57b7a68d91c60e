// One step of AdamW, its moments in float32 or in 8 bits. Clauses: [adamw.moments], [adamw.parameter],
// [adamw.nonfinite], [adamw.stochastic], [adamw8bit.dequantize].
#include "adamw.cuh"
#include "codes.cuh"

template <class In> HOST_DEVICE void step_element(
    const typename In::Item* p, const typename In::Item* gradient, i64 i, const Moments& old, const Step& step,
    const Format& format, const u32* random_bits, i32 rounding, typename In::Item* p_out, float* m_out, float* v_out
) {
    float g = In::value(gradient[i]);
    Moments moments = moments_after(old, g, step);
    m_out[i] = moments.m;
    v_out[i] = moments.v;
    if (stays(g, step)) {
        p_out[i] = p[i];
        return;
    }
    double real = next_parameter(In::value(p[i]), update_of(moments, step), step);
    u32 word = parameter_word(real, format, rounding, random_bits, i);
    memcpy(&p_out[i], &word, sizeof(typename In::Item));
}

#define ROUNDING_PARAMETERS const u32* random_bits, i32 rounding

#define ADAMW_KERNELS(IN, NAME)                                                                                      \
    extern "C" __global__ void adamw_##NAME(                                                                         \
        const IN::Item* p, const IN::Item* gradient, const float* m, const float* v, i64 size, STEP_PARAMETERS,      \
        ROUNDING_PARAMETERS, IN::Item* p_out, float* m_out, float* v_out                                             \
    ) {                                                                                                              \
        Step step = STEP;                                                                                            \
        i64 stride = (i64)gridDim.x * blockDim.x;                                                                    \
        for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {                            \
            Moments old = {m[i], v[i]};                                                                              \
            step_element<IN>(p, gradient, i, old, step, format_##NAME(), random_bits, rounding, p_out, m_out, v_out); \
        }                                                                                                            \
    }                                                                                                                \
    extern "C" __global__ void adamw8bit_##NAME(                                                                     \
        const IN::Item* p, const IN::Item* gradient, const u8* codes_m, const float* absmax_m, const u8* codes_v,    \
        const float* absmax_v, i64 size, i64 block_size, const float* entries_m, const float* entries_v,             \
        STEP_PARAMETERS, ROUNDING_PARAMETERS, IN::Item* p_out, float* m_out, float* v_out                            \
    ) {                                                                                                              \
        Step step = STEP;                                                                                            \
        i64 stride = (i64)gridDim.x * blockDim.x;                                                                    \
        for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {                            \
            i64 block = i / block_size;                                                                              \
            Moments old = {                                                                                          \
                product_of(entries_m[codes_m[i]], absmax_m[block]), product_of(entries_v[codes_v[i]], absmax_v[block]) \
            };                                                                                                       \
            step_element<IN>(p, gradient, i, old, step, format_##NAME(), random_bits, rounding, p_out, m_out, v_out); \
        }                                                                                                            \
    }

ADAMW_KERNELS(Float32, float32)
ADAMW_KERNELS(Float16, float16)
ADAMW_KERNELS(Bfloat16, bfloat16)
