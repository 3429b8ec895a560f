"""Dropout whose mask stays the same over time, and dropout of connections."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jellyfit.errors import InputError
from jellyfit.layers.shapes import ImageModule, MemoryLayer, check_state

__all__ = ["DropConnectLinear", "Dropout", "Dropout2d"]


def _check_probability(module: nn.Module, p: float) -> float:
    if not 0.0 <= p < 1.0:
        raise InputError(f"{type(module).__name__}(p={p!r}): expected a probability of dropping, 0 <= p < 1.")
    return p


class Dropout(MemoryLayer):
    """Dropout with one mask for all time steps: an element is dropped for the whole sequence or not at all.

    The mask is drawn from torch's global generator at the first step after a reset, and kept as the memory ``mask`` of
    one step's shape; what stays is scaled by ``1 / (1 - p)``. In evaluation it gives the input back.

    Args:
        p: probability of dropping, ``0 <= p < 1``, default 0.5.
        step_mode: ``"s"`` (default): ``[N, *]`` a call; ``"m"``: ``[T, N, *]`` a call.

    Raises:
        InputError: ``p`` is no such probability, or no sequence is given in step mode ``"m"``.
        StateError: the mask was drawn for another shape: a reset is missing.

    Source: Lee et al., "Enabling spike-based backpropagation for training deep neural network architectures",
    Frontiers in Neuroscience 14 (2020).

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> y_seq = layers.Dropout(0.5, step_mode="m")(torch.ones(4, 2, 8))
        >>> bool((y_seq == y_seq[0]).all())
        True
    """

    mask: Tensor | None

    def __init__(self, p: float = 0.5, step_mode: str = "s") -> None:
        super().__init__(step_mode)
        self.p = _check_probability(self, p)
        self.register_memory("mask", None)

    def _ones(self, x: Tensor) -> Tensor:
        """Ones in the shape of the mask for one step ``x``."""
        return torch.ones_like(x, requires_grad=False)

    def _mask_for(self, x: Tensor) -> Tensor:
        """The mask for one step ``x``, drawn if there is none yet."""
        ones = self._ones(x)
        if self.mask is None:
            self.mask = self._draw(ones)
        check_state(self, "mask", self.mask, ones.shape, x.device)
        return self.mask.to(x.dtype)

    def _draw(self, ones: Tensor) -> Tensor:
        return F.dropout(ones, self.p, training=True)

    def single_step_forward(self, x: Tensor) -> Tensor:
        return x * self._mask_for(x)

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        return x_seq * self._mask_for(x_seq[0])

    def forward(self, x: Tensor) -> Tensor:
        """The input with some of its elements dropped; in evaluation the input."""
        return super().forward(x) if self.training else x

    def extra_repr(self) -> str:
        return f"p={self.p}, {super().extra_repr()}"


class Dropout2d(ImageModule, Dropout):
    """Dropout of whole channels of images, with one mask for all time steps.

    As :class:`Dropout`; the mask is ``[N, C, 1, 1]``.

    Args:
        p: probability of dropping a channel, ``0 <= p < 1``, default 0.2.
        step_mode: ``"s"`` (default): ``[N, C, H, W]`` a call; ``"m"``: ``[T, N, C, H, W]`` a call.

    Raises:
        InputError: ``p`` is no such probability, or an input of another number of axes.
        StateError: the mask was drawn for another batch: a reset is missing.

    Source: Tompson et al., "Efficient object localization using convolutional networks", CVPR 2015.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> drop = layers.Dropout2d(0.5, step_mode="m")
        >>> drop(torch.ones(4, 2, 8, 5, 5)).shape, drop.mask.shape
        (torch.Size([4, 2, 8, 5, 5]), torch.Size([2, 8, 1, 1]))
    """

    def __init__(self, p: float = 0.2, step_mode: str = "s") -> None:
        super().__init__(p, step_mode)

    def _ones(self, x: Tensor) -> Tensor:
        return x.new_ones(*x.shape[:2], 1, 1)

    def _draw(self, ones: Tensor) -> Tensor:
        return F.dropout2d(ones, self.p, training=True)


class DropConnectLinear(MemoryLayer):
    """A linear layer that drops connections instead of outputs, with its activation: ``activation(W̃ x + b̃)``.

    In training every sample has its own ``W̃`` and ``b̃``: weights and biases with probability ``p`` replaced by 0, the
    others not scaled. In evaluation the output is what training gives on average: the activation's mean over
    ``samples_num`` draws from the normal distribution that has the mean ``(1 - p)(W x + b)`` and variance
    ``p (1 - p)(W² x² + b²)`` of ``W̃ x + b̃``. Everything is drawn from torch's global generator.

    Args:
        in_features: features of the input.
        out_features: features of the output.
        bias: whether there is a bias, default ``True``.
        p: probability of dropping, ``0 <= p < 1``, default 0.5.
        samples_num: draws in evaluation, default 1024.
        invariant: keep what was dropped until a reset, else drop anew at every step (default).
        activation: a module; ``"relu"`` (default) makes an ``nn.ReLU()``; ``None``: none, and evaluation gives the mean
            itself.
        step_mode: ``"s"`` (default): ``[N, in_features]`` a call; ``"m"``: ``[T, N, in_features]`` a call.

    Raises:
        InputError: ``p`` or ``samples_num`` out of range, or an input of another shape.
        StateError: connections were dropped for another batch size: a reset is missing.

    Source: Wan et al., "Regularization of neural networks using DropConnect", ICML 2013.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.DropConnectLinear(3, 4, step_mode="m")(torch.zeros(5, 2, 3)).shape
        torch.Size([5, 2, 4])
    """

    step_shape = "[N, in_features]"
    step_ndims = (2,)
    channels = "in_features"
    channel_axis = -1
    bias: nn.Parameter | None
    kept_w: Tensor | None
    kept_b: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        p: float = 0.5,
        samples_num: int = 1024,
        invariant: bool = False,
        activation: nn.Module | Literal["relu"] | None = "relu",
        step_mode: str = "s",
    ) -> None:
        super().__init__(step_mode)
        if samples_num < 1:
            raise InputError(f"DropConnectLinear(samples_num={samples_num!r}): expected at least 1 draw.")
        linear = nn.Linear(in_features, out_features, bias)
        self.in_features = in_features
        self.out_features = out_features
        self.weight = linear.weight
        self.register_parameter("bias", linear.bias)
        self.p = _check_probability(self, p)
        self.samples_num = samples_num
        self.invariant = invariant
        self.activation = nn.ReLU() if isinstance(activation, str) else activation
        self.register_memory("kept_w", None)
        self.register_memory("kept_b", None)

    def single_step_forward(self, x: Tensor) -> Tensor:
        return self._drop(x) if self.training else self._average(x)

    def _activate(self, y: Tensor) -> Tensor:
        return y if self.activation is None else self.activation(y)

    def _kept(self, name: str, parameter: Tensor, x: Tensor) -> Tensor:
        """Ones and zeros ``[N, *parameter.shape]``: which connections stay."""
        shape = (x.shape[0], *parameter.shape)
        kept: Tensor | None = getattr(self, name) if self.invariant else None
        if kept is None:
            kept = torch.bernoulli(torch.full(shape, 1.0 - self.p, dtype=parameter.dtype, device=x.device))
            if self.invariant:
                setattr(self, name, kept)
        check_state(self, name, kept, shape, x.device)
        return kept

    def _drop(self, x: Tensor) -> Tensor:
        y = torch.einsum("noi,ni->no", self.weight * self._kept("kept_w", self.weight, x), x)
        if self.bias is not None:
            y = y + self.bias * self._kept("kept_b", self.bias, x)
        return self._activate(y)

    def _average(self, x: Tensor) -> Tensor:
        mean = (1.0 - self.p) * F.linear(x, self.weight, self.bias)
        if self.activation is None:
            return mean
        squares = None if self.bias is None else self.bias**2
        variance = self.p * (1.0 - self.p) * F.linear(x**2, self.weight**2, squares)
        spread = torch.where(variance > 0.0, variance, 1.0).sqrt() * (variance > 0.0)  # no infinite slope at 0
        draws = torch.randn(self.samples_num, *mean.shape, dtype=mean.dtype, device=mean.device)
        return self._activate(mean + spread * draws).mean(0)

    def extra_repr(self) -> str:
        parts = [f"{name}={getattr(self, name)}" for name in ("in_features", "out_features")]
        parts += [f"bias={self.bias is not None}"]
        parts += [f"{name}={getattr(self, name)}" for name in ("p", "samples_num", "invariant")]
        return ", ".join([*parts, super().extra_repr()])
