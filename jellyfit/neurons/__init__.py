"""Spiking neurons: charge, fire, reset; one file a family, ``base`` first."""

from jellyfit.neurons.base import BaseNode, MemoryModule, StepModule, Value
from jellyfit.neurons.integrate import IFNode
from jellyfit.neurons.leaky import LIFNode, ParametricLIFNode

__all__ = ["BaseNode", "IFNode", "LIFNode", "MemoryModule", "ParametricLIFNode", "StepModule", "Value"]
