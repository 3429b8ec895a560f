"""Attention for spiking networks: which time steps, channels and places count, and self-attention made of spikes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from jellyfit.errors import InputError, InputTypeError
from jellyfit.layers.containers import SeqToANNContainer
from jellyfit.layers.stateless import BatchNorm2d, Conv2d
from jellyfit.neurons.base import BaseNode, StepModule
from jellyfit.neurons.leaky import LIFNode

__all__ = [
    "ChannelQKAttention",
    "MultiDimensionalAttention",
    "QKAttention",
    "SpikeDrivenSelfAttention",
    "SpikingSelfAttention",
    "TemporalWiseAttention",
    "TokenQKAttention",
]


# ---------------------------------------------------------------- which steps, channels and places count


def _bottleneck(size: int, reduction: int, name: str, layer: Callable[[int, int], nn.Module]) -> nn.Sequential:
    if not 1 <= reduction <= size:
        raise InputError(f"{name}={reduction}: expected 1 to {size}, the number of values that it reduces.")
    return nn.Sequential(layer(size, size // reduction), nn.ReLU(), layer(size // reduction, size))


class _WholeSequence(StepModule):
    """A layer that looks at all time steps at once."""

    _step_mode = "m"

    def _check(self, x_seq: Tensor, shapes: dict[int, str]) -> None:
        if self.step_mode == "s":
            raise InputError(
                f"{self.describe()}: runs in step mode 'm' only, because its scores come from the whole sequence. Set "
                "step_mode='m'."
            )
        if x_seq.ndim not in shapes:
            raise InputError(
                f"{self.describe()}: got shape {list(x_seq.shape)}; expected {' or '.join(shapes.values())}."
            )

    def _check_size(self, x_seq: Tensor, axis: int, size: int, name: str) -> None:
        if x_seq.shape[axis] != size:
            raise InputError(
                f"{self.describe()}: made for {name} = {size}; got {x_seq.shape[axis]} in shape {list(x_seq.shape)}."
            )


def _scores(x: Tensor, mlp: Callable[[Tensor], Tensor]) -> Tensor:
    """σ(MLP(mean) + MLP(max)) over all axes but the first two: ``[N, K, *] -> [N, K]``."""
    flat = x.flatten(2)
    return torch.sigmoid(mlp(flat.mean(2)) + mlp(flat.max(2).values))


def _times(x: Tensor, scores: Tensor) -> Tensor:
    """``x`` weighted by scores of its first axes."""
    return x * scores.reshape(scores.shape + (1,) * (x.ndim - scores.ndim))


class TemporalWiseAttention(_WholeSequence):
    """Weigh time steps: ``y[t] = x[t] · s[t]`` with ``s = σ(MLP(mean x) + MLP(max x))``, a score a sample and step.

    Mean and maximum are taken over channels and places; the MLP is linear ``T -> T // reduction``, ReLU, linear back,
    without biases. It stands between a convolution and its neurons. Multi-step mode only.

    Args:
        T: number of time steps of every sequence.
        reduction: how much narrower the MLP is inside, 1 to T; default 16.
        dimension: 4 (default) for sequences ``[T, N, C, H, W]``, 2 for ``[T, N, L]``; both work with either.

    Raises:
        InputError: another shape or number of steps, ``reduction`` above ``T``, or single-step mode.

    Source: Yao et al., "Temporal-wise attention spiking neural networks for event streams classification", ICCV 2021.

    Examples:
        >>> import torch
        >>> from jellyfit.layers.attention import TemporalWiseAttention
        >>> TemporalWiseAttention(T=8, reduction=4)(torch.rand(8, 2, 3, 5, 5)).shape
        torch.Size([8, 2, 3, 5, 5])
    """

    def __init__(self, T: int, reduction: int = 16, dimension: int = 4) -> None:
        super().__init__()
        if dimension not in (2, 4):
            raise InputError(f"TemporalWiseAttention(dimension={dimension!r}): expected 4 for images or 2 for vectors.")
        self.T = T
        self.dimension = dimension
        self.sharedMLP = _bottleneck(
            T, reduction, "TemporalWiseAttention: reduction", lambda a, b: nn.Linear(a, b, bias=False)
        )

    def forward(self, x_seq: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` or ``[T, N, L]`` -> the same."""
        self._check(x_seq, {3: "[T, N, L]", 5: "[T, N, C, H, W]"})
        self._check_size(x_seq, 0, self.T, "T")
        return _times(x_seq, _scores(x_seq.transpose(0, 1), self.sharedMLP).t())

    def extra_repr(self) -> str:
        return f"T={self.T}, step_mode={self.step_mode!r}"


