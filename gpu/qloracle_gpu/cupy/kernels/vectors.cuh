// Eight items a thread: one or two accesses of 16 bytes where the address allows, else one by one; masked at the end.
#pragma once
#include "formats.cuh"

constexpr int ITEMS = 8;

template <int BYTES> struct alignas(BYTES) Chunk {
    u32 words[BYTES / 4];
};

template <class T, int COUNT = ITEMS> struct Packet {
    static constexpr int TOTAL = COUNT * (int)sizeof(T);
    static constexpr int WIDTH = TOTAL < 16 ? TOTAL : 16;
    static constexpr int ACCESSES = TOTAL / WIDTH;
};

template <int COUNT, class T> HOST_DEVICE bool is_aligned(const T* address) {
    return ((size_t)address & (Packet<T, COUNT>::WIDTH - 1)) == 0;
}

// Read the items from `first` on that lie before `end`; the others are left as they are.
template <int COUNT, class T> HOST_DEVICE void load_items(const T* source, i64 first, i64 end, T (&items)[COUNT]) {
    if (first + COUNT <= end && is_aligned<COUNT>(source + first)) {
        typedef Chunk<Packet<T, COUNT>::WIDTH> Wide;
        const Wide* wide = reinterpret_cast<const Wide*>(source + first);
#pragma unroll
        for (int part = 0; part < Packet<T, COUNT>::ACCESSES; ++part) {
            Wide chunk = wide[part];
            memcpy(reinterpret_cast<u8*>(items) + part * sizeof(Wide), &chunk, sizeof(Wide));
        }
        return;
    }
#pragma unroll
    for (int k = 0; k < COUNT; ++k) {
        if (first + k < end) items[k] = source[first + k];
    }
}

template <class T> HOST_DEVICE void store_items(T* target, i64 first, i64 end, const T (&items)[ITEMS]) {
    if (first + ITEMS <= end && is_aligned<ITEMS>(target + first)) {
        typedef Chunk<Packet<T>::WIDTH> Wide;
        Wide* wide = reinterpret_cast<Wide*>(target + first);
#pragma unroll
        for (int part = 0; part < Packet<T>::ACCESSES; ++part) {
            Wide chunk;
            memcpy(&chunk, reinterpret_cast<const u8*>(items) + part * sizeof(Wide), sizeof(Wide));
            wide[part] = chunk;
        }
        return;
    }
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
        if (first + k < end) target[first + k] = items[k];
    }
}

// The three formats of weights and activations: how an item is stored, and its value.
struct Float32 {
    typedef float Item;
    static HOST_DEVICE float value(float item) { return item; }
};

struct Float16 {
    typedef u16 Item;
    static HOST_DEVICE float value(u16 item) { return widened_float16(item); }
};

struct Bfloat16 {
    typedef u16 Item;
    static HOST_DEVICE float value(u16 item) { return widened_bfloat16(item); }
};

// Read values; +0 stands for what lies at or beyond `end`.
template <class F> HOST_DEVICE void load_values(const typename F::Item* source, i64 first, i64 end, float (&values)[ITEMS]) {
    typename F::Item items[ITEMS] = {};
    load_items(source, first, end, items);
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) values[k] = F::value(items[k]);
}
