"""Data sets as LightningDataModules, one file each."""

from jellyfit.datamodules.asldvs import ASLDVS
from jellyfit.datamodules.base import EventDataModule, InMemory, ResumableSampler, SpikingDataModule
from jellyfit.datamodules.batch import Batch, Sample, as_batch, collate_sequences, collate_stills
from jellyfit.datamodules.cache import CacheWarning
from jellyfit.datamodules.cifar10dvs import CIFAR10DVS
from jellyfit.datamodules.digits import Digits
from jellyfit.datamodules.fetch import SourceFile
from jellyfit.datamodules.mnist import MNIST, DigitImages, read_idx
from jellyfit.datamodules.navgesture import NAVGestureSit, NAVGestureWalk
from jellyfit.datamodules.ncaltech101 import NCaltech101
from jellyfit.datamodules.nmnist import NMNIST
from jellyfit.datamodules.recordings import Recording, RecordingsModule
from jellyfit.datamodules.splits import split_by_class, split_by_group

__all__ = [
    "ASLDVS",
    "CIFAR10DVS",
    "MNIST",
    "NMNIST",
    "Batch",
    "CacheWarning",
    "DigitImages",
    "Digits",
    "EventDataModule",
    "InMemory",
    "NAVGestureSit",
    "NAVGestureWalk",
    "NCaltech101",
    "Recording",
    "RecordingsModule",
    "ResumableSampler",
    "Sample",
    "SourceFile",
    "SpikingDataModule",
    "as_batch",
    "collate_sequences",
    "collate_stills",
    "read_idx",
    "split_by_class",
    "split_by_group",
]
