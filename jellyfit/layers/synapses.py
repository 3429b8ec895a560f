"""Synapses with a memory, weight-standardised layers, and small helpers at the ends of a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jellyfit import kernels
from jellyfit.errors import InputError
from jellyfit.kernels import FusedStep, KernelUnavailableError
from jellyfit.kernels.linear import linear
from jellyfit.layers.shapes import MemoryLayer, ShapedModule, check_state
from jellyfit.layers.stateless import Conv2d, Device, Linear, PaddingMode, Size
from jellyfit.neurons.base import StepModule

__all__ = ["Delay", "PrintShapeModule", "SynapseFilter", "VotingLayer", "WSConv2d", "WSLinear"]


# ---------------------------------------------------------------- synapses with a memory


_KEPT = 64  # plans of a filter: as many shapes as one network meets


def _filter(x: Tensor, current: Tensor, rate: Tensor | float) -> Tensor:
    """One step of a synaptic current: it decays where no spike arrives, and a spike adds 1."""
    return current - (1.0 - x) * current * rate + x


class SynapseFilter(MemoryLayer):
    """Synapses whose current decays after a spike: ``i[t] = i[t-1] - (1 - s[t]) i[t-1] / τ + s[t]``.

    The output is the current, which is also the memory ``out_i``. A sequence runs as one fused kernel where that can
    be, with the numbers of the steps one by one; arithmetic and memory are float32 for half-precision input.

    Args:
        tau: time constant in steps, above 1, default 100.
        learnable: whether τ is learnt, one for the layer: ``1/τ = sigmoid(w)``, with ``w`` starting at
            ``-ln(tau - 1)``; default ``False``.
        step_mode: ``"s"`` (default): spikes ``[N, *]`` a call; ``"m"``: ``[T, N, *]`` a call.

    Raises:
        InputError: ``tau`` is not above 1, or no sequence is given in step mode ``"m"``.
        StateError: the memory is of another shape than the input: a reset is missing.

    Source: Diehl and Cook, "Unsupervised learning of digit recognition using spike-timing-dependent plasticity",
    Frontiers in Computational Neuroscience 9 (2015); Fang et al., "Exploiting neuron and synapse filter dynamics in
    spatial temporal learning of deep spiking neural network", IJCAI 2020.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> spikes = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0]).view(5, 1, 1)
        >>> layers.SynapseFilter(tau=2.0, step_mode="m")(spikes).flatten().tolist()
        [1.0, 0.5, 0.25, 1.25, 2.25]
    """

    out_i: Any

    def __init__(self, tau: float = 100.0, learnable: bool = False, step_mode: str = "s") -> None:
        super().__init__(step_mode)
        self.learnable = learnable
        if learnable:
            self.w = nn.Parameter(torch.empty(()))
        self.tau = tau
        self.register_memory("out_i", 0.0)
        self._plans: dict[tuple[Any, ...], FusedStep | None] = {}

    @property
    def tau(self) -> float:
        """The present time constant in steps."""
        return 1.0 / self.w.sigmoid().item() if self.learnable else self._tau

    @tau.setter
    def tau(self, value: float) -> None:
        if not (math.isfinite(value) and value > 1.0):
            raise InputError(f"{type(self).__name__}(tau={value!r}): expected a finite time constant above 1.")
        if self.learnable:
            nn.init.constant_(self.w, -math.log(value - 1.0))
        else:
            self._tau = float(value)

    def _rate(self) -> Tensor | float:
        return self.w.sigmoid() if self.learnable else 1.0 / self._tau

    def _last(self, x: Tensor) -> Tensor:
        """The memory as a tensor for steps like ``x``."""
        if isinstance(self.out_i, Tensor):
            check_state(self, "out_i", self.out_i, x.shape, x.device)
            return self.out_i
        wide = torch.promote_types(x.dtype, torch.float32)
        return torch.full_like(x, self.out_i, dtype=wide, requires_grad=False)

    def single_step_forward(self, x: Tensor) -> Tensor:
        last = self._last(x)
        self.out_i = _filter(x.to(last.dtype), last, self._rate())
        return self.out_i.to(x.dtype)  # type: ignore[no-any-return]

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        plan = self._plan(x_seq)
        if plan is None:
            return super().multi_step_forward(x_seq)
        currents, (self.out_i,), _ = plan(x_seq, [self._last(x_seq[0])], list(self.parameters()))
        return currents

    def _plan(self, x_seq: Tensor) -> FusedStep | None:
        """The kernel for sequences like ``x_seq``, or ``None`` where eager PyTorch has to do it."""
        if torch.compiler.is_compiling() or not kernels.applicable(x_seq):
            return None
        params = [(p.shape, p.dtype, p.requires_grad) for p in self.parameters()]
        rate = None if self.learnable else self._rate()
        key = (x_seq.shape[1:], x_seq.dtype, x_seq.device, rate, *params)
        if key not in self._plans:
            if len(self._plans) >= _KEPT:
                self._plans.clear()
            self._plans[key] = self._make(x_seq, params, rate)
        return self._plans[key]

    def _make(self, x_seq: Tensor, params: list[tuple[torch.Size, torch.dtype, bool]], rate: Any) -> FusedStep | None:
        def step(
            x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor], say: Callable[..., None]
        ) -> tuple[Tensor, list[Tensor]]:
            current = _filter(x, states[0], params[0].sigmoid() if params else rate)
            return current, [current]

        shape, dtype, device = x_seq.shape[1:], x_seq.dtype, x_seq.device
        try:
            return FusedStep(step, shape, dtype, device, ["out_i"], [0.0], params, "SynapseFilter")
        except KernelUnavailableError:
            return None

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_plans": {}}

    def extra_repr(self) -> str:
        return f"tau={self.tau:g}, learnable={self.learnable}, {super().extra_repr()}"


class Delay(MemoryLayer):
    """Gives every input back ``delay_steps`` steps later; zeros before the first one.

    The memory ``queue`` is a list of the inputs that are still to come out.

    Args:
        delay_steps: number of steps, 0 or more.
        step_mode: ``"s"`` (default): ``[N, *]`` a call; ``"m"``: ``[T, N, *]`` a call.

    Raises:
        InputError: a negative number of steps, or no sequence is given in step mode ``"m"``.
        StateError: the queue holds inputs of another shape: a reset is missing.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.Delay(2, step_mode="m")(torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1)).flatten().tolist()
        [0.0, 0.0, 1.0, 2.0]
    """

    queue: list[Tensor]

    def __init__(self, delay_steps: int, step_mode: str = "s") -> None:
        super().__init__(step_mode)
        if delay_steps < 0:
            raise InputError(f"Delay(delay_steps={delay_steps!r}): expected a number of steps, 0 or more.")
        self.delay_steps = delay_steps
        self.register_memory("queue", [])

    def single_step_forward(self, x: Tensor) -> Tensor:
        return self.multi_step_forward(x.unsqueeze(0)).squeeze(0)

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        for kept in self.queue:
            check_state(self, "queue", kept, x_seq.shape[1:], x_seq.device)
        zero = torch.zeros_like(x_seq[0], requires_grad=False)
        waiting = [zero] * (self.delay_steps - len(self.queue)) + [*self.queue, *x_seq.unbind(0)]
        out, self.queue = waiting[: len(x_seq)], waiting[len(x_seq) :]
        return torch.stack(out)

    def extra_repr(self) -> str:
        return f"delay_steps={self.delay_steps}, {super().extra_repr()}"


# ---------------------------------------------------------------- standardised weights


def _standardise(weight: Tensor, gain: Tensor | None, eps: float) -> Tensor:
    """Every output's weights with mean 0 and variance ``1 / fan_in``, times its gain."""
    axes = tuple(range(1, weight.ndim))
    variance, mean = torch.var_mean(weight, axes, keepdim=True)
    standard = (weight - mean) * torch.rsqrt(variance * weight[0].numel() + eps)
    return standard if gain is None else standard * gain


