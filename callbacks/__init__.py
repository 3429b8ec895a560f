"""Callbacks and loggers: progress, pictures, predictions, averages of weights, checkpoints of interrupted runs."""

from jellyfit.callbacks.ema import EMAWeights
from jellyfit.callbacks.folders import run_folder, save_picture, save_table
from jellyfit.callbacks.interrupt import InterruptCheckpoint
from jellyfit.callbacks.loggers import MetricsCSV, read_metrics
from jellyfit.callbacks.predictions import PredictionsCSV
from jellyfit.callbacks.progress import PlainProgress, ProgressBar
from jellyfit.callbacks.spike_pictures import SpikePictures

__all__ = [
    "EMAWeights",
    "InterruptCheckpoint",
    "MetricsCSV",
    "PlainProgress",
    "PredictionsCSV",
    "ProgressBar",
    "SpikePictures",
    "read_metrics",
    "run_folder",
    "save_picture",
    "save_table",
]
