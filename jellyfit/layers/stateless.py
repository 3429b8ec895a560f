"""torch's layers with a step mode: the same arguments, parameters and ``state_dict``, and sequences in one call.

Each takes one step ``[N, *]`` in step mode ``"s"`` (default) and a sequence ``[T, N, *]`` in step mode ``"m"``, where
time is merged into the batch: the numbers are those of the steps one by one. Batch norm alone then differs in training:
its statistics are over time and batch.

Arguments are torch's, with ``step_mode`` behind them. An input of another number of axes, or of channels, is an
:class:`~jellyfit.errors.InputError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from jellyfit import functional, kernels
from jellyfit.errors import ConfigError
from jellyfit.kernels.batchnorm import Normalisation, backward_is_ours, batch_norm
from jellyfit.kernels.convolution import conv2d
from jellyfit.kernels.linear import Linear as _PlainLinear
from jellyfit.kernels.maxpool import Windows, can_pool, max_pool
from jellyfit.layers.shapes import ImageModule, LineModule, ShapedModule, VolumeModule
from jellyfit.layers.shared_statistics import batch_norm_of_all, process_group_of
from jellyfit.neurons.base import MemoryModule, StepModule

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Flatten",
    "GroupNorm",
    "Linear",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MaxUnpool1d",
    "MaxUnpool2d",
    "MaxUnpool3d",
    "SyncBatchNorm",
    "Upsample",
]

Size: TypeAlias = int | tuple[int, ...]
"""A number for every space axis, or one for each."""

Device: TypeAlias = torch.device | str | int | None
PaddingMode: TypeAlias = Literal["zeros", "reflect", "replicate", "circular"]


class _Stateless(ShapedModule):
    """Mixed in before one of torch's layers, whose ``__init__`` and ``forward`` come next."""

    def run_batch(self, x: Tensor) -> Any:
        """Torch's layer on a batch ``[N, *]``."""
        return super().forward(x)

    def forward(self, x: Tensor) -> Any:
        self.check_shape(x)
        return functional.seq_to_ann_forward(x, self.run_batch) if self._step_mode == "m" else self.run_batch(x)


def _split(x: Tensor, like: Tensor) -> Tensor:
    """Give a merged batch the first two axes of ``like`` ``[T, N, *]``."""
    return x.view(*like.shape[:2], *x.shape[1:])


# ---------------------------------------------------------------- convolutions


class _Conv(_Stateless):
    channels = "in_channels"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: str | Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        step_mode: str = "s",
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
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


class _ConvTranspose(ShapedModule):
    channels = "in_channels"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        padding_mode: Literal["zeros"] = "zeros",
        step_mode: str = "s",
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            output_padding,
            groups,
            bias,
            dilation,
            padding_mode,
            device=device,
            dtype=dtype,
        )
        self.step_mode = step_mode

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """``output_size`` is one step's space, where the arguments leave a choice."""
        self.check_shape(x)
        if self._step_mode == "s":
            return super().forward(x, output_size)  # type: ignore[no-any-return]
        return _split(super().forward(x.flatten(0, 1), output_size), x)


class Conv1d(LineModule, _Conv, nn.Conv1d):
    """``torch.nn.Conv1d`` with ``step_mode``: ``[N, C, L]`` (``"s"``) or ``[T, N, C, L]`` (``"m"``).

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the arguments before it are those of ``torch.nn.Conv1d``.

    Raises:
        InputError: an input of another number of axes or channels.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.Conv1d(2, 4, 3, padding=1, step_mode="m")(torch.zeros(5, 1, 2, 10)).shape
        torch.Size([5, 1, 4, 10])
    """


