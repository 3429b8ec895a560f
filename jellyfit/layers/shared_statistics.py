"""Batch norm over the batches of several processes on a CPU, for which torch has none."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["batch_norm_of_all", "process_group_of"]


class _SumOfAll(torch.autograd.Function):
    """The sum of every process's tensor; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group = group
        total = x.contiguous().clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        total = grad.contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


def _sum_of_all(x: Tensor, group: Any) -> Tensor:
    return _SumOfAll.apply(x, group)  # type: ignore[no-untyped-call, no-any-return]


def process_group_of(group: Any | None) -> Any | None:
    """The processes that share statistics: ``group`` or all; ``None`` where this one is alone."""
    if not dist.is_available() or not dist.is_initialized():
        return None
    group = dist.group.WORLD if group is None else group
    return group if dist.get_world_size(group) > 1 else None


def batch_norm_of_all(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
    group: Any,
) -> Tensor:
    """``torch.nn.functional.batch_norm`` in training, of the joint batch of all processes of ``group``.

    Args:
        x: this process's part ``[N, C, *]``; parts may be of different sizes, also empty.
        running_mean: ``[C]``, updated in place; or ``None``, as the next three.
        running_var: ``[C]``, updated in place.
        weight: ``[C]``.
        bias: ``[C]``.
        momentum: share of the new statistics in the running ones.
        eps: added to the variance.
        group: the processes.
    """
    dtype, (_, channels, *_) = x.dtype, x.shape
    x = x.float() if dtype in (torch.float16, torch.bfloat16) else x
    axes, over_channels = [0, *range(2, x.ndim)], [1, channels, *[1] * (x.ndim - 2)]
    size = x.new_tensor([x.numel() // channels])
    totals = _sum_of_all(torch.cat([x.sum(axes), size]), group)
    count = totals[-1].detach()
    mean = totals[:-1] / count
    centred = x - mean.view(over_channels)
    variance = _sum_of_all(centred.square().sum(axes), group) / count
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(mean.detach().to(running_mean.dtype), momentum)
        running_var.lerp_((variance.detach() * (count / (count - 1))).to(running_var.dtype), momentum)
    y = centred * torch.rsqrt(variance + eps).view(over_channels)
    if weight is not None:
        y = y * weight.view(over_channels)
    if bias is not None:
        y = y + bias.view(over_channels)
    return y.to(dtype)