class _AxisAttention(nn.Module):
    """Scores of one axis; the weights have the shape of 1x1x1 convolutions, as trained networks hold them."""

    def __init__(self, size: int, reduction: int, name: str) -> None:
        super().__init__()
        self.sharedMLP = _bottleneck(size, reduction, name, lambda a, b: nn.Conv3d(a, b, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, K, *] -> [N, K, *]``."""
        return _times(x, _scores(x, lambda pooled: self.sharedMLP(pooled[:, :, None, None, None]).flatten(1)))


class _SpatialAttention(nn.Module):
    """Scores of every place: σ(conv([mean, max])) over all time steps and channels."""

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, T, C, H, W] -> [N, T, C, H, W]``."""
        merged = x.flatten(1, 2)
        scores = torch.sigmoid(self.conv(torch.stack([merged.mean(1), merged.max(1).values], dim=1)))
        return x * scores.unsqueeze(1)


class MultiDimensionalAttention(_WholeSequence):
    """Weigh time steps, then channels, then places of ``[T, N, C, H, W]``, and cut at 0; some can be left out.

    * TA: a score a time step, as in :class:`TemporalWiseAttention`;
    * CA: a score a channel for the whole sequence, made in the same way;
    * SA: a score a place for the whole sequence: ``σ(conv([mean, max]))`` over time steps and channels.

    Each acts on what the one before has weighed. Multi-step mode only.

    Args:
        T: number of time steps of every sequence.
        C: channels.
        reduction_t: how much narrower the MLP of TA is inside, 1 to T; default 16.
        reduction_c: how much narrower the MLP of CA is inside, 1 to C; default 16.
        kernel_size: of the convolution of SA, 3 (default) or 7.
        use_temporal, use_channel, use_spatial: which of the three there are; default all.

    Raises:
        InputError: another shape, number of steps or channels, a reduction that is too large, another kernel size, none
            of the three, or single-step mode.

    Source: Yao et al., "Attention spiking neural networks", IEEE Transactions on Pattern Analysis and Machine
    Intelligence 45 (2023).

    Examples:
        >>> import torch
        >>> from jellyfit.layers.attention import MultiDimensionalAttention
        >>> attention = MultiDimensionalAttention(T=4, C=8, reduction_t=2, reduction_c=4)
        >>> attention(torch.rand(4, 2, 8, 5, 5)).shape
        torch.Size([4, 2, 8, 5, 5])
    """

    def __init__(
        self,
        T: int,
        C: int,
        reduction_t: int = 16,
        reduction_c: int = 16,
        kernel_size: int = 3,
        use_temporal: bool = True,
        use_channel: bool = True,
        use_spatial: bool = True,
    ) -> None:
        super().__init__()
        name = "MultiDimensionalAttention"
        if not (use_temporal or use_channel or use_spatial):
            raise InputError(f"{name}: use_temporal, use_channel and use_spatial are all False; expected at least one.")
        if kernel_size not in (3, 7):
            raise InputError(f"{name}(kernel_size={kernel_size!r}): expected 3 or 7.")
        self.T = T
        self.C = C
        self.ta = _AxisAttention(T, reduction_t, f"{name}: reduction_t") if use_temporal else None
        self.ca = _AxisAttention(C, reduction_c, f"{name}: reduction_c") if use_channel else None
        self.sa = _SpatialAttention(kernel_size) if use_spatial else None

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` -> the same."""
        self._check(x, {5: "[T, N, C, H, W]"})
        y = x.transpose(0, 1)
        if self.ta is not None:
            self._check_size(x, 0, self.T, "T")
            y = self.ta(y)
        if self.ca is not None:
            self._check_size(x, 2, self.C, "C")
            y = self.ca(y.transpose(1, 2)).transpose(1, 2)
        if self.sa is not None:
            y = self.sa(y)
        return torch.relu(y).transpose(0, 1)

    def extra_repr(self) -> str:
        return f"T={self.T}, C={self.C}, step_mode={self.step_mode!r}"


# ---------------------------------------------------------------- self-attention made of spikes

SpikingNeuron = Callable[..., BaseNode] | BaseNode
"""A neuron to copy, or what makes one when called without arguments (its class, say)."""


class _SpikingAttention(StepModule):
    """What spiking self-attentions share: heads, and neurons after one pattern. Starts in step mode ``"m"``."""

    _step_mode = "m"
    _shape: ClassVar[str] = "[N, C, L]"

    def __init__(self, dim: int, num_heads: int, spiking_neuron: SpikingNeuron | None) -> None:
        super().__init__()
        if num_heads < 1 or dim < 1 or dim % num_heads:
            raise InputError(
                f"{type(self).__name__}(dim={dim}, num_heads={num_heads}): expected dim to be a multiple of num_heads."
            )
        self.dim = dim
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self._make_layers(lambda v_threshold=1.0: _neuron(spiking_neuron, v_threshold))

    def _make_layers(self, neuron: Callable[..., BaseNode]) -> None:
        """Make the layers; ``neuron(v_threshold)`` gives a new one."""
        raise TypeError(f"{type(self).__name__} must define _make_layers(self, neuron)")

    def _check(self, x: Tensor) -> None:
        many = self.step_mode == "m"
        expected = self._shape.replace("[", "[T, ") if many else self._shape
        if x.ndim != expected.count(",") + 1 or x.shape[1 + many] != self.dim:
            raise InputError(
                f"{self.describe()} in step mode {self.step_mode!r}: got shape {list(x.shape)}; expected {expected} "
                f"with C = {self.dim}."
            )

    def _heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """``[*, parts · C, L]`` -> as many tensors ``[*, heads, C / heads, L]``."""
        return x.reshape(*x.shape[:-2], parts, self.num_heads, self.head_dim, x.shape[-1]).unbind(-4)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, num_heads={self.num_heads}, step_mode={self.step_mode!r}"


def _neuron(spiking_neuron: SpikingNeuron | None, v_threshold: float) -> BaseNode:
    """A new neuron; only the one made by default takes ``v_threshold``."""
    if isinstance(spiking_neuron, BaseNode):
        node = copy.deepcopy(spiking_neuron)
        node.reset()
    elif spiking_neuron is None:
        node = LIFNode(v_threshold=v_threshold, detach_reset=True)
    else:
        made = None if isinstance(spiking_neuron, nn.Module) or not callable(spiking_neuron) else spiking_neuron()
        if not isinstance(made, BaseNode):
            raise InputTypeError(
                f"spiking_neuron={spiking_neuron!r}: expected a neuron such as LIFNode(tau=2.0), or what makes one "
                "when called, such as LIFNode."
            )
        node = made
    node.step_mode = "m"
    return node


def _conv_bn(channels: int, out: int) -> SeqToANNContainer:
    """A linear map of every token, then batch norm."""
    return SeqToANNContainer(nn.Conv1d(channels, out, 1, bias=False), nn.BatchNorm1d(out))


class SpikingSelfAttention(_SpikingAttention):
    """Spiking self-attention (SSA): ``Θ(BN(W · Θ(Q Kᵀ V / 8)))`` of spikes ``Q``, ``K``, ``V``, without a softmax.

    ``Q, K, V = Θ(BN(W x))``; every Θ is a layer of neurons. Input and output are ``[T, N, C, L]`` with ``L`` tokens
    (``[N, C, L]`` in step mode ``"s"``).

    Args:
        dim: channels C.
        num_heads: heads that the channels are shared among; default 8.
        spiking_neuron: every neuron in it: a neuron to copy, or what makes one when called without arguments. Default:
            ``LIFNode(detach_reset=True)``, with ``v_threshold=0.5`` behind ``Q Kᵀ V``.

    Raises:
        InputError: ``dim`` is no multiple of ``num_heads``; another shape.
        InputTypeError: ``spiking_neuron`` is, or makes, no neuron.

    Source: Zhou et al., "Spikformer: when spiking neural network meets transformer", ICLR 2023.

    Examples:
        >>> import torch
        >>> from jellyfit.layers.attention import SpikingSelfAttention
        >>> from jellyfit.neurons import ParametricLIFNode
        >>> attention = SpikingSelfAttention(dim=8, num_heads=2, spiking_neuron=ParametricLIFNode(backend="torch"))
        >>> attention(torch.ones(4, 2, 8, 5)).shape
        torch.Size([4, 2, 8, 5])
    """

    scale: float = 0.125

    def __init__(self, dim: int, num_heads: int = 8, spiking_neuron: SpikingNeuron | None = None) -> None:
        super().__init__(dim, num_heads, spiking_neuron)

    def _make_layers(self, neuron: Callable[..., BaseNode]) -> None:
        self.qkv_conv_bn = _conv_bn(self.dim, 3 * self.dim)
        self.qkv_lif = neuron()
        self.attn_lif = neuron(0.5)
        self.proj_conv_bn = _conv_bn(self.dim, self.dim)
        self.proj_lif = neuron()

    def forward(self, x_seq: Tensor) -> Tensor:
        """``[T, N, C, L]`` -> spikes of that shape (without ``T`` in step mode ``"s"``)."""
        self._check(x_seq)
        q, k, v = self._heads(self.qkv_lif(self.qkv_conv_bn(x_seq)), 3)
        k = k.transpose(-1, -2)
        # tokens are columns; the product is the same in both orders, and one is smaller
        y = (v @ k) @ q if self.head_dim < x_seq.shape[-1] else v @ (k @ q)
        y = self.attn_lif(y * self.scale).flatten(-3, -2)
        return self.proj_lif(self.proj_conv_bn(y))  # type: ignore[no-any-return]


class QKAttention(_SpikingAttention):
    """Q-K attention: ``Θ(BN(W · (Θ(Σ Q) ⊙ K)))`` of spikes ``Q, K = Θ(BN(W x))``: a mask over tokens or channels.

    Its cost is linear in the number of tokens. Input and output are ``[T, N, C, L]`` with ``L`` tokens (``[N, C, L]``
    in step mode ``"s"``).

    Args:
        dim: channels C.
        num_heads: heads that the channels are shared among; default 8.
        qka_type: ``"token"`` (default): ``Q`` is summed over a head's channels, and tokens are masked; ``"channel"``:
            it is summed over tokens, and channels are masked.
        spiking_neuron: see :class:`SpikingSelfAttention`; by default ``v_threshold=0.5`` behind ``Σ Q``.

    Raises:
        InputError: ``dim`` is no multiple of ``num_heads``; another ``qka_type``; another shape.
        InputTypeError: ``spiking_neuron`` is, or makes, no neuron.

    Source: Zhou et al., "QKFormer: hierarchical spiking transformer using Q-K attention", NeurIPS 2024.

    Examples:
        >>> import torch
        >>> from jellyfit.layers.attention import QKAttention
        >>> QKAttention(dim=8, num_heads=2, qka_type="channel").eval()(torch.zeros(4, 2, 8, 5)).sum()
        tensor(0., grad_fn=<SumBackward0>)
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qka_type: str = "token",
        spiking_neuron: SpikingNeuron | None = None,
    ) -> None:
        super().__init__(dim, num_heads, spiking_neuron)
        if qka_type not in ("token", "channel"):
            raise InputError(f"{type(self).__name__}(qka_type={qka_type!r}): expected 'token' or 'channel'.")
        self._qka_type = qka_type

    @property
    def qka_type(self) -> str:
        """``"token"`` or ``"channel"``; cannot be changed."""
        return self._qka_type

    def _make_layers(self, neuron: Callable[..., BaseNode]) -> None:
        self.qk_conv_bn = _conv_bn(self.dim, 2 * self.dim)
        self.qk_lif = neuron()
        self.attn_lif = neuron(0.5)
        self.proj_conv_bn = _conv_bn(self.dim, self.dim)
        self.proj_lif = neuron()

    def forward(self, x_seq: Tensor) -> Tensor:
        """``[T, N, C, L]`` -> spikes of that shape (without ``T`` in step mode ``"s"``)."""
        self._check(x_seq)
        q, k = self._heads(self.qk_lif(self.qk_conv_bn(x_seq)), 2)
        mask = self.attn_lif(q.sum(-2 if self.qka_type == "token" else -1, keepdim=True))
        return self.proj_lif(self.proj_conv_bn((mask * k).flatten(-3, -2)))  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, qka_type={self.qka_type!r}"


class TokenQKAttention(QKAttention):
    """:class:`QKAttention` that masks tokens.

    Args:
        dim, num_heads, spiking_neuron: see :class:`QKAttention`.

    Examples:
        >>> from jellyfit.layers.attention import TokenQKAttention
        >>> TokenQKAttention(dim=8).qka_type
        'token'
    """

    def __init__(self, dim: int, num_heads: int = 8, spiking_neuron: SpikingNeuron | None = None) -> None:
        super().__init__(dim, num_heads, "token", spiking_neuron)


class ChannelQKAttention(QKAttention):
    """:class:`QKAttention` that masks channels.

    Args:
        dim, num_heads, spiking_neuron: see :class:`QKAttention`.

    Examples:
        >>> from jellyfit.layers.attention import ChannelQKAttention
        >>> ChannelQKAttention(dim=8).qka_type
        'channel'
    """

    def __init__(self, dim: int, num_heads: int = 8, spiking_neuron: SpikingNeuron | None = None) -> None:
        super().__init__(dim, num_heads, "channel", spiking_neuron)


class SpikeDrivenSelfAttention(_SpikingAttention):
    """Spike-driven self-attention (SDSA): ``BN(W · (Q ⊙ Θ(Σ K ⊙ V))) + x``, with masks and additions alone.

    ``Q, K, V = Θ(BN(W Θ(x)))``, and the sum is over tokens. Input and output are ``[T, N, C, H, W]``, real values
    (``[N, C, H, W]`` in step mode ``"s"``).

    Args:
        dim: channels C.
        num_heads: heads that the channels are shared among; default 8. Channels do not mix inside a head, so it changes
            no number.
        spiking_neuron: see :class:`SpikingSelfAttention`; by default ``v_threshold=0.5`` behind ``Σ K ⊙ V``.

    Raises:
        InputError: ``dim`` is no multiple of ``num_heads``; another shape.
        InputTypeError: ``spiking_neuron`` is, or makes, no neuron.

    Source: Yao et al., "Spike-driven transformer", NeurIPS 2023.

    Examples:
        >>> import torch
        >>> from jellyfit.layers.attention import SpikeDrivenSelfAttention
        >>> SpikeDrivenSelfAttention(dim=8, num_heads=2)(torch.zeros(4, 2, 8, 3, 3)).shape
        torch.Size([4, 2, 8, 3, 3])
    """

    _shape = "[N, C, H, W]"

    def __init__(self, dim: int, num_heads: int = 8, spiking_neuron: SpikingNeuron | None = None) -> None:
        super().__init__(dim, num_heads, spiking_neuron)

    def _make_layers(self, neuron: Callable[..., BaseNode]) -> None:
        self.shortcut_lif = neuron()
        for name in "qkv":
            self.add_module(f"{name}_conv", Conv2d(self.dim, self.dim, 1, bias=False, step_mode="m"))
            self.add_module(f"{name}_bn", BatchNorm2d(self.dim, step_mode="m"))
            self.add_module(f"{name}_lif", neuron())
        self.attn_lif = neuron(0.5)
        self.proj_conv = Conv2d(self.dim, self.dim, 1, step_mode="m")
        self.proj_bn = BatchNorm2d(self.dim, step_mode="m")

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` -> the same (without ``T`` in step mode ``"s"``)."""
        self._check(x)
        spikes = self.shortcut_lif(x)
        q, k, v = (self._project(name, spikes) for name in "qkv")
        y = q * self.attn_lif((k * v).sum(-1, keepdim=True))
        return x + self.proj_bn(self.proj_conv(y.reshape(x.shape)))  # type: ignore[no-any-return]

    def _project(self, name: str, spikes: Tensor) -> Tensor:
        """``q``, ``k`` or ``v`` as ``[*, heads, C / heads, H · W]``."""
        conv, norm, lif = (self.get_submodule(f"{name}_{part}") for part in ("conv", "bn", "lif"))
        return self._heads(lif(norm(conv(spikes))).flatten(-2), 1)[0]