class Conv2d(ImageModule, _Conv, nn.Conv2d):
    """``torch.nn.Conv2d`` with ``step_mode``: ``[N, C, H, W]`` (``"s"``) or ``[T, N, C, H, W]`` (``"m"``).

    In float32 on the CPU the backward pass is one of our own where that is faster
    (:func:`jellyfit.kernels.convolution.conv2d`).

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the arguments before it are those of ``torch.nn.Conv2d``.

    Raises:
        InputError: an input of another number of axes or channels.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.Conv2d(2, 4, 3, padding=1, step_mode="m")(torch.zeros(5, 1, 2, 8, 8)).shape
        torch.Size([5, 1, 4, 8, 8])
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002 - torch's name
        plain = self.dilation == (1, 1) and self.groups == 1 and self.padding_mode == "zeros"
        if plain and not isinstance(self.padding, str):
            return conv2d(input, weight, bias, self.stride, self.padding)
        return super()._conv_forward(input, weight, bias)  # type: ignore[no-any-return]


class Conv3d(VolumeModule, _Conv, nn.Conv3d):
    """``torch.nn.Conv3d`` with ``step_mode``: ``[N, C, D, H, W]`` or ``[T, N, C, D, H, W]``.

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the arguments before it are those of ``torch.nn.Conv3d``.

    Raises:
        InputError: an input of another number of axes or channels.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.Conv3d(2, 4, 3, padding=1, step_mode="m")(torch.zeros(5, 1, 2, 4, 6, 6)).shape
        torch.Size([5, 1, 4, 4, 6, 6])
    """


class ConvTranspose1d(LineModule, _ConvTranspose, nn.ConvTranspose1d):
    """``torch.nn.ConvTranspose1d`` with ``step_mode``: ``[N, C, L]`` (``"s"``) or ``[T, N, C, L]`` (``"m"``).

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the arguments before it are those of ``torch.nn.ConvTranspose1d``.

    Raises:
        InputError: an input of another number of axes or channels.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.ConvTranspose1d(2, 4, 2, stride=2, step_mode="m")(torch.zeros(5, 1, 2, 10)).shape
        torch.Size([5, 1, 4, 20])
    """


class ConvTranspose2d(ImageModule, _ConvTranspose, nn.ConvTranspose2d):
    """``torch.nn.ConvTranspose2d`` with ``step_mode``: ``[N, C, H, W]`` (``"s"``) or ``[T, N, C, H, W]`` (``"m"``).

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the arguments before it are those of ``torch.nn.ConvTranspose2d``.

    Raises:
        InputError: an input of another number of axes or channels.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.ConvTranspose2d(2, 4, 2, stride=2, step_mode="m")(torch.zeros(5, 1, 2, 8, 8)).shape
        torch.Size([5, 1, 4, 16, 16])
    """


class ConvTranspose3d(VolumeModule, _ConvTranspose, nn.ConvTranspose3d):
    """``torch.nn.ConvTranspose3d`` with ``step_mode``: ``[N, C, D, H, W]`` or ``[T, N, C, D, H, W]``.

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the arguments before it are those of ``torch.nn.ConvTranspose3d``.

    Raises:
        InputError: an input of another number of axes or channels.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.ConvTranspose3d(2, 4, 2, stride=2, step_mode="m")(torch.zeros(5, 1, 2, 4, 6, 6)).shape
        torch.Size([5, 1, 4, 8, 12, 12])
    """


class Linear(_Stateless, _PlainLinear):
    """``torch.nn.Linear`` with ``step_mode``; acts on the last axis of ``[N, *]`` or ``[T, N, *]``.

    On AMD's processors with AVX-512, large products take oneDNN, which is twice as fast there as PyTorch's own; the two
    differ by roundings (:mod:`jellyfit.kernels.linear`).

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the arguments before it are those of ``torch.nn.Linear``.

    Raises:
        InputError: an input of other features.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.Linear(3, 7, step_mode="m")(torch.zeros(5, 2, 3)).shape
        torch.Size([5, 2, 7])
    """

    step_shape = "[N, *, in_features]"
    step_ndims = range(2, 64)
    channels = "in_features"
    channel_axis = -1

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        step_mode: str = "s",
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        self.step_mode = step_mode


# ---------------------------------------------------------------- norms


class _BatchNorm(_Stateless):
    channels = "num_features"

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        step_mode: str = "s",
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)
        if not bias:
            self.register_parameter("bias", None)
        self.step_mode = step_mode

    def run_batch(self, x: Tensor) -> Any:
        """``[N, C, *] -> [N, C, *]``, with the gradients of a norm that runs as one with a neuron, to the bit."""
        norm: Any = self
        if not _has_our_backward(norm, x):
            return super().run_batch(x)
        norm._check_input_dim(x)
        return batch_norm(x, next_batch_of(norm))


def is_whole(norm: Any) -> bool:
    """Whether a batch norm has all parts of a :class:`~jellyfit.kernels.Normalisation`."""
    return norm.affine and norm.bias is not None and norm.track_running_stats and norm.momentum is not None


def next_batch_of(norm: Any) -> Normalisation:
    """What a batch norm is made of, for its next batch, which is counted in training."""
    if norm.training:
        norm.num_batches_tracked.add_(1)
    running = norm.running_mean, norm.running_var
    return Normalisation(norm.weight, norm.bias, *running, norm.training, norm.momentum, norm.eps)


def _has_our_backward(norm: Any, x: Tensor) -> bool:
    return (
        norm.training
        and torch.is_grad_enabled()
        and is_whole(norm)
        and x.ndim > 2
        and x.shape[1] == norm.num_features
        and kernels.on_host(x, norm.weight, norm.bias, norm.running_mean, norm.running_var)
        and backward_is_ours(x, norm.weight)
    )


class BatchNorm1d(_BatchNorm, nn.BatchNorm1d):
    """``torch.nn.BatchNorm1d`` with ``step_mode``: ``[N, C]`` or ``[N, C, L]``, behind ``T`` in mode ``"m"``.

    Multi-step statistics are over time and batch; single-step ones over the batch of that step.

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the arguments before it are those of ``torch.nn.BatchNorm1d``.

    Raises:
        InputError: an input of another number of axes or channels.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.BatchNorm1d(3, step_mode="m")(torch.zeros(5, 2, 3)).shape
        torch.Size([5, 2, 3])
    """

    step_shape = "[N, C] or [N, C, L]"
    step_ndims = (2, 3)


class BatchNorm2d(ImageModule, _BatchNorm, nn.BatchNorm2d):
    """``torch.nn.BatchNorm2d`` with ``step_mode``: ``[N, C, H, W]`` (``"s"``) or ``[T, N, C, H, W]`` (``"m"``).

    Multi-step statistics are over time and batch; single-step ones over the batch of that step.

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the arguments before it are those of ``torch.nn.BatchNorm2d``.

    Raises:
        InputError: an input of another number of axes or channels.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.BatchNorm2d(3, step_mode="m")(torch.zeros(5, 2, 3, 8, 8)).shape
        torch.Size([5, 2, 3, 8, 8])
    """


class BatchNorm3d(VolumeModule, _BatchNorm, nn.BatchNorm3d):
    """``torch.nn.BatchNorm3d`` with ``step_mode``: ``[N, C, D, H, W]`` or ``[T, N, C, D, H, W]``.

    Multi-step statistics are over time and batch; single-step ones over the batch of that step.

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the arguments before it are those of ``torch.nn.BatchNorm3d``.

    Raises:
        InputError: an input of another number of axes or channels.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.BatchNorm3d(3, step_mode="m")(torch.zeros(5, 2, 3, 4, 6, 6)).shape
        torch.Size([5, 2, 3, 4, 6, 6])
    """


class SyncBatchNorm(_BatchNorm, nn.modules.batchnorm._BatchNorm):
    """``torch.nn.SyncBatchNorm`` with ``step_mode``: ``[N, C, *]`` (``"s"``) or ``[T, N, C, *]`` (``"m"``).

    In training its statistics are over the batch of every process; on a CPU too, where ``DistributedDataParallel``
    refuses torch's class (of which this is therefore no subclass). Torch's own conversion
    (``torch.nn.SyncBatchNorm.convert_sync_batchnorm``) knows no step modes: use :meth:`convert_sync_batchnorm` of this
    class instead. A task does so under ``Trainer(sync_batchnorm=True)``.

    Args:
        num_features: number of channels.
        eps: added to the variance, default 1e-5.
        momentum: of the running statistics, default 0.1.
        affine: whether weight and bias are learnt, default ``True``.
        track_running_stats: whether running statistics are kept for evaluation, default ``True``.
        process_group: the processes that share statistics, default all.
        step_mode: ``"s"`` (default) or ``"m"``.
        device: of the parameters.
        dtype: of the parameters.
        bias: ``False``: a weight alone is learnt.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> net = torch.nn.Sequential(layers.BatchNorm2d(3, step_mode="m"))
        >>> net = layers.SyncBatchNorm.convert_sync_batchnorm(net).eval()
        >>> net(torch.zeros(5, 2, 3, 8, 8)).shape
        torch.Size([5, 2, 3, 8, 8])
    """

    step_shape = "[N, C, *]"
    step_ndims = range(2, 64)
    _check_input_dim = nn.SyncBatchNorm._check_input_dim
    _check_non_zero_input_channels = nn.SyncBatchNorm._check_non_zero_input_channels

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Any | None = None,
        step_mode: str = "s",
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, step_mode, device, dtype, bias=bias)
        self.process_group = process_group

    def run_batch(self, x: Tensor) -> Tensor:
        group = process_group_of(self.process_group) if self.training and x.device.type == "cpu" else None
        if group is None:
            return nn.SyncBatchNorm.forward(self, x)  # type: ignore[arg-type]
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.track_running_stats:
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            momentum = 1.0 / int(self.num_batches_tracked) if self.momentum is None else momentum  # type: ignore[arg-type]
        return batch_norm_of_all(
            x, self.running_mean, self.running_var, self.weight, self.bias, momentum, self.eps, group
        )

    @classmethod
    def convert_sync_batchnorm(cls, module: nn.Module, process_group: Any | None = None) -> nn.Module:
        """Replace every batch norm in ``module`` by one that shares statistics; step modes and parameters stay.

        Args:
            module: the network; changed in place, unless it is itself a batch norm.
            process_group: the processes that share statistics, default all.

        Returns:
            The network.

        Raises:
            ConfigError: a batch norm in it has a state (temporal effective batch norm): there is no shared form of it.
        """
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if isinstance(module, MemoryModule):
                raise ConfigError(
                    f"{module.describe()} has no form that shares statistics between processes. Use "
                    "ThresholdDependentBatchNorm or a plain batch norm, or do without synchronisation."
                )
            made = nn.SyncBatchNorm.convert_sync_batchnorm(module, process_group)  # type: ignore[no-untyped-call]
            made.__class__ = cls  # torch's method moves the tensors, but makes torch's class
            made.step_mode = module.step_mode if isinstance(module, StepModule) else "s"
            return made  # type: ignore[no-any-return]
        for name, child in list(module.named_children()):
            module.add_module(name, cls.convert_sync_batchnorm(child, process_group))
        return module


class GroupNorm(_Stateless, nn.GroupNorm):
    """``torch.nn.GroupNorm`` with ``step_mode``: ``[N, C, *]`` (``"s"``) or ``[T, N, C, *]`` (``"m"``).

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the arguments before it are those of ``torch.nn.GroupNorm``.

    Raises:
        InputError: an input of another number of axes or channels.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.GroupNorm(2, 4, step_mode="m")(torch.zeros(5, 1, 4, 8, 8)).shape
        torch.Size([5, 1, 4, 8, 8])
    """

    step_shape = "[N, C, *]"
    step_ndims = range(2, 64)
    channels = "num_channels"

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        step_mode: str = "s",
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_groups, num_channels, eps, affine, device=device, dtype=dtype)
        if not bias:
            self.register_parameter("bias", None)
        self.step_mode = step_mode


# ---------------------------------------------------------------- pooling


class _Indexed(_Stateless):
    """Pools that can also return where each maximum stood; places are those within one step."""

    return_indices: bool

    def forward(self, x: Tensor) -> Any:
        if not self.return_indices or self._step_mode == "s":
            return super().forward(x)
        self.check_shape(x)
        y, indices = self.run_batch(x.flatten(0, 1))
        return _split(y, x), _split(indices, x)


class _MaxPool(_Indexed):
    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
        step_mode: str = "s",
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, return_indices, ceil_mode)
        self.step_mode = step_mode


class _AvgPool(_Stateless):
    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        step_mode: str = "s",
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
        self.step_mode = step_mode


class _AdaptiveAvgPool(_Stateless):
    def __init__(self, output_size: int | tuple[int | None, ...] | None, step_mode: str = "s") -> None:
        super().__init__(output_size)
        self.step_mode = step_mode


class _AdaptiveMaxPool(_Indexed):
    def __init__(
        self,
        output_size: int | tuple[int | None, ...] | None,
        return_indices: bool = False,
        step_mode: str = "s",
    ) -> None:
        super().__init__(output_size, return_indices)
        self.step_mode = step_mode


class _MaxUnpool(ShapedModule):
    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, step_mode: str = "s") -> None:
        super().__init__(kernel_size, stride, padding)
        self.step_mode = step_mode

    def forward(self, x: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """Put the maxima ``x`` back where ``indices``, of the same shape, say; ``output_size`` is one step's space."""
        self.check_shape(x)
        self.check_shape(indices)
        size = None if output_size is None else list(output_size)
        unpool = super().forward
        if self._step_mode == "s":
            return unpool(x, indices, size)  # type: ignore[no-any-return]
        return _split(unpool(x.flatten(0, 1), indices.flatten(0, 1), size), x)


