// Gradients before a step: limits on their norm, and the sum over micro-batches. Clauses: [clip.norm], [clip.update],
// [accumulate.mean].
#include "outputs.cuh"
#include "sums.cuh"

template <class In> __device__ __forceinline__ void sum_squares(
    const typename In::Item* x, i64 size, double* parts, double (&of_warps)[SUMMING_WARPS]
) {
    for (i64 part = blockIdx.x; part < ceil_div(size, SUMMED_PART); part += gridDim.x) {
        i64 end = min((part + 1) * SUMMED_PART, size);
        double sum = 0.0;
        for (i64 i = part * SUMMED_PART + threadIdx.x; i < end; i += blockDim.x) {
            sum = __dadd_rn(sum, square_of((double)In::value(x[i])));
        }
        sum = sum_of_cta(sum, of_warps);
        if (threadIdx.x == 0) parts[part] = sum;
    }
}

// One CTA: the root of the sum of all parts.
__device__ __forceinline__ double norm_of(const double* parts, i64 count, double (&of_warps)[SUMMING_WARPS]) {
    double sum = 0.0;
    for (i64 i = threadIdx.x; i < count; i += blockDim.x) sum = __dadd_rn(sum, parts[i]);
    return __dsqrt_rn(sum_of_cta(sum, of_warps));
}

// The factor that keeps a norm to at most `limit`, times another norm if there are parts of one: 1 where the norm is
// not larger, or either is not finite.
extern "C" __global__ void limit_factor(
    const double* parts, i64 count, const double* others, i64 other_count, double limit, double* factor
) {
    __shared__ double of_warps[SUMMING_WARPS];
    double norm = norm_of(parts, count, of_warps);
    if (other_count > 0) limit = __dmul_rn(limit, norm_of(others, other_count, of_warps));
    bool finite = __dsub_rn(norm, norm) == 0.0 && __dsub_rn(limit, limit) == 0.0;
    if (threadIdx.x == 0) *factor = finite && norm > limit ? __ddiv_rn(limit, norm) : 1.0;
}

template <class In, class Out> __device__ __forceinline__ void scale_by(
    const typename In::Item* x, i64 size, const double* factor, typename Out::Item* out
) {
    double scale = *factor;
    i64 step = (i64)gridDim.x * blockDim.x * ITEMS;
    for (i64 first = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * ITEMS; first < size; first += step) {
        float values[ITEMS];
        load_values<In>(x, first, size, values);
        typename Out::Item scaled[ITEMS];
#pragma unroll
        for (int k = 0; k < ITEMS; ++k) {
            scaled[k] = Out::rounded(__double2float_rn(__dmul_rn((double)values[k], scale)));
        }
        store_items(out, first, size, scaled);
    }
}

// Σ n_i·g_i / Σ n_i in float64, over the micro-batches that have tokens; without `mean` each n_i above counts as 1.
template <class In, class Out> __device__ __forceinline__ void accumulate(
    const typename In::Item* gradients, i64 size, i64 batches, const i64* counts, i32 mean, double total,
    typename Out::Item* out
) {
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {
        double sum = -0.0;
        for (i64 batch = 0; batch < batches; ++batch) {
            if (counts[batch] == 0) continue;
            double weight = mean ? (double)counts[batch] : 1.0;
            sum = __dadd_rn(sum, __dmul_rn(weight, (double)In::value(gradients[batch * size + i])));
        }
        out[i] = Out::rounded(__double2float_rn(__ddiv_rn(sum, total)));
    }
}

#define GRADIENT_KERNELS(IN, OUT, NAME)                                                                              \
    extern "C" __global__ void sum_squares_##NAME(const IN::Item* x, i64 size, double* parts) {                      \
        __shared__ double of_warps[SUMMING_WARPS];                                                                   \
        sum_squares<IN>(x, size, parts, of_warps);                                                                   \
    }                                                                                                                \
    extern "C" __global__ void scale_by_##NAME(const IN::Item* x, i64 size, const double* factor, OUT::Item* out) {  \
        scale_by<IN, OUT>(x, size, factor, out);                                                                     \
    }                                                                                                                \
    extern "C" __global__ void accumulate_##NAME(                                                                    \
        const IN::Item* gradients, i64 size, i64 batches, const i64* counts, i32 mean, double total, OUT::Item* out  \
    ) { accumulate<IN, OUT>(gradients, size, batches, counts, mean, total, out); }

GRADIENT_KERNELS(Float32, ToFloat32, float32)
GRADIENT_KERNELS(Float16, ToFloat16, float16)
GRADIENT_KERNELS(Bfloat16, ToBfloat16, bfloat16)
