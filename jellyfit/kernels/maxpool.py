"""Max pooling of images on the host: torch's numbers, to the bit, and a byte a window kept for backward.

torch keeps the input and an index of eight bytes for every window, and walks windows one by one. Here C code is
compiled for each geometry of windows, and takes many of them at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from struct import pack
from typing import Any, NamedTuple

import torch
from torch import Tensor

from jellyfit import kernels, native
from jellyfit.kernels.freed import saved_tensors
from jellyfit.kernels.host import FLAGS, function_of, threads_for

__all__ = ["Windows", "can_pool", "max_pool"]

# Of windows of HEIGHT x WIDTH values, DOWN and ACROSS apart, behind a padding of TOP and LEFT.
_SOURCE = r"""
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    MORE_ROWS = (HEIGHT - 1) / DOWN,
    MORE_COLUMNS = (WIDTH - 1) / ACROSS,
    APART = TOP == 0 && LEFT == 0 && DOWN >= HEIGHT && ACROSS >= WIDTH,  // no value is needed twice
};

// A plane whose values are sorted by their row and column within a stride: DOWN x ACROSS parts of so many values, all
// with rows of one pitch. The k-th values of all windows stand side by side in it, in the order of the windows. Padding
// is -inf.
typedef struct { float* parts; int64_t size, pitch, rows; } Sorted;

static void sort(const float* restrict x, int64_t height, int64_t width, const Sorted* to) {
    const int64_t last = to->pitch * ACROSS - LEFT < width ? to->pitch * ACROSS - LEFT : width;
    const int64_t begin = (ACROSS - LEFT % ACROSS) % ACROSS, groups = last > begin ? (last - begin) / ACROSS : 0;
    for (int64_t i = 0; i < height && i + TOP < to->rows * DOWN; ++i) {
        const float* restrict row = x + i * width;
        float* restrict into = to->parts + (i + TOP) % DOWN * ACROSS * to->size + (i + TOP) / DOWN * to->pitch;
        const int64_t size = to->size, shift = (begin + LEFT) / ACROSS;
        for (int64_t j = 0; j < begin && j < last; ++j) into[(j + LEFT) % ACROSS * size + (j + LEFT) / ACROSS] = row[j];
        for (int64_t j = 0; j < groups; ++j) {
            #pragma GCC unroll 16
            for (int64_t k = 0; k < ACROSS; ++k) into[k * size + shift + j] = row[begin + j * ACROSS + k];
        }
        for (int64_t j = begin + groups * ACROSS; j < last; ++j) {
            into[(j + LEFT) % ACROSS * size + (j + LEFT) / ACROSS] = row[j];
        }
    }
}

// Maxima of n windows, and which of its values each is: the first of equal ones, the last NaN, else the first of all.
static void take(const float* restrict x, int64_t size, int64_t pitch, const int32_t* restrict first,
                 float* restrict maxima, int32_t* restrict choice, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        float m = -INFINITY;
        int32_t which = first[i];
        #pragma GCC unroll 16
        for (int64_t row = 0; row < HEIGHT; ++row) {
            #pragma GCC unroll 16
            for (int64_t k = 0; k < WIDTH; ++k) {
                const float v = APART ? x[row * pitch + k + i * ACROSS]
                    : x[(row % DOWN * ACROSS + k % ACROSS) * size + row / DOWN * pitch + k / ACROSS + i];
                const int32_t better = (v > m) | (v != v);
                m = better ? v : m;
                which = better ? (int32_t)(row * WIDTH + k) : which;
            }
        }
        maxima[i] = m;
        choice[i] = which;
    }
}

