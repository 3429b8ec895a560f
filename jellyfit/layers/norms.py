"""Normalisations made for spiking networks: batch norms that know the threshold or the time step, and NeuNorm."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jellyfit import functional
from jellyfit.errors import ConfigError, InputError, StateError
from jellyfit.layers.shapes import ImageModule, LineModule, MemoryLayer, VolumeModule, check_state
from jellyfit.layers.stateless import BatchNorm1d, BatchNorm2d, BatchNorm3d, Device, _BatchNorm
from jellyfit.neurons.base import MemoryModule

__all__ = [
    "BatchNormThroughTime1d",
    "BatchNormThroughTime2d",
    "BatchNormThroughTime3d",
    "NeuNorm",
    "TemporalEffectiveBatchNorm1d",
    "TemporalEffectiveBatchNorm2d",
    "TemporalEffectiveBatchNorm3d",
    "ThresholdDependentBatchNorm1d",
    "ThresholdDependentBatchNorm2d",
    "ThresholdDependentBatchNorm3d",
]


def _check_steps(module: nn.Module, T: int) -> int:
    if T < 1:
        raise InputError(f"{type(module).__name__}(T={T!r}): expected at least 1 time step.")
    return T


# ---------------------------------------------------------------- tdBN


class _ThresholdDependent(_BatchNorm):
    """Batch norm whose weight starts at ``alpha * v_th``."""

    def __init__(
        self,
        alpha: float,
        v_th: float,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        step_mode: str = "m",
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
    ) -> None:
        if not affine:
            raise ConfigError(
                f"{type(self).__name__}(affine=False): its weight, which starts at alpha * v_th, is what makes it "
                "depend on the threshold. Leave affine=True, or use a plain batch norm."
            )
        super().__init__(num_features, eps, momentum, affine, track_running_stats, step_mode, device, dtype, bias=bias)
        self.alpha = alpha
        self.v_th = v_th
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight ``alpha * v_th``, bias 0, running statistics as at the start."""
        super().reset_parameters()  # type: ignore[misc]
        if "v_th" in self.__dict__:  # torch's layer calls this too, before there is one
            nn.init.constant_(self.weight, self.alpha * self.v_th)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, v_th={self.v_th}, {super().extra_repr()}"


class ThresholdDependentBatchNorm1d(_ThresholdDependent, BatchNorm1d):
    """Threshold-dependent batch norm (tdBN) of ``[T, N, C]``, ``[T, N, C, L]``; see ``ThresholdDependentBatchNorm2d``.

    Args:
        step_mode: ``"m"`` (default) or ``"s"``; all else as in ``ThresholdDependentBatchNorm2d``.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.ThresholdDependentBatchNorm1d(alpha=1.0, v_th=0.5, num_features=3).weight.tolist()
        [0.5, 0.5, 0.5]
    """


class ThresholdDependentBatchNorm2d(_ThresholdDependent, BatchNorm2d):
    """Threshold-dependent batch norm (tdBN): a batch norm over time and batch whose weight starts at ``alpha * v_th``.

    So what reaches a neuron has the standard deviation ``alpha * v_th``. It starts in step mode ``"m"``, where
    statistics are over time and batch; in step mode ``"s"`` they are over the batch of one step, and in evaluation
    both give the same numbers.

    Args:
        alpha: 1 in a plain path; ``1 / sqrt(n)`` where ``n`` paths are added before the neuron.
        v_th: threshold of the neuron behind it.
        num_features: number of channels ``C``.
        eps, momentum, affine, track_running_stats: as in ``torch.nn.BatchNorm2d``; ``affine`` must be ``True``.
        step_mode: ``"m"`` (default): ``[T, N, C, H, W]`` a call; ``"s"``: ``[N, C, H, W]`` a call.
        device: of the parameters.
        dtype: of the parameters.
        bias: ``False``: a weight alone is learnt.

    Raises:
        ConfigError: ``affine=False``.
        InputError: an input of another number of axes or channels.

    Source: Zheng et al., "Going deeper with directly-trained larger spiking neural networks", AAAI 2021.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> norm = layers.ThresholdDependentBatchNorm2d(alpha=1.0, v_th=0.5, num_features=3)
        >>> y_seq = norm(torch.randn(4, 8, 3, 16, 16))
        >>> round(y_seq.std().item(), 2)
        0.5
    """


