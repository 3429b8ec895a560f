"""CIFAR-10 and CIFAR-100 from their binary files, which are mapped into memory as they are."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from jellyfit.datamodules.cache import cached_folder
from jellyfit.datamodules.fetch import SourceFile, exclusive, fetch, find, verify
from jellyfit.datamodules.pickles import ArrayUnpickler
from jellyfit.datamodules.splits import check_val_fraction, counted, split_off_val
from jellyfit.datamodules.stills import ImageDataModule, ImageSource
from jellyfit.datamodules.trees import unpacked_tree
from jellyfit.errors import DataError
from jellyfit.frames import BatchTransform, FrameTransform
from jellyfit.images import ImageTransform, Normalize, Window

__all__ = ["CIFAR10", "CIFAR100", "Layout"]

_PIXELS = 3 * 32 * 32
_FINE = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""  # classes of CIFAR-100, in the order of its fine labels
_URL = "https://www.cs.toronto.edu/~kriz/"


class Layout(NamedTuple):
    """How a data set lies in its files.

    Attributes:
        train: names of the files of the training images, in order.
        test: names of the files of the test images.
        label_bytes: in front of the pixels of each image; the last one is the class.
        pickled: folder of the Python version of the files, which have the same names without an ending.

    Examples:
        >>> from jellyfit.datamodules.cifar import CIFAR100
        >>> CIFAR100.layout.train, CIFAR100.layout.label_bytes
        (('train.bin',), 2)
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int
    pickled: str


class _Records:
    """Binary files of images as one table ``[N, bytes]``, mapped when it is first looked at in each process."""

    def __init__(self, paths: Sequence[Path], label_bytes: int, classes: int) -> None:
        self.paths = list(paths)
        self.label_bytes = label_bytes
        self._tables: list[npt.NDArray[np.uint8]] = []
        width = label_bytes + _PIXELS
        for path in self.paths:
            count, rest = divmod(path.stat().st_size, width)
            if rest or not count:
                raise DataError(
                    f"{path}: {path.stat().st_size:,} bytes are no whole number of images of {width:,} bytes. It was "
                    "cut short, or is another file: fetch it again."
                )
        self.labels = np.concatenate([np.array(table[:, label_bytes - 1]) for table in self._open()])
        if self.labels.max() >= classes:
            raise DataError(
                f"{self.paths[0].parent}: labels run from {self.labels.min()} to {self.labels.max()}; expected 0 to "
                f"{classes - 1}. Is it the file of another data set?"
            )
        self.begins = np.cumsum([0, *(len(table) for table in self._open())])

    def _open(self) -> list[npt.NDArray[np.uint8]]:
        if not self._tables:
            width = self.label_bytes + _PIXELS
            self._tables = [np.memmap(path, np.uint8, "r").reshape(-1, width) for path in self.paths]
        return self._tables

    def pixels(self, index: int) -> npt.NDArray[np.uint8]:
        """Image ``index``, ``[3, 32, 32]``."""
        which = int(np.searchsorted(self.begins, index, "right")) - 1
        row = self._open()[which][index - self.begins[which]]
        return np.array(row[self.label_bytes :]).reshape(3, 32, 32)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tables": []}


