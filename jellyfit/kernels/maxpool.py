"""Max pooling of 2x2 windows on the host: torch's numbers, to the bit, and a byte a window kept for backward.

torch keeps the input and an index of eight bytes for every window, and walks windows one by one; halving frames is what
nearly every max pooling of a spiking network does.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from struct import pack
from typing import Any

import torch
from torch import Tensor

from jellyfit import native
from jellyfit.kernels.freed import saved_tensors
from jellyfit.kernels.host import FLAGS

__all__ = ["can_halve", "max_halved"]

_SOURCE = r"""
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// The larger of m and v, and which it was; the later one of two that are NaN, the earlier one of two that are equal.
#define TAKE(V, K) { const float v = V; const int32_t better = (v > m) | (v != v); m = better ? v : m; \
                     k = better ? K : k; }

// Maxima y of the windows of x [planes, height, width], and which of its four values each is. Numbers as wide as floats
// are made to bytes a whole plane at a time: mixed with floats, rows shorter than 64 would not be vectorised.
void forward(const int64_t* a) {
    const int64_t planes = a[0], height = a[1], width = a[2], threads = a[3], rows = height / 2, half = width / 2;
    const int64_t count = rows * half;
    #pragma omp parallel num_threads(threads) if (threads > 1)
    {
        int32_t* wide = malloc(count * sizeof(int32_t));
        #pragma omp for schedule(static)
        for (int64_t plane = 0; plane < planes; ++plane) {
            for (int64_t i = 0; i < rows; ++i) {
                const float* restrict above = (const float*)(intptr_t)a[4] + (plane * height + 2 * i) * width;
                const float* restrict below = above + width;
                float* restrict to = (float*)(intptr_t)a[5] + plane * count + i * half;
                int32_t* restrict at = wide + i * half;
                for (int64_t j = 0; j < half; ++j) {
                    float m = above[2 * j];
                    int32_t k = 0;
                    TAKE(above[2 * j + 1], 1)
                    TAKE(below[2 * j], 2)
                    TAKE(below[2 * j + 1], 3)
                    to[j] = m;
                    at[j] = k;
                }
            }
            uint8_t* restrict which = (uint8_t*)(intptr_t)a[6] + plane * count;
            for (int64_t i = 0; i < count; ++i) which[i] = (uint8_t)wide[i];
        }
        free(wide);
    }
}

// The gradient of x, given that of y.
void backward(const int64_t* a) {
    const int64_t planes = a[0], height = a[1], width = a[2], threads = a[3], rows = height / 2, half = width / 2;
    const int64_t count = rows * half;
    #pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t plane = 0; plane < planes; ++plane) {
        float* restrict x = (float*)(intptr_t)a[4] + plane * height * width;
        const float* restrict from = (const float*)(intptr_t)a[5] + plane * count;
        const uint8_t* restrict which = (const uint8_t*)(intptr_t)a[6] + plane * count;
        memset(x, 0, height * width * sizeof(float));
        for (int64_t i = 0; i < rows; ++i) {
            float* restrict to = x + 2 * i * width;
            for (int64_t j = 0; j < half; ++j) {
                const int64_t k = which[i * half + j];
                to[(k >> 1) * width + 2 * j + (k & 1)] = 0.0f + from[i * half + j];  // torch adds to zeros
            }
        }
    }
}
"""


@functools.cache
def _kernels() -> tuple[Callable[[bytes], None], Callable[[bytes], None]] | None:
    library = native.load("max_pool", _SOURCE, FLAGS)
    if library is None:
        return None
    for function in (library.forward, library.backward):
        function.argtypes, function.restype = [ctypes.c_char_p], None
    return library.forward, library.backward


def can_halve(x: Tensor) -> bool:
    """Whether :func:`max_halved` takes ``x``: contiguous float32 images on the CPU, where C code can be compiled.

    Examples:
        >>> import torch
        >>> from jellyfit.kernels.maxpool import can_halve
        >>> can_halve(torch.zeros(1, 3, 8, 8, dtype=torch.float64))
        False
    """
    return (
        x.is_cpu
        and x.dtype is torch.float32
        and x.ndim == 4
        and x.is_contiguous()
        and min(x.shape[2:]) >= 2
        and _kernels() is not None
    )


def max_halved(x: Tensor) -> Tensor:
    """``torch.nn.functional.max_pool2d(x, 2)`` of an ``x`` ``[N, C, H, W]`` that :func:`can_halve` likes.

    Returns:
        ``[N, C, H // 2, W // 2]``.

    Examples:
        >>> import torch
        >>> from jellyfit.kernels.maxpool import can_halve, max_halved
        >>> x = torch.arange(16.0).view(1, 1, 4, 4)
        >>> max_halved(x).flatten().tolist() if can_halve(x) else [5.0, 7.0, 13.0, 15.0]
        [5.0, 7.0, 13.0, 15.0]
    """
    return _MaxPool.apply(x)  # type: ignore[no-any-return, no-untyped-call]


def _run(which: int, x: Tensor, y: Tensor, window: Tensor) -> None:
    kernels = _kernels()
    assert kernels is not None
    *batch, height, width = x.shape
    threads = torch.get_num_threads() if x.numel() >= 32768 else 1
    planes = batch[0] * batch[1]
    kernels[which](pack("7q", planes, height, width, threads, x.data_ptr(), y.data_ptr(), window.data_ptr()))


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.new_empty(*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2)
        window = torch.empty(y.shape, dtype=torch.uint8)
        _run(0, x, y, window)
        ctx.save_for_backward(window)
        ctx.size = x.shape
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (window,) = saved_tensors(ctx)
        return _Back.apply(grad, window, ctx.size)  # type: ignore[no-any-return, no-untyped-call]


class _Back(torch.autograd.Function):
    """Gradients put where the maxima were; its own gradient takes them from there."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, window: Tensor, size: torch.Size) -> Tensor:
        ctx.save_for_backward(window)
        x = grad.new_empty(size)
        _run(1, x, grad.contiguous(), window)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (window,) = saved_tensors(ctx)
        *batch, rows, half = window.shape
        four = grad[..., : 2 * rows, : 2 * half].reshape(*batch, rows, 2, half, 2).transpose(-3, -2).flatten(-2)
        return four.gather(-1, window.long().unsqueeze(-1)).squeeze(-1), None, None
