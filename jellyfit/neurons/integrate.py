"""Integrate and fire: neurons without a leak."""

from __future__ import annotations

from torch import Tensor

from jellyfit.neurons.base import BaseNode

__all__ = ["IFNode"]


class IFNode(BaseNode):
    """Integrate-and-fire neuron: ``h = v + x``.

    Takes the arguments of :class:`~jellyfit.neurons.BaseNode`.
    """

    def neuronal_charge(self, x: Tensor) -> None:
        self.v = self.v + x