class _Part(ImageSource):
    """Some of the images of a table."""

    def __init__(self, records: _Records, indices: npt.NDArray[np.int64], prefix: str) -> None:
        self.records = records
        self.indices = indices
        self.prefix = prefix

    def __len__(self) -> int:
        return len(self.indices)

    def describe(self, index: int) -> tuple[str, int]:
        number = int(self.indices[index])
        return f"{self.prefix}-{number:05d}", int(self.records.labels[number])

    def read(self, index: int, first: Window | None, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        return self.records.pixels(int(self.indices[index]))


def _folder_with(top: Path, names: Sequence[str]) -> Path:
    """The folder under ``top`` that holds all these files."""
    for path in sorted(top.rglob(names[0])):
        if all((path.parent / name).is_file() for name in names):
            return path.parent
    raise DataError(f"{top} does not hold {', '.join(names)}. Was another archive unpacked?")


def _read_pickled(path: Path, label_bytes: int) -> npt.NDArray[np.uint8]:
    """A file of the Python version as records of the binary one."""
    try:
        with path.open("rb") as file:
            content = ArrayUnpickler(file, encoding="bytes").load()
        kinds = (b"labels",) if label_bytes == 1 else (b"coarse_labels", b"fine_labels")
        labels = np.array([content[kind] for kind in kinds], dtype=np.uint8).T
        pixels = np.asarray(content[b"data"])
        if pixels.dtype != np.uint8 or pixels.shape != (len(labels), _PIXELS):
            raise ValueError(f"pixels of {pixels.dtype} and shape {list(pixels.shape)}")
    except (ValueError, TypeError, KeyError, EOFError, IndexError, AttributeError, pickle.UnpicklingError) as error:
        raise DataError(f"{path} is damaged, or no file of this data set ({error}). Fetch it again.") from error
    return np.concatenate([labels, pixels], axis=1)


class CIFAR10(ImageDataModule):
    """CIFAR-10: 50,000 training and 10,000 test images of 10 classes, uint8 ``[N, 3, 32, 32]``.

    ``cifar-10-binary.tar.gz`` is fetched, compared with its MD5 and unpacked once; or put it, its folder
    ``cifar-10-batches-bin`` or the six files into ``root``. The Python version will do too, ``cifar-10-python.tar.gz``
    or its folder ``cifar-10-batches-py``: it is converted once, and nothing that a pickle may ask for is run.

    Attributes:
        file: the archive.
        python_file: the archive of the Python version.
        layout: how the images lie in its files.
        expected: number of images of each part of the whole data set, for ``jellyfit data check``.

    Args:
        root: folder of the files, default ``data/cifar10``.
        batch_size, num_workers, pin_memory, seed: see :class:`~jellyfit.datamodules.SpikingDataModule`; the seed also
            draws the validation images.
        val_fraction: share of each class's training images that validates, default 0.1; 0 validates on the test images.
        download: fetch the archive when it is missing; default ``True``.
        transforms, eval_transforms, batch_transforms: see :class:`~jellyfit.datamodules.ImageDataModule`.
        normalize: default: the mean and standard deviation of the training images.

    Raises:
        ConfigError: an argument that cannot be.
        DataError: files that are missing, cut short, or others.

    Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009;
    https://www.cs.toronto.edu/~kriz/cifar.html.

    Examples:
        >>> from jellyfit import frames
        >>> from jellyfit.datamodules import CIFAR10
        >>> data = CIFAR10("data/cifar10", transforms=[frames.RandomCrop(padding=4), frames.HorizontalFlip()])
        >>> data.classes[3], data.normalize.mean
        ('cat', (0.4914, 0.4822, 0.4465))
    """

    classes: Sequence[str] = (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
    file: ClassVar[SourceFile] = SourceFile(
        "cifar-10-binary.tar.gz",
        md5="c32a1d4ab5d03f1284b67883e8d87530",
        urls=(_URL + "cifar-10-binary.tar.gz",),
        size=170_052_171,
    )
    python_file: ClassVar[SourceFile] = SourceFile("cifar-10-python.tar.gz", md5="c58f30108f718f92721af3b95e74349a")
    layout: ClassVar[Layout] = Layout(
        train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        test=("test_batch.bin",),
        label_bytes=1,
        pickled="cifar-10-batches-py",
    )
    expected: ClassVar[dict[str, int]] = {"train": 50_000, "test": 10_000}
    statistics: ClassVar[Normalize] = Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))

    def __init__(
        self,
        root: str | os.PathLike[str] = "data/cifar10",
        batch_size: int = 64,
        num_workers: int = 0,
        pin_memory: bool | None = None,
        seed: int = 0,
        val_fraction: float = 0.1,
        download: bool = True,
        transforms: Sequence[ImageTransform | FrameTransform | Callable[..., Any]] | None = None,
        eval_transforms: Sequence[ImageTransform | FrameTransform | Callable[..., Any]] | None = None,
        batch_transforms: Sequence[BatchTransform] | None = None,
        normalize: Normalize | None = None,
    ) -> None:
        super().__init__(
            batch_size,
            num_workers,
            pin_memory,
            seed,
            transforms,
            eval_transforms,
            batch_transforms,
            self.statistics if normalize is None else normalize,
        )
        self.root = Path(root)
        self.val_fraction = check_val_fraction(val_fraction)
        self.download = download
        self._folder: Path | None = None
        self._records: dict[str, _Records] = {}

    # ------------------------------------------------------------ files

    def prepare_data(self) -> None:
        """Find the files; fetch and unpack them when they are missing.

        Raises:
            DataError: they cannot be had; says where to get them and where to put them.
        """
        self._folder = self._found()

    def _found(self) -> Path:
        names = (*self.layout.train, *self.layout.test)
        for folder in (self.root, *sorted(self.root.glob("*/")), *sorted(self.root.glob("unpacked/*/*/"))):
            there = [name for name in names if (folder / name).is_file()]
            if len(there) == len(names):
                return folder
            if there and find(self.file, self.root) is None:
                missing = [name for name in names if name not in there]
                raise DataError(f"{folder.resolve()} holds {', '.join(there)}, but not {', '.join(missing)}.")
        if find(self.file, self.root) is None and (pickled := self._pickled()) is not None:
            return self._converted(pickled)
        archive = fetch([self.file], self.root, "https://www.cs.toronto.edu/~kriz/cifar.html", download=self.download)
        return _folder_with(unpacked_tree(archive[self.file.name], self.root / "unpacked").folder, names)

    def _pickled(self) -> Path | None:
        """The folder of the data set's Python version, where there is one."""
        names = [name.removesuffix(".bin") for name in (*self.layout.train, *self.layout.test)]
        for folder in (self.root / self.layout.pickled, self.root):
            if all((folder / name).is_file() for name in names):
                return folder
        archive = find(self.python_file, self.root)
        if archive is None:
            return None
        verify(self.python_file, archive)
        return _folder_with(unpacked_tree(archive, self.root / "unpacked").folder, names)

    def _converted(self, pickled: Path) -> Path:
        """The binary files made of those of the Python version, once."""
        names = (*self.layout.train, *self.layout.test)
        states = {name: (pickled / name.removesuffix(".bin")).stat() for name in names}
        facts = {name: [state.st_size, state.st_mtime_ns] for name, state in states.items()}

        def build(scratch: Path) -> None:
            for name in names:
                records = _read_pickled(pickled / name.removesuffix(".bin"), self.layout.label_bytes)
                (scratch / name).write_bytes(records.tobytes())

        cache = self.root / "cache"
        with exclusive(cache, "binary"):
            return cached_folder(cache, "binary", {"files": facts}, build, "180 MB", whole=False)

    def records(self, part: str) -> _Records:
        """All images of the files of ``"train"`` or ``"test"``."""
        if part not in self._records:
            folder = self._found() if self._folder is None else self._folder
            names = self.layout.train if part == "train" else self.layout.test
            paths = [folder / name for name in names]
            self._records[part] = _Records(paths, self.layout.label_bytes, len(self.classes))
        return self._records[part]

    # ------------------------------------------------------------ parts

    def images(self, split: str) -> ImageSource:
        if split == "test" or (split == "val" and self.val_fraction == 0):
            records = self.records("test")
            return _Part(records, np.arange(len(records.labels)), "test")
        records = self.records("train")
        return _Part(records, split_off_val(records.labels, self.val_fraction, self.seed)[split], "train")

    def summary(self) -> str:
        """What there is: images of each part and class."""
        lines = [f"{type(self).__name__} in {self.root.resolve()}"]
        for split in ("train", "val", "test"):
            part = self.images(split)
            assert isinstance(part, _Part)
            lines.append(counted(split, part.records.labels[part.indices], len(self.classes)))
        return "\n".join(lines)

    def problems(self) -> list[str]:
        """Everything that is wrong with the files."""
        found = []
        archive = find(self.file, self.root)
        if archive is not None:
            try:
                verify(self.file, archive)
            except DataError as error:
                found.append(str(error))
        for part, number in self.expected.items():
            count = len(self.records(part).labels)
            if count != number:
                found.append(f"{count:,} images ({part}), the whole data set has {number:,}")
        return found