class ThresholdDependentBatchNorm3d(_ThresholdDependent, BatchNorm3d):
    """Threshold-dependent batch norm (tdBN) of ``[T, N, C, D, H, W]``; see ``ThresholdDependentBatchNorm2d``.

    Args:
        step_mode: ``"m"`` (default) or ``"s"``; all else as in ``ThresholdDependentBatchNorm2d``.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.ThresholdDependentBatchNorm3d(alpha=1.0, v_th=0.5, num_features=3).weight.tolist()
        [0.5, 0.5, 0.5]
    """


# ---------------------------------------------------------------- TEBN


class _TemporalEffective(MemoryLayer, _BatchNorm):
    """Batch norm over time and batch, then one learnable factor a time step."""

    t: int

    def __init__(
        self,
        T: int,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        step_mode: str = "m",
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
    ) -> None:
        steps = _check_steps(self, T)
        # MemoryModule's own __init__ would make torch's layer without its arguments
        super(MemoryModule, self).__init__(
            num_features,
            eps,
            momentum,
            affine,
            track_running_stats,
            step_mode,
            device,
            dtype,
            bias=bias,
        )
        self._memories = {}
        self.T = steps
        self.scale = nn.Parameter(torch.ones(T, device=device, dtype=dtype))
        self.register_memory("t", 0)

    def single_step_forward(self, x: Tensor) -> Tensor:
        if self.t >= self.T:
            raise StateError(
                f"{self.describe()}: got step {self.t + 1} of a sequence of T = {self.T}. Call "
                "jellyfit.functional.reset_net(net) before a new sequence."
            )
        y: Tensor = self.run_batch(x) * self.scale[self.t]
        self.t += 1
        return y

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        if len(x_seq) != self.T:
            raise InputError(
                f"{self.describe()}: made for sequences of T = {self.T} steps; got shape {list(x_seq.shape)}. It "
                "learns a factor for every step: make it with the number of steps in the data."
            )
        return functional.seq_to_ann_forward(x_seq, self.run_batch) * self.scale.view(-1, *[1] * (x_seq.ndim - 1))

    def extra_repr(self) -> str:
        return f"T={self.T}, {super(MemoryModule, self).extra_repr()}"


class TemporalEffectiveBatchNorm1d(_TemporalEffective, BatchNorm1d):
    """Temporal effective batch norm (TEBN) of ``[T, N, C]`` or ``[T, N, C, L]``; see ``TemporalEffectiveBatchNorm2d``.

    Args:
        step_mode: ``"m"`` (default) or ``"s"``; all else as in ``TemporalEffectiveBatchNorm2d``.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.TemporalEffectiveBatchNorm1d(T=5, num_features=3)(torch.zeros(5, 2, 3)).shape
        torch.Size([5, 2, 3])
    """


