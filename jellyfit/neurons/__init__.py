"""Spiking neurons: charge, fire, reset; one file a family, ``base`` first."""

from jellyfit.neurons.adaptive import AdaptBaseNode, AdaptiveLIFNode, IzhikevichNode
from jellyfit.neurons.base import BaseNode, MemoryModule, StepModule, Value
from jellyfit.neurons.current import CUBALIFNode
from jellyfit.neurons.gated import GatedLIFNode
from jellyfit.neurons.integrate import IFNode
from jellyfit.neurons.leaky import LIFNode, ParametricLIFNode
from jellyfit.neurons.linear import LinearNode
from jellyfit.neurons.multilevel import ILIFNode, TernaryIFNode, TernaryLIFNode
from jellyfit.neurons.nonlinear import EIFNode, QIFNode
from jellyfit.neurons.nonspiking import NonSpikingBaseNode, NonSpikingIFNode, NonSpikingLIFNode
from jellyfit.neurons.online import OTTTLIFNode, SLTTLIFNode
from jellyfit.neurons.parallel import PSN, MaskedPSN, SlidingPSN
from jellyfit.neurons.resonate import RAFNode
from jellyfit.neurons.variants import ComplementaryLIFNode, KLIFNode, LIAFNode

__all__ = [
    "PSN",
    "AdaptBaseNode",
    "AdaptiveLIFNode",
    "BaseNode",
    "CUBALIFNode",
    "ComplementaryLIFNode",
    "EIFNode",
    "GatedLIFNode",
    "IFNode",
    "ILIFNode",
    "IzhikevichNode",
    "KLIFNode",
    "LIAFNode",
    "LIFNode",
    "LinearNode",
    "MaskedPSN",
    "MemoryModule",
    "NonSpikingBaseNode",
    "NonSpikingIFNode",
    "NonSpikingLIFNode",
    "OTTTLIFNode",
    "ParametricLIFNode",
    "QIFNode",
    "RAFNode",
    "SLTTLIFNode",
    "SlidingPSN",
    "StepModule",
    "TernaryIFNode",
    "TernaryLIFNode",
    "Value",
]
