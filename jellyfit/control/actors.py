"""What chooses actions: a spiking network between population codes, or an ordinary one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from jellyfit import layers
from jellyfit.backbones import Backbone, neuron_from
from jellyfit.control.critics import perceptron
from jellyfit.control.decoders import Decoder, MembraneDecoder
from jellyfit.encoders import PopEncoder, PopSpikeEncoderDeterministic
from jellyfit.errors import InputError
from jellyfit.functional.encoding import check_steps
from jellyfit.neurons import BaseNode, CUBALIFNode

__all__ = ["Actor", "MLPActor", "SpikingActor"]

Bound: TypeAlias = float | Sequence[float] | np.ndarray | Tensor
EncoderFactory: TypeAlias = Callable[[int], PopEncoder]
"""Makes an encoder for a number of values; in YAML the class of one, with its other arguments."""
DecoderFactory: TypeAlias = Callable[[int], Decoder]
"""Makes a decoder for a number of values; in YAML the class of one, with its other arguments."""


class Actor(nn.Module):
    """Base of actors: observations ``[N, obs_dim]`` -> actions ``[N, act_dim]`` between ``low`` and ``high``.

    A subclass writes :meth:`values`, which are squashed by ``tanh`` and scaled to the bounds. Where it works on the
    last axis and leaves the others, K actors can be stacked (:func:`~jellyfit.control.stack`) and take
    ``[N, K, obs_dim]``.

    Args:
        obs_dim: values of an observation.
        act_dim: values of an action.
        low: least action, one number or one a value; default -1.
        high: largest action, likewise; default 1.

    Raises:
        InputError: a size below 1, or bounds that are not finite or not in order.

    Examples:
        >>> import torch
        >>> from jellyfit.control import Actor
        >>> class Still(Actor):
        ...     def values(self, obs):
        ...         return torch.zeros(len(obs), self.act_dim)
        >>> Still(3, 2, low=0.0, high=2.0)(torch.ones(1, 3)).tolist()
        [[1.0, 1.0]]
    """

    scale: Tensor
    middle: Tensor

    def __init__(self, obs_dim: int, act_dim: int, low: Bound = -1.0, high: Bound = 1.0) -> None:
        super().__init__()
        name = type(self).__name__
        check_steps(f"{name}: obs_dim", obs_dim)
        check_steps(f"{name}: act_dim", act_dim)
        ends = [torch.as_tensor(end, dtype=torch.float32).expand(act_dim) for end in (low, high)]
        if not bool(torch.isfinite(torch.stack(ends)).all()) or not bool((ends[0] < ends[1]).all()):
            raise InputError(f"{name}(low={low!r}, high={high!r}): expected finite bounds, low below high.")
        self.obs_dim, self.act_dim = obs_dim, act_dim
        self.register_buffer("scale", (ends[1] - ends[0]) / 2)
        self.register_buffer("middle", (ends[1] + ends[0]) / 2)

    def values(self, obs: Tensor) -> Tensor:
        """Real values ``[N, act_dim]``. Subclasses write it."""
        raise TypeError(f"{type(self).__name__} must define values(self, obs)")

    def forward(self, obs: Tensor) -> Tensor:
        """Actions ``[N, act_dim]``."""
        expected = (*self.scale.shape[:-1], self.obs_dim)
        if obs.shape[1:] != expected:
            raise InputError(
                f"{type(self).__name__}: expected observations [N, {', '.join(map(str, expected))}]; got "
                f"{list(obs.shape)}."
            )
        return torch.tanh(self.values(obs)) * self.scale + self.middle

    @property
    def low(self) -> Tensor:
        """Least action ``[act_dim]``."""
        return self.middle - self.scale

    @property
    def high(self) -> Tensor:
        """Largest action ``[act_dim]``."""
        return self.middle + self.scale


class MLPActor(Actor):
    """An actor of linear layers with ReLU.

    Args:
        obs_dim, act_dim, low, high: see :class:`Actor`.
        hidden: sizes of the hidden layers, default 256, 256.

    Examples:
        >>> import torch
        >>> from jellyfit.control import MLPActor
        >>> MLPActor(3, 1)(torch.zeros(2, 3)).shape
        torch.Size([2, 1])
    """

    def __init__(
        self, obs_dim: int, act_dim: int, low: Bound = -1.0, high: Bound = 1.0, hidden: Sequence[int] = (256, 256)
    ) -> None:
        super().__init__(obs_dim, act_dim, low, high)
        self.net = perceptron([obs_dim, *hidden, act_dim])

    def values(self, obs: Tensor) -> Tensor:
        """See :class:`Actor`."""
        return self.net(obs)  # type: ignore[no-any-return]


class _Lateral(nn.Module):
    """``x + W s`` with spikes ``s`` of the step before, ``W`` within each population alone."""

    def __init__(self, populations: int, pop_dim: int) -> None:
        super().__init__()
        self.populations, self.pop_dim = populations, pop_dim
        bound = pop_dim**-0.5
        self.weight = nn.Parameter(torch.empty(populations, pop_dim, pop_dim).uniform_(-bound, bound))

    def forward(self, spikes: Tensor, x: Tensor) -> Tensor:
        grouped = spikes.reshape(*spikes.shape[:-1], self.populations, self.pop_dim)
        return x + torch.einsum("...gp,...gop->...go", grouped, self.weight).flatten(-2)


class _Core(Backbone):
    """Linear layers with neurons, and a decoder: spikes ``[T, N, features]`` -> values ``[N, act_dim]``."""

    def __init__(
        self, features: int, hidden: Sequence[int], decoder: Decoder, neuron: BaseNode | None, lateral: bool
    ) -> None:
        super().__init__()
        template = CUBALIFNode() if neuron is None else neuron
        modules: list[nn.Module] = []
        for size in hidden:
            check_steps("SpikingActor: hidden", size)
            modules += [layers.Linear(features, size), neuron_from(template)]
            features = size
        last: nn.Module = neuron_from(template)
        if lateral:
            last = layers.ElementWiseRecurrentContainer(last, _Lateral(decoder.act_dim, decoder.pop_dim))
        modules += [layers.Linear(features, decoder.act_dim * decoder.pop_dim), last]
        self.layers = nn.Sequential(*modules)
        self.decoder = decoder
        self.set_step_mode("m")

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.layers(x))  # type: ignore[no-any-return]


class SpikingActor(Actor):
    """An actor that codes observations as spikes of populations, and reads actions off spikes of populations.

    Observations go through an encoder to spikes ``[T, N, obs_dim · pop_dim]``, through linear layers with neurons, and
    through a decoder to values. Every call starts from a reset state. With the defaults it is the spiking actor of
    SpikingJelly's paper; with ``RateDecoder`` it is PopSAN, with ``lateral`` ILC-SAN.

    Args:
        obs_dim, act_dim, low, high: see :class:`Actor`.
        hidden: neurons of the hidden layers, default 256, 256.
        encoder: called with ``obs_dim``; default 10 neurons a value, centres from -3 to 3, regular spikes, T=5.
        decoder: called with ``act_dim``; default :class:`MembraneDecoder` of 10 neurons a value.
        neuron: template of every neuron layer; default ``CUBALIFNode()``.
        lateral: neurons of an output population hear each other's spikes of the step before; default ``False``.

    Raises:
        InputError: see :class:`Actor`.

    Source: Tang et al., CoRL 2020 (PopSAN); Fang et al., Science Advances 9 (2023) (SAN); Chen, Peng, Huang and Tian,
    "Fully spiking actor network with intralayer connections for reinforcement learning", 2024 (ILC-SAN).

    Examples:
        >>> import torch
        >>> from jellyfit.control import SpikingActor
        >>> actor = SpikingActor(3, 1, low=-2.0, high=2.0, hidden=[64])
        >>> actor(torch.zeros(2, 3)).shape
        torch.Size([2, 1])
    """

    def __init__(
        self,
        obs_dim: int,
        act_dim: int,
        low: Bound = -1.0,
        high: Bound = 1.0,
        hidden: Sequence[int] = (256, 256),
        encoder: EncoderFactory | None = None,
        decoder: DecoderFactory | None = None,
        neuron: BaseNode | None = None,
        lateral: bool = False,
    ) -> None:
        super().__init__(obs_dim, act_dim, low, high)
        if encoder is None:
            self.encoder: PopEncoder = PopSpikeEncoderDeterministic(obs_dim, 10, 5, (-3.0, 3.0), 0.15**0.5)
        else:
            self.encoder = encoder(obs_dim)
        values = MembraneDecoder(act_dim) if decoder is None else decoder(act_dim)
        self.core = _Core(obs_dim * self.encoder.pop_dim, hidden, values, neuron, lateral)

    def values(self, obs: Tensor) -> Tensor:
        """See :class:`Actor`."""
        return self.core(self.encoder(obs))  # type: ignore[no-any-return]
