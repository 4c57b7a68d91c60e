// What layers do besides large products. Clauses: [lora.forward], [lora.dropout], [lora.backward], [llm_int8.outliers].
// Every step is one rounding in float32, in the order written; the last one is to the format of the output.
#include "outputs.cuh"

constexpr int SUMMED_ROWS = 256;

// x·mask/(1 − p): a factor and not a selection, so that a dropped NaN or infinity stays visible.
HOST_DEVICE float dropped(float value, const u8* mask, i64 i, float factor) {
    return __fmul_rn(value, mask[i] ? factor : 0.0f);
}

extern "C" __global__ void drop(const float* x, const u8* mask, i64 size, float factor, float* out) {
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) out[i] = dropped(x[i], mask, i, factor);
}

// y = base + (low + shift)·scale + bias; what has no flag is not there.
template <class Out> __device__ __forceinline__ void combine(
    const float* base, const float* low, const float* shift, const float* bias, i32 flags, i64 size, i64 columns,
    float scale, typename Out::Item* out
) {
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {
        float y = base[i];
        if (flags & 1) {
            float part = low[i];
            if (flags & 2) part = __fadd_rn(part, shift[i % columns]);
            y = __fadd_rn(y, __fmul_rn(part, scale));
        }
        if (flags & 4) y = __fadd_rn(y, bias[i % columns]);
        out[i] = Out::rounded(y);
    }
}

// dx = base + mask·factor·(scale·low); without a mask the factor is 1.
template <class Out> __device__ __forceinline__ void combine_gradient(
    const float* base, const float* low, const u8* mask, i32 has_mask, i64 size, float scale, float factor,
    typename Out::Item* out
) {
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {
        float part = __fmul_rn(low[i], scale);
        if (has_mask) part = dropped(part, mask, i, factor);
        out[i] = Out::rounded(__fadd_rn(base[i], part));
    }
}

template <class Out> __device__ __forceinline__ void scaled(const float* x, i64 size, float scale, typename Out::Item* out) {
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {
        out[i] = Out::rounded(__fmul_rn(x[i], scale));
    }
}

#define LAYER_KERNELS(OUT, NAME)                                                                                     \
    extern "C" __global__ void combine_##NAME(                                                                       \
        const float* base, const float* low, const float* shift, const float* bias, i32 flags, i64 size,             \
        i64 columns, float scale, OUT::Item* out                                                                     \
    ) { combine<OUT>(base, low, shift, bias, flags, size, columns, scale, out); }                                    \
    extern "C" __global__ void combine_gradient_##NAME(                                                              \
        const float* base, const float* low, const u8* mask, i32 has_mask, i64 size, float scale, float factor,      \
        OUT::Item* out                                                                                               \
    ) { combine_gradient<OUT>(base, low, mask, has_mask, size, scale, factor, out); }                                \
    extern "C" __global__ void scaled_##NAME(const float* x, i64 size, float scale, OUT::Item* out) {                \
        scaled<OUT>(x, size, scale, out);                                                                            \
    }

LAYER_KERNELS(ToFloat32, float32)
LAYER_KERNELS(ToFloat16, float16)
LAYER_KERNELS(ToBfloat16, bfloat16)

// Sums of runs of rows, a thread each; the last stage rounds to float32. In float64 two stages round below 2^−40.
template <class T> __device__ __forceinline__ void sum_rows(const T* x, i64 rows, i64 columns, double* out, float* last) {
    i64 units = ceil_div(rows, SUMMED_ROWS) * columns, stride = (i64)gridDim.x * blockDim.x;
    for (i64 unit = (i64)blockIdx.x * blockDim.x + threadIdx.x; unit < units; unit += stride) {
        i64 run = unit / columns, column = unit - run * columns;
        i64 end = min((run + 1) * SUMMED_ROWS, rows);
        double sum = -0.0;
        for (i64 row = run * SUMMED_ROWS; row < end; ++row) sum = __dadd_rn(sum, (double)x[row * columns + column]);
        out[unit] = sum;
        if (units == columns) last[column] = __double2float_rn(sum);
    }
}

extern "C" __global__ void sum_rows_float32(const float* x, i64 rows, i64 columns, double* out, float* last) {
    sum_rows(x, rows, columns, out, last);
}
extern "C" __global__ void sum_rows_float64(const double* x, i64 rows, i64 columns, double* out, float* last) {
    sum_rows(x, rows, columns, out, last);
}

HOST_DEVICE bool is_outlier(float value, double threshold) {
    if (threshold == 0.0) return false;
    return magnitude_of(value) >= INFINITY_WORD || !((double)fabsf(value) < threshold);
}

// Whether a column holds an outlier, given its largest magnitude, infinity and NaN included.
extern "C" __global__ void find_outliers(const float* largest, i64 columns, double threshold, u8* outliers) {
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < columns; i += stride) {
        outliers[i] = is_outlier(largest[i], threshold) ? 1 : 0;
    }
}

// x with 0 for what the absmax of its row, or its codes, leave out.
extern "C" __global__ void leave_out(
    const float* x, const u8* outliers, i64 size, i64 columns, double threshold, i32 elements, float* out
) {
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {
        bool left_out = elements ? is_outlier(x[i], threshold) : outliers[i % columns] != 0;
        out[i] = left_out ? 0.0f : x[i];
    }
}