class TemporalEffectiveBatchNorm2d(_TemporalEffective, BatchNorm2d):
    """Temporal effective batch norm (TEBN): a batch norm over time and batch, times a learnable factor a time step.

    The factors ``scale`` ``[T]`` start at 1. It starts in step mode ``"m"``, where statistics are over time and batch.
    In step mode ``"s"`` they are over the batch of one step, and the memory ``t`` counts the steps; in evaluation both
    give the same numbers.

    Args:
        T: number of time steps.
        num_features: number of channels ``C``.
        eps, momentum, affine, track_running_stats: as in ``torch.nn.BatchNorm2d``.
        step_mode: ``"m"`` (default): ``[T, N, C, H, W]`` a call; ``"s"``: ``[N, C, H, W]`` a call.
        device: of the parameters.
        dtype: of the parameters.
        bias: ``False``: a weight alone is learnt.

    Raises:
        InputError: an input of another number of steps, axes or channels.
        StateError: more than ``T`` single steps: a reset is missing.

    Source: Duan et al., "Temporal effective batch normalization in spiking neural networks", NeurIPS 2022.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> norm = layers.TemporalEffectiveBatchNorm2d(T=5, num_features=3)
        >>> norm(torch.zeros(5, 2, 3, 8, 8)).shape, norm.scale.shape
        (torch.Size([5, 2, 3, 8, 8]), torch.Size([5]))
    """


class TemporalEffectiveBatchNorm3d(_TemporalEffective, BatchNorm3d):
    """Temporal effective batch norm (TEBN) of ``[T, N, C, D, H, W]``; see ``TemporalEffectiveBatchNorm2d``.

    Args:
        step_mode: ``"m"`` (default) or ``"s"``; all else as in ``TemporalEffectiveBatchNorm2d``.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.TemporalEffectiveBatchNorm3d(T=5, num_features=3)(torch.zeros(5, 2, 3, 4, 4, 4)).shape
        torch.Size([5, 2, 3, 4, 4, 4])
    """


# ---------------------------------------------------------------- BNTT


class _ThroughTime(MemoryLayer):
    """One batch norm a time step, without biases."""

    channels = "num_features"
    norm: type[nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d]
    t: int

    def __init__(
        self,
        T: int,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        step_mode: str = "s",
    ) -> None:
        super().__init__(step_mode)
        self.T = _check_steps(self, T)
        self.num_features = num_features
        norms = [self.norm(num_features, eps, momentum, affine, track_running_stats) for _ in range(T)]
        for norm in norms:
            norm.register_parameter("bias", None)
        self.bn_list = nn.ModuleList(norms)
        self.register_memory("t", -1)

    def single_step_forward(self, x: Tensor) -> Tensor:
        if self.t + 1 >= self.T:
            raise StateError(
                f"{self.describe()}: got step {self.t + 2} of a sequence, but it has norms for {self.T}. Call "
                "jellyfit.functional.reset_net(net) before a new sequence, or make it with a larger T."
            )
        self.t += 1
        return self.bn_list[self.t](x)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"T={self.T}, {super().extra_repr()}"


class BatchNormThroughTime1d(LineModule, _ThroughTime):
    """Batch norm through time (BNTT) of ``[N, C]`` or ``[N, C, L]`` a step; see ``BatchNormThroughTime2d``.

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; all else as in ``BatchNormThroughTime2d``.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.BatchNormThroughTime1d(5, 3, step_mode="m")(torch.zeros(5, 2, 3)).shape
        torch.Size([5, 2, 3])
    """

    step_shape = BatchNorm1d.step_shape
    step_ndims = BatchNorm1d.step_ndims
    norm = nn.BatchNorm1d


class BatchNormThroughTime2d(ImageModule, _ThroughTime):
    """Batch norm through time (BNTT): every time step has a batch norm of its own, with a weight and without a bias.

    They stand in ``bn_list``. The memory ``t`` is the last step that ran (-1 after a reset), so statistics are over the
    batch of one step in both step modes.

    Args:
        T: number of time steps; sequences may be shorter.
        num_features: number of channels ``C``.
        eps, momentum, track_running_stats: as in ``torch.nn.BatchNorm2d``.
        affine: whether there are weights, default ``True``; there are no biases.
        step_mode: ``"s"`` (default): ``[N, C, H, W]`` a call; ``"m"``: ``[T, N, C, H, W]`` a call.

    Raises:
        InputError: an input of another number of axes or channels.
        StateError: more than ``T`` steps: a reset is missing.

    Source: Kim and Panda, "Revisiting batch normalization for training low-latency deep spiking neural networks from
    scratch", Frontiers in Neuroscience 15 (2021).

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> norm = layers.BatchNormThroughTime2d(5, 3)
        >>> norm(torch.zeros(2, 3, 8, 8)).shape, norm.t
        (torch.Size([2, 3, 8, 8]), 0)
    """

    norm = nn.BatchNorm2d


