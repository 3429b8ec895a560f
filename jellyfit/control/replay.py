"""Memory of transitions, from which batches are drawn."""

from __future__ import annotations

import os
from collections import deque
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jellyfit.errors import ConfigError, InputError
from jellyfit.functional.encoding import check_steps

__all__ = ["NStep", "PrioritisedReplay", "ReplayBuffer", "Transitions"]

Array = npt.NDArray[Any]


class Transitions(NamedTuple):
    """What happened, N times.

    Attributes:
        obs: observations ``[N, obs_dim]``.
        act: what was done ``[N, act_dim]``.
        reward: sum of the (discounted) rewards ``[N]`` until ``next_obs``.
        discount: what the value of ``next_obs`` counts, ``[N]``: γ for one step, ``γ^n`` for n, 0 where the episode
            ended (not where its time was merely up).
        next_obs: what was observed then ``[N, obs_dim]``.
        weight: of each in the loss ``[N]``; ``None``: all alike.
        place: where they lie in the buffer ``[N]``.

    Examples:
        >>> import torch
        >>> from jellyfit.control import Transitions
        >>> Transitions(*torch.zeros(5, 4, 1)).weight is None
        True
    """

    obs: Tensor
    act: Tensor
    reward: Tensor
    discount: Tensor
    next_obs: Tensor
    weight: Tensor | None = None
    place: Array | None = None


