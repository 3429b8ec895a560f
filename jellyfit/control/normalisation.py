"""Observations of zero mean and unit variance, as far as they have been seen."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jellyfit.errors import InputError
from jellyfit.functional.encoding import check_steps

__all__ = ["RunningNorm"]


class RunningNorm(nn.Module):
    """``clip((x - mean) / √(var + eps), ±clip)`` with the mean and variance of all observations given to ``update``.

    They are buffers, in double precision: saved with a policy and restored with it. Before the first update nothing is
    changed but clipped.

    Args:
        size: values of an observation.
        clip: largest result, default 3.
        eps: added to the variance, default 1e-8.

    Raises:
        InputError: another shape, or values that are not finite; names them.

    Source: the merge of variances is that of Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for
    computing sample variances", 1979.

    Examples:
        >>> import torch
        >>> from jellyfit.control import RunningNorm
        >>> norm = RunningNorm(1)
        >>> norm.update(torch.tensor([[1.0], [3.0]]))
        >>> norm(torch.tensor([[3.0], [100.0]])).tolist()
        [[1.0], [3.0]]
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, size: int, clip: float = 3.0, eps: float = 1e-8) -> None:
        super().__init__()
        check_steps("RunningNorm: size", size)
        self.size, self.clip, self.eps = size, clip, eps
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("var", torch.ones(size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Take observations ``[N, size]`` into account."""
        if x.shape[1:] != self.mean.shape:
            expected = ", ".join(map(str, self.mean.shape))
            raise InputError(f"RunningNorm: expected observations [N, {expected}]; got {list(x.shape)}.")
        if not len(x):
            return
        x = x.to(self.mean)
        if not bool(torch.isfinite(x).all()):
            row, *place = torch.nonzero(~torch.isfinite(x))[0].tolist()
            raise InputError(f"RunningNorm: observation {row} is {x[(row, *place)].item()} at place {place[-1]}.")
        n, mean, var = len(x), x.mean(0), x.var(0, correction=0)
        total = self.count + n
        shift = mean - self.mean
        spread = self.var * self.count + var * n + shift.square() * (self.count * n / total)
        self.mean += shift * (n / total)
        self.var.copy_(spread / total)
        self.count.copy_(total)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., size] -> [..., size]``, of the dtype of ``x``."""
        scaled = (x - self.mean) / torch.sqrt(self.var + self.eps)
        return scaled.clamp(-self.clip, self.clip).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.size}, clip={self.clip}"
