"""What one learner goes through: the noise of its actions, and the memory of what came of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from jellyfit.control.noise import ActionNoise
from jellyfit.control.replay import NStep, ReplayBuffer, Transitions

__all__ = ["Experience", "side_by_side"]

Array = npt.NDArray[Any]


class Experience:
    """Noise, steps that are not part of a transition yet, and transitions of one learner.

    Args:
        noise: of its actions.
        steps: makes transitions of steps.
        replay: keeps them.

    Examples:
        >>> import numpy as np
        >>> from jellyfit.control import Experience, GaussianNoise, NStep, ReplayBuffer
        >>> own = Experience(GaussianNoise(0.1), NStep(1), ReplayBuffer(3, 1, 100))
        >>> no = np.array([False])
        >>> own.remember(np.zeros((1, 3)), np.zeros((1, 1)), np.ones(1), np.zeros((1, 3)), no, no)
        >>> own.replay.sample(3, np.random.default_rng(0)).reward.tolist()
        [1.0, 1.0, 1.0]
    """

    def __init__(self, noise: ActionNoise, steps: NStep, replay: ReplayBuffer) -> None:
        self.noise, self.steps, self.replay = noise, steps, replay

    def remember(
        self, obs: Array, act: Array, reward: Array, next_obs: Array, terminated: Array, truncated: Array
    ) -> None:
        """Put transitions into the replay buffer; arguments are those of :meth:`~jellyfit.control.NStep.push`."""
        made = self.steps.push(obs, act, reward, next_obs, terminated, truncated)
        if len(made[0]):
            self.replay.add(*made)
        ended = terminated | truncated
        if ended.any():
            self.noise.forget(ended)

    def forget(self, which: Array) -> None:
        """The episodes under way were cut off where ``which`` ``[E]`` says so."""
        self.steps.forget(which)
        self.noise.forget(which)

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on exactly, beside the random numbers."""
        return {
            "replay": self.replay.state_dict(), "steps": self.steps.state_dict(), "noise": self.noise.state_dict(),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`; other entries count for nothing."""
        self.replay.load_state_dict(state["replay"])
        self.steps.load_state_dict(state["steps"])
        self.noise.load_state_dict(state["noise"])


def side_by_side(batches: Sequence[Transitions]) -> Transitions:
    """Batches of K learners, ``[N, *]`` each, as one ``[N, K, *]``; that of one learner alone stays as it is.

    Examples:
        >>> import torch
        >>> from jellyfit.control import Transitions, side_by_side
        >>> one, two = (Transitions(torch.zeros(5, 3), *torch.zeros(4, 5, 1)) for _ in range(2))
        >>> side_by_side([one, two]).obs.shape
        torch.Size([5, 2, 3])
    """
    if len(batches) == 1:
        return batches[0]
    columns = list(zip(*batches, strict=True))
    obs, act, reward, discount, next_obs = (torch.stack(values, 1) for values in columns[:5])
    weight, place = columns[5:]
    return Transitions(
        obs, act, reward, discount, next_obs,
        None if weight[0] is None else torch.stack(weight, 1),
        None if place[0] is None else np.stack(place, 1),
    )  # fmt: skip
