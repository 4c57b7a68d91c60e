// What DoRA layers do besides large products. Clauses: [dora.norm], [dora.forward], [dora.backward], [dora.merge],
// [dora.unmerge]. g = m/n is beyond float32 where n is subnormal, while its products are not: with g everything is
// float64, which no product of finite operands leaves, so that none of them meets ∞·0 or ∞ − ∞.
#include "outputs.cuh"
#include "sums.cuh"

// A warp has one row. Squares of float32 are exact in float64, and neither they nor their sum over- or underflow.
extern "C" __global__ void row_norms(const float* rows, i64 count, i64 columns, float* norms) {
    int lane = threadIdx.x & (WARP_LANES - 1);
    i64 warps = (i64)gridDim.x * blockDim.x / WARP_LANES;
    for (i64 row = ((i64)blockIdx.x * blockDim.x + threadIdx.x) / WARP_LANES; row < count; row += warps) {
        const float* values = rows + row * columns;
        double sum = 0.0;
        for (i64 k = lane; k < columns; k += WARP_LANES) sum = __dadd_rn(sum, square_of((double)values[k]));
        sum = sum_of_warp(sum);
        if (lane == 0) norms[row] = __double2float_rn(__dsqrt_rn(sum));
    }
}

// value/norm, 0 where the norm is 0.
HOST_DEVICE double over_norm(float value, float norm) {
    return magnitude_of(norm) == 0 ? 0.0 : __ddiv_rn((double)value, (double)norm);
}

// g and g − 1 of every output.
extern "C" __global__ void gains(const float* magnitude, const float* norms, i64 size, double* gain, double* less_one) {
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {
        double g = over_norm(magnitude[i], norms[i]);
        gain[i] = g;
        less_one[i] = __dsub_rn(g, 1.0);
    }
}

// n/m of every row of a merged weight, 0 where n = 0.
extern "C" __global__ void unmerge_factors(const float* norms, const float* magnitude, i64 size, double* out) {
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {
        out[i] = magnitude_of(norms[i]) == 0 ? 0.0 : __ddiv_rn((double)norms[i], (double)magnitude[i]);
    }
}

extern "C" __global__ void scale_columns(const float* x, const double* factors, i64 size, i64 columns, float* out) {
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {
        out[i] = __double2float_rn(__dmul_rn((double)x[i], factors[i % columns]));
    }
}

extern "C" __global__ void multiply(const float* x, const float* y, i64 size, float* out) {
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) out[i] = __fmul_rn(x[i], y[i]);
}

#define DORA_KERNELS(OUT, NAME)                                                                                      \
    /* y = base + (g − 1)·own + g·(low·scale) + bias */                                                              \
    extern "C" __global__ void combine_dora_##NAME(                                                                  \
        const float* base, const float* own, const float* low, const double* gain, const double* less_one,           \
        const float* bias, i32 has_bias, i64 size, i64 columns, float scale, OUT::Item* out                          \
    ) {                                                                                                              \
        i64 stride = (i64)gridDim.x * blockDim.x;                                                                    \
        for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {                            \
            i64 column = i % columns;                                                                                \
            double y = __dadd_rn((double)base[i], __dmul_rn(less_one[column], (double)own[i]));                      \
            y = __dadd_rn(y, __dmul_rn(gain[column], __dmul_rn((double)low[i], (double)scale)));                     \
            if (has_bias) y = __dadd_rn(y, (double)bias[column]);                                                    \
            out[i] = OUT::rounded(__double2float_rn(y));                                                             \
        }                                                                                                            \
    }                                                                                                                \
    extern "C" __global__ void over_norms_##NAME(const float* values, const float* norms, i64 size, OUT::Item* out) { \
        i64 stride = (i64)gridDim.x * blockDim.x;                                                                    \
        for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {                            \
            out[i] = OUT::rounded(__double2float_rn(over_norm(values[i], norms[i])));                                \
        }                                                                                                            \
    }                                                                                                                \
    extern "C" __global__ void scale_rows_##NAME(                                                                    \
        const float* x, const double* factors, i64 size, i64 columns, OUT::Item* out                                 \
    ) {                                                                                                              \
        i64 stride = (i64)gridDim.x * blockDim.x;                                                                    \
        for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {                            \
            out[i] = OUT::rounded(__double2float_rn(__dmul_rn((double)x[i], factors[i / columns])));                 \
        }                                                                                                            \
    }                                                                                                                \
    /* x·factor of the row − low·scale */                                                                            \
    extern "C" __global__ void unmerge_rows_##NAME(                                                                  \
        const float* x, const double* factors, const float* low, i64 size, i64 columns, float scale, OUT::Item* out  \
    ) {                                                                                                              \
        i64 stride = (i64)gridDim.x * blockDim.x;                                                                    \
        for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {                            \
            double real = __dmul_rn((double)x[i], factors[i / columns]);                                             \
            real = __dsub_rn(real, __dmul_rn((double)low[i], (double)scale));                                        \
            out[i] = OUT::rounded(__double2float_rn(real));                                                          \
        }                                                                                                            \
    }

DORA_KERNELS(ToFloat32, float32)
DORA_KERNELS(ToFloat16, float16)
DORA_KERNELS(ToBfloat16, bfloat16)
