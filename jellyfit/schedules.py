"""Schedules of the learning rate: what training from scratch uses and torch does not bring."""

from __future__ import annotations

import math

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from jellyfit.errors import ConfigError

__all__ = ["WarmupCosine"]


class WarmupCosine(LRScheduler):
    """A linear warm-up, then half a cosine down.

    Every learning rate of the optimizer is multiplied by the same factor: from ``start_factor`` in a straight line to 1
    at ``warmup``, then along a cosine to ``min_factor`` at ``total``, where it stays. The factor depends on nothing but
    the number of calls so far, so a resumed run goes on to the bit. What is counted is what the task's
    ``scheduler_interval`` says: epochs (default) or steps of the optimizer.

    Args:
        optimizer: whose learning rates change.
        total: length of the whole schedule, in epochs or steps.
        warmup: length of the warm-up, part of ``total``; default 0.
        start_factor: factor of the first epoch or step of a warm-up, default 0.01; above 0, for nothing is learnt at 0.
        min_factor: factor at the end, default 0.
        last_epoch: how many calls have been made before, less one; default -1.

    Raises:
        ConfigError: a warm-up that does not end before the schedule, or factors outside 0 to 1.

    Source: the cosine is that of Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR
    2017; the warm-up that of Goyal et al., "Accurate, large minibatch SGD", arXiv:1706.02677 (2017).

    Examples:
        >>> import torch
        >>> from jellyfit.schedules import WarmupCosine
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule, rates = WarmupCosine(optimizer, total=8, warmup=4, start_factor=0.2), []
        >>> for epoch in range(9):
        ...     rates.append(round(schedule.get_last_lr()[0], 3))
        ...     optimizer.step()
        ...     schedule.step()
        >>> rates
        [0.2, 0.4, 0.6, 0.8, 1.0, 0.854, 0.5, 0.146, 0.0]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total: int,
        warmup: int = 0,
        start_factor: float = 0.01,
        min_factor: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        if not 0 <= warmup < total:
            raise ConfigError(
                f"WarmupCosine(total={total!r}, warmup={warmup!r}): expected a warm-up of 0 or more that ends before "
                "the schedule. Both count epochs, or steps where scheduler_interval is 'step'."
            )
        if not 0.0 < start_factor <= 1.0 or not 0.0 <= min_factor <= 1.0:
            raise ConfigError(
                f"WarmupCosine(start_factor={start_factor!r}, min_factor={min_factor!r}): expected start_factor above "
                "0 and up to 1, min_factor from 0 to 1."
            )
        self.total = total
        self.warmup = warmup
        self.start_factor = start_factor
        self.min_factor = min_factor
        super().__init__(optimizer, last_epoch)

    def factor(self, t: int) -> float:
        """What learning rates are multiplied by after ``t`` calls."""
        if t < self.warmup:
            return self.start_factor + (1.0 - self.start_factor) * t / self.warmup
        done = min(1.0, (t - self.warmup) / (self.total - self.warmup))
        return self.min_factor + (1.0 - self.min_factor) * 0.5 * (1.0 + math.cos(math.pi * done))

    def get_lr(self) -> list[float | Tensor]:
        """The learning rate of every parameter group at this point of the schedule."""
        return [rate * self.factor(self.last_epoch) for rate in self.base_lrs]
