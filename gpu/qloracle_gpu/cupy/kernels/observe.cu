// The smallest and the largest value of groups of elements. Clause: [observers.minmax].
#include "keys.cuh"
#include "teams.cuh"

// What has been seen of a group: keys of both ends, and a magnitude that tells whether all was finite.
struct Seen {
    i32 low, high;
    u32 largest;

    HOST_DEVICE Seen() : low(MOST_KEY), high(LEAST_KEY), largest(0) {}
    HOST_DEVICE void add(float low_end, float high_end) {
        low = min(low, key_of(low_end));
        high = max(high, key_of(high_end));
        largest = max(largest, max(magnitude_of(low_end), magnitude_of(high_end)));
    }
    // A zero is +0; both ends are NaN where anything was not finite.
    HOST_DEVICE void store(float* lo, float* hi, i64 i) const {
        bool poisoned = largest >= INFINITY_WORD;
        float one = value_of_key(low), other = value_of_key(high);
        lo[i] = poisoned ? float_of(NAN_WORD) : magnitude_of(one) == 0 ? 0.0f : one;
        hi[i] = poisoned ? float_of(NAN_WORD) : magnitude_of(other) == 0 ? 0.0f : other;
    }
};

// All lanes of the warp must call this.
__device__ __forceinline__ Seen seen_in_team(Seen seen, int team) {
    for (int offset = team / 2; offset > 0; offset /= 2) {
        seen.low = min(seen.low, __shfl_xor_sync(ALL_LANES, seen.low, offset));
        seen.high = max(seen.high, __shfl_xor_sync(ALL_LANES, seen.high, offset));
        seen.largest = max(seen.largest, __shfl_xor_sync(ALL_LANES, seen.largest, offset));
    }
    return seen;
}

// As absmax_of_parts: in the first stage both ends are x, in the next ones what the stage before has found.
template <class F> __device__ __forceinline__ void range_of_parts(
    const typename F::Item* low, const typename F::Item* high, i64 size, i64 block_size, i64 part_size, i64 parts,
    i32 team, float* lo, float* hi
) {
    i64 units = ceil_div(size, block_size) * parts;
    i64 teams = (i64)gridDim.x * blockDim.x / team;
    i64 mine = ((i64)blockIdx.x * blockDim.x + threadIdx.x) / team;
    int lane = threadIdx.x & (team - 1);
    i64 lead = mine - (threadIdx.x & (LANES - 1)) / team;  // the first team of this warp: all its lanes stay together
    for (; lead < units; lead += teams, mine += teams) {
        Seen seen;
        if (mine < units) {
            i64 block = mine / parts, start = block * block_size + (mine - block * parts) * part_size;
            i64 end = min(min(start + part_size, (block + 1) * block_size), size);
            for (i64 first = start + lane * ITEMS; first < end; first += team * ITEMS) {
                float ones[ITEMS], others[ITEMS];
                load_values<F>(low, first, end, ones);
                if (high != low) load_values<F>(high, first, end, others);
                for (int k = 0; k < ITEMS && first + k < end; ++k) seen.add(ones[k], high != low ? others[k] : ones[k]);
            }
        }
        seen = seen_in_team(seen, team);
        if (mine < units && lane == 0) seen.store(lo, hi, mine);
    }
}

// As absmax_of_columns: one thread a column and run of `part_size` rows.
template <class F> __device__ __forceinline__ void range_of_columns(
    const typename F::Item* low, const typename F::Item* high, i64 rows, i64 columns, i64 part_size, float* lo, float* hi
) {
    i64 units = ceil_div(rows, part_size) * columns;
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 unit = (i64)blockIdx.x * blockDim.x + threadIdx.x; unit < units; unit += stride) {
        i64 run = unit / columns, column = unit - run * columns;
        i64 end = min((run + 1) * part_size, rows);
        Seen seen;
        for (i64 row = run * part_size; row < end; ++row) {
            i64 i = row * columns + column;
            seen.add(F::value(low[i]), F::value(high[i]));
        }
        seen.store(lo, hi, unit);
    }
}

#define RANGE_KERNELS(FORMAT, NAME)                                                                                 \
    extern "C" __global__ void range_of_parts_##NAME(                                                               \
        const FORMAT::Item* low, const FORMAT::Item* high, i64 size, i64 block_size, i64 part_size, i64 parts,      \
        i32 team, float* lo, float* hi                                                                              \
    ) { range_of_parts<FORMAT>(low, high, size, block_size, part_size, parts, team, lo, hi); }                      \
    extern "C" __global__ void range_of_columns_##NAME(                                                             \
        const FORMAT::Item* low, const FORMAT::Item* high, i64 rows, i64 columns, i64 part_size, float* lo,         \
        float* hi                                                                                                   \
    ) { range_of_columns<FORMAT>(low, high, rows, columns, part_size, lo, hi); }

RANGE_KERNELS(Float32, float32)
RANGE_KERNELS(Float16, float16)
RANGE_KERNELS(Bfloat16, bfloat16)
