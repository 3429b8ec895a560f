"""Spiking neurons: charge, fire, reset; one file a family, ``base`` first."""

from jellyfit.neurons.adaptive import AdaptBaseNode, IzhikevichNode
from jellyfit.neurons.base import BaseNode, MemoryModule, StepModule, Value
from jellyfit.neurons.integrate import IFNode
from jellyfit.neurons.leaky import LIFNode, ParametricLIFNode
from jellyfit.neurons.nonlinear import EIFNode, QIFNode
from jellyfit.neurons.parallel import PSN, MaskedPSN, SlidingPSN

__all__ = [
    "PSN",
    "AdaptBaseNode",
    "BaseNode",
    "EIFNode",
    "IFNode",
    "IzhikevichNode",
    "LIFNode",
    "MaskedPSN",
    "MemoryModule",
    "ParametricLIFNode",
    "QIFNode",
    "SlidingPSN",
    "StepModule",
    "Value",
]
