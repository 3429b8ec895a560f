"""Callbacks and loggers: progress, pictures, predictions, profiles, averages of weights, interrupted runs."""

from jellyfit.callbacks.ema import EMAWeights
from jellyfit.callbacks.folders import run_folder, save_picture, save_table
from jellyfit.callbacks.interrupt import InterruptCheckpoint
from jellyfit.callbacks.loggers import MetricsCSV, read_metrics
from jellyfit.callbacks.predictions import PredictionsCSV
from jellyfit.callbacks.progress import PlainProgress, ProgressBar
from jellyfit.callbacks.spike_pictures import SpikePictures
from jellyfit.callbacks.step_profile import StepProfile

__all__ = [
    "EMAWeights",
    "InterruptCheckpoint",
    "MetricsCSV",
    "PlainProgress",
    "PredictionsCSV",
    "ProgressBar",
    "SpikePictures",
    "StepProfile",
    "read_metrics",
    "run_folder",
    "save_picture",
    "save_table",
]
