"""What values actions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from jellyfit.functional.encoding import check_steps
from jellyfit.kernels.linear import Linear

__all__ = ["Critic", "perceptron"]


def perceptron(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers with ReLU between them.

    Args:
        sizes: features of the input, of every hidden layer and of the output.

    Examples:
        >>> from jellyfit.control.critics import perceptron
        >>> len(perceptron([3, 8, 1]))
        3
    """
    modules: list[nn.Module] = []
    for i, (features, out) in enumerate(pairwise(sizes)):
        check_steps("sizes of layers", out)
        modules += [nn.ReLU()] * (i > 0) + [Linear(features, out)]
    return nn.Sequential(*modules)


class Critic(nn.Module):
    """Networks that each tell what an action is worth: ``[N, obs_dim], [N, act_dim] -> [number, N]``.

    Args:
        obs_dim: values of an observation.
        act_dim: values of an action.
        hidden: sizes of the hidden layers, default 256, 256.
        number: of networks: 2 (default) as in TD3, 1 as in DDPG.

    Raises:
        InputError: a size below 1.

    Source: Fujimoto, van Hoof and Meger, "Addressing function approximation error in actor-critic methods", ICML 2018.

    Examples:
        >>> import torch
        >>> from jellyfit.control import Critic
        >>> Critic(3, 1)(torch.zeros(4, 3), torch.zeros(4, 1)).shape
        torch.Size([2, 4])
    """

    def __init__(self, obs_dim: int, act_dim: int, hidden: Sequence[int] = (256, 256), number: int = 2) -> None:
        super().__init__()
        check_steps("Critic: number", number)
        self.nets = nn.ModuleList(perceptron([obs_dim + act_dim, *hidden, 1]) for _ in range(number))

    def forward(self, obs: Tensor, act: Tensor) -> Tensor:
        """``[N, obs_dim], [N, act_dim] -> [number, N]``."""
        x = torch.cat([obs, act], -1)
        return torch.stack([net(x).squeeze(-1) for net in self.nets])

    def first(self, obs: Tensor, act: Tensor) -> Tensor:
        """The first network's ``[N]`` alone: what an actor is improved by."""
        return self.nets[0](torch.cat([obs, act], -1)).squeeze(-1)  # type: ignore[no-any-return]