class WSConv2d(Conv2d):
    """:class:`Conv2d` that works with standardised weights ``gain (w - mean(w)) / sqrt(var(w) fan_in + eps)``.

    Mean and (unbiased) variance are those of one output channel's weights. ``weight`` stays what is learnt.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode: as in
            ``torch.nn.Conv2d``.
        step_mode: ``"s"`` (default): ``[N, C, H, W]`` a call; ``"m"``: ``[T, N, C, H, W]`` a call.
        gain: whether there is a learnable gain ``[out_channels, 1, 1, 1]``, at first 1; default ``True``.
        eps: keeps the root away from 0, default 1e-4.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        InputError: an input of another number of axes or channels.

    Source: Brock et al., "Characterizing signal propagation to close the performance gap in unnormalized ResNets",
    ICLR 2021; in spiking networks: Xiao et al., "Online training through time for spiking neural networks",
    NeurIPS 2022.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> conv = layers.WSConv2d(3, 4, 3, step_mode="m")
        >>> conv(torch.zeros(5, 2, 3, 8, 8)).shape
        torch.Size([5, 2, 4, 6, 6])
        >>> bool(conv.get_weight().mean((1, 2, 3)).abs().max() < 1e-6)
        True
    """

    gain: nn.Parameter | None

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
        gain: bool = True,
        eps: float = 1e-4,
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
            step_mode,
            device,
            dtype,
        )
        self.eps = eps
        ones = nn.Parameter(torch.ones(out_channels, 1, 1, 1, device=device, dtype=dtype)) if gain else None
        self.register_parameter("gain", ones)

    def get_weight(self) -> Tensor:
        """The standardised weights."""
        return _standardise(self.weight, self.gain, self.eps)

    def run_batch(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.get_weight(), self.bias)


