"""Data sets as LightningDataModules, one file each."""

from jellyfit.datamodules.base import EventDataModule, InMemory, ResumableSampler, SpikingDataModule
from jellyfit.datamodules.batch import Batch, Sample, as_batch, collate_sequences, collate_stills
from jellyfit.datamodules.cache import CacheWarning
from jellyfit.datamodules.digits import Digits
from jellyfit.datamodules.mnist import MNIST, DigitImages, read_idx

__all__ = [
    "MNIST",
    "Batch",
    "CacheWarning",
    "DigitImages",
    "Digits",
    "EventDataModule",
    "InMemory",
    "ResumableSampler",
    "Sample",
    "SpikingDataModule",
    "as_batch",
    "collate_sequences",
    "collate_stills",
    "read_idx",
]
