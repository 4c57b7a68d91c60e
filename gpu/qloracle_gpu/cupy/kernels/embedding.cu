// Rows of a table by index, and the sums of gradients that share one. Clauses: [embedding.forward],
// [embedding.backward].
#include "outputs.cuh"
#include "sums.cuh"

// Row i of the result is line ids[i] of the table: its items lie `pitch` apart and begin at ids[i] · step.
template <class In> __device__ __forceinline__ void look_up(
    const i64* ids, i64 size, i64 width, const typename In::Item* table, i64 step, i64 pitch, float* out
) {
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {
        i64 row = i / width;
        out[i] = In::value(table[ids[row] * step + (i - row * width) * pitch]);
    }
}

// One key for each occurrence, so that sorting keys sorts by index and, within an index, by position.
extern "C" __global__ void occurrence_keys(const i64* ids, i64 size, i64* keys) {
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) keys[i] = ids[i] * size + i;
}

// How many of the ascending keys lie below a number.
HOST_DEVICE i64 count_below(const i64* keys, i64 size, i64 number) {
    i64 low = 0, high = size;
    while (low < high) {
        i64 middle = low + (high - low) / 2;
        if (keys[middle] < number) low = middle + 1;
        else high = middle;
    }
    return low;
}

// A warp adds up, for one index, the rows of its occurrences; the result has a column for each index.
template <class Out> __device__ __forceinline__ void gather_rows(
    const i64* keys, i64 size, const float* rows, i64 count, i64 width, float scale, typename Out::Item* out
) {
    int lane = threadIdx.x & (WARP_LANES - 1);
    i64 warps = (i64)gridDim.x * blockDim.x / WARP_LANES;
    for (i64 index = ((i64)blockIdx.x * blockDim.x + threadIdx.x) / WARP_LANES; index < count; index += warps) {
        i64 start = count_below(keys, size, index * size), end = count_below(keys, size, (index + 1) * size);
        for (i64 k = 0; k < width; ++k) {
            double sum = 0.0;
            for (i64 place = start + lane; place < end; place += WARP_LANES) {
                sum = __dadd_rn(sum, (double)rows[(keys[place] - index * size) * width + k]);
            }
            sum = sum_of_warp(sum);
            if (lane == 0) out[k * count + index] = Out::rounded(__fmul_rn(__double2float_rn(sum), scale));
        }
    }
}

#define EMBEDDING_KERNELS(IN, OUT, NAME)                                                                             \
    extern "C" __global__ void look_up_##NAME(                                                                       \
        const i64* ids, i64 size, i64 width, const IN::Item* table, i64 step, i64 pitch, float* out                  \
    ) { look_up<IN>(ids, size, width, table, step, pitch, out); }                                                    \
    extern "C" __global__ void gather_rows_##NAME(                                                                   \
        const i64* keys, i64 size, const float* rows, i64 count, i64 width, float scale, OUT::Item* out              \
    ) { gather_rows<OUT>(keys, size, rows, count, width, scale, out); }

EMBEDDING_KERNELS(Float32, ToFloat32, float32)
EMBEDDING_KERNELS(Float16, ToFloat16, float16)
EMBEDDING_KERNELS(Bfloat16, ToBfloat16, bfloat16)
