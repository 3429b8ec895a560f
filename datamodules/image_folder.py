"""Images in folders named after their classes, as ImageNet is kept; listed once, decoded when they are asked for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from jellyfit.datamodules.cache import cached_folder
from jellyfit.datamodules.fetch import exclusive
from jellyfit.datamodules.splits import check_val_fraction, counted, split_off_val
from jellyfit.datamodules.stills import ImageDataModule, ImageSource
from jellyfit.errors import DataError
from jellyfit.frames import BatchTransform, FrameTransform, HorizontalFlip
from jellyfit.images import (
    BrokenImageError,
    CenterCrop,
    ImageTransform,
    Normalize,
    RandomResizedCrop,
    Resize,
    Window,
    read_image,
)
from jellyfit.progress import track

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImageFolder", "Listing"]

_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
_VERSION = 1  # of the index
_SHOWN = 20  # broken files named by ``jellyfit data check``


class Listing:
    """The files of a folder of class folders, out of an index on disk.

    Names lie one after another in one array of bytes that is mapped into memory, so that millions of them take no
    room in each process and nothing when a process is started.

    Args:
        folder: that holds one folder for each class.
        index: where ``names.npy``, ``begins.npy`` and ``labels.npy`` are, which :meth:`write` made.

    Examples:
        >>> import pathlib, tempfile
        >>> from jellyfit.datamodules.image_folder import Listing
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("cat/1.jpg", "dog/1.jpg", "dog/2.jpg", "dog/notes.txt"):
        ...         path = pathlib.Path(folder, name)
        ...         path.parent.mkdir(exist_ok=True)
        ...         path.touch()
        ...     Listing.write(folder, ["cat", "dog"], folder)
        ...     listing = Listing(folder, folder)
        ...     len(listing), listing.name(2), listing.labels.tolist()
        (3, 'dog/2.jpg', [0, 1, 1])
    """

    def __init__(self, folder: str | os.PathLike[str], index: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.index = Path(index)
        self._arrays: dict[str, npt.NDArray[Any]] = {}

    def _array(self, name: str) -> npt.NDArray[Any]:
        if name not in self._arrays:
            self._arrays[name] = np.load(self.index / f"{name}.npy", mmap_mode="r")
        return self._arrays[name]

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """Class of every file, ``[N]``."""
        return self._array("labels")

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """A file's name, relative to the folder, with a forward slash."""
        begins = self._array("begins")
        return os.fsdecode(self._array("names")[begins[index] : begins[index + 1]].tobytes())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": {}}

    @staticmethod
    def write(folder: str | os.PathLike[str], classes: Sequence[str], index: str | os.PathLike[str]) -> None:
        """List the image files of every class in the order of their names, and write the index."""
        names: list[bytes] = []
        labels: list[int] = []
        for label, name in enumerate(track(classes, f"Listing {Path(folder).name}", enabled=len(classes) > 100)):
            if (Path(folder) / name).is_dir():
                with os.scandir(Path(folder) / name) as entries:
                    files = sorted(
                        entry.name
                        for entry in entries
                        if entry.name.lower().endswith(_ENDINGS) and not entry.name.startswith(".")
                    )
                names += [os.fsencode(f"{name}/{file}") for file in files]
                labels += [label] * len(files)
        np.save(Path(index) / "names.npy", np.frombuffer(b"".join(names), np.uint8))
        np.save(Path(index) / "begins.npy", np.cumsum([0, *map(len, names)], dtype=np.int64))
        np.save(Path(index) / "labels.npy", np.array(labels, dtype=np.int32))


class _Files(ImageSource):
    """Some of the files of a listing."""

    cuts = True

    def __init__(
        self, listing: Listing, prefix: str, indices: npt.NDArray[np.int64] | None, draft: bool, upright: bool
    ) -> None:
        self.listing = listing
        self.prefix = prefix
        self.indices = indices  # None: all
        self.draft = draft
        self.upright = upright

    def _place(self, index: int) -> int:
        return index if self.indices is None else int(self.indices[index])

    def __len__(self) -> int:
        return len(self.listing) if self.indices is None else len(self.indices)

    def labels(self) -> npt.NDArray[np.int32]:
        return self.listing.labels if self.indices is None else self.listing.labels[self.indices]

    def describe(self, index: int) -> tuple[str, int]:
        place = self._place(index)
        return f"{self.prefix}/{self.listing.name(place)}", int(self.listing.labels[place])

    def read(self, index: int, first: Window | None, rng: np.random.Generator) -> Image:
        path = self.listing.folder / self.listing.name(self._place(index))
        return read_image(path, first, rng, draft=self.draft, upright=self.upright)