class MaxPool1d(LineModule, _MaxPool, nn.MaxPool1d):
    """``torch.nn.MaxPool1d`` with ``step_mode``: ``[N, C, L]`` (``"s"``) or ``[T, N, C, L]`` (``"m"``).

    With ``return_indices=True`` it returns the maxima and their places, for :class:`MaxUnpool1d`.

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the arguments before it are those of ``torch.nn.MaxPool1d``.

    Raises:
        InputError: an input of another number of axes.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.MaxPool1d(2, step_mode="m")(torch.zeros(5, 1, 3, 10)).shape
        torch.Size([5, 1, 3, 5])
    """


class MaxPool2d(ImageModule, _MaxPool, nn.MaxPool2d):
    """``torch.nn.MaxPool2d`` with ``step_mode``: ``[N, C, H, W]`` (``"s"``) or ``[T, N, C, H, W]`` (``"m"``).

    Float32 images on the CPU, contiguous, have a kernel of their own: the same numbers, several times faster, and an
    eighth of the memory for backward. (Not with ``dilation``, ``ceil_mode`` or ``return_indices``.)

    With ``return_indices=True`` it returns the maxima and their places, for :class:`MaxUnpool2d`.

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the arguments before it are those of ``torch.nn.MaxPool2d``.

    Raises:
        InputError: an input of another number of axes.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.MaxPool2d(2, step_mode="m")(torch.zeros(5, 1, 3, 8, 8)).shape
        torch.Size([5, 1, 3, 4, 4])
    """

    def run_batch(self, x: Tensor) -> Any:
        if self.return_indices or self.ceil_mode:
            return super().run_batch(x)
        windows = Windows(*_pair(self.kernel_size), *_pair(self.stride), *_pair(self.padding))
        if _pair(self.dilation) != (1, 1) or not can_pool(x, windows):
            return super().run_batch(x)
        return max_pool(x, windows)


