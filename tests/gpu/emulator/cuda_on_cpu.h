// CUDA's execution model on one thread of the CPU, for tests: every CUDA thread is a fiber, CTAs run one after another.
//
// A fiber runs until it waits at a barrier or at an exchange of its warp; then the next lane of the warp runs, and the
// next warp once this one can go no further. The caller chooses the order of lanes, warps and CTAs: forward, reversed,
// or shuffled anew in every round. Code that lacks a barrier reads what another thread has not written yet, or has
// overwritten already, in one order or another. Shared memory is filled with a poison before every CTA.
// A barrier that not all threads reach, lanes that exchange in different ways, and arguments of the wrong size end the
// launch with a message.
#pragma once
#include <csetjmp>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define EMULATOR_SANITIZED 1
#endif

#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __constant__ static const
#ifdef EMULATOR_SANITIZED
#define __shared__ static  // the sanitizer guards it, but not in a section of our own
#else
#define __shared__ static __attribute__((section("emulated_shared")))
extern "C" char __start_emulated_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_emulated_shared[] __attribute__((weak, visibility("hidden")));
#endif

struct dim3 {
    unsigned x, y, z;
};
static dim3 threadIdx, blockIdx, blockDim, gridDim;
using std::max;
using std::min;

namespace emulator {

constexpr unsigned LANES = 32;
constexpr size_t STACK = 256 * 1024;
constexpr unsigned char POISON = 0xFE;
enum class State { ready, at_block, at_warp, done };
enum class Kind { shuffle, ballot, barrier };
enum Order { forward, reversed, shuffled };

struct Fiber {
    ucontext_t context;
    jmp_buf place;
    bool started = false;
    dim3 index;
    unsigned number;
    State state;
    Kind kind;              // of the exchange that it waits at
    unsigned mask, source;  // the lanes that take part, and the one whose value it wants
    unsigned long long value, received;
    void* fake_stack = nullptr;
};

static std::vector<Fiber> fibers;
static std::vector<char> stacks;
static jmp_buf scheduler_place;
static ucontext_t scheduler_context;
static Fiber* current;
static std::function<void()> body;
static std::string failure;
static unsigned long long random_state;

inline unsigned random_below(unsigned bound) {
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)((random_state >> 33) % bound);
}

inline void fail(const std::string& message) {
    if (failure.empty()) failure = message;
}

// Switching: by setjmp, which asks the kernel nothing; under the sanitizer, which must know the stacks, by swapcontext.
#ifdef EMULATOR_SANITIZED
static const void* scheduler_bottom;
static size_t scheduler_size;
static void* scheduler_fake;
inline void leave() {
    Fiber* self = current;
    __sanitizer_start_switch_fiber(&self->fake_stack, scheduler_bottom, scheduler_size);
    swapcontext(&self->context, &scheduler_context);
    __sanitizer_finish_switch_fiber(self->fake_stack, &scheduler_bottom, &scheduler_size);
}
inline void enter(Fiber& fiber) {
    __sanitizer_start_switch_fiber(&scheduler_fake, &stacks[fiber.number * STACK], STACK);
    swapcontext(&scheduler_context, &fiber.context);
    __sanitizer_finish_switch_fiber(scheduler_fake, nullptr, nullptr);
}
#else
inline void leave() {
    if (!_setjmp(current->place)) _longjmp(scheduler_place, 1);
}
inline void enter(Fiber& fiber) {
    if (_setjmp(scheduler_place)) return;
    if (fiber.started) _longjmp(fiber.place, 1);
    fiber.started = true;
    setcontext(&fiber.context);
}
#endif

inline void live() {
#ifdef EMULATOR_SANITIZED
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_bottom, &scheduler_size);
#endif
    for (;;) {
        body();
        current->state = State::done;
        leave();
    }
}

inline void prepare(unsigned count) {
    if (fibers.size() < count) {
        fibers.resize(count);
        stacks.resize(count * STACK);
        for (Fiber& fiber : fibers) fiber.started = false;
    }
    for (unsigned number = 0; number < count; ++number) {
        Fiber& fiber = fibers[number];
        fiber.number = number;
        fiber.index = {number % blockDim.x, number / blockDim.x % blockDim.y, number / (blockDim.x * blockDim.y)};
        fiber.state = State::ready;
#ifdef EMULATOR_SANITIZED
        if (fiber.started) continue;
        fiber.started = true;
#else
        if (fiber.started) continue;
#endif
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = &stacks[number * STACK];
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, live, 0);
    }
}

