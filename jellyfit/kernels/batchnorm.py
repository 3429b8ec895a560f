"""Batch norm and neuron in one pass: what is normalised is never written to memory, nor kept for backward.

The numbers are those of ``torch.nn.functional.batch_norm`` followed by the neuron, to the bit: the same mean and
variance, the same ``scale * x + shift`` with one rounding; backward is the neuron's kernel, which computes the
normalised input again, and then the batch norm's: for small images torch's, otherwise one of our own, which goes over a
channel as soon as the neuron's has, while it is still in the cache. A residual, added between the two, is read by the
neuron's kernel as well.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from struct import pack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from jellyfit import kernels, native
from jellyfit.kernels.freed import saved_tensors
from jellyfit.kernels.fused import FusedStep, eager_gradients
from jellyfit.kernels.host import FLAGS, function_of, threads_for
from jellyfit.kernels.norm_backward import SOURCE, NormBackward

__all__ = ["Normalisation", "backward_is_ours", "batch_norm", "batch_norm_step", "batch_statistics"]

_SOURCE = (
    r"""
#include <stdint.h>
#include <math.h>
#include <string.h>

// Sums in a fixed order, sixteen at a time: of deviations from a centre, and of their squares (in float, as in torch).
#define SUM(NAME, TERM) \
    static double NAME(const float* x, int64_t n, float centre) { \
        double lane[16] = {0}; \
        int64_t i = 0; \
        for (; i + 16 <= n; i += 16) \
            for (int64_t j = 0; j < 16; ++j) { const float d = x[i + j] - centre; lane[j] += (double)(TERM); } \
        for (; i < n; ++i) { const float d = x[i] - centre; lane[0] += (double)(TERM); } \
        for (int64_t j = 0; j < 8; ++j) lane[j] += lane[j + 8]; \
        return ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7])); \
    }
SUM(total, d)
SUM(total_of_squares, d * d)

// Mean and inverse standard deviation of each channel of x [batch, channels, inner]; the running statistics, updated.
// The roundings are torch's.
void run(const int64_t* a) {
    const int64_t batch = a[0], channels = a[1], inner = a[2], threads = a[3], count = batch * inner;
    const float* x = (const float*)(intptr_t)a[4];
    float *mean = (float*)(intptr_t)a[5], *invstd = (float*)(intptr_t)a[6];
    float *running_mean = (float*)(intptr_t)a[7], *running_var = (float*)(intptr_t)a[8];
    double momentum, eps;
    memcpy(&momentum, a + 9, sizeof(double));
    memcpy(&eps, a + 10, sizeof(double));
    const float new = (float)momentum, old = 1.0f - new;
    #pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t c = 0; c < channels; ++c) {
        double sum = 0.0, square = 0.0;
        for (int64_t n = 0; n < batch; ++n) sum += total(x + (n * channels + c) * inner, inner, 0.0f);
        mean[c] = (float)(sum / (double)count);
        for (int64_t n = 0; n < batch; ++n) square += total_of_squares(x + (n * channels + c) * inner, inner, mean[c]);
        const float squares = (float)square;
        running_mean[c] = new * mean[c] + old * running_mean[c];
        running_var[c] = (float)((double)new * (double)(squares / (float)(count - 1)) + (double)(old * running_var[c]));
        invstd[c] = (float)(1.0 / sqrt((double)(squares / (float)count) + eps));
    }
}
"""
    + SOURCE
    + r"""
// Gradients of a batch norm in training from g [batch, channels, inner], the gradient of its output.
void backward(const int64_t* a) {
    const int64_t threads = a[0];
    const float* g = (const float*)(intptr_t)a[1];
    Norm norm;
    memcpy(&norm, a + 2, sizeof(norm));
    #pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t c = 0; c < norm.channels; ++c) norm_backward(&norm, g, c);
}
"""
)

_LEAST_INNER = 256  # values of a channel that lie together, below which torch's backward pass is as fast


@dataclass(frozen=True)
class Normalisation:
    """What a batch norm is made of.

    Attributes:
        weight, bias: per channel.
        running_mean, running_var: per channel; updated in training, used otherwise.
        training: whether the statistics are the batch's.
        momentum: of the running statistics.
        eps: added to the variance.

    Examples:
        >>> import torch
        >>> from jellyfit.kernels import Normalisation
        >>> norm = torch.nn.BatchNorm2d(3)
        >>> what = Normalisation(norm.weight, norm.bias, norm.running_mean, norm.running_var, True, 0.1, norm.eps)
        >>> what.training
        True
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    training: bool
    momentum: float
    eps: float


