"""Containers, and torch's layers that also take a whole sequence."""

from jellyfit.layers.containers import MultiStepContainer, SeqToANNContainer, StepModeContainer
from jellyfit.layers.fused import Sequential, batch_norm_neuron
from jellyfit.layers.stateless import AvgPool2d, BatchNorm2d, Conv2d, Flatten, Linear, MaxPool2d

__all__ = [
    "AvgPool2d",
    "BatchNorm2d",
    "Conv2d",
    "Flatten",
    "Linear",
    "MaxPool2d",
    "MultiStepContainer",
    "SeqToANNContainer",
    "Sequential",
    "StepModeContainer",
    "batch_norm_neuron",
]
