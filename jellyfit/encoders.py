"""Encoders: values in [0, 1] -> spikes.

An encoder has a step mode like a neuron: ``"s"`` encodes one step ``[N, *]``, ``"m"`` a sequence ``[T, N, *]`` (for a
still image: the image repeated ``T`` times, which is what a task with ``T`` set gives it).
"""

from __future__ import annotations

import torch
from torch import Tensor

from jellyfit.errors import InputError
from jellyfit.neurons.base import StepModule

__all__ = ["Encoder", "PoissonEncoder"]


class Encoder(StepModule):
    """Base of all encoders: ``forward`` maps ``[N, *]`` or ``[T, N, *]`` to spikes of the same shape.

    Args:
        step_mode: ``"s"`` (default) or ``"m"``.
    """

    def __init__(self, step_mode: str = "s") -> None:
        super().__init__()
        self.step_mode = step_mode


class PoissonEncoder(Encoder):
    """Rate code: a spike with probability ``x`` at every step, ``s = [u <= x]`` with ``u`` uniform in [0, 1).

    Values below 0 never spike, values of 1 and more always do. No gradient flows to ``x``.

    Args:
        step_mode: ``"s"`` (default) or ``"m"``; the draws of all steps are independent in both.
        generator: source of the random numbers, for draws that can be repeated; default torch's own.

    Raises:
        InputError: ``x`` is not floating-point.
    """

    def __init__(self, step_mode: str = "s", generator: torch.Generator | None = None) -> None:
        super().__init__(step_mode)
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_floating_point():
            raise InputError(
                f"{self.describe()}: got {x.dtype}; expected floating-point values in [0, 1]. Use x.float() / 255 "
                "for 8-bit images."
            )
        dtype = torch.promote_types(x.dtype, torch.float32)  # draws of 16 bits would be 0, and so fire, too often
        draws = torch.rand(x.shape, generator=self.generator, dtype=dtype, device=x.device)
        return (draws <= x).to(x.dtype)