@functools.cache
def _function(name: str) -> Callable[[bytes], None] | None:
    """``"run"`` (the statistics) or ``"backward"``; ``None`` without a compiler."""
    library = native.load("batch_norm", _SOURCE, FLAGS)
    return None if library is None else function_of(library, name)


def batch_statistics(x: Tensor, norm: Normalisation) -> tuple[Tensor, Tensor]:
    """Mean and inverse standard deviation of every channel of ``x`` ``[N, C, *]``; updates the running statistics.

    They are those of ``torch.nn.functional.batch_norm``. Where channels lie apart in memory (contiguous images), torch
    takes several times as long as reading them does; a kernel of our own does it in two passes.
    """
    inner = x[0, 0].numel() if x.ndim > 2 else 1
    running = norm.running_mean, norm.running_var
    on_host = x.device.type == "cpu" and x.dtype == torch.float32
    plain = on_host and inner > 1 and all(tensor.is_contiguous() for tensor in (x, *running))
    run = _function("run") if plain else None
    if run is None:
        mean, var = torch.batch_norm_update_stats(x, norm.running_mean, norm.running_var, norm.momentum)
        return mean, (1.0 / torch.sqrt(var.double() + norm.eps)).to(x.dtype)
    batch, channels = x.shape[:2]
    mean, invstd = torch.empty(2, channels, dtype=torch.float32, device=x.device).unbind(0)
    pointers = [tensor.data_ptr() for tensor in (x, mean, invstd, *running)]
    run(pack("9q2d", batch, channels, inner, threads_for(x.numel()), *pointers, norm.momentum, norm.eps))
    torch.autograd.graph.increment_version(running)
    return mean, invstd


def backward_is_ours(x: Tensor, weight: Tensor) -> bool:
    """Whether the gradients of a batch norm in training of ``x`` are computed here, by one rule for one and two layers.

    Args:
        x: ``[N, C, *]``, float32 on the CPU.
        weight: of the norm.
    """
    large = math.prod(x.shape[2:]) >= _LEAST_INNER
    return large and x.is_contiguous() and weight.is_contiguous() and _function("backward") is not None


