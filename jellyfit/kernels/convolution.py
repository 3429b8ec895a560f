"""The backward pass of convolutions on the host; of 3x3 ones with 2.25 times fewer multiplications than they have.

Forward is torch's own, to the bit. Backward is sums of products of matrices, one for every weight of a filter, which
take images and filters as they lie in memory: torch's copies them into another order first. Those of 3x3 convolutions
without a stride are fewer by Winograd's minimal filtering F(2x2, 3x3): output images are cut into tiles of 2x2 pixels,
each of which sees 4x4 pixels of the input. In one dimension, with input d, filter w, output y,

    y = A^T [(G w) * (B^T d)]        A^T = |1 1  1  0|   B^T = |1  0 -1  0|   G = |  1   0   0|
                                           |0 1 -1 -1|         |0  1  1  0|       |1/2  1/2 1/2|
                                                               |0 -1  1  0|       |1/2 -1/2 1/2|
                                                               |0  1  0 -1|       |  0   0   1|

with * element by element: four multiplications where the formula has six; 16 for 36 in two dimensions. The gradients
are the transposed maps, and share the spread gradient A dy A^T:

    dx = B [(G w G^T) * (A dy A^T)] B^T        dw = G^T [(A dy A^T) * (B^T x B)] G

summed over overlapping tiles, and over tiles. For each of the 16 places, the sum over channels (or over tiles) is such
a product.

Source: Winograd, "Arithmetic Complexity of Computations", SIAM 1980; Lavin and Gray, "Fast Algorithms for Convolutional
Neural Networks", CVPR 2016.
"""

from __future__ import annotations

import ctypes
import functools
import math
import threading
from collections.abc import Callable, Sequence
from struct import pack
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.utils import _pair

from jellyfit import kernels, native
from jellyfit.kernels.freed import saved_tensors
from jellyfit.kernels.host import FLAGS, function_of

__all__ = ["conv2d", "is_faster"]

_Sizes: TypeAlias = tuple[int, ...]

