"""Spiking neurons: charge, fire, reset; one file a family, ``base`` first."""

from jellyfit.neurons.adaptive import AdaptBaseNode, IzhikevichNode
from jellyfit.neurons.base import BaseNode, MemoryModule, StepModule, Value
from jellyfit.neurons.integrate import IFNode
from jellyfit.neurons.leaky import LIFNode, ParametricLIFNode
from jellyfit.neurons.nonlinear import EIFNode, QIFNode

__all__ = [
    "AdaptBaseNode",
    "BaseNode",
    "EIFNode",
    "IFNode",
    "IzhikevichNode",
    "LIFNode",
    "MemoryModule",
    "ParametricLIFNode",
    "QIFNode",
    "StepModule",
    "Value",
]
