"""torch's layers with a step mode: the same parameters and ``state_dict``, and a sequence ``[T, N, *]`` in one call.

In step mode ``"m"`` time is merged into the batch, so batch norm takes its statistics over time and batch.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.common_types import _size_2_t

from jellyfit import functional
from jellyfit.errors import InputError
from jellyfit.neurons.base import StepModule

__all__ = ["AvgPool2d", "BatchNorm2d", "Conv2d", "Flatten", "Linear", "MaxPool2d"]


class _Stateless(StepModule):
    """Mixed in before one of torch's layers."""

    step_shape: ClassVar[str] = "[N, *]"
    step_ndim: ClassVar[int | None] = None

    def forward(self, x: Tensor) -> Tensor:
        sequence = self.step_mode == "m"
        if self.step_ndim is not None and x.ndim != self.step_ndim + sequence:
            expected = self.step_shape.replace("[", "[T, ", 1) if sequence else self.step_shape
            raise InputError(
                f"{self.describe()} in step mode {self.step_mode!r}: got shape {list(x.shape)}; expected {expected}. "
                f"Give it that shape, or call functional.set_step_mode(net, {'s' if sequence else 'm'!r})."
            )
        run = super().forward
        return functional.seq_to_ann_forward(x, run) if sequence else run(x)


class _Image(_Stateless):
    step_shape = "[N, C, H, W]"
    step_ndim = 4


class Conv2d(_Image, nn.Conv2d):
    """``torch.nn.Conv2d`` with ``step_mode``: ``[N, C, H, W]`` (``"s"``, default) or ``[T, N, C, H, W]`` (``"m"``)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_2_t,
        stride: _size_2_t = 1,
        padding: str | _size_2_t = 0,
        dilation: _size_2_t = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        step_mode: str = "s",
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        nn.Conv2d.__init__(
            self,
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device=device,
            dtype=dtype,
        )
        self.step_mode = step_mode


class BatchNorm2d(_Image, nn.BatchNorm2d):
    """``torch.nn.BatchNorm2d`` with ``step_mode``: ``[N, C, H, W]`` (``"s"``) or ``[T, N, C, H, W]`` (``"m"``).

    Multi-step statistics are over time and batch; single-step ones over the batch of that step.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        step_mode: str = "s",
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        nn.BatchNorm2d.__init__(
            self, num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype
        )
        self.step_mode = step_mode


class MaxPool2d(_Image, nn.MaxPool2d):
    """``torch.nn.MaxPool2d`` with ``step_mode``: ``[N, C, H, W]`` (``"s"``) or ``[T, N, C, H, W]`` (``"m"``)."""

    def __init__(
        self,
        kernel_size: _size_2_t,
        stride: _size_2_t | None = None,
        padding: _size_2_t = 0,
        dilation: _size_2_t = 1,
        ceil_mode: bool = False,
        step_mode: str = "s",
    ) -> None:
        nn.MaxPool2d.__init__(self, kernel_size, stride, padding, dilation, ceil_mode=ceil_mode)
        self.step_mode = step_mode


class AvgPool2d(_Image, nn.AvgPool2d):
    """``torch.nn.AvgPool2d`` with ``step_mode``: ``[N, C, H, W]`` (``"s"``) or ``[T, N, C, H, W]`` (``"m"``)."""

    def __init__(
        self,
        kernel_size: _size_2_t,
        stride: _size_2_t | None = None,
        padding: _size_2_t = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        step_mode: str = "s",
    ) -> None:
        nn.AvgPool2d.__init__(self, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
        self.step_mode = step_mode


class Linear(_Stateless, nn.Linear):
    """``torch.nn.Linear`` with ``step_mode``; acts on the last axis of ``[N, *]`` or ``[T, N, *]``."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        step_mode: str = "s",
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        nn.Linear.__init__(self, in_features, out_features, bias, device=device, dtype=dtype)
        self.step_mode = step_mode


class Flatten(_Stateless, nn.Flatten):
    """``torch.nn.Flatten`` with ``step_mode``.

    Flattens one step's axes ``start_dim`` to ``end_dim`` (default: all but the batch): ``[T, N, C, H, W]`` becomes
    ``[T, N, C·H·W]``.
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1, step_mode: str = "s") -> None:
        nn.Flatten.__init__(self, start_dim, end_dim)
        self.step_mode = step_mode