// Maxima y of the windows of x [planes, height, width], and the choice of each. Numbers as wide as floats are made to
// bytes a whole plane at a time: mixed with floats, rows shorter than 64 would not be vectorised.
void forward(const int64_t* a) {
    const int64_t planes = a[0], height = a[1], width = a[2], rows = a[3], columns = a[4], threads = a[5];
    const int64_t pitch = columns + (APART ? 0 : MORE_COLUMNS), count = rows * pitch;
    const int64_t size = (rows + MORE_ROWS) * pitch + MORE_COLUMNS, all = APART ? 0 : DOWN * ACROSS * size;
    #pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float* maxima = malloc((count + all) * sizeof(float));
        const Sorted sorted = {maxima + count, size, pitch, rows + MORE_ROWS};
        for (int64_t i = 0; i < all; ++i) sorted.parts[i] = -INFINITY;
        int32_t* choice = malloc(2 * count * sizeof(int32_t));
        int32_t* first = choice + count;
        for (int64_t i = 0; i < rows; ++i) {
            for (int64_t j = 0; j < pitch; ++j) {
                const int64_t above = TOP - i * DOWN, before = LEFT - j * ACROSS;
                first[i * pitch + j] = (int32_t)((above > 0 ? above * WIDTH : 0) + (before > 0 ? before : 0));
            }
        }
        uint8_t* bytes = malloc(count);
        #pragma omp for schedule(static)
        for (int64_t plane = 0; plane < planes; ++plane) {
            const float* x = (const float*)(intptr_t)a[6] + plane * height * width;
            float* y = (float*)(intptr_t)a[7] + plane * rows * columns;
            uint8_t* z = (uint8_t*)(intptr_t)a[8] + plane * rows * columns;
            if (APART) {
                for (int64_t i = 0; i < rows; ++i) {
                    const int64_t at = i * columns;
                    take(x + i * DOWN * width, 0, width, first + at, y + at, choice + at, columns);
                }
            } else {
                sort(x, height, width, &sorted);
                take(sorted.parts, size, pitch, first, maxima, choice, count);
                for (int64_t i = 0; i < rows; ++i) memcpy(y + i * columns, maxima + i * pitch, columns * sizeof(float));
            }
            for (int64_t i = 0; i < count; ++i) bytes[i] = (uint8_t)choice[i];
            for (int64_t i = 0; i < rows; ++i) memcpy(z + i * columns, bytes + i * pitch, columns);
        }
        free(bytes);
        free(choice);
        free(maxima);
    }
}

