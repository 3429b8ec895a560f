"""What an environment is controlled by: an actor, and the normalisation of what it sees."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from jellyfit.control.actors import Actor
from jellyfit.control.normalisation import RunningNorm

__all__ = ["Policy"]


class Policy(nn.Module):
    """An actor and the normalisation of its observations: ``[N, obs_dim]``, as environments show them, to actions.

    Args:
        actor: what chooses actions.
        norm: what observations go through first; default ``None``: the actor takes them as they are.

    Examples:
        >>> import numpy as np
        >>> from jellyfit.control import MLPActor, Policy, RunningNorm
        >>> policy = Policy(MLPActor(3, 1), RunningNorm(3))
        >>> policy.act(np.zeros((2, 3), np.float32)).shape
        (2, 1)
    """

    def __init__(self, actor: Actor, norm: RunningNorm | None = None) -> None:
        super().__init__()
        self.actor, self.norm = actor, norm

    def forward(self, obs: Tensor) -> Tensor:
        """Observations ``[N, obs_dim]`` -> actions ``[N, act_dim]``."""
        return self.actor(obs if self.norm is None else self.norm(obs))  # type: ignore[no-any-return]

    @torch.no_grad()
    def act(self, obs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """The same for arrays; what :func:`~jellyfit.control.evaluate` takes."""
        acts: npt.NDArray[np.float32] = self(torch.from_numpy(obs).to(self.actor.scale.device)).cpu().numpy()
        return acts
