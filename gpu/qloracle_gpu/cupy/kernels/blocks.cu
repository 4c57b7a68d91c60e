// The absmax of groups of elements. Clauses: [blocks.absmax], [int8.absmax].
#include "teams.cuh"

// A block is cut into `parts` of `part_size` elements, the last ones shorter; a team of lanes reads one part at a time.
// The result of a part is a float32 magnitude, infinity and NaN included, until the last stage makes it an absmax.
template <class F> __device__ __forceinline__ void absmax_of_parts(
    const typename F::Item* x, i64 size, i64 block_size, i64 part_size, i64 parts, i32 team, i32 last, float* out
) {
    i64 units = ceil_div(size, block_size) * parts;
    i64 teams = (i64)gridDim.x * blockDim.x / team;
    i64 mine = ((i64)blockIdx.x * blockDim.x + threadIdx.x) / team;
    int lane = threadIdx.x & (team - 1);
    i64 lead = mine - (threadIdx.x & (LANES - 1)) / team;  // the first team of this warp: all its lanes stay together
    for (; lead < units; lead += teams, mine += teams) {
        u32 largest = 0;
        if (mine < units) {
            i64 block = mine / parts, start = block * block_size + (mine - block * parts) * part_size;
            i64 end = min(min(start + part_size, (block + 1) * block_size), size);
            for (i64 first = start + lane * ITEMS; first < end; first += team * ITEMS) {
                float values[ITEMS];
                load_values<F>(x, first, end, values);
                largest = max(largest, largest_of(values));
            }
        }
        largest = largest_in_team(largest, team);
        if (mine < units && lane == 0) out[mine] = last ? absmax_of(largest) : float_of(largest);
    }
}

// One thread a column and run of `part_size` rows; the result has a row for each run.
template <class F> __device__ __forceinline__ void absmax_of_columns(
    const typename F::Item* x, i64 rows, i64 columns, i64 part_size, i32 last, float* out
) {
    i64 units = ceil_div(rows, part_size) * columns;
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 unit = (i64)blockIdx.x * blockDim.x + threadIdx.x; unit < units; unit += stride) {
        i64 run = unit / columns, column = unit - run * columns;
        i64 end = min((run + 1) * part_size, rows);
        u32 largest = 0;
        for (i64 row = run * part_size; row < end; ++row) {
            largest = max(largest, magnitude_of(F::value(x[row * columns + column])));
        }
        out[unit] = last ? absmax_of(largest) : float_of(largest);
    }
}

#define ABSMAX_KERNELS(FORMAT, NAME)                                                                                \
    extern "C" __global__ void absmax_of_parts_##NAME(                                                              \
        const FORMAT::Item* x, i64 size, i64 block_size, i64 part_size, i64 parts, i32 team, i32 last, float* out   \
    ) { absmax_of_parts<FORMAT>(x, size, block_size, part_size, parts, team, last, out); }                          \
    extern "C" __global__ void absmax_of_columns_##NAME(                                                            \
        const FORMAT::Item* x, i64 rows, i64 columns, i64 part_size, i32 last, float* out                           \
    ) { absmax_of_columns<FORMAT>(x, rows, columns, part_size, last, out); }

ABSMAX_KERNELS(Float32, float32)
ABSMAX_KERNELS(Float16, float16)
ABSMAX_KERNELS(Bfloat16, bfloat16)