// The gradient of x, given that of y; where windows overlap it is a sum, in torch's order.
void backward(const int64_t* a) {
    const int64_t planes = a[0], height = a[1], width = a[2], rows = a[3], columns = a[4], threads = a[5];
    const int64_t count = rows * columns;
    int64_t place[HEIGHT * WIDTH];
    for (int64_t k = 0; k < HEIGHT * WIDTH; ++k) place[k] = (k / WIDTH - TOP) * width + k % WIDTH - LEFT;
    #pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t plane = 0; plane < planes; ++plane) {
        float* restrict x = (float*)(intptr_t)a[6] + plane * height * width;
        const float* restrict from = (const float*)(intptr_t)a[7] + plane * count;
        const uint8_t* restrict choice = (const uint8_t*)(intptr_t)a[8] + plane * count;
        memset(x, 0, height * width * sizeof(float));
        for (int64_t i = 0; i < rows; ++i) {
            float* restrict to = x + i * DOWN * width;
            for (int64_t j = 0; j < columns; ++j) {
                to[j * ACROSS + place[choice[i * columns + j]]] += from[i * columns + j];
            }
        }
    }
}
"""
_LARGEST = 15  # on a side: a byte tells one of 225 values


class Windows(NamedTuple):
    """Where windows lie: their size, how far they are apart, and how much padding there is on every side.

    Examples:
        >>> from jellyfit.kernels.maxpool import Windows
        >>> Windows(3, 3, 2, 2, 1, 1).of(32, 32)
        (16, 16)
    """

    height: int
    width: int
    down: int
    across: int
    top: int
    left: int

    def of(self, height: int, width: int) -> tuple[int, int]:
        """How many there are in an image, down and across."""
        return (
            (height + 2 * self.top - self.height) // self.down + 1,
            (width + 2 * self.left - self.width) // self.across + 1,
        )


@functools.cache
def _kernels(windows: Windows) -> tuple[Callable[[bytes], None], Callable[[bytes], None]] | None:
    sizes = [f"-D{name.upper()}={value}" for name, value in windows._asdict().items()]
    library = native.load("max_pool", _SOURCE, (*FLAGS, *sizes))
    if library is None:
        return None
    return function_of(library, "forward"), function_of(library, "backward")


def can_pool(x: Tensor, windows: Windows) -> bool:
    """Whether :func:`max_pool` takes ``x``: contiguous float32 images on the CPU, where C code can be compiled.

    Windows have at most 15 x 15 values, and padding is no more than half of them.

    Examples:
        >>> import torch
        >>> from jellyfit.kernels.maxpool import Windows, can_pool
        >>> can_pool(torch.zeros(1, 3, 8, 8, dtype=torch.float64), Windows(2, 2, 2, 2, 0, 0))
        False
    """
    return (
        kernels.on_host(x)
        and x.ndim == 4
        and x.is_contiguous()
        and min(windows[:4]) >= 1
        and max(windows[:2]) <= _LARGEST
        and 0 <= 2 * windows.top <= windows.height
        and 0 <= 2 * windows.left <= windows.width
        and min(windows.of(*x.shape[2:])) >= 1
        and _kernels(windows) is not None
    )


def max_pool(x: Tensor, windows: Windows) -> Tensor:
    """``torch.nn.functional.max_pool2d`` of an ``x`` ``[N, C, H, W]`` and ``windows`` that :func:`can_pool` likes.

    Returns:
        ``[N, C, *windows.of(H, W)]``.

    Examples:
        >>> import torch
        >>> from jellyfit.kernels.maxpool import Windows, can_pool, max_pool
        >>> x, halves = torch.arange(16.0).view(1, 1, 4, 4), Windows(2, 2, 2, 2, 0, 0)
        >>> max_pool(x, halves).flatten().tolist() if can_pool(x, halves) else [5.0, 7.0, 13.0, 15.0]
        [5.0, 7.0, 13.0, 15.0]
    """
    return _MaxPool.apply(x, windows)  # type: ignore[no-any-return, no-untyped-call]


def _run(which: int, windows: Windows, x: Tensor, y: Tensor, choice: Tensor) -> None:
    passes = _kernels(windows)
    assert passes is not None
    batch, channels, *image = x.shape
    sizes = batch * channels, *image, *y.shape[2:], threads_for(x.numel())
    passes[which](pack("9q", *sizes, x.data_ptr(), y.data_ptr(), choice.data_ptr()))


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, windows: Windows) -> Tensor:
        y = x.new_empty(*x.shape[:2], *windows.of(*x.shape[2:]))
        choice = torch.empty(y.shape, dtype=torch.uint8, device=x.device)
        _run(0, windows, x, y, choice)
        ctx.save_for_backward(choice)
        ctx.size, ctx.windows = x.shape, windows
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (choice,) = saved_tensors(ctx)
        if kernels.applicable(grad):
            return _Back.apply(grad, choice, ctx.size, ctx.windows), None  # type: ignore[no-untyped-call]
        planes = grad.new_zeros(*ctx.size[:2], ctx.size[2] * ctx.size[3])
        place = _places(choice, ctx.windows, ctx.size[3])
        return planes.scatter_add(2, place, grad.reshape(*ctx.size[:2], -1)).view(ctx.size), None


def _places(choice: Tensor, windows: Windows, width: int) -> Tensor:
    """Where in its plane the maximum of every window is: ``[N, C, windows]``."""
    rows, columns = (torch.arange(size, device=choice.device) for size in choice.shape[2:])
    down = rows.unsqueeze(1) * windows.down - windows.top + choice // windows.width
    across = columns * windows.across - windows.left + choice % windows.width
    return (down * width + across).flatten(2)


class _Back(torch.autograd.Function):
    """Gradients put where the maxima were; its own gradient takes them from there."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, choice: Tensor, size: torch.Size, windows: Windows) -> Tensor:
        ctx.save_for_backward(choice)
        ctx.windows = windows
        x = grad.new_empty(size)
        _run(1, windows, x, grad.contiguous(), choice)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (choice,) = saved_tensors(ctx)
        place = _places(choice, ctx.windows, grad.shape[-1])
        return grad.flatten(2).gather(2, place).view(choice.shape), None, None, None