// Let the lanes go on that wait for one exchange, once every lane of the mask that has not exited waits too.
inline bool exchange(unsigned first, unsigned count) {
    bool released = false;
    for (unsigned lane = 0; lane < count; ++lane) {
        Fiber& asking = fibers[first + lane];
        if (asking.state != State::at_warp) continue;
        if (!(asking.mask >> lane & 1)) return fail("a lane is not in the mask that it gives"), false;
        unsigned waiting = 0, ballot = 0;
        bool complete = true;
        for (unsigned other = 0; other < count; ++other) {
            Fiber& fiber = fibers[first + other];
            if (!(asking.mask >> other & 1) || fiber.state == State::done) continue;
            if (fiber.state != State::at_warp) { complete = false; break; }
            if (fiber.mask != asking.mask || fiber.kind != asking.kind) {
                return fail("lanes of one warp exchange in different ways"), false;
            }
            waiting |= 1u << other;
            if (fiber.value) ballot |= 1u << other;
        }
        if (!complete) continue;
        for (unsigned other = 0; other < count; ++other) {
            if (!(waiting >> other & 1)) continue;
            Fiber& fiber = fibers[first + other];
            fiber.received = ballot;
            if (fiber.kind == Kind::shuffle) {
                bool there = fiber.source < count && (waiting >> fiber.source & 1);
                if (there) fiber.received = fibers[first + fiber.source].value;
                else std::memset(&fiber.received, POISON, sizeof(fiber.received));
            }
            fiber.state = State::ready;
        }
        released = true;
    }
    return released;
}

inline void order_of(std::vector<unsigned>& order, Order kind) {
    for (unsigned k = 0; k < order.size(); ++k) order[k] = kind == reversed ? (unsigned)order.size() - 1 - k : k;
    if (kind != shuffled) return;
    for (unsigned k = (unsigned)order.size(); k > 1; --k) std::swap(order[k - 1], order[random_below(k)]);
}

// Run the lanes of a warp, and what they exchange, until all wait at a barrier of the block or have left: it gets as far
// ahead of the other warps as barriers allow. When shuffled, a coin may stop it at any exchange.
inline bool run_warp(unsigned warp, unsigned count, Order kind) {
    unsigned first = warp * LANES;
    std::vector<unsigned> lanes(min(LANES, count - first));
    order_of(lanes, kind);
    for (bool moved = false;; moved = true) {
        if (kind == shuffled) order_of(lanes, kind);
        for (unsigned lane : lanes) {
            Fiber& fiber = fibers[first + lane];
            if (fiber.state != State::ready) continue;
            moved = true;
            current = &fiber;
            threadIdx = fiber.index;
            enter(fiber);
            if (!failure.empty()) return false;
        }
        bool released = exchange(first, (unsigned)lanes.size());
        if (!failure.empty()) return false;
        if (!released) return moved;
        if (kind == shuffled && random_below(2)) return true;
    }
}

inline void run_block(Order kind) {
    unsigned count = blockDim.x * blockDim.y * blockDim.z;
    prepare(count);
#ifndef EMULATOR_SANITIZED
    if (__start_emulated_shared) std::memset(__start_emulated_shared, POISON, __stop_emulated_shared - __start_emulated_shared);
#endif
    std::vector<unsigned> warps((count + LANES - 1) / LANES);
    order_of(warps, kind);
    for (;;) {
        bool moved = false;
        unsigned done = 0, waiting = 0;
        if (kind == shuffled) order_of(warps, kind);
        for (unsigned warp : warps) {
            moved = run_warp(warp, count, kind) || moved;
            if (!failure.empty()) return;
        }
        for (unsigned number = 0; number < count; ++number) {
            done += fibers[number].state == State::done;
            waiting += fibers[number].state == State::at_block;
        }
        if (done == count) return;
        if (waiting && waiting + done == count) {
            for (unsigned number = 0; number < count; ++number) {
                if (fibers[number].state == State::at_block) fibers[number].state = State::ready;
            }
            moved = true;
        }
        if (!moved) return fail("a barrier that not all threads reach");
    }
}

