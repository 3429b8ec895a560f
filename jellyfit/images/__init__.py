"""Still images: read from files of many kinds, augmented, and made ready for a network on its device.

Needs Pillow: ``pip install 'jellyfit[images]'``.
"""

from jellyfit.images.colors import ColorJitter, RandAugment
from jellyfit.images.pixels import Normalize, RandomErasing
from jellyfit.images.reading import BrokenImageError, read_image
from jellyfit.images.transforms import (
    CenterCrop,
    ImageTransform,
    RandomAffine,
    RandomResizedCrop,
    Resize,
    Window,
    from_image,
    to_image,
)

__all__ = [
    "BrokenImageError",
    "CenterCrop",
    "ColorJitter",
    "ImageTransform",
    "Normalize",
    "RandAugment",
    "RandomAffine",
    "RandomErasing",
    "RandomResizedCrop",
    "Resize",
    "Window",
    "from_image",
    "read_image",
    "to_image",
]
