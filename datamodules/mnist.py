"""MNIST and data sets in its format, from their four IDX files; and scikit-learn's digits as still images."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from jellyfit.datamodules.base import InMemory, SpikingDataModule
from jellyfit.datamodules.batch import Batch, Sample, collate_stills
from jellyfit.datamodules.stills import ImageDataModule, ImageSource
from jellyfit.errors import ConfigError, DataError
from jellyfit.frames import BatchTransform, FrameTransform
from jellyfit.images import ImageTransform, Normalize, Window

__all__ = ["MNIST", "DigitImages", "read_idx"]

_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def read_idx(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """Read an IDX file, plain or gzipped: two zero bytes, type, number of axes, sizes (big-endian), values.

    Raises:
        DataError: not an IDX file, or one whose length is not what its header says.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from jellyfit.datamodules import read_idx
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "labels-idx1-ubyte")
        ...     size = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))  # type, axes, size, values
        ...     read_idx(path).tolist()
        [7, 2, 1]
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged gzip file ({error}). Fetch it again.") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _IDX_TYPES:
        raise DataError(f"{path}: not an IDX file; it begins with {content[:4].hex(' ') or 'nothing'}.")
    dtype, axes = np.dtype(_IDX_TYPES[content[2]]), content[3]
    begin = 4 + 4 * axes
    shape = struct.unpack(f">{axes}I", content[4:begin]) if len(content) >= begin else ()
    expected = begin + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if len(content) < begin or len(content) != expected:
        raise DataError(f"{path}: {len(content)} bytes, but its header promises {expected} (shape {list(shape)}).")
    return np.frombuffer(content, dtype, offset=begin).reshape(shape).astype(dtype.newbyteorder("="))


class _Images(ImageSource):
    """Grey images and their labels, held in memory."""

    def __init__(self, images: npt.NDArray[np.uint8], labels: npt.NDArray[Any], first: int, prefix: str) -> None:
        self.images = images
        self.labels = labels
        self.first = first
        self.prefix = prefix

    def __len__(self) -> int:
        return len(self.labels)

    def describe(self, index: int) -> tuple[str, int]:
        return f"{self.prefix}-{self.first + index:05d}", int(self.labels[index])

    def read(self, index: int, first: Window | None, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        return self.images[index : index + 1]


class MNIST(ImageDataModule):
    """MNIST (or Fashion-MNIST, KMNIST, in the same format): images ``[N, 1, 28, 28]`` of uint8, 0 to 1 on the device.

    Its four files, plain or ``.gz``, are put into ``root`` by hand; nothing is downloaded.

    Args:
        root: folder of the files, default ``data/mnist``.
        batch_size, num_workers, pin_memory, seed: see :class:`~jellyfit.datamodules.SpikingDataModule`.
        val_size: images taken from the end of the 60,000 for validation, default 5,000; 0 validates on the test set.
        transforms, eval_transforms, batch_transforms, normalize: see :class:`~jellyfit.datamodules.ImageDataModule`.

    Source: LeCun, Bottou, Bengio and Haffner, 1998.

    Examples:
        >>> from jellyfit.datamodules import MNIST
        >>> data = MNIST("data/fashion-mnist", batch_size=128, val_size=10_000)
        >>> len(data.classes)
        10
    """

    classes = tuple("0123456789")

    def __init__(
        self,
        root: str | os.PathLike[str] = "data/mnist",
        batch_size: int = 64,
        num_workers: int = 0,
        pin_memory: bool | None = None,
        seed: int = 0,
        val_size: int = 5000,
        transforms: Sequence[ImageTransform | FrameTransform | Callable[..., Any]] | None = None,
        eval_transforms: Sequence[ImageTransform | FrameTransform | Callable[..., Any]] | None = None,
        batch_transforms: Sequence[BatchTransform] | None = None,
        normalize: Normalize | None = None,
    ) -> None:
        super().__init__(
            batch_size, num_workers, pin_memory, seed, transforms, eval_transforms, batch_transforms, normalize
        )
        if val_size < 0:
            raise ConfigError(f"MNIST(val_size={val_size}): expected 0 or more.")
        self.root = Path(root)
        self.val_size = val_size

    def _find(self, name: str) -> Path | None:
        candidates = [self.root / f"{n}{end}" for n in (name, name.replace("-idx", ".idx")) for end in ("", ".gz")]
        return next((path for path in candidates if path.is_file()), None)

    def prepare_data(self) -> None:
        """Check that the four files are there.

        Raises:
            DataError: some are missing; names them and where to put them.
        """
        names = [name for pair in _FILES.values() for name in pair]
        missing = [name for name in names if self._find(name) is None]
        if missing:
            raise DataError(
                f"MNIST: {', '.join(missing)} not found in {self.root.resolve()} (plain or .gz). Get the four "
                "IDX files of MNIST (11 MB; yann.lecun.com/exdb/mnist or a mirror) and put them there, or give their "
                "folder with --data.init_args.root DIR."
            )

    def _read(self, part: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        self.prepare_data()
        images_path, labels_path = (self._find(name) for name in _FILES[part])
        assert images_path is not None and labels_path is not None
        images, labels = read_idx(images_path), read_idx(labels_path)
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or images.dtype != np.uint8:
            raise DataError(
                f"{images_path} holds {list(images.shape)} of {images.dtype}, {labels_path} {list(labels.shape)}; "
                "expected images [N, H, W] of uint8 and as many labels [N]."
            )
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.classes):
            raise DataError(f"{labels_path}: labels run from {labels.min()} to {labels.max()}; expected 0 to 9.")
        return images, labels

    def images(self, split: str) -> ImageSource:
        if split == "test" or (split == "val" and self.val_size == 0):
            return _Images(*self._read("test"), 0, "test")
        images, labels = self._read("train")
        if self.val_size >= len(labels):
            raise ConfigError(f"MNIST(val_size={self.val_size}): the training files hold only {len(labels)} images.")
        cut = len(labels) - self.val_size
        part = slice(cut, None) if split == "val" else slice(0, cut)
        return _Images(images[part], labels[part], part.start or 0, "train")


class DigitImages(SpikingDataModule):
    """scikit-learn's 1,797 handwritten digits as still images ``[N, 1, 8, 8]`` in [0, 1].

    Split by file order as :class:`~jellyfit.datamodules.Digits`: 1,000 training, 200 validation, 597 test images.

    Args:
        batch_size, num_workers, pin_memory, seed: see :class:`~jellyfit.datamodules.SpikingDataModule`.

    Examples:
        >>> from jellyfit.datamodules import DigitImages
        >>> data = DigitImages(batch_size=32)
        >>> data.setup("test")
        >>> next(iter(data.test_dataloader())).x.shape
        torch.Size([32, 1, 8, 8])
    """

    classes = tuple("0123456789")

    def dataset(self, split: str) -> Dataset[Sample]:
        from sklearn.datasets import load_digits

        from jellyfit.datamodules.digits import BOUNDS

        data = load_digits()
        start, stop = BOUNDS[split]
        return InMemory(
            Sample(np.float32(data.images[i][None] / 16.0), int(data.target[i]), f"digit-{i:05d}")
            for i in range(start, stop)
        )

    def collate(self, samples: Sequence[Sample]) -> Batch:
        return collate_stills(samples)