class CIFAR100(CIFAR10):
    """CIFAR-100: 50,000 training and 10,000 test images of 100 classes, uint8 ``[N, 3, 32, 32]``.

    As :class:`CIFAR10`, from ``cifar-100-binary.tar.gz``, its folder ``cifar-100-binary``, or ``train.bin`` and
    ``test.bin``; or from the Python version. Labels are the fine ones.

    Args:
        root: folder of the files, default ``data/cifar100``.
        batch_size, num_workers, pin_memory, seed, val_fraction, download: see :class:`CIFAR10`.
        transforms, eval_transforms, batch_transforms, normalize: see :class:`CIFAR10`.

    Source: Krizhevsky, 2009, see :class:`CIFAR10`.

    Examples:
        >>> from jellyfit.datamodules import CIFAR100
        >>> data = CIFAR100("data/cifar100", batch_size=128)
        >>> len(data.classes), data.classes[0]
        (100, 'apple')
    """

    classes: Sequence[str] = tuple(_FINE.split())
    file: ClassVar[SourceFile] = SourceFile(
        "cifar-100-binary.tar.gz",
        md5="03b5dce01913d631647c71ecec9e9cb8",
        urls=(_URL + "cifar-100-binary.tar.gz",),
        size=168_513_733,
    )
    python_file: ClassVar[SourceFile] = SourceFile("cifar-100-python.tar.gz", md5="eb9058c3a382ffc7106e4002c42a8d85")
    layout: ClassVar[Layout] = Layout(
        train=("train.bin",),
        test=("test.bin",),
        label_bytes=2,
        pickled="cifar-100-python",
    )
    statistics: ClassVar[Normalize] = Normalize((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))

    def __init__(
        self,
        root: str | os.PathLike[str] = "data/cifar100",
        batch_size: int = 64,
        num_workers: int = 0,
        pin_memory: bool | None = None,
        seed: int = 0,
        val_fraction: float = 0.1,
        download: bool = True,
        transforms: Sequence[ImageTransform | FrameTransform | Callable[..., Any]] | None = None,
        eval_transforms: Sequence[ImageTransform | FrameTransform | Callable[..., Any]] | None = None,
        batch_transforms: Sequence[BatchTransform] | None = None,
        normalize: Normalize | None = None,
    ) -> None:
        super().__init__(
            root,
            batch_size,
            num_workers,
            pin_memory,
            seed,
            val_fraction,
            download,
            transforms,
            eval_transforms,
            batch_transforms,
            normalize,
        )
