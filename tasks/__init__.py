"""Tasks: LightningModules that train a spiking network for a purpose."""

from jellyfit.tasks.base import SpikingTask
from jellyfit.tasks.classification import ClassificationTask
from jellyfit.tasks.layer_sync import StepModeSyncBatchNorm

__all__ = ["ClassificationTask", "SpikingTask", "StepModeSyncBatchNorm"]
