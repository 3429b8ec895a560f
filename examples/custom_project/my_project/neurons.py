"""A neuron: only its charge differs from the base."""

from torch import Tensor

from jellyfit.neurons import BaseNode

__all__ = ["SquareLIF"]


class SquareLIF(BaseNode):
    """Leaky integrate-and-fire with squared input: ``h = v + (x² - v) / 2``."""

    def neuronal_charge(self, x: Tensor) -> None:
        self.v = self.v + (x * x - self.v) / 2.0
