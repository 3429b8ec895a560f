"""Data sets as LightningDataModules, one file each."""

from jellyfit.datamodules.asldvs import ASLDVS
from jellyfit.datamodules.base import EventDataModule, InMemory, ResumableSampler, SpikingDataModule
from jellyfit.datamodules.batch import Batch, Sample, as_batch, collate_sequences, collate_stills
from jellyfit.datamodules.bullying10k import Bullying10K
from jellyfit.datamodules.cache import CacheWarning
from jellyfit.datamodules.cifar import CIFAR10, CIFAR100
from jellyfit.datamodules.cifar10dvs import CIFAR10DVS
from jellyfit.datamodules.digits import Digits
from jellyfit.datamodules.dvs_gesture import DVS128Gesture
from jellyfit.datamodules.dvs_lip import DVSLip
from jellyfit.datamodules.environments import Environments
from jellyfit.datamodules.es_imagenet import ESImageNet
from jellyfit.datamodules.fetch import SourceFile
from jellyfit.datamodules.hardvs import HARDVS
from jellyfit.datamodules.image_folder import ImageFolder
from jellyfit.datamodules.mnist import MNIST, DigitImages, read_idx
from jellyfit.datamodules.navgesture import NAVGestureSit, NAVGestureWalk
from jellyfit.datamodules.ncaltech101 import NCaltech101
from jellyfit.datamodules.nmnist import NMNIST
from jellyfit.datamodules.recordings import Recording, RecordingsModule
from jellyfit.datamodules.shd import SHD, SSC
from jellyfit.datamodules.splits import split_by_class, split_by_group
from jellyfit.datamodules.stills import BrokenImageWarning, ImageDataModule, ImageSource

__all__ = [
    "ASLDVS",
    "CIFAR10",
    "CIFAR10DVS",
    "CIFAR100",
    "HARDVS",
    "MNIST",
    "NMNIST",
    "SHD",
    "SSC",
    "Batch",
    "BrokenImageWarning",
    "Bullying10K",
    "CacheWarning",
    "DVS128Gesture",
    "DVSLip",
    "DigitImages",
    "Digits",
    "ESImageNet",
    "Environments",
    "EventDataModule",
    "ImageDataModule",
    "ImageFolder",
    "ImageSource",
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