class MaxPool3d(VolumeModule, _MaxPool, nn.MaxPool3d):
    """``torch.nn.MaxPool3d`` with ``step_mode``: ``[N, C, D, H, W]`` or ``[T, N, C, D, H, W]``.

    With ``return_indices=True`` it returns the maxima and their places, for :class:`MaxUnpool3d`.

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the arguments before it are those of ``torch.nn.MaxPool3d``.

    Raises:
        InputError: an input of another number of axes.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.MaxPool3d(2, step_mode="m")(torch.zeros(5, 1, 3, 4, 6, 6)).shape
        torch.Size([5, 1, 3, 2, 3, 3])
    """


class AvgPool1d(LineModule, _Stateless, nn.AvgPool1d):
    """``torch.nn.AvgPool1d`` with ``step_mode``: ``[N, C, L]`` (``"s"``) or ``[T, N, C, L]`` (``"m"``).

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the arguments before it are those of ``torch.nn.AvgPool1d``.

    Raises:
        InputError: an input of another number of axes.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.AvgPool1d(2, step_mode="m")(torch.zeros(5, 1, 3, 10)).shape
        torch.Size([5, 1, 3, 5])
    """

    def __init__(
        self,
        kernel_size: int | tuple[int],
        stride: int | tuple[int] | None = None,
        padding: int | tuple[int] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        step_mode: str = "s",
    ) -> None:
        stride = kernel_size if stride is None else stride
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        self.step_mode = step_mode


