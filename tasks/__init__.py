"""Tasks: LightningModules that train a spiking network for a purpose."""

from jellyfit.tasks.base import SpikingTask
from jellyfit.tasks.classification import ClassificationTask
from jellyfit.tasks.control import ControlTask
from jellyfit.tasks.layer_sync import StepModeSyncBatchNorm
from jellyfit.tasks.task import Task
from jellyfit.tasks.td3 import TD3Task, polyak, td3_target

__all__ = [
    "ClassificationTask",
    "ControlTask",
    "SpikingTask",
    "StepModeSyncBatchNorm",
    "TD3Task",
    "Task",
    "polyak",
    "td3_target",
]
