// A step of AdamW in parts: its moments, the norms that may limit its update, and the parameter. Clauses:
// [adamw.moments], [adamw.parameter], [adamw.nonfinite], [adamw.stochastic], [clip.update].
#include "adamw.cuh"
#include "sums.cuh"

template <class In> __device__ __forceinline__ void update_squares(
    const typename In::Item* p, const float* m, const float* v, i64 size, const Step& step, double* updates,
    double* parameters, double (&of_warps)[SUMMING_WARPS]
) {
    for (i64 part = blockIdx.x; part < ceil_div(size, SUMMED_PART); part += gridDim.x) {
        i64 end = min((part + 1) * SUMMED_PART, size);
        double update = 0.0, parameter = 0.0;
        for (i64 i = part * SUMMED_PART + threadIdx.x; i < end; i += blockDim.x) {
            Moments moments = {m[i], v[i]};
            update = __dadd_rn(update, square_of(update_of(moments, step)));
            parameter = __dadd_rn(parameter, square_of((double)In::value(p[i])));
        }
        update = sum_of_cta(update, of_warps);
        parameter = sum_of_cta(parameter, of_warps);
        if (threadIdx.x == 0) {
            updates[part] = update;
            parameters[part] = parameter;
        }
    }
}

#define PART_KERNELS(IN, NAME)                                                                                       \
    extern "C" __global__ void adamw_moments_##NAME(                                                                 \
        const IN::Item* gradient, const float* m, const float* v, i64 size, STEP_PARAMETERS, float* m_out,           \
        float* v_out                                                                                                 \
    ) {                                                                                                              \
        Step step = STEP;                                                                                            \
        i64 stride = (i64)gridDim.x * blockDim.x;                                                                    \
        for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {                            \
            Moments old = {m[i], v[i]};                                                                              \
            Moments moments = moments_after(old, IN::value(gradient[i]), step);                                      \
            m_out[i] = moments.m;                                                                                    \
            v_out[i] = moments.v;                                                                                    \
        }                                                                                                            \
    }                                                                                                                \
    extern "C" __global__ void update_squares_##NAME(                                                                \
        const IN::Item* p, const float* m, const float* v, i64 size, STEP_PARAMETERS, double* updates,               \
        double* parameters                                                                                           \
    ) {                                                                                                              \
        __shared__ double of_warps[SUMMING_WARPS];                                                                   \
        Step step = STEP;                                                                                            \
        update_squares<IN>(p, m, v, size, step, updates, parameters, of_warps);                                      \
    }                                                                                                                \
    /* The parameter, given the moments after the step; where the gradient is looked at, it may stay. */             \
    extern "C" __global__ void adamw_parameter_##NAME(                                                               \
        const IN::Item* p, const IN::Item* gradient, i32 has_gradient, const float* m, const float* v, i64 size,     \
        STEP_PARAMETERS, const double* factor, i32 has_factor, const u32* random_bits, i32 rounding, IN::Item* out   \
    ) {                                                                                                              \
        Step step = STEP;                                                                                            \
        double limit = has_factor ? *factor : 1.0;                                                                   \
        i64 stride = (i64)gridDim.x * blockDim.x;                                                                    \
        for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {                            \
            Moments moments = {m[i], v[i]};                                                                          \
            if (has_gradient && stays(IN::value(gradient[i]), step)) {                                               \
                out[i] = p[i];                                                                                       \
                continue;                                                                                            \
            }                                                                                                        \
            double real = next_parameter(IN::value(p[i]), __dmul_rn(update_of(moments, step), limit), step);         \
            u32 word = parameter_word(real, format_##NAME(), rounding, random_bits, i);                              \
            memcpy(&out[i], &word, sizeof(IN::Item));                                                                \
        }                                                                                                            \
    }

PART_KERNELS(Float32, float32)
PART_KERNELS(Float16, float16)
PART_KERNELS(Bfloat16, bfloat16)