class AvgPool2d(ImageModule, _AvgPool, nn.AvgPool2d):
    """``torch.nn.AvgPool2d`` with ``step_mode``: ``[N, C, H, W]`` (``"s"``) or ``[T, N, C, H, W]`` (``"m"``).

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the arguments before it are those of ``torch.nn.AvgPool2d``.

    Raises:
        InputError: an input of another number of axes.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.AvgPool2d(2, step_mode="m")(torch.zeros(5, 1, 3, 8, 8)).shape
        torch.Size([5, 1, 3, 4, 4])
    """


class AvgPool3d(VolumeModule, _AvgPool, nn.AvgPool3d):
    """``torch.nn.AvgPool3d`` with ``step_mode``: ``[N, C, D, H, W]`` or ``[T, N, C, D, H, W]``.

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the arguments before it are those of ``torch.nn.AvgPool3d``.

    Raises:
        InputError: an input of another number of axes.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.AvgPool3d(2, step_mode="m")(torch.zeros(5, 1, 3, 4, 6, 6)).shape
        torch.Size([5, 1, 3, 2, 3, 3])
    """


class AdaptiveAvgPool1d(LineModule, _AdaptiveAvgPool, nn.AdaptiveAvgPool1d):
    """``torch.nn.AdaptiveAvgPool1d`` with ``step_mode``: ``[N, C, L]`` (``"s"``) or ``[T, N, C, L]`` (``"m"``).

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the arguments before it are those of ``torch.nn.AdaptiveAvgPool1d``.

    Raises:
        InputError: an input of another number of axes.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.AdaptiveAvgPool1d(1, step_mode="m")(torch.zeros(5, 1, 3, 10)).shape
        torch.Size([5, 1, 3, 1])
    """