_SOURCE = r"""
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// LANES: floats in a register. ROWS: rows of a product that are summed at once, in two registers each; as many as fit.
#if defined(__AVX512F__)
enum { LANES = 16, ROWS = 8 };
#elif defined(__AVX__)
enum { LANES = 8, ROWS = 6 };
#else
enum { LANES = 4, ROWS = 6 };
#endif
enum { PANEL = 2 * LANES };  // channels that are worked on together
enum { NEXT = 4 };           // filters ahead whose memory is asked for
typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
#define GET(p) (*(const lanes*)(p))
#define SET(p) (*(lanes*)(p))
#define LEAST(a, b) ((a) < (b) ? (a) : (b))
#define MOST(a, b) ((a) > (b) ? (a) : (b))

int64_t panel(void) { return PANEL; }
int64_t rows(void) { return ROWS; }

// Have memory at hand that will soon be read (0) or written (1): filters of a panel lie far apart.
#define AHEAD(p, count, write) \
    for (int64_t l = 0; l < (count); l += 16) __builtin_prefetch((const char*)((p) + l), write)

// ------------------------------------------------------------------ products of matrices

// c [rows, PANEL] = (c +) a b, where row r of a has a[r * row + o * far + i * near] at step o * inner + i, and b is
// [outer * inner, PANEL]. Some rows are summed in registers, anew for every o: short sums round less.
static inline __attribute__((always_inline)) void some_rows(
    const int rows, float* c, const float* a, int64_t row, int64_t outer, int64_t far, int64_t inner, int64_t near,
    const float* b, int add) {
    for (int64_t o = 0; o < outer; ++o) {
        lanes sum[ROWS][2];
        for (int i = 0; i < rows; ++i) sum[i][0] = sum[i][1] = (lanes){0};
        const float* p = a + o * far;
        for (int64_t k = 0; k < inner; ++k, p += near, b += PANEL) {
            const lanes left = GET(b), right = GET(b + LANES);
            #pragma GCC unroll 8
            for (int i = 0; i < rows; ++i) {
                sum[i][0] += p[i * row] * left;
                sum[i][1] += p[i * row] * right;
            }
        }
        #pragma GCC unroll 8
        for (int i = 0; i < rows; ++i) {
            float* to = c + i * PANEL;
            if (add || o) sum[i][0] += GET(to), sum[i][1] += GET(to + LANES);
            SET(to) = sum[i][0], SET(to + LANES) = sum[i][1];
        }
    }
}
// The same for any even number of rows.
static void product(float* c, int64_t rows, const float* a, int64_t row, int64_t outer, int64_t far, int64_t inner,
                    int64_t near, const float* b, int add) {
    int64_t r = 0;
    #define ROWS_OF(n) \
        for (; r + n <= rows; r += n) some_rows(n, c + r * PANEL, a + r * row, row, outer, far, inner, near, b, add);
    ROWS_OF(ROWS) ROWS_OF(4) ROWS_OF(2)
}

// ------------------------------------------------------------------ images to [pixels, LANES] and back

#if defined(__GNUC__) && !defined(__clang__)
typedef int32_t places __attribute__((vector_size(4 * LANES)));
// LANES x LANES values transposed in registers: blocks off the diagonal change places, ever smaller ones.
static inline void transpose(lanes* r) {
    #pragma GCC unroll 4
    for (int d = LANES / 2; d; d /= 2) {
        places low, high;
        for (int j = 0; j < LANES; ++j) low[j] = j & d ? LANES + j - d : j, high[j] = j & d ? LANES + j : j + d;
        #pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i) {
            if (i & d) continue;
            const lanes a = r[i], b = r[i + d];
            r[i] = __builtin_shuffle(a, b, low);
            r[i + d] = __builtin_shuffle(a, b, high);
        }
    }
}
#else
static inline void transpose(lanes* r) {
    for (int i = 0; i < LANES; ++i)
        for (int j = 0; j < i; ++j) { const float a = r[i][j]; r[i][j] = r[j][i]; r[j][i] = a; }
}
#endif

// An image and where some of its channels begin: values of a pixel lie `channel` apart, those of a channel `pixel`.
typedef struct { int64_t pixels, channel, pixel; } Layout;

// to [pixels, LANES]; channels beyond `count` are zero.
static void gather(float* to, const float* from, Layout image, int64_t count) {
    int64_t p = 0;
    if (count >= LANES && image.channel == 1) {
        for (; p < image.pixels; ++p) SET(to + p * LANES) = GET(from + p * image.pixel);
    } else if (count >= LANES && image.pixel == 1) {
        for (; p + LANES <= image.pixels; p += LANES) {
            lanes r[LANES];
            for (int i = 0; i < LANES; ++i) r[i] = GET(from + i * image.channel + p);
            transpose(r);
            for (int i = 0; i < LANES; ++i) SET(to + (p + i) * LANES) = r[i];
        }
    }
    for (; p < image.pixels; ++p)
        for (int64_t i = 0; i < LANES; ++i)
            to[p * LANES + i] = i < count ? from[i * image.channel + p * image.pixel] : 0.0f;
}

static void scatter(float* to, const float* from, Layout image, int64_t count) {
    int64_t p = 0;
    if (count >= LANES && image.channel == 1) {
        for (; p < image.pixels; ++p) SET(to + p * image.pixel) = GET(from + p * LANES);
    } else if (count >= LANES && image.pixel == 1) {
        for (; p + LANES <= image.pixels; p += LANES) {
            lanes r[LANES];
            for (int i = 0; i < LANES; ++i) r[i] = GET(from + (p + i) * LANES);
            transpose(r);
            for (int i = 0; i < LANES; ++i) SET(to + i * image.channel + p) = r[i];
        }
    }
    for (; p < image.pixels; ++p)
        for (int64_t i = 0; i < LEAST(count, LANES); ++i) to[i * image.channel + p * image.pixel] = from[p * LANES + i];
}

// ------------------------------------------------------------------ a convolution, and its maps of LANES channels

// An input image [H, W] with its padding is a frame [high, wide]; an output image [down, across] is cut into tiles.
// "Fast" convolutions have tiles of 2x2 pixels and 16 places; others tiles of one pixel and a place for every weight of
// a filter, where the maps do no more than take what belongs to a place.
typedef struct {
    int64_t H, W, down, across, kernel[2], stride[2], padding[2], fast, tiles, places;
    int64_t high, wide;
} Shape;

// z = A y A^T of every tile; place k of tile t goes to z + k * far + t * PANEL (the same for all k if not fast).
static void spread(const Shape* s, float* z, int64_t far, const float* y) {
    if (!s->fast) {
        for (int64_t t = 0; t < s->tiles; ++t) SET(z + t * PANEL) = GET(y + t * LANES);
        return;
    }
    const int64_t W = s->across;
    for (int64_t i = 0; i < s->down; i += 2)
        for (int64_t j = 0; j < W; j += 2, z += PANEL) {
            const float* p = y + (i * W + j) * LANES;
            const int right = j + 1 < W, below = i + 1 < s->down;
            const lanes none = {0};
            const lanes y0[2] = {GET(p), right ? GET(p + LANES) : none};
            const lanes y1[2] = {below ? GET(p + W * LANES) : none, right && below ? GET(p + (W + 1) * LANES) : none};
            #define ROW(k, OF) { const lanes l = OF(y0[0], y1[0]), r = OF(y0[1], y1[1]); \
                SET(z + (4 * k) * far) = l; SET(z + (4 * k + 1) * far) = l + r; \
                SET(z + (4 * k + 2) * far) = l - r; SET(z + (4 * k + 3) * far) = -r; }
            #define FIRST(a, b) (a)
            #define SUM(a, b) ((a) + (b))
            #define DIFFERENCE(a, b) ((a) - (b))
            #define MINUS_LAST(a, b) (-(b))
            ROW(0, FIRST) ROW(1, SUM) ROW(2, DIFFERENCE) ROW(3, MINUS_LAST)
        }
}

// For every weight of a filter, tile and place: the pixel of the frame that the weight meets there.
#define FOR_EVERY_PIXEL(pixel, place, DO) \
    for (int64_t k = 0; k < s->places; ++k) { \
        float* place = z + k * far; \
        for (int64_t i = 0; i < s->down; ++i) { \
            const int64_t r = i * s->stride[0] + k / s->kernel[1], c = k % s->kernel[1]; \
            float* pixel = d + (r * s->wide + c) * LANES; \
            for (int64_t j = 0; j < s->across; ++j, place += PANEL, pixel += s->stride[1] * LANES) { DO; } \
        } \
    }

// z = B^T d B of every tile of a frame d.
static void windows(const Shape* s, float* z, int64_t far, float* d) {
    if (!s->fast) {
        FOR_EVERY_PIXEL(pixel, place, SET(place) = GET(pixel))
        return;
    }
    const int64_t wide = s->wide;
    for (int64_t i = 0; i < s->down; i += 2)
        for (int64_t j = 0; j < s->across; j += 2, z += PANEL) {
            const float* p = d + (i * wide + j) * LANES;
            lanes t[4][4];
            #pragma GCC unroll 4
            for (int k = 0; k < 4; ++k, p += LANES) {
                const lanes d0 = GET(p), d1 = GET(p + wide * LANES);
                const lanes d2 = GET(p + 2 * wide * LANES), d3 = GET(p + 3 * wide * LANES);
                t[0][k] = d0 - d2, t[1][k] = d1 + d2, t[2][k] = d2 - d1, t[3][k] = d1 - d3;
            }
            #pragma GCC unroll 4
            for (int k = 0; k < 4; ++k) {
                float* to = z + 4 * k * far;
                SET(to) = t[k][0] - t[k][2], SET(to + far) = t[k][1] + t[k][2];
                SET(to + 2 * far) = t[k][2] - t[k][1], SET(to + 3 * far) = t[k][1] - t[k][3];
            }
        }
}

// d += B z B^T of every tile.
static void overlap(const Shape* s, float* d, float* z, int64_t far) {
    if (!s->fast) {
        FOR_EVERY_PIXEL(pixel, place, SET(pixel) += GET(place))
        return;
    }
    const int64_t wide = s->wide;
    for (int64_t i = 0; i < s->down; i += 2)
        for (int64_t j = 0; j < s->across; j += 2, z += PANEL) {
            float* p = d + (i * wide + j) * LANES;
            lanes t[4][4];
            #pragma GCC unroll 4
            for (int k = 0; k < 4; ++k) {
                const float* from = z + k * far;
                const lanes z0 = GET(from), z1 = GET(from + 4 * far);
                const lanes z2 = GET(from + 8 * far), z3 = GET(from + 12 * far);
                t[0][k] = z0, t[1][k] = z1 - z2 + z3, t[2][k] = z1 + z2 - z0, t[3][k] = -z3;
            }
            #pragma GCC unroll 4
            for (int k = 0; k < 4; ++k, p += wide * LANES) {
                SET(p) += t[k][0], SET(p + LANES) += t[k][1] - t[k][2] + t[k][3];
                SET(p + 2 * LANES) += t[k][1] + t[k][2] - t[k][0], SET(p + 3 * LANES) -= t[k][3];
            }
        }
}

// z = G w G^T of a filter w [weights, LANES].
static void spread_filter(const Shape* s, float* z, int64_t far, const float* w) {
    if (!s->fast) {
        for (int64_t k = 0; k < s->places; ++k) SET(z + k * far) = GET(w + k * LANES);
        return;
    }
    lanes t[4][3];
    #pragma GCC unroll 3
    for (int k = 0; k < 3; ++k, w += LANES) {
        const lanes w0 = GET(w), w1 = GET(w + 3 * LANES), w2 = GET(w + 6 * LANES);
        const lanes ends = (w0 + w2) * 0.5f, middle = w1 * 0.5f;
        t[0][k] = w0, t[1][k] = ends + middle, t[2][k] = ends - middle, t[3][k] = w2;
    }
    #pragma GCC unroll 4
    for (int k = 0; k < 4; ++k, z += 4 * far) {
        const lanes ends = (t[k][0] + t[k][2]) * 0.5f, middle = t[k][1] * 0.5f;
        SET(z) = t[k][0], SET(z + far) = ends + middle, SET(z + 2 * far) = ends - middle, SET(z + 3 * far) = t[k][2];
    }
}

// w [weights, LANES] = G^T z G.
static void gather_filter(const Shape* s, float* w, const float* z, int64_t far) {
    if (!s->fast) {
        for (int64_t k = 0; k < s->places; ++k) SET(w + k * LANES) = GET(z + k * far);
        return;
    }
    lanes t[3][4];
    #pragma GCC unroll 4
    for (int k = 0; k < 4; ++k, z += far) {
        const lanes z0 = GET(z), z1 = GET(z + 4 * far), z2 = GET(z + 8 * far), z3 = GET(z + 12 * far);
        const lanes both = (z1 + z2) * 0.5f;
        t[0][k] = z0 + both, t[1][k] = (z1 - z2) * 0.5f, t[2][k] = both + z3;
    }
    #pragma GCC unroll 3
    for (int k = 0; k < 3; ++k, w += 3 * LANES) {
        const lanes both = (t[k][1] + t[k][2]) * 0.5f;
        SET(w) = t[k][0] + both, SET(w + LANES) = (t[k][1] - t[k][2]) * 0.5f, SET(w + 2 * LANES) = both + t[k][3];
    }
}

// ------------------------------------------------------------------ the backward pass

// Gradients dx and dw (or one of them) from dy [N, O, down, across], x [N, I, H, W] and w [O, I, *kernel], some images
// at a time. x, dy and dx are contiguous or all channels-last; so are w and dw.
void run(const int64_t* a) {
    const int64_t N = a[0], O = a[1], I = a[2], last = a[3], w_last = a[4], threads = a[5], images = a[6];
    const int64_t P = a[7];  // tiles that there is room for
    Shape of = {a[8], a[9], a[10], a[11], {a[12], a[13]}, {a[14], a[15]}, {a[16], a[17]}, a[18], a[19], a[20]};
    const Shape* s = &of;
    const float* dy = (const float*)(intptr_t)a[21];
    const float* x = (const float*)(intptr_t)a[22];
    const float* w = (const float*)(intptr_t)a[23];
    float* dx = (float*)(intptr_t)a[24];
    float* dw = (float*)(intptr_t)a[25];
    const int64_t weights = s->kernel[0] * s->kernel[1];
    of.high = s->fast ? (s->down + 1) / 2 * 2 + 2 : s->H + 2 * s->padding[0];
    of.wide = s->fast ? (s->across + 1) / 2 * 2 + 2 : s->W + 2 * s->padding[1];
    const int64_t in_pixels = s->H * s->W, out_pixels = s->down * s->across, frame_size = s->high * s->wide * LANES;
    const Layout of_y = {out_pixels, last ? 1 : out_pixels, last ? O : 1};
    const Layout of_x = {in_pixels, last ? 1 : in_pixels, last ? I : 1};
    const int64_t channel = w_last ? 1 : weights, weight = w_last ? I : 1;  // strides of a filter
    const int64_t outs = (O + PANEL - 1) / PANEL, ins = (I + PANEL - 1) / PANEL, height = outs * PANEL;
    const int64_t blocks = (N + images - 1) / images;
    // Filters are spread, and their gradients summed, one panel at a time; those of all panels if more blocks come.
    const int64_t keep = blocks > 1 ? s->places * height * PANEL : 0;
    const int64_t spreads = s->fast ? s->places : 1, far = s->fast ? outs * P * PANEL : 0;  // from one of Y to the next
    float* Y = (float*)(intptr_t)a[26];          // spread gradients [spreads, outs, P, PANEL]
    float* X = Y + spreads * outs * P * PANEL;   // products for dx, then windows [places, P, PANEL]
    float* U = X + s->places * P * PANEL;        // spread filters, [ins,] places, height, PANEL
    float* V = U + ins * keep;                   // products for dw, as many
    const int64_t pieces = (threads + s->places - 1) / s->places;
    #pragma omp parallel num_threads(threads) if (threads > 1)
    {
    float* image = malloc((MOST(in_pixels, out_pixels) * LANES + frame_size + weights * LANES) * sizeof(float));
    float* frame = image + MOST(in_pixels, out_pixels) * LANES;
    float* filter = frame + frame_size;
    float* inside = frame + (s->padding[0] * s->wide + s->padding[1]) * LANES;  // the frame's picture
    for (int64_t block = 0; block < blocks; ++block) {
        const int64_t begin = block * images, count = LEAST(images, N - begin), used = count * s->tiles;
        const int64_t whole = (used + ROWS - 1) / ROWS * ROWS;
        #pragma omp for schedule(static) collapse(2) nowait
        for (int64_t n = 0; n < count; ++n)
            for (int64_t half = 0; half < 2 * outs; ++half) {
                const int64_t o = half * LANES;
                gather(image, dy + (begin + n) * O * out_pixels + o * of_y.channel, of_y, O - o);
                spread(s, Y + ((half / 2) * P + n * s->tiles) * PANEL + (half % 2) * LANES, far, image);
            }
        #pragma omp for schedule(static)
        for (int64_t k = 0; k < spreads * outs; ++k)
            memset(Y + (k * P + used) * PANEL, 0, (whole - used) * PANEL * sizeof(float));
        for (int64_t panel = 0; dx && panel < ins; ++panel) {
            float* u = U + panel * keep;
            if (block == 0 || !keep) {
                #pragma omp for schedule(static)
                for (int64_t o = 0; o < height; ++o)
                    for (int64_t half = 0; half < 2; ++half) {
                        const int64_t i = panel * PANEL + half * LANES, some = o < O ? LEAST(I - i, LANES) : 0;
                        const float* from = w + o * I * weights + i * channel;
                        AHEAD(from + NEXT * I * weights, w_last ? 0 : LANES * weights, 0);
                        if (some < LANES) memset(filter, 0, weights * LANES * sizeof(float));
                        for (int64_t c = 0; c < some; ++c)
                            for (int64_t k = 0; k < weights; ++k)
                                filter[k * LANES + c] = from[c * channel + k * weight];
                        spread_filter(s, u + o * PANEL + half * LANES, height * PANEL, filter);
                    }
            }
            #pragma omp for schedule(static) collapse(2)
            for (int64_t k = 0; k < s->places; ++k)
                for (int64_t piece = 0; piece < pieces; ++piece) {
                    const int64_t from = piece * (whole / ROWS) / pieces * ROWS;
                    const int64_t to = (piece + 1) * (whole / ROWS) / pieces * ROWS;
                    product(X + (k * P + from) * PANEL, to - from, Y + k * far + from * PANEL, PANEL, outs, P * PANEL,
                            PANEL, 1, u + k * height * PANEL, 0);
                }
            #pragma omp for schedule(static) collapse(2)
            for (int64_t n = 0; n < count; ++n)
                for (int64_t half = 0; half < 2; ++half) {
                    const int64_t i = panel * PANEL + half * LANES;
                    if (i >= I) continue;
                    memset(frame, 0, frame_size * sizeof(float));
                    overlap(s, frame, X + n * s->tiles * PANEL + half * LANES, P * PANEL);
                    for (int64_t r = 0; r < s->H; ++r)
                        memcpy(image + r * s->W * LANES, inside + r * s->wide * LANES, s->W * LANES * sizeof(float));
                    scatter(dx + (begin + n) * I * in_pixels + i * of_x.channel, image, of_x, I - i);
                }
        }
        for (int64_t panel = 0; dw && panel < ins; ++panel) {
            float* v = V + panel * keep;
            #pragma omp for schedule(static) collapse(2)
            for (int64_t n = 0; n < count; ++n)
                for (int64_t half = 0; half < 2; ++half) {
                    const int64_t i = panel * PANEL + half * LANES;
                    gather(image, x + (begin + n) * I * in_pixels + i * of_x.channel, of_x, I - i);
                    memset(frame, 0, frame_size * sizeof(float));
                    for (int64_t r = 0; r < s->H; ++r)
                        memcpy(inside + r * s->wide * LANES, image + r * s->W * LANES, s->W * LANES * sizeof(float));
                    windows(s, X + n * s->tiles * PANEL + half * LANES, P * PANEL, frame);
                }
            #pragma omp for schedule(static) collapse(2)
            for (int64_t k = 0; k < s->places; ++k)
                for (int64_t out = 0; out < outs; ++out)
                    product(v + (k * outs + out) * PANEL * PANEL, PANEL, Y + k * far + out * P * PANEL, 1, 1, 0, used,
                            PANEL, X + k * P * PANEL, block > 0);
            if (block + 1 < blocks) continue;
            #pragma omp for schedule(static)
            for (int64_t o = 0; o < O; ++o)
                for (int64_t half = 0; half < 2; ++half) {
                    const int64_t i = panel * PANEL + half * LANES;
                    float* to = dw + o * I * weights + i * channel;
                    AHEAD(to + NEXT * I * weights, w_last ? 0 : LANES * weights, 1);
                    gather_filter(s, filter, v + o * PANEL + half * LANES, height * PANEL);
                    for (int64_t c = 0; c < LEAST(I - i, LANES); ++c)
                        for (int64_t k = 0; k < weights; ++k) to[c * channel + k * weight] = filter[k * LANES + c];
                }
        }
    }
    free(image);
    }
}
"""


