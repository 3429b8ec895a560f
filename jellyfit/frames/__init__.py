"""Frames of events as tensors: made on a device, augmented, and mixed in batches."""

from jellyfit.frames.augment import NDA, CutOut, FrameTransform, HorizontalFlip, RandomCrop, Roll, Rotate, Shear
from jellyfit.frames.device import DeviceSums, frames_on_device
from jellyfit.frames.mixing import BatchTransform, CutMix, Mixup

__all__ = [
    "NDA",
    "BatchTransform",
    "CutMix",
    "CutOut",
    "DeviceSums",
    "FrameTransform",
    "HorizontalFlip",
    "Mixup",
    "RandomCrop",
    "Roll",
    "Rotate",
    "Shear",
    "frames_on_device",
]