class BatchNormThroughTime3d(VolumeModule, _ThroughTime):
    """Batch norm through time (BNTT) of ``[N, C, D, H, W]`` a step; see ``BatchNormThroughTime2d``.

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; all else as in ``BatchNormThroughTime2d``.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.BatchNormThroughTime3d(5, 3, step_mode="m")(torch.zeros(5, 2, 3, 4, 4, 4)).shape
        torch.Size([5, 2, 3, 4, 4, 4])
    """

    norm = nn.BatchNorm3d


# ---------------------------------------------------------------- NeuNorm


class NeuNorm(MemoryLayer, ImageModule):
    """Neuron normalisation: what all channels of a pixel fired lately, weighted, is taken from each.

    ``u[t] = k u[t-1] + (1 - k) / C² Σ_c s_c[t]`` and ``y[t] = s[t] - w u[t]``, with a learnable ``w``. The memory ``x``
    is ``u`` ``[N, 1, H, W]``, 0 after a reset.

    Args:
        in_channels: number of channels ``C``.
        height: ``H``.
        width: ``W``.
        k: share of ``u`` that stays from step to step, default 0.9.
        shared_across_channels: whether ``w`` is ``[1, H, W]`` instead of ``[C, H, W]``; default ``False``.
        step_mode: ``"s"`` (default): spikes ``[N, C, H, W]`` a call; ``"m"``: ``[T, N, C, H, W]`` a call.

    Raises:
        InputError: an input of another shape.
        StateError: the memory is of another batch size: a reset is missing.

    Source: Wu et al., "Direct training for spiking neural networks: faster, larger, better", AAAI 2019.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> norm = layers.NeuNorm(3, 8, 8, step_mode="m")
        >>> norm(torch.zeros(5, 2, 3, 8, 8)).shape, norm.x.shape
        (torch.Size([5, 2, 3, 8, 8]), torch.Size([2, 1, 8, 8]))
    """

    channels = "in_channels"
    x: Tensor | float

    def __init__(
        self,
        in_channels: int,
        height: int,
        width: int,
        k: float = 0.9,
        shared_across_channels: bool = False,
        step_mode: str = "s",
    ) -> None:
        super().__init__(step_mode)
        self.in_channels = in_channels
        self.k0 = k
        self.k1 = (1.0 - k) / in_channels**2
        self.w = nn.Parameter(torch.empty(1 if shared_across_channels else in_channels, height, width))
        nn.init.kaiming_uniform_(self.w, a=5**0.5)
        self.register_memory("x", 0.0)

    def check_shape(self, x: Tensor) -> None:
        super().check_shape(x)
        if x.shape[-2:] != self.w.shape[-2:]:
            raise InputError(
                f"{self.describe()}: got shape {list(x.shape)}; expected height and width {list(self.w.shape[-2:])}. "
                "Make it for the size of the images that reach it."
            )

    def _follow(self, total: Tensor) -> Tensor:
        """One step of ``u``, given what all channels fired ``[N, 1, H, W]``."""
        if isinstance(self.x, Tensor):
            check_state(self, "x", self.x, total.shape, total.device)
        self.x = self.k0 * self.x + self.k1 * total
        return self.x

    def single_step_forward(self, x: Tensor) -> Tensor:
        return x - self.w * self._follow(x.sum(1, keepdim=True))

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        return x_seq - self.w * functional.multi_step_forward(x_seq.sum(2, keepdim=True), self._follow)

    def extra_repr(self) -> str:
        return f"w={list(self.w.shape)}, k={self.k0}, {super().extra_repr()}"
