"""C texts that the host's kernels begin with: types, mathematical functions, and small helpers."""

from __future__ import annotations

__all__ = ["ADVISE", "FILL", "SCATTER", "SET", "preamble"]

_PREAMBLE = """\
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {{ BLOCK = {block}, STRIP = {strip} }};
typedef {real} real;
{math}
{io}
// Have a strip of memory at hand that will soon be read (0) or written (1).
#define AHEAD(p, write) \\
    for (size_t i = 0; i < STRIP * sizeof(*(p)); i += 64) __builtin_prefetch((const char*)(p) + i, write)
// What stands in it, for the elements of a strip: a whole strip's loop has a constant length, which makes it faster.
#define EACH(...) \\
    if (n - from < STRIP) {{ \\
        _Pragma("omp simd") for (int64_t e = from; e < n; ++e) {{ __VA_ARGS__ }} \\
    }} else {{ \\
        _Pragma("omp simd") for (int64_t e = from; e < from + STRIP; ++e) {{ __VA_ARGS__ }} \\
    }}
"""

_FLOAT = """\
#define R(x) x##f
#define FMA __builtin_fmaf
#define SQRT sqrtf
#define ABS fabsf
#define FLOOR floorf
#define CEIL ceilf
#define RINT rintf
#define TRUNC truncf
#define COPYSIGN copysignf
#define EXP fast_exp
#define EXPM1 expm1f
#define LOG logf
#define LOG1P log1pf
#define SIN sinf
#define COS cosf
#define TAN tanf
#define ATAN atanf
#define ATAN2 atan2f
#define SINH sinhf
#define COSH coshf
#define TANH tanhf
#define ERF erff
#define POW powf
#ifdef __FMA__
#define MAD __builtin_fmaf
#else
#define MAD(a, b, c) ((a) * (b) + (c))
#endif

// exp(x) = 2^k exp(r), |r| <= ln(2)/2, within 1 unit in the last place. Without branches, so that loops become vectors:
// x is cut to size as an integer (GCC makes many instructions of comparisons of floats that must let NaN through), and
// x / ln(2) + ROUND has k + 127 in its last bits.
typedef union { float f; int32_t i; } bits;
#define ROUND 12583039.0f  // 1.5 * 2^23 + 127
static inline float cut(float x, bits most) {
    const bits value = { .f = x };
    const int32_t sign = value.i & INT32_MIN, size = value.i & INT32_MAX;
    return (bits){ .i = (size < most.i ? size : most.i) | sign }.f;
}
static inline float exp_small(float r) {
    const float square = r * r;
    const float low = MAD(r, 0.16666509f, 0.49999994f), high = MAD(r, 0.0083701350f, 0.041668527f);
    return MAD(MAD(MAD(0.0013811663f, square, high), square, low), square, r + 1.0f);
}
static inline float fast_exp(float from) {
    const float x = cut(from, (bits){ .f = 104.0f });
    const bits sum = { .f = MAD(x, 1.44269504f, ROUND) };
    const float k = sum.f - ROUND;
    const float y = exp_small(MAD(k, -1.42860677e-6f, MAD(k, -0.693145752f, x)));
    const int32_t whole = sum.i - (bits){ .f = ROUND }.i, half = whole >> 1;  // in two steps, for the smallest results
    const bits low = { .i = (half + 127) << 23 }, high = { .i = (whole - half + 127) << 23 };
    return from == from ? y * low.f * high.f : from;
}
static inline float SIGMOID(float from) {
    const float x = cut(from, (bits){ .f = 89.0f });
    const bits sum = { .f = MAD(x, -1.44269504f, ROUND) };
    const float k = sum.f - ROUND;
    const float y = exp_small(MAD(k, -0.693147182f, -x));  // ln(2) in one piece: within 4e-7 where the result is 1e-38
    const int32_t least = (bits){ .f = ROUND }.i - 127;
    const bits two = { .i = (sum.i > least ? sum.i : least) << 23 };  // 2^k; 0 for -127, infinity for 128
    return from == from ? 1.0f / MAD(y, two.f, 1.0f) : from;
}
"""

_DOUBLE = """\
#define R(x) x
#define FMA __builtin_fma
#define SQRT sqrt
#define ABS fabs
#define FLOOR floor
#define CEIL ceil
#define RINT rint
#define TRUNC trunc
#define COPYSIGN copysign
#define EXP exp
#define EXPM1 expm1
#define LOG log
#define LOG1P log1p
#define SIN sin
#define COS cos
#define TAN tan
#define ATAN atan
#define ATAN2 atan2
#define SINH sinh
#define COSH cosh
#define TANH tanh
#define ERF erf
#define POW pow
#define SIGMOID(x) (1.0 / (1.0 + exp(-(x))))
"""