class ReplayBuffer:
    """The last ``capacity`` transitions in one piece of memory, drawn uniformly with replacement.

    A transition is one row of float32, so a batch is one gathering of rows.

    Args:
        obs_dim: values of an observation.
        act_dim: values of an action.
        capacity: transitions kept, default 1,000,000.
        folder: put the rows into a file ``replay.bin`` there, mapped into memory, for buffers larger than the memory;
            default: memory. The file is not what a run goes on from: that is :meth:`state_dict`.

    Raises:
        InputError: a size below 1; values that are not finite or have another shape; a batch from an empty buffer.

    Examples:
        >>> import numpy as np
        >>> from jellyfit.control import ReplayBuffer
        >>> buffer = ReplayBuffer(obs_dim=3, act_dim=1, capacity=100)
        >>> buffer.add(np.ones((2, 3)), np.zeros((2, 1)), np.ones(2), np.full(2, 0.99), np.ones((2, 3)))
        >>> batch = buffer.sample(4, np.random.default_rng(0))
        >>> batch.obs.shape, batch.reward.tolist(), len(buffer)
        (torch.Size([4, 3]), [1.0, 1.0, 1.0, 1.0], 2)
    """

    def __init__(
        self, obs_dim: int, act_dim: int, capacity: int = 1_000_000, folder: str | os.PathLike[str] | None = None
    ) -> None:
        for name, value in (("capacity", capacity), ("obs_dim", obs_dim), ("act_dim", act_dim)):
            check_steps(f"{type(self).__name__}: {name}", value)
        self.capacity, self.obs_dim, self.act_dim = capacity, obs_dim, act_dim
        ends = np.cumsum([0, obs_dim, act_dim, 1, 1, obs_dim])
        self._columns = [slice(a, b) for a, b in pairwise(ends.tolist())]
        shape = (capacity, int(ends[-1]))
        self._rows: npt.NDArray[np.float32]
        if folder is None:
            self._rows = np.zeros(shape, np.float32)  # pages are taken when they are written
        else:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._rows = np.asarray(np.memmap(Path(folder) / "replay.bin", np.float32, "w+", shape=shape))
        self._size = self._next = 0

    def __len__(self) -> int:
        return self._size

    def add(self, obs: Array, act: Array, reward: Array, discount: Array, next_obs: Array) -> None:
        """Keep transitions: ``[N, obs_dim]``, ``[N, act_dim]``, ``[N]``, ``[N]``, ``[N, obs_dim]``; see Transitions."""
        n = len(obs)
        rows = np.empty((n, self._rows.shape[1]), np.float32)
        names = ("obs", "act", "reward", "discount", "next_obs")
        for name, columns, values in zip(names, self._columns, (obs, act, reward, discount, next_obs), strict=True):
            width = columns.stop - columns.start
            values = np.asarray(values)
            expected = (n,) if name in ("reward", "discount") else (n, width)
            if values.shape != expected:
                raise InputError(
                    f"{type(self).__name__}: {name} has the shape {list(values.shape)}; expected {list(expected)}."
                )
            rows[:, columns] = values.reshape(n, width)
        if not np.isfinite(rows).all():
            place = int(np.nonzero(~np.isfinite(rows))[1][0])
            wrong = next(n for n, c in zip(names, self._columns, strict=True) if c.start <= place < c.stop)
            raise InputError(f"{type(self).__name__}: {wrong} holds NaN or infinity. It comes from the environment.")
        if n > self.capacity:
            raise InputError(f"{type(self).__name__}: {n} transitions at once, but there is room for {self.capacity}.")
        first = min(n, self.capacity - self._next)
        self._rows[self._next : self._next + first] = rows[:first]
        self._rows[: n - first] = rows[first:]
        self._added((self._next + np.arange(n)) % self.capacity)
        self._next = (self._next + n) % self.capacity
        self._size = min(self._size + n, self.capacity)

    def _added(self, index: Array) -> None:
        """Rows at ``index`` are new."""

    def sample(self, batch_size: int, rng: np.random.Generator) -> Transitions:
        """Draw transitions; tensors on the CPU."""
        return self._take(rng.integers(0, self._filled(), batch_size))

    def update(self, place: Array, error: Array) -> None:
        """Take note of the errors ``[N]`` of the transitions at ``place``; a buffer that draws uniformly does not."""

    def _filled(self) -> int:
        if not self._size:
            raise InputError(f"{type(self).__name__}: it is empty; add transitions before drawing any.")
        return self._size

    def _take(self, index: Array, weight: Tensor | None = None) -> Transitions:
        rows = torch.from_numpy(self._rows.take(index, axis=0))
        obs, act, reward, discount, next_obs = (rows[:, columns] for columns in self._columns)
        return Transitions(obs, act, reward[:, 0], discount[:, 0], next_obs, weight, index)

    def state_dict(self) -> dict[str, Any]:
        """All that is kept, to go on exactly."""
        rows = torch.from_numpy(self._rows[: self._size].copy())
        return {"rows": rows, "next": self._next, "capacity": self.capacity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`.

        Raises:
            ConfigError: another capacity, or observations or actions of other sizes.
        """
        rows = state["rows"]
        if state["capacity"] != self.capacity or rows.shape[1] != self._rows.shape[1]:
            raise ConfigError(
                f"{type(self).__name__}: what was saved holds {state['capacity']} transitions of {rows.shape[1]} "
                f"values, this one {self.capacity} of {self._rows.shape[1]}. Go on with the settings of that run."
            )
        self._size, self._next = len(rows), int(state["next"])
        self._rows[: self._size] = rows.numpy()


class PrioritisedReplay(ReplayBuffer):
    """The last transitions, drawn the more often the more they surprised: with probability ``p_i^alpha / Σ p^alpha``.

    New ones have the largest priority so far. Weights ``(N P(i))^-beta``, divided by the batch's largest, make up for
    it in the loss. :meth:`update` is told the errors.

    Args:
        obs_dim, act_dim, capacity, folder: see :class:`ReplayBuffer`.
        alpha: how much priorities count, 0 to 1; default 0.6.
        beta: how much the weights make up for it, 0 to 1; default 0.4.
        eps: added to every error, default 1e-6.

    Raises:
        InputError: as ReplayBuffer, or ``alpha`` or ``beta`` outside 0 to 1.

    Source: Schaul, Quan, Antonoglou and Silver, "Prioritized experience replay", ICLR 2016.

    Examples:
        >>> import numpy as np
        >>> from jellyfit.control import PrioritisedReplay
        >>> buffer = PrioritisedReplay(obs_dim=1, act_dim=1, capacity=4, alpha=1.0)
        >>> one = np.ones((1, 1))
        >>> for reward in (0.0, 1.0):
        ...     buffer.add(one, one, np.array([reward]), np.ones(1), one)
        >>> buffer.update(np.array([0, 1]), np.array([0.0, 5.0]))
        >>> buffer.sample(100, np.random.default_rng(0)).reward.mean().item()
        1.0
    """

    def __init__(
        self,
        obs_dim: int,
        act_dim: int,
        capacity: int = 1_000_000,
        folder: str | os.PathLike[str] | None = None,
        alpha: float = 0.6,
        beta: float = 0.4,
        eps: float = 1e-6,
    ) -> None:
        super().__init__(obs_dim, act_dim, capacity, folder)
        for name, value in (("alpha", alpha), ("beta", beta)):
            if not 0 <= value <= 1:
                raise InputError(f"PrioritisedReplay({name}={value!r}): expected a number from 0 to 1.")
        self.alpha, self.beta, self.eps = alpha, beta, eps
        self._leaves = 1 << (capacity - 1).bit_length()
        self._tree = np.zeros(2 * self._leaves)  # node i sums up 2i and 2i + 1; the root is 1
        self._largest = 1.0

    def _added(self, index: Array) -> None:
        self._set(index, np.full(len(index), self._largest**self.alpha))

    def _set(self, index: Array, value: Array) -> None:
        node = np.asarray(index) + self._leaves
        self._tree[node] = value
        while len(node) and node[0] > 1:
            node = np.unique(node // 2)
            self._tree[node] = self._tree[2 * node] + self._tree[2 * node + 1]

    def sample(self, batch_size: int, rng: np.random.Generator) -> Transitions:
        """Draw transitions, one from each of ``batch_size`` equal parts of all priority."""
        size, total = self._filled(), float(self._tree[1])
        rest = (np.arange(batch_size) + rng.random(batch_size)) * (total / batch_size)
        node = np.ones(batch_size, np.int64)
        while node[0] < self._leaves:
            left = self._tree[2 * node]
            right = rest >= left
            rest = np.where(right, rest - left, rest)
            node = 2 * node + right
        index = np.minimum(node - self._leaves, size - 1)  # rounding may lead behind the last
        weight = (size * self._tree[index + self._leaves] / total) ** -self.beta
        return self._take(index, torch.from_numpy((weight / weight.max()).astype(np.float32)))

    def update(self, place: Array, error: Array) -> None:
        """Errors ``[N]`` of the transitions at ``place``, of either sign."""
        priority = np.abs(np.asarray(error, np.float64)) + self.eps
        if not np.isfinite(priority).all():
            raise InputError("PrioritisedReplay: an error is NaN or infinite; the critic has diverged.")
        self._largest = max(self._largest, float(priority.max(initial=0.0)))
        self._set(place, priority**self.alpha)

    def state_dict(self) -> dict[str, Any]:
        leaves = torch.from_numpy(self._tree[self._leaves : self._leaves + self._size].copy())
        return {**super().state_dict(), "priorities": leaves, "largest": self._largest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._tree[:] = 0.0
        self._largest = float(state["largest"])
        self._set(np.arange(self._size), state["priorities"].numpy())


class NStep:
    """Turns steps of environments into transitions over n steps, shorter ones where episodes end.

    Args:
        environments: how many there are.
        n: steps of a transition, default 1.
        gamma: discount γ of a step, default 0.99.

    Raises:
        InputError: a number below 1, or γ outside 0 to 1.

    Examples:
        >>> import numpy as np
        >>> from jellyfit.control.replay import NStep
        >>> steps, obs = NStep(1, n=2, gamma=0.5), np.zeros((1, 3))
        >>> len(steps.push(obs, np.zeros((1, 1)), np.array([1.0]), obs, np.array([False]), np.array([False]))[0])
        0
        >>> transitions = steps.push(obs, np.zeros((1, 1)), np.array([2.0]), obs, np.array([False]), np.array([False]))
        >>> transitions[2].tolist(), transitions[3].tolist()  # 1 + 0.5 * 2, 0.5 ** 2
        ([2.0], [0.25])
    """

    def __init__(self, environments: int, n: int = 1, gamma: float = 0.99) -> None:
        check_steps("NStep: environments", environments)
        check_steps("NStep: n", n)
        if not 0 <= gamma <= 1:
            raise InputError(f"NStep(gamma={gamma!r}): expected a number from 0 to 1.")
        self.n, self.gamma = n, gamma
        self._open: list[deque[tuple[Array, Array, float]]] = [deque() for _ in range(environments)]

    def push(
        self, obs: Array, act: Array, reward: Array, next_obs: Array, terminated: Array, truncated: Array
    ) -> tuple[Array, Array, Array, Array, Array]:
        """One step of every environment ``[E, *]`` -> what :meth:`ReplayBuffer.add` takes, of 0 or more transitions.

        Args:
            obs: what was seen, ``[E, obs_dim]``.
            act: what was done, ``[E, act_dim]``.
            reward: what it gave, ``[E]``.
            next_obs: what was seen then, also where that was the last of an episode.
            terminated: where the episode came to its end: nothing is to be expected then.
            truncated: where its time was up: the last observation still has a value.
        """
        if self.n == 1:
            return obs, act, reward, self.gamma * (1.0 - terminated), next_obs
        made: list[tuple[Array, Array, float, float, Array]] = []
        for e, steps in enumerate(self._open):
            steps.append((obs[e].copy(), act[e].copy(), float(reward[e])))
            ended = bool(terminated[e] or truncated[e])
            while steps and (ended or len(steps) == self.n):
                total = sum(self.gamma**k * r for k, (_, _, r) in enumerate(steps))
                discount = 0.0 if terminated[e] else self.gamma ** len(steps)
                first_obs, first_act, _ = steps.popleft()
                made.append((first_obs, first_act, total, discount, next_obs[e].copy()))
        if not made:
            none = np.zeros(0)
            return np.zeros((0, obs.shape[1])), np.zeros((0, act.shape[1])), none, none, np.zeros((0, obs.shape[1]))
        first, acts, rewards, discounts, last = zip(*made, strict=True)
        return np.stack(first), np.stack(acts), np.array(rewards), np.array(discounts), np.stack(last)

    def forget(self, which: Array) -> None:
        """Nothing follows on the steps that are not part of a transition yet, where ``which`` ``[E]`` says so."""
        for e in np.flatnonzero(which):
            self._open[e].clear()

    def state_dict(self) -> dict[str, Any]:
        """Steps that are not part of a transition yet."""
        return {"open": [[(o.tolist(), a.tolist(), r) for o, a, r in steps] for steps in self._open]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self._open = [deque((np.array(o), np.array(a), r) for o, a, r in steps) for steps in state["open"]]
