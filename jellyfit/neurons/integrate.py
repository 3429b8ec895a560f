"""Integrate and fire: neurons without a leak."""

from __future__ import annotations

from torch import Tensor

from jellyfit.neurons.base import BaseNode

__all__ = ["IFNode"]


class IFNode(BaseNode):
    """Integrate-and-fire neuron: ``h = v + x``.

    Takes the arguments of :class:`~jellyfit.neurons.BaseNode`.

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> node = neurons.IFNode(step_mode="m")
        >>> node(torch.full((4, 1, 1), 0.5)).flatten().tolist()
        [0.0, 1.0, 0.0, 1.0]
    """

    def neuronal_charge(self, x: Tensor) -> None:
        self.v = self.v + x
