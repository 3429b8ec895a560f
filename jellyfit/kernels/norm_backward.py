"""A batch norm's backward pass in C, one channel at a time: for the norm alone, and behind a neuron's kernel.

One order of summation serves both, so that a norm and a neuron have the same gradients whether or not they run as one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["ARGUMENTS", "NO_NORM", "SOURCE", "NormBackward"]

SOURCE = r"""
// A batch norm in training, of x [batch, channels, inner]: statistics and weight of each channel, and where the
// gradients of x, weight and bias go (none: not wanted).
typedef struct {
    int64_t batch, channels, inner;
    const float *x, *mean, *invstd, *weight;
    float *dx, *dw, *db;
} Norm;

enum { SUMS = 32, PART = 4096 };  // sums kept apart, over a part of an image: short sums round less

// Add up g, and g (x - mean), over a part of one image of a channel; that of the next image is asked for meanwhile.
static void norm_sums(const float* g, const float* x, int64_t n, float mean, int64_t next, double* sum,
                      double* product) {
    float one[SUMS] = {0}, other[SUMS] = {0};
    int64_t i = 0;
    for (; i + SUMS <= n; i += SUMS) {
        for (int64_t j = 0; j < SUMS; j += 16) {
            __builtin_prefetch(g + next + i + j);
            __builtin_prefetch(x + next + i + j);
        }
        #pragma omp simd
        for (int64_t j = 0; j < SUMS; ++j) {
            one[j] += g[i + j];
            other[j] += g[i + j] * (x[i + j] - mean);
        }
    }
    for (; i < n; ++i) {
        one[i % SUMS] += g[i];
        other[i % SUMS] += g[i] * (x[i] - mean);
    }
    double a = 0.0, b = 0.0;
    for (int64_t j = 0; j < SUMS; ++j) a += one[j], b += other[j];
    *sum += a, *product += b;
}

// Channel c, from the gradient g of what is normalised; dx may be g itself.
static void norm_backward(const Norm* norm, const float* g, int64_t c) {
    const int64_t inner = norm->inner, step = norm->channels * inner;
    const float *from_g = g + c * inner, *from_x = norm->x + c * inner;
    const float mean = norm->mean[c], invstd = norm->invstd[c];
    double sum = 0.0, product = 0.0;
    for (int64_t n = 0; n < norm->batch; ++n)
        for (int64_t i = 0; i < inner; i += PART)
            norm_sums(from_g + n * step + i, from_x + n * step + i, inner - i < PART ? inner - i : PART, mean,
                      n + 1 < norm->batch ? step : 0, &sum, &product);
    if (norm->db) norm->db[c] = (float)sum;
    if (norm->dw) norm->dw[c] = (float)(product * (double)invstd);
    if (!norm->dx) return;
    const double count = (double)(norm->batch * inner);
    const float offset = (float)(sum / count), slope = (float)(product * (double)invstd * (double)invstd / count);
    const float scale = invstd * norm->weight[c];
    for (int64_t n = 0; n < norm->batch; ++n, from_g += step, from_x += step) {
        float* to = norm->dx + n * step + c * inner;
        #pragma omp simd
        for (int64_t i = 0; i < inner; ++i) to[i] = (from_g[i] - offset - (from_x[i] - mean) * slope) * scale;
    }
}
"""


class NormBackward(NamedTuple):
    """A batch norm's backward pass in training, for a kernel whose source holds :data:`SOURCE`.

    Attributes:
        x: ``[N, C, *]``, contiguous.
        mean, invstd, weight: per channel.
        grad_x, grad_weight, grad_bias: where the gradients go, or ``None``.
    """

    x: Tensor
    mean: Tensor
    invstd: Tensor
    weight: Tensor
    grad_x: Tensor | None
    grad_weight: Tensor | None
    grad_bias: Tensor | None

    @classmethod
    def of(cls, x: Tensor, weight: Tensor, mean: Tensor, invstd: Tensor, needed: Sequence[bool]) -> NormBackward:
        """With room for the gradients of input, weight and bias that are ``needed``."""
        room = [
            torch.empty_like(like) if need else None for like, need in zip((x, weight, weight), needed, strict=True)
        ]
        return cls(x, mean, invstd, weight, room[0], room[1], room[2])

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Images, channels, and values of an image's channel."""
        return self.x.shape[0], self.x.shape[1], math.prod(self.x.shape[2:])

    def arguments(self) -> tuple[int, ...]:
        """The fields of the C structure."""
        return *self.sizes, *(0 if tensor is None else tensor.data_ptr() for tensor in self)


ARGUMENTS = (
    *(f"int64_t norm_{name}" for name in ("batch", "channels", "inner")),
    *(f"const float* norm_{name}" for name in ("x", "mean", "invstd", "weight")),
    *(f"float* norm_{name}" for name in ("dx", "dw", "db")),
)
"""The fields of the C structure, as arguments of a kernel."""

NO_NORM = (0,) * len(ARGUMENTS)
"""What a kernel takes for them where no norm follows."""