inline void run_grid(Order kind) {
    std::vector<unsigned> blocks(gridDim.x * gridDim.y * gridDim.z);
    order_of(blocks, kind);
    for (unsigned block : blocks) {
        blockIdx = {block % gridDim.x, block / gridDim.x % gridDim.y, block / (gridDim.x * gridDim.y)};
        run_block(kind);
        if (failure.empty()) continue;
        for (Fiber& fiber : fibers) fiber.started = false;  // they stand somewhere in the middle
        return;
    }
}

inline unsigned long long wait_at_warp(Kind kind, unsigned mask, unsigned long long value, unsigned source) {
    current->kind = kind;
    current->mask = mask;
    current->value = value;
    current->source = source;
    current->state = State::at_warp;
    leave();
    return current->received;
}

template <class T> T shuffle(unsigned mask, T value, unsigned source) {
    static_assert(sizeof(T) <= sizeof(unsigned long long));
    unsigned long long raw = 0;
    std::memcpy(&raw, &value, sizeof(T));
    raw = wait_at_warp(Kind::shuffle, mask, raw, source);
    std::memcpy(&value, &raw, sizeof(T));
    return value;
}

template <class... A, size_t... I> void call(void (*kernel)(A...), void** parameters, std::index_sequence<I...>) {
    body = [=] { kernel(*(A*)parameters[I]...); };
}

template <class... A> void start(void (*kernel)(A...), void** parameters, const size_t* sizes, int count, Order order) {
    const size_t wanted[] = {sizeof(A)..., 0};
    if (count != (int)sizeof...(A)) {
        return fail("it takes " + std::to_string(sizeof...(A)) + " arguments, got " + std::to_string(count));
    }
    for (int k = 0; k < count; ++k) {
        if (sizes[k] != wanted[k]) {
            return fail("argument " + std::to_string(k) + " has " + std::to_string(wanted[k]) + " bytes, got "
                        + std::to_string(sizes[k]));
        }
    }
    call(kernel, parameters, std::index_sequence_for<A...>{});
    run_grid(order);
}

}  // namespace emulator

inline unsigned emulated_lane() { return emulator::current->number % emulator::LANES; }
inline void __syncthreads() {
    emulator::current->state = emulator::State::at_block;
    emulator::leave();
}
inline void __syncwarp(unsigned mask = ~0u) { emulator::wait_at_warp(emulator::Kind::barrier, mask, 0, 0); }
inline unsigned __ballot_sync(unsigned mask, bool value) {
    return (unsigned)emulator::wait_at_warp(emulator::Kind::ballot, mask, value, 0);
}
inline bool __any_sync(unsigned mask, bool value) { return __ballot_sync(mask, value) != 0; }
inline bool __all_sync(unsigned mask, bool value) { return __ballot_sync(mask, !value) == 0; }
template <class T> T __shfl_sync(unsigned mask, T value, unsigned source) {
    return emulator::shuffle(mask, value, source % emulator::LANES);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, unsigned offset) {
    return emulator::shuffle(mask, value, emulated_lane() ^ offset);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned offset) {
    unsigned source = emulated_lane() + offset;
    return emulator::shuffle(mask, value, source < emulator::LANES ? source : emulated_lane());
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned offset) {
    return emulator::shuffle(mask, value, emulated_lane() < offset ? emulated_lane() : emulated_lane() - offset);
}

template <class T> T atomicAdd(T* address, T value) {
    T old = *address;
    *address = old + value;
    return old;
}

inline unsigned __float_as_uint(float value) { unsigned word; std::memcpy(&word, &value, 4); return word; }
inline float __uint_as_float(unsigned word) { float value; std::memcpy(&value, &word, 4); return value; }
inline long long __double_as_longlong(double value) { long long word; std::memcpy(&word, &value, 8); return word; }
inline double __longlong_as_double(long long word) { double value; std::memcpy(&value, &word, 8); return value; }
inline int __clzll(long long value) { return value ? __builtin_clzll((unsigned long long)value) : 64; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return std::sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __double2float_rn(double a) { return (float)a; }
inline int __float2int_rn(float a) { return (int)std::nearbyint(a); }
inline int __dp4a(int a, int b, int c) {
    for (int byte = 0; byte < 4; ++byte) c += (int)(signed char)(a >> 8 * byte) * (int)(signed char)(b >> 8 * byte);
    return c;
}