class WSLinear(Linear):
    """:class:`Linear` that works with standardised weights; see :class:`WSConv2d`.

    Args:
        in_features: features of the input.
        out_features: features of the output.
        bias: whether there is a bias, default ``True``.
        step_mode: ``"s"`` (default): ``[N, *, in_features]`` a call; ``"m"``: ``[T, N, *, in_features]`` a call.
        gain: whether there is a learnable gain ``[out_features, 1]``, at first 1; default ``True``.
        eps: keeps the root away from 0, default 1e-4.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        InputError: an input of other features.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.WSLinear(3, 4, step_mode="m")(torch.zeros(5, 2, 3)).shape
        torch.Size([5, 2, 4])
    """

    gain: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        step_mode: str = "s",
        gain: bool = True,
        eps: float = 1e-4,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, step_mode, device, dtype)
        self.eps = eps
        ones = nn.Parameter(torch.ones(out_features, 1, device=device, dtype=dtype)) if gain else None
        self.register_parameter("gain", ones)

    def get_weight(self) -> Tensor:
        """The standardised weights."""
        return _standardise(self.weight, self.gain, self.eps)

    def run_batch(self, x: Tensor) -> Tensor:
        return linear(x, self.get_weight(), self.bias)


# ---------------------------------------------------------------- the ends of a network


class VotingLayer(ShapedModule):
    """Mean over groups of ``voting_size`` neighbouring features: ``[N, C·voting_size]`` to ``[N, C]``.

    Several neurons then vote for each class.

    Args:
        voting_size: neurons a class, default 10.
        step_mode: ``"s"`` (default): ``[N, C·voting_size]`` a call; ``"m"``: ``[T, N, C·voting_size]`` a call.

    Raises:
        InputError: the features are no multiple of ``voting_size``, or ``voting_size`` is below 1.

    Source: Fang et al., "Incorporating learnable membrane time constant to enhance learning of spiking neural
    networks", ICCV 2021.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.VotingLayer(2)(torch.tensor([[1.0, 0.0, 1.0, 1.0]])).tolist()
        [[0.5, 1.0]]
    """

    step_shape = "[N, C·voting_size]"
    step_ndims = (2,)

    def __init__(self, voting_size: int = 10, step_mode: str = "s") -> None:
        super().__init__()
        if voting_size < 1:
            raise InputError(f"VotingLayer(voting_size={voting_size!r}): expected at least 1 neuron a class.")
        self.voting_size = voting_size
        self.step_mode = step_mode

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C·voting_size]`` to ``[N, C]``, or the same with ``T`` before them."""
        self.check_shape(x)
        classes, left_over = divmod(x.shape[-1], self.voting_size)
        if left_over:
            raise InputError(
                f"{self.describe()}: got shape {list(x.shape)}, whose last axis is no multiple of voting_size = "
                f"{self.voting_size}. Give the layer before it voting_size outputs for every class."
            )
        return x.view(*x.shape[:-1], classes, self.voting_size).mean(-1)

    def extra_repr(self) -> str:
        return f"voting_size={self.voting_size}, {super().extra_repr()}"


class PrintShapeModule(StepModule):
    """Prints ``ext_str`` and the shape of its input, and gives the input back; for a look into a sequential.

    Args:
        ext_str: printed before the shape, default the class's name.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> x = layers.PrintShapeModule("before the pool")(torch.zeros(2, 3))
        before the pool [2, 3]
    """

    def __init__(self, ext_str: str = "PrintShapeModule") -> None:
        super().__init__()
        self.ext_str = ext_str

    def forward(self, x: Tensor) -> Tensor:
        """``x`` itself, of any shape."""
        print(self.ext_str, list(x.shape))
        return x

    def extra_repr(self) -> str:
        return f"ext_str={self.ext_str!r}"
