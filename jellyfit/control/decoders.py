"""Populations of spiking neurons -> values: one for each population."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from jellyfit.errors import InputError
from jellyfit.functional.encoding import check_steps
from jellyfit.neurons import NonSpikingIFNode, StepModule

__all__ = ["Decoder", "GroupLinear", "MembraneDecoder", "RateDecoder"]


class GroupLinear(nn.Module):
    """One linear map for each population: ``y_a = Σ_p w_ap s_ap + b_a``, ``[..., groups · pop_dim] -> [..., groups]``.

    The same as a grouped convolution over each population. Weights and biases start uniform in ``± 1 / √pop_dim``.

    Args:
        groups: populations, one a value.
        pop_dim: neurons of each.

    Raises:
        InputError: a number below 1; in the forward pass, other features.

    Examples:
        >>> import torch
        >>> from jellyfit.control import GroupLinear
        >>> layer = GroupLinear(groups=2, pop_dim=3)
        >>> layer(torch.zeros(5, 6)).shape, layer.weight.shape
        (torch.Size([5, 2]), torch.Size([2, 3]))
    """

    def __init__(self, groups: int, pop_dim: int) -> None:
        super().__init__()
        check_steps("GroupLinear: groups", groups)
        check_steps("GroupLinear: pop_dim", pop_dim)
        self.groups, self.pop_dim = groups, pop_dim
        bound = 1.0 / math.sqrt(pop_dim)
        self.weight = nn.Parameter(torch.empty(groups, pop_dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(groups).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., groups · pop_dim] -> [..., groups]``."""
        if x.shape[-1] != self.groups * self.pop_dim:
            raise InputError(
                f"GroupLinear: got {x.shape[-1]} features; expected {self.groups} populations of {self.pop_dim}."
            )
        return (
            torch.einsum("...gp,...gp->...g", x.reshape(*x.shape[:-1], self.groups, self.pop_dim), self.weight)
            + self.bias
        )

    def extra_repr(self) -> str:
        return f"groups={self.groups}, pop_dim={self.pop_dim}"


class Decoder(nn.Module):
    """Base of population decoders: spikes ``[T, N, act_dim · pop_dim]`` -> values ``[N, act_dim]``.

    A subclass writes ``forward``.

    Args:
        act_dim: number of values.
        pop_dim: neurons a value, default 10.

    Examples:
        >>> import torch
        >>> from jellyfit.control import Decoder
        >>> class Vote(Decoder):
        ...     def forward(self, spikes):
        ...         return spikes.mean(0).unflatten(-1, (self.act_dim, self.pop_dim)).mean(-1)
        >>> Vote(2, 5)(torch.ones(4, 1, 10)).tolist()
        [[1.0, 1.0]]
    """

    def __init__(self, act_dim: int, pop_dim: int = 10) -> None:
        super().__init__()
        self.group = GroupLinear(act_dim, pop_dim)
        self.act_dim, self.pop_dim = act_dim, pop_dim


class RateDecoder(Decoder):
    """A linear map of each population's firing rates over time: ``w · (Σ_t s[t] / T) + b`` (PopSAN).

    Args:
        act_dim: number of values.
        pop_dim: neurons a value, default 10.

    Source: Tang et al., "Deep reinforcement learning with population-coded spiking neural network for continuous
    control", CoRL 2020.

    Examples:
        >>> import torch
        >>> from jellyfit.control import RateDecoder
        >>> RateDecoder(act_dim=2)(torch.zeros(5, 3, 20)).shape
        torch.Size([3, 2])
    """

    def forward(self, spikes: Tensor) -> Tensor:
        """``[T, N, act_dim · pop_dim] -> [N, act_dim]``."""
        return self.group(spikes.mean(0))  # type: ignore[no-any-return]


class MembraneDecoder(Decoder, StepModule):
    """The potential of a neuron that does not fire and adds up a linear map of each population's spikes.

    ``V[t] = V[t-1] + w · s[t] + b``, without a leak; what is read is the potential at the end, its maximum, its value
    farthest from 0, or its mean over time.

    Args:
        act_dim: number of values.
        pop_dim: neurons a value, default 10.
        decode: ``"last-mem"`` (default), ``"max-mem"``, ``"max-abs-mem"`` or ``"mean-mem"``.

    Raises:
        ConfigError: another ``decode``.

    Source: the spiking actor of Fang et al., "SpikingJelly", Science Advances 9 (2023).

    Examples:
        >>> import torch
        >>> from jellyfit.control import MembraneDecoder
        >>> decoder = MembraneDecoder(act_dim=1, pop_dim=2)
        >>> for parameter in decoder.parameters():
        ...     _ = torch.nn.init.constant_(parameter, 0.5)
        >>> decoder(torch.ones(4, 1, 2)).item()  # 4 steps of 0.5 + 0.5 + 0.5
        6.0
    """

    def __init__(
        self,
        act_dim: int,
        pop_dim: int = 10,
        decode: Literal["last-mem", "max-mem", "max-abs-mem", "mean-mem"] = "last-mem",
    ) -> None:
        super().__init__(act_dim, pop_dim)
        self.integrator = NonSpikingIFNode(decode=decode, step_mode="m")

    def forward(self, spikes: Tensor) -> Tensor:
        """``[T, N, act_dim · pop_dim] -> [N, act_dim]``."""
        return self.integrator(self.group(spikes))  # type: ignore[no-any-return]