class ImageFolder(ImageDataModule):
    """Images in ``root/train/CLASS/*.jpg`` and ``root/val/CLASS/*.jpg``, as ImageNet is kept; uint8 ``[N, 3, H, W]``.

    Classes are the names of the folders in ``train``, sorted. Files are listed once: the index in ``cache`` is used
    until a class folder changes. It tests on ``root/test`` where there is one, else on ``root/val``.

    Greyscale, CMYK, transparent and 16-bit images become RGB, see :func:`~jellyfit.images.read_image`.

    Args:
        root: folder that holds ``train`` and ``val``.
        batch_size, num_workers, pin_memory, seed: see :class:`~jellyfit.datamodules.SpikingDataModule`; the seed also
            draws the validation images.
        val_fraction: share of each class's training images that validates, drawn by seed; default 0: those of
            ``root/val`` validate, which is what figures on ImageNet are.
        transforms: augmentation of training images, see :class:`~jellyfit.datamodules.ImageDataModule`; default
            ``RandomResizedCrop(224)`` and a mirror.
        eval_transforms: default ``Resize(256)`` and ``CenterCrop(224)``.
        batch_transforms: see :class:`~jellyfit.datamodules.ImageDataModule`.
        normalize: default: mean and standard deviation of ImageNet.
        draft: let JPEGs of training images be decoded at a half, a quarter or an eighth, where the first transform
            shrinks them that far; default ``True``. Validation and test images are always decoded whole.
        upright: turn photographs as their EXIF tag says; default ``False``, see :func:`~jellyfit.images.read_image`.
        skip_broken: leave broken images out, with a warning and a count; default ``False``: an error names the file.
        cache: folder of the index, default ``root/cache``; for data that others own.

    Raises:
        ConfigError: an argument that cannot be.
        DataError: folders are missing or empty, or an image is broken.

    Source: the layout is that of ImageNet's usual copies (Deng et al., CVPR 2009; Russakovsky et al., IJCV 2015).

    Examples:
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> from jellyfit.datamodules import ImageFolder
        >>> from jellyfit.images import to_image
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for part in ("train", "val"):
        ...         for i, name in enumerate(("cat", "dog")):
        ...             path = pathlib.Path(root, part, name, "1.png")
        ...             path.parent.mkdir(parents=True)
        ...             to_image(np.full((3, 300, 400), 100 * i, np.uint8)).save(path)
        ...     data = ImageFolder(root, batch_size=2)
        ...     data.setup("fit")
        ...     (batch,) = data.val_dataloader()
        ...     data.classes, batch.x.shape, batch.x[:, 0, 0, 0].tolist(), batch.ids[1]
        (('cat', 'dog'), torch.Size([2, 3, 224, 224]), [0, 100], 'val/dog/1.png')
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        batch_size: int = 64,
        num_workers: int = 0,
        pin_memory: bool | None = None,
        seed: int = 0,
        val_fraction: float = 0.0,
        transforms: Sequence[ImageTransform | FrameTransform | Callable[..., Any]] | None = None,
        eval_transforms: Sequence[ImageTransform | FrameTransform | Callable[..., Any]] | None = None,
        batch_transforms: Sequence[BatchTransform] | None = None,
        normalize: Normalize | None = None,
        draft: bool = True,
        upright: bool = False,
        skip_broken: bool = False,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(
            batch_size,
            num_workers,
            pin_memory,
            seed,
            [RandomResizedCrop(224), HorizontalFlip()] if transforms is None else transforms,
            [Resize(256), CenterCrop(224)] if eval_transforms is None else eval_transforms,
            batch_transforms,
            Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) if normalize is None else normalize,
            skip_broken,
        )
        self.root = Path(root)
        self.val_fraction = check_val_fraction(val_fraction)
        self.draft = draft
        self.upright = upright
        self.cache = self.root / "cache" if cache is None else Path(cache)
        self._listings: dict[str, Listing] = {}

    # ------------------------------------------------------------ files

    def prepare_data(self) -> None:
        """List the files, unless that was done.

        Raises:
            DataError: folders are missing or hold no images.
        """
        for folder in dict.fromkeys(map(self._folder_of, self._splits())):
            self.listing(folder)

    def _splits(self) -> list[str]:
        """All splits, but for the test images where there are none and none are needed to train."""
        tested = (self.root / self._folder_of("test")).is_dir()
        return ["train", "val", "test"] if tested else ["train", "val"]

    def _folder_of(self, split: str) -> str:
        if split == "test":
            return "test" if (self.root / "test").is_dir() else "val"
        return "train" if split == "train" or self.val_fraction > 0 else "val"

    def listing(self, name: str) -> Listing:
        """The files of the folder ``name`` (``"train"``, ``"val"``, ``"test"``) of ``root``."""
        if name not in self._listings:
            self.classes = tuple(_class_folders(self.root / "train"))
            self._listings[name] = self._indexed(self.root / name)
        return self._listings[name]

    def _indexed(self, folder: Path) -> Listing:
        there = _class_folders(folder)
        unknown = [name for name in there if name not in set(self.classes)]
        if unknown:
            raise DataError(
                f"{folder.resolve()} holds {len(unknown)} folders of classes that train does not have: {unknown[:5]}."
            )
        digest = hashlib.sha256(repr((self.classes, there)).encode()).hexdigest()
        parameters = {"folder": folder.name, "version": _VERSION, "digest": digest}

        def build(scratch: Path) -> None:
            Listing.write(folder, self.classes, scratch)

        with exclusive(self.cache, f"index-{folder.name}"):
            index = cached_folder(self.cache, f"index-{folder.name}", parameters, build, whole=False)
        listing = Listing(folder, index)
        counts = np.bincount(listing.labels, minlength=len(self.classes))
        empty = [name for name, count in zip(self.classes, counts, strict=True) if not count]
        if len(empty) == len(self.classes) or (folder.name == "train" and empty):
            raise DataError(
                f"{folder.resolve()}: no images ({', '.join(_ENDINGS)}) directly in {len(empty)} class folders: "
                f"{empty[:5]}."
            )
        return listing

    # ------------------------------------------------------------ parts

    def images(self, split: str) -> ImageSource:
        folder = self._folder_of(split)
        listing = self.listing(folder)
        indices = None
        if folder == "train" and self.val_fraction > 0:
            indices = split_off_val(listing.labels, self.val_fraction, self.seed)[split]
        return _Files(listing, folder, indices, self.draft and split == "train", self.upright)

    def summary(self) -> str:
        """What there is: images of each part and class."""
        lines = [f"{type(self).__name__} in {self.root.resolve()}"]
        for split in self._splits():
            part = self.images(split)
            assert isinstance(part, _Files)
            lines.append(f"{counted(split, part.labels(), len(self.classes), width=9)} (folder {part.prefix})")
        return "\n".join(lines)

    def problems(self) -> list[str]:
        """Every broken image: each is decoded."""
        found: list[str] = []
        for folder in dict.fromkeys(map(self._folder_of, self._splits())):
            listing = self.listing(folder)
            paths = (listing.folder / listing.name(i) for i in range(len(listing)))
            found += filter(None, map(_damage, track(paths, f"Decoding {folder}", total=len(listing))))
        return found if len(found) <= _SHOWN else [*found[:_SHOWN], f"and {len(found) - _SHOWN:,} more"]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_listings": {}}


def _class_folders(folder: Path) -> dict[str, int]:
    """Names of the folders in ``folder``, sorted, and when each was last changed."""
    if not folder.is_dir():
        raise DataError(
            f"{folder.resolve()} is missing. Images are expected in {folder.parent.name}/train/CLASS/*.jpg and "
            f"{folder.parent.name}/val/CLASS/*.jpg; give their folder with --data.init_args.root DIR."
        )
    with os.scandir(folder) as entries:
        found = sorted((entry.name, entry.stat().st_mtime_ns) for entry in entries if _is_class(entry))
    if not found:
        raise DataError(
            f"{folder.resolve()} holds no folders of classes. Sort its images into one for each class, named as those "
            "of train."
        )
    return dict(found)


def _is_class(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")


def _damage(path: Path) -> str | None:
    try:
        read_image(path)
    except BrokenImageError as error:
        return str(error)
    return None
