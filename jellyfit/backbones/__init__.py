"""Networks built from step-mode layers and neurons."""

from jellyfit.backbones.base import Backbone, neuron_from
from jellyfit.backbones.small import SpikingConvNet, SpikingMLP

__all__ = ["Backbone", "SpikingConvNet", "SpikingMLP", "neuron_from"]