class AdaptiveAvgPool2d(ImageModule, _AdaptiveAvgPool, nn.AdaptiveAvgPool2d):
    """``torch.nn.AdaptiveAvgPool2d`` with ``step_mode``: ``[N, C, H, W]`` (``"s"``) or ``[T, N, C, H, W]`` (``"m"``).

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the arguments before it are those of ``torch.nn.AdaptiveAvgPool2d``.

    Raises:
        InputError: an input of another number of axes.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.AdaptiveAvgPool2d(1, step_mode="m")(torch.zeros(5, 1, 3, 8, 8)).shape
        torch.Size([5, 1, 3, 1, 1])
    """


class AdaptiveAvgPool3d(VolumeModule, _AdaptiveAvgPool, nn.AdaptiveAvgPool3d):
    """``torch.nn.AdaptiveAvgPool3d`` with ``step_mode``: ``[N, C, D, H, W]`` or ``[T, N, C, D, H, W]``.

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the arguments before it are those of ``torch.nn.AdaptiveAvgPool3d``.

    Raises:
        InputError: an input of another number of axes.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.AdaptiveAvgPool3d(1, step_mode="m")(torch.zeros(5, 1, 3, 4, 6, 6)).shape
        torch.Size([5, 1, 3, 1, 1, 1])
    """


class AdaptiveMaxPool1d(LineModule, _AdaptiveMaxPool, nn.AdaptiveMaxPool1d):
    """``torch.nn.AdaptiveMaxPool1d`` with ``step_mode``: ``[N, C, L]`` (``"s"``) or ``[T, N, C, L]`` (``"m"``).

    With ``return_indices=True`` it returns the maxima and their places.

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the arguments before it are those of ``torch.nn.AdaptiveMaxPool1d``.

    Raises:
        InputError: an input of another number of axes.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.AdaptiveMaxPool1d(1, step_mode="m")(torch.zeros(5, 1, 3, 10)).shape
        torch.Size([5, 1, 3, 1])
    """


class AdaptiveMaxPool2d(ImageModule, _AdaptiveMaxPool, nn.AdaptiveMaxPool2d):
    """``torch.nn.AdaptiveMaxPool2d`` with ``step_mode``: ``[N, C, H, W]`` (``"s"``) or ``[T, N, C, H, W]`` (``"m"``).

    With ``return_indices=True`` it returns the maxima and their places.

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the arguments before it are those of ``torch.nn.AdaptiveMaxPool2d``.

    Raises:
        InputError: an input of another number of axes.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.AdaptiveMaxPool2d(1, step_mode="m")(torch.zeros(5, 1, 3, 8, 8)).shape
        torch.Size([5, 1, 3, 1, 1])
    """


