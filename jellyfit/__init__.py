"""jellyfit: train spiking neural networks with Lightning."""

__version__ = "0.1.0"