def _gradients(
    norm: Normalisation,
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    mean: Tensor,
    invstd: Tensor,
    needed: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of a batch norm's input ``[N, C, *]``, weight and bias."""
    ours = norm.training and backward_is_ours(x, weight) and kernels.applicable(grad) and not torch.is_grad_enabled()
    run = _function("backward") if ours else None
    if run is None:
        running = (None, None) if norm.training else (norm.running_mean, norm.running_var)
        return torch.ops.aten.native_batch_norm_backward(  # type: ignore[no-any-return]
            grad, x, weight, *running, mean, invstd, norm.training, norm.eps, needed
        )
    grad = grad.contiguous()
    back = NormBackward.of(x, weight, mean, invstd, needed)
    run(pack("12q", threads_for(x.numel()), grad.data_ptr(), *back.arguments()))
    return back.grad_x, back.grad_weight, back.grad_bias


def batch_norm(x: Tensor, norm: Normalisation) -> Tensor:
    """``torch.nn.functional.batch_norm`` in training, with a backward pass of our own.

    Forward is torch's, to the bit. Where :func:`backward_is_ours`, gradients are those of the batch norm that runs in
    one kernel with the neuron behind it, to the bit; they can be differentiated again.

    Args:
        x: ``[N, C, *]``, float32 on the CPU.
        norm: what it is made of; the running statistics are updated.
    """
    out: Tensor = _BatchNorm.apply(norm, x, norm.weight, norm.bias)  # type: ignore[no-untyped-call]
    return out


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, norm: Normalisation, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        running = norm.running_mean, norm.running_var
        y, mean, invstd = torch.native_batch_norm(x, weight, bias, *running, True, norm.momentum, norm.eps)
        ctx.norm = norm
        ctx.save_for_backward(x, weight, mean, invstd)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, invstd = saved_tensors(ctx)
        return None, *_gradients(ctx.norm, grad, x, weight, mean, invstd, ctx.needs_input_grad[1:])


def batch_norm_step(
    fused: FusedStep,
    norm: Normalisation,
    x_seq: Tensor,
    states: Sequence[Tensor | None],
    params: Sequence[Tensor],
    want_v_seq: bool = False,
    residual: Tensor | None = None,
) -> tuple[Tensor, list[Tensor], Tensor | None]:
    """Run ``fused`` (made with ``affine=True``) over batch-normalised ``x_seq`` ``[T, N, C, *]``.

    Time and batch share their statistics. Takes and returns what :meth:`FusedStep.__call__` does. A ``residual`` of the
    shape of ``x_seq`` is added to what is normalised (``fused`` then is made with ``residual=True``).

    Examples:
        >>> import torch
        >>> from jellyfit import kernels
        >>> def integrate(x, states, params, say):
        ...     (v,) = states
        ...     return x + v, [x + v]
        >>> norm = torch.nn.BatchNorm2d(3)
        >>> channels = norm.weight, norm.bias, norm.running_mean, norm.running_var
        >>> what = kernels.Normalisation(*channels, training=False, momentum=0.1, eps=norm.eps)
        >>> x_seq, cpu = torch.zeros(4, 2, 3, 5, 5), torch.device("cpu")
        >>> step = kernels.FusedStep(
        ...     integrate, x_seq.shape[1:], x_seq.dtype, cpu, ["v"], [0.0], [], "Integrator", affine=True
        ... )
        >>> y_seq, states, _ = kernels.batch_norm_step(step, what, x_seq, [None], [])
        >>> y_seq.shape, float(y_seq.detach().sum())
        (torch.Size([4, 2, 3, 5, 5]), 0.0)
    """
    given = x_seq, norm.weight, norm.bias, residual, *fused.cut(states), *params
    out = _Run.apply(fused, norm, want_v_seq, *given)  # type: ignore[no-untyped-call]
    count = len(fused.states)
    return out[0], list(out[1 : 1 + count]), out[1 + count] if want_v_seq else None


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        fused: FusedStep,
        norm: Normalisation,
        want_v_seq: bool,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        residual: Tensor | None,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, ...]:
        if norm.training:
            mean, invstd = batch_statistics(x.flatten(0, 1), norm)
        else:
            mean, invstd = norm.running_mean, torch.rsqrt(norm.running_var + norm.eps)
        scale = invstd * weight
        shift = (bias.double() - mean.double() * scale.double()).float()  # one rounding
        shape = (-1,) + (1,) * (x.ndim - 3)
        count = len(fused.states)
        states, params = tensors[:count], tensors[count:]
        keep = any(ctx.needs_input_grad)
        packed = fused.pack(x, [*params, scale.view(shape), shift.view(shape)])  # type: ignore[list-item]
        spikes, lasts, v_seq, kept = fused.forward_pass(x, states, packed, want_v_seq, keep, residual)
        ctx.fused, ctx.norm, ctx.packed, ctx.want_v_seq = fused, norm, packed, want_v_seq
        ctx.save_for_backward(x, weight, bias, residual, kept, mean, invstd, *tensors)
        ctx.set_materialize_grads(False)
        return (spikes, *lasts) if v_seq is None else (spikes, *lasts, v_seq)

    @staticmethod
    def backward(ctx: Any, grad_spikes: Tensor | None, *grads: Tensor | None) -> tuple[Any, ...]:
        fused, norm = ctx.fused, ctx.norm
        x, weight, bias, residual, kept, mean, invstd, *tensors = saved_tensors(ctx)
        count = len(fused.states)
        if torch.is_grad_enabled():  # create_graph=True: a gradient that can be differentiated again
            mean, var = (None, None) if norm.training else (norm.running_mean, norm.running_var)
            y = F.batch_norm(x.flatten(0, 1), mean, var, weight, bias, norm.training, 0.0, norm.eps).view_as(x)
            y = y if residual is None else y + residual
            states, params = tensors[:count], tensors[count:]
            given = [x, weight, bias, residual, *tensors]
            needed = ctx.needs_input_grad[3:]
            return None, None, None, *eager_gradients(fused, needed, y, states, params, grad_spikes, grads, given)
        needed = [bool(need) for need in ctx.needs_input_grad[3:6]]
        behind, images = None, x.flatten(0, 1)
        if norm.training and needed[0] and backward_is_ours(images, weight) and fused.norm_can_follow(x):
            apart = ctx.needs_input_grad[6]  # otherwise it takes the place of the neuron's
            behind = NormBackward.of(images, weight, mean, invstd, (apart, *needed[1:]))
        grad_y, grad_states, grad_params = fused.backward_pass(
            x,
            tensors[:count],
            ctx.packed,
            kept,
            grad_spikes,
            grads[:count],
            grads[count] if ctx.want_v_seq else None,
            residual,
            behind,
        )
        found: tuple[Tensor | None, ...] = (None, None, None)
        if behind is not None:
            grad_x = grad_y if behind.grad_x is None else behind.grad_x.view_as(x)
            found = grad_x, behind.grad_weight, behind.grad_bias
        elif grad_y is not None and any(needed):
            grad_x, *rest = _gradients(norm, grad_y.flatten(0, 1), images, weight, mean, invstd, needed)
            found = None if grad_x is None else grad_x.view_as(x), *rest
        grad_residual = grad_y if ctx.needs_input_grad[6] else None
        return None, None, None, *found, grad_residual, *grad_states, *grad_params