class AdaptiveMaxPool3d(VolumeModule, _AdaptiveMaxPool, nn.AdaptiveMaxPool3d):
    """``torch.nn.AdaptiveMaxPool3d`` with ``step_mode``: ``[N, C, D, H, W]`` or ``[T, N, C, D, H, W]``.

    With ``return_indices=True`` it returns the maxima and their places.

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the arguments before it are those of ``torch.nn.AdaptiveMaxPool3d``.

    Raises:
        InputError: an input of another number of axes.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.AdaptiveMaxPool3d(1, step_mode="m")(torch.zeros(5, 1, 3, 4, 6, 6)).shape
        torch.Size([5, 1, 3, 1, 1, 1])
    """


class MaxUnpool1d(LineModule, _MaxUnpool, nn.MaxUnpool1d):
    """``torch.nn.MaxUnpool1d`` with ``step_mode``: ``[N, C, L]`` (``"s"``) or ``[T, N, C, L]`` (``"m"``).

    Called with the maxima, their places (of the same shape) and, where it is not clear, one step's ``output_size``.

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the arguments before it are those of ``torch.nn.MaxUnpool1d``.

    Raises:
        InputError: an input of another number of axes.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> pool = layers.MaxPool1d(2, return_indices=True, step_mode="m")
        >>> layers.MaxUnpool1d(2, step_mode="m")(*pool(torch.zeros(5, 1, 3, 10))).shape
        torch.Size([5, 1, 3, 10])
    """


class MaxUnpool2d(ImageModule, _MaxUnpool, nn.MaxUnpool2d):
    """``torch.nn.MaxUnpool2d`` with ``step_mode``: ``[N, C, H, W]`` (``"s"``) or ``[T, N, C, H, W]`` (``"m"``).

    Called with the maxima, their places (of the same shape) and, where it is not clear, one step's ``output_size``.

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the arguments before it are those of ``torch.nn.MaxUnpool2d``.

    Raises:
        InputError: an input of another number of axes.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> pool = layers.MaxPool2d(2, return_indices=True, step_mode="m")
        >>> layers.MaxUnpool2d(2, step_mode="m")(*pool(torch.zeros(5, 1, 3, 8, 8))).shape
        torch.Size([5, 1, 3, 8, 8])
    """


class MaxUnpool3d(VolumeModule, _MaxUnpool, nn.MaxUnpool3d):
    """``torch.nn.MaxUnpool3d`` with ``step_mode``: ``[N, C, D, H, W]`` or ``[T, N, C, D, H, W]``.

    Called with the maxima, their places (of the same shape) and, where it is not clear, one step's ``output_size``.

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the arguments before it are those of ``torch.nn.MaxUnpool3d``.

    Raises:
        InputError: an input of another number of axes.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> pool = layers.MaxPool3d(2, return_indices=True, step_mode="m")
        >>> layers.MaxUnpool3d(2, step_mode="m")(*pool(torch.zeros(5, 1, 3, 4, 6, 6))).shape
        torch.Size([5, 1, 3, 4, 6, 6])
    """


# ---------------------------------------------------------------- shapes


class Upsample(_Stateless, nn.Upsample):
    """``torch.nn.Upsample`` with ``step_mode``: ``[N, C, *]`` or ``[T, N, C, *]``, one to three space axes.

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the arguments before it are those of ``torch.nn.Upsample``.

    Raises:
        InputError: an input of another number of axes.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.Upsample(scale_factor=2, step_mode="m")(torch.zeros(5, 1, 3, 8, 8)).shape
        torch.Size([5, 1, 3, 16, 16])
    """

    step_shape = "[N, C, *] with one to three space axes"
    step_ndims = (3, 4, 5)

    def __init__(
        self,
        size: Size | None = None,
        scale_factor: float | tuple[float, ...] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
        step_mode: str = "s",
    ) -> None:
        super().__init__(size, scale_factor, mode, align_corners, recompute_scale_factor)
        self.step_mode = step_mode


class Flatten(_Stateless, nn.Flatten):
    """``torch.nn.Flatten`` with ``step_mode``.

    Flattens one step's axes ``start_dim`` to ``end_dim`` (default: all but the batch): ``[T, N, C, H, W]`` becomes
    ``[T, N, C·H·W]``.

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the arguments before it are those of ``torch.nn.Flatten``.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.Flatten(step_mode="m")(torch.zeros(5, 2, 3, 4, 4)).shape
        torch.Size([5, 2, 48])
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1, step_mode: str = "s") -> None:
        super().__init__(start_dim, end_dim)
        self.step_mode = step_mode