_IO = {
    "float": "typedef float io;\n#define LOAD(x) (x)\n#define STORE(x) (x)",
    "double": "typedef double io;\n#define LOAD(x) (x)\n#define STORE(x) (x)",
    "half": "typedef _Float16 io;\n#define LOAD(x) ((float)(x))\n#define STORE(x) ((_Float16)(x))",
    "bf16": """\
typedef uint16_t io;
static inline float LOAD(uint16_t x) {
    union { uint32_t i; float f; } u = { .i = (uint32_t)x << 16 };
    return u.f;
}
static inline uint16_t STORE(float x) {  // round to nearest, half to even
    union { float f; uint32_t i; } u = { .f = x };
    const uint32_t rounded = (u.i + 0x7fffu + ((u.i >> 16) & 1u)) >> 16;
    return (uint16_t)(x != x ? 0x7fc0u : rounded);
}""",
}

SET = """\
// Not memset, which takes longer to begin than to fill so few bytes: compilers must not see that the value is 0.
#if defined(__GNUC__) && !defined(__clang__)
__attribute__((noinline, noclone))
#endif
static void set(real* p, real value, int64_t n) {
    for (int64_t e = 0; e < n; ++e) p[e] = value;
}
"""

ADVISE = """\
#ifdef __linux__
#include <sys/mman.h>
#endif
// Ask for large pages for a large result: fresh memory costs more to map in small ones than to write.
static void large_pages(void* p, int64_t bytes) {
#ifdef MADV_HUGEPAGE
    const uintptr_t page = (uintptr_t)1 << 21, begin = ((uintptr_t)p + page - 1) & ~(page - 1);
    const uintptr_t end = ((uintptr_t)p + (uintptr_t)bytes) & ~(page - 1);
    if (p && bytes >= 4 << 21 && end > begin) madvise((void*)begin, end - begin, MADV_HUGEPAGE);
#else
    (void)p, (void)bytes;
#endif
}
"""

FILL = """\
// Parameter p, which repeats every period * inner elements, for elements first ... first + n.
static void fill(real* out, const real* p, int64_t first, int64_t n, int64_t period, int64_t inner) {
    int64_t c = first / inner % period, offset = first % inner;
    for (int64_t e = 0; e < n;) {
        const int64_t left = inner == 1 ? period - c : inner - offset, run = n - e < left ? n - e : left;
        if (inner == 1) {
            memcpy(out + e, p + c, run * sizeof(real));
            c = 0;
        } else {
            for (int64_t i = e; i < e + run; ++i) out[i] = p[c];
            offset = 0;
            c = c + 1 == period ? 0 : c + 1;
        }
        e += run;
    }
}
"""

SCATTER = """\
static double total(const real* g, int64_t n) {  // in a fixed order, eight sums at a time
    double lane[8] = {0};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int64_t j = 0; j < 8; ++j) lane[j] += g[i + j];
    for (; i < n; ++i) lane[0] += g[i];
    return ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7]));
}

// Add gradients g of elements first ... first + n to the sums of the parameter's elements.
static void scatter(double* sums, const real* g, int64_t first, int64_t n, int64_t period, int64_t inner) {
    int64_t c = first / inner % period, offset = first % inner;
    for (int64_t e = 0; e < n;) {
        const int64_t left = inner == 1 ? period - c : inner - offset, run = n - e < left ? n - e : left;
        if (inner == 1) {
            for (int64_t i = 0; i < run; ++i) sums[c + i] += g[e + i];
            c = 0;
        } else {
            sums[c] += total(g + e, run);
            offset = 0;
            c = c + 1 == period ? 0 : c + 1;
        }
        e += run;
    }
}
"""

_MATH = {"float": _FLOAT, "double": _DOUBLE}


def preamble(real: str, io: str, block: int, strip: int) -> str:
    """What every file begins with.

    Args:
        real: C type of the arithmetic, ``"float"`` or ``"double"``.
        io: type of the input and the spikes: ``"float"``, ``"double"``, ``"half"`` or ``"bf16"``.
        block: most elements in a block.
        strip: elements worked on between two requests for memory.
    """
    return _PREAMBLE.format(block=block, strip=strip, real=real, math=_MATH[real], io=_IO[io])
