// CUDA C++ on the CPU, for tests alone: what the kernels use of CUDA's language and headers, and a grid run as loops.
// A compiler for the host then executes the very source that NVRTC compiles. There is no synchronisation.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
    unsigned x, y, z;
};
static dim3 gridDim, blockDim, blockIdx, threadIdx;

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline void __stwb(uint4* to, uint4 value) { *to = value; }

static inline uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static inline float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

// ---------------------------------------------------------------- half precision, rounded to nearest even

struct __half {
    uint16_t bits;
};
struct alignas(4) __half2 {
    __half x, y;
};
typedef __half half;
typedef __half2 half2;

static inline float __half2float(__half h) {
    const uint32_t sign = (uint32_t)(h.bits & 0x8000u) << 16, exponent = h.bits >> 10 & 31u, fraction = h.bits & 1023u;
    if (exponent == 31) return float_of(sign | 0x7f800000u | fraction << 13);
    const float size = exponent ? ldexpf(1024.0f + fraction, (int)exponent - 25) : ldexpf((float)fraction, -24);
    return sign ? -size : size;
}
static inline __half __float2half_rn(float x) {
    const uint16_t sign = bits_of(x) >> 16 & 0x8000u;
    const float size = fabsf(x);
    if (size != size) return {(uint16_t)0x7fffu};
    if (size >= 65520.0f) return {(uint16_t)(sign | 0x7c00u)};
    int exponent;
    frexpf(size, &exponent);  // size = [0.5, 1) * 2^exponent
    if (exponent < -13 || size == 0) exponent = -13;  // below the smallest normal number
    const uint32_t steps = (uint32_t)nearbyintf(ldexpf(size, 11 - exponent));  // in units of the last place
    return {(uint16_t)(sign | ((uint32_t)(exponent + 13) * 1024u + steps))};
}
static inline __half2 __halves2half2(__half a, __half b) { return {a, b}; }
static inline __half __low2half(__half2 a) { return a.x; }
static inline __half __high2half(__half2 a) { return a.y; }
static inline float2 __half22float2(__half2 a) { return {__half2float(a.x), __half2float(a.y)}; }
static inline __half2 __float22half2_rn(float2 a) { return {__float2half_rn(a.x), __float2half_rn(a.y)}; }
static inline __half2 __float2half2_rn(float a) { return {__float2half_rn(a), __float2half_rn(a)}; }
static inline float __low2float(__half2 a) { return __half2float(a.x); }
static inline __half2 __hadd2(__half2 a, __half2 b) {
    return __float22half2_rn({__half2float(a.x) + __half2float(b.x), __half2float(a.y) + __half2float(b.y)});
}

struct __nv_bfloat16 {
    uint16_t bits;
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};
static inline float __bfloat162float(__nv_bfloat16 b) { return float_of((uint32_t)b.bits << 16); }
static inline __nv_bfloat16 __float2bfloat16_rn(float x) {
    const uint32_t bits = bits_of(x);
    if (x != x) return {(uint16_t)0x7fffu};
    return {(uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}
static inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 a, __nv_bfloat16 b) { return {a, b}; }
static inline __nv_bfloat16 __low2bfloat16(__nv_bfloat162 a) { return a.x; }
static inline __nv_bfloat16 __high2bfloat16(__nv_bfloat162 a) { return a.y; }
static inline float2 __bfloat1622float2(__nv_bfloat162 a) { return {__bfloat162float(a.x), __bfloat162float(a.y)}; }
static inline __nv_bfloat162 __float22bfloat162_rn(float2 a) {
    return {__float2bfloat16_rn(a.x), __float2bfloat16_rn(a.y)};
}

// ---------------------------------------------------------------- a grid as loops

template <typename T> static T argument(int64_t bits) {
    T value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// Runs blocks first ... blocks - 1 of a grid.
template <typename... A, size_t... I>
static void run_grid(
        void (*kernel)(A...), int first, int blocks, int threads, const int64_t* a, std::index_sequence<I...>) {
    gridDim = {(unsigned)blocks, 1, 1};
    blockDim = {(unsigned)threads, 1, 1};
    for (int b = first; b < blocks; ++b) {
        for (int t = 0; t < threads; ++t) {
            blockIdx = {(unsigned)b, 0, 0};
            threadIdx = {(unsigned)t, 0, 0};
            kernel(argument<A>(a[I])...);
        }
    }
}

template <typename... A>
static void run_grid(void (*kernel)(A...), int first, int blocks, int threads, const int64_t* a) {
    run_grid(kernel, first, blocks, threads, a, std::index_sequence_for<A...>());
}
