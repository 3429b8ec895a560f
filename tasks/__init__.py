"""Tasks: LightningModules that train a spiking network for a purpose."""

from jellyfit.tasks.base import SpikingTask
from jellyfit.tasks.classification import ClassificationTask

__all__ = ["ClassificationTask", "SpikingTask"]