class _Library(NamedTuple):
    """The compiled source.

    Attributes:
        run: the backward pass.
        panel: channels that are worked on together; other numbers of them are filled up with zeros.
        rows: tiles that are, likewise.
    """

    run: Callable[[bytes], None]
    panel: int
    rows: int


class _Plan(NamedTuple):
    """How the backward pass of a convolution works, from the sizes alone.

    Attributes:
        out: rows and columns of an output image.
        fast: whether with fewer multiplications.
        tiles: of one image.
        places: products of matrices.
        panels: of output and input channels.
        gain: times fewer multiplications than the formula has; below 1 where panels are filled up.
    """

    out: tuple[int, int]
    fast: bool
    tiles: int
    places: int
    panels: tuple[int, int]
    gain: float

    @classmethod
    def of(cls, library: _Library, x: _Sizes, weight: _Sizes, stride: _Sizes, padding: _Sizes) -> _Plan:
        """The plan for an input and weights of these shapes."""
        outs, ins, *kernel = weight
        sizes = zip(x[2:], padding, kernel, stride, strict=True)
        rows, columns = ((size + 2 * border - wide) // step + 1 for size, border, wide, step in sizes)
        fast = kernel == [3, 3] and tuple(stride) == (1, 1)
        tiles = -(-rows // 2) * -(-columns // 2) if fast else rows * columns
        places = 16 if fast else math.prod(kernel)
        panels = -(-outs // library.panel), -(-ins // library.panel)
        formula = math.prod(kernel) * rows * columns * outs * ins
        gain = formula / max(1, places * tiles * math.prod(panels) * library.panel**2)
        return cls((rows, columns), fast, tiles, places, panels, gain)


_TILES = 256  # of all images that are worked on together: what they need then stays in the caches
_MOST_TILES = 4096  # of one image, above which it does not
_FEWEST_TILES = 8  # below which spreading the filters takes longer than what it saves
_MOST_PLACES = 9  # above, torch's products are as fast
_WIDEST = 32  # panel, with AVX-512; torch's 1x1 convolutions are as fast without, and others with half of that
_KEPT = 32 << 20  # bytes of scratch memory that a thread keeps for its next convolution
_GAIN = 1.2  # times fewer multiplications that it takes to win, as the maps cost time too

_scratch = threading.local()


@functools.cache
def _library(*flags: str) -> _Library | None:
    library = native.load("convolution", _SOURCE, (*FLAGS, "-ffp-contract=fast", *flags))
    if library is None:
        return None
    library.panel.restype = library.rows.restype = ctypes.c_int64
    return _Library(function_of(library, "run"), library.panel(), library.rows())


@functools.lru_cache(4096)
def is_faster(x: _Sizes, weight: _Sizes, stride: _Sizes, padding: _Sizes, channels_last: bool = False) -> bool:
    """Whether the backward pass of :func:`conv2d` is faster here than torch's: an estimate from the shapes alone.

    Not for few channels or pixels, where it works on zeros, for images so large that their tiles leave the caches, for
    large filters, nor for 1x1 filters on channels-last images, where torch has nothing to copy.

    Examples:
        >>> from jellyfit.kernels.convolution import is_faster
        >>> is_faster((16, 2, 32, 32), (2, 2, 3, 3), (1, 1), (1, 1))
        False
    """
    library = _library()
    if library is None:
        return False
    plan = _Plan.of(library, x, weight, stride, padding)
    if x[0] * plan.tiles < _FEWEST_TILES or plan.tiles > _MOST_TILES:
        return False
    if plan.fast:
        return plan.gain >= _GAIN
    wide = library.panel >= (_WIDEST if plan.places == 1 else _WIDEST // 2)
    return plan.gain >= 1.0 and plan.places <= _MOST_PLACES and wide and not (plan.places == 1 and channels_last)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
) -> Tensor:
    """``torch.nn.functional.conv2d``, with a backward pass of our own where that :func:`is_faster`.

    Forward is torch's, to the bit. Gradients are as exact as torch's (the weight's more so); two runs, and any number
    of threads, give the same bits. They can be differentiated again. All but float32 images on the CPU is torch's.

    Args:
        x: ``[N, I, H, W]``.
        weight: ``[O, I, *kernel]``.
        bias: ``[O]``, default none.
        stride: of rows and columns, default 1.
        padding: zeros on either side of rows and columns, default none.

    Returns:
        ``[N, O, *]``.

    Source: Winograd 1980; Lavin and Gray 2016 (see the module).

    Examples:
        >>> import torch
        >>> from jellyfit.kernels.convolution import conv2d
        >>> conv2d(torch.zeros(2, 3, 8, 8), torch.zeros(4, 3, 3, 3), padding=1).shape
        torch.Size([2, 4, 8, 8])
    """
    if torch.is_grad_enabled() and kernels.on_host(x, weight) and x.ndim == weight.ndim == 4:
        steps, border = tuple(_pair(stride)), tuple(_pair(padding))
        usual = len(steps) == len(border) == 2 and min(steps) > 0 and x.shape[1] == weight.shape[1]
        if usual and is_faster(x.shape, weight.shape, steps, border, not x.is_contiguous()):
            return _Conv2d.apply(x, weight, bias, steps, border)  # type: ignore[no-any-return, no-untyped-call]
    return F.conv2d(x, weight, bias, stride, padding)


class _Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: _Sizes, padding: _Sizes) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        x, weight = saved_tensors(ctx)
        need_x, need_weight, need_bias = needed = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled() or not kernels.applicable(grad):  # for create_graph=True, and for batched gradients
            gradients = torch.ops.aten.convolution_backward(
                grad, x, weight, [len(weight)], ctx.stride, ctx.padding, [1, 1], False, [0, 0], 1, needed
            )
            return *gradients, None, None
        grad_x = grad_weight = None
        if need_x or need_weight:
            grad_x, grad_weight = _backward(grad, x, weight, ctx.stride, ctx.padding, need_x, need_weight)
        return grad_x, grad_weight, grad.sum((0, 2, 3)) if need_bias else None, None, None


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: _Sizes, padding: _Sizes, need_x: bool, need_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    library = _library()
    assert library is not None
    plan = _Plan.of(library, x.shape, weight.shape, stride, padding)
    x, last = _in_order(x)
    weight, weight_last = _in_order(weight)
    grad = grad.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    grad_x = torch.empty_like(x) if need_x else None
    grad_weight = torch.empty_like(weight) if need_weight else None
    count, channels, *size = x.shape
    images = max(1, min(count, _TILES // plan.tiles))
    whole = -(-images * plan.tiles // library.rows) * library.rows
    outs, ins = plan.panels
    spread = (plan.places if plan.fast else 1) * outs * whole
    filters = plan.places * outs * library.panel * (1 if images == count else 2 * ins)
    room = _room((spread + plan.places * whole + filters) * library.panel)
    tensors = grad, x, weight, grad_x, grad_weight, room
    numbers = count, len(weight), channels, last, weight_last, torch.get_num_threads(), images, whole
    shape = *size, *plan.out, *weight.shape[2:], *stride, *padding, plan.fast, plan.tiles, plan.places
    library.run(pack("27q", *numbers, *shape, *(0 if tensor is None else tensor.data_ptr() for tensor in tensors)))
    return grad_x, grad_weight


def _in_order(tensor: Tensor) -> tuple[Tensor, bool]:
    """``tensor``, contiguous or channels-last, and whether it is the latter."""
    if tensor.is_contiguous():
        return tensor, False
    if tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor, True
    return tensor.contiguous(), False


def _room(size: int) -> Tensor:
    """Scratch memory for ``size`` floats, for one call of this thread at a time; kept unless it is large."""
    room: Tensor | None = getattr(_scratch, "room", None)
    if room is None or room.numel() < size:
        _scratch.room = None  # not two at once
        room = torch.empty(size, dtype=torch.float32, device="cpu")
        if size * room.element_size() <= _KEPT:
            _scratch.room = room
    return room
