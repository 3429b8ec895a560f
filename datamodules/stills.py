"""What data sets of still images share: uint8 until they are on the device, augmentation, broken files."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from jellyfit.datamodules.augmented import Augmented, Drawn, check_transforms
from jellyfit.datamodules.base import SpikingDataModule
from jellyfit.datamodules.batch import Batch, Sample, as_batch, collate_stills
from jellyfit.errors import ConfigError, DataError, InputTypeError
from jellyfit.events import EventMix, EventTransform
from jellyfit.frames import BatchTransform, FrameTransform
from jellyfit.images import BrokenImageError, ImageTransform, Normalize, Window, from_image, to_image
from jellyfit.losses import soft_labels
from jellyfit.rng import generator_of, seeded_globals

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image

__all__ = ["BrokenImageWarning", "ImageDataModule", "ImageSource"]

_BATCH = 1  # a stream of its own for the draws of the batch that a sample begins


class BrokenImageWarning(UserWarning):
    """A broken image was left out of a batch.

    Examples:
        >>> import warnings
        >>> from jellyfit.datamodules import BrokenImageWarning
        >>> warnings.simplefilter("ignore", BrokenImageWarning)  # known, and few
    """


class ImageSource(ABC):
    """Images of one part of a data set, by their place in it.

    Attributes:
        cuts: whether :meth:`read` applies the first transform itself, where that cuts a window; default ``False``.

    Examples:
        >>> import numpy as np
        >>> from jellyfit.datamodules import ImageSource
        >>> class Grey(ImageSource):
        ...     def __len__(self):
        ...         return 10
        ...
        ...     def describe(self, index):
        ...         return f"grey-{index}", index % 2
        ...
        ...     def read(self, index, first, rng):
        ...         return np.full((1, 8, 8), index, np.uint8)
        >>> Grey().describe(3)
        ('grey-3', 1)
    """

    cuts: bool = False

    @abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @abstractmethod
    def describe(self, index: int) -> tuple[str, int]:
        """Id and label of an image, which need not be read for it."""

    @abstractmethod
    def read(self, index: int, first: Window | None, rng: np.random.Generator) -> npt.NDArray[np.uint8] | Image:
        """An image: an array ``[C, H, W]`` of uint8, or a Pillow image.

        Args:
            index: its place.
            first: where :attr:`cuts`, the first transform, if it cuts a window: no more need be decoded of a file.
                Else ``None``.
            rng: what ``first`` draws from.
        """


class _Stills(Augmented):
    """Samples of an :class:`ImageDataModule`, asked for by (epoch, index)."""

    def __init__(self, module: ImageDataModule, source: ImageSource, training: bool) -> None:
        self.module: Any = module
        self.source = source
        self.transforms = module.transforms if training else module.eval_transforms
        self.batch_transforms = module.batch_transforms if training else ()
        self.skipped = 0  # by this process

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, place: tuple[int, int] | int) -> Drawn:
        epoch, index = place if isinstance(place, tuple) else (0, place)
        rng = generator_of(self.module.seed, epoch, index)
        name, label = self.source.describe(index)
        rest = self.transforms
        first = rest[0] if self.source.cuts and rest and isinstance(rest[0], Window) else None
        try:
            image = self.source.read(index, first, rng)
        except BrokenImageError as error:
            if not self.module.skip_broken:
                raise
            self.skipped += 1
            warnings.warn(f"{error} It is left out (number {self.skipped}).", BrokenImageWarning, stacklevel=2)
            return Drawn(Sample(None, label, name), epoch, index)
        try:
            pixels = _pixels(_apply(image, rest[first is not None :], rng))
        except (ValueError, InputTypeError) as error:
            raise DataError(f"{type(self.module).__name__}, sample {name!r}: {error}") from error
        return Drawn(Sample(torch.from_numpy(pixels), label, name), epoch, index)

    def collate(self, drawn: Sequence[Drawn]) -> Batch:
        """Samples -> batch, without those that are broken, mixed where the datamodule says so."""
        whole = [each.sample for each in drawn if each.sample.x is not None]
        if not whole:
            raise DataError(f"{type(self.module).__name__}: all {len(drawn)} images of a batch are broken.")
        shapes = {tuple(sample.x.shape) for sample in whole}
        if len(shapes) > 1:
            raise DataError(
                f"{type(self.module).__name__}: images of a batch differ in shape: {sorted(shapes)[:3]}. Give a "
                "transform that makes them alike, such as jellyfit.images.Resize([224, 224])."
            )
        batch: Batch = self.module.collate(whole)
        if not self.batch_transforms:
            return batch
        rng = generator_of(self.module.seed, drawn[0].epoch, drawn[0].number, _BATCH)
        x, y = batch.x[None], soft_labels(batch.y, len(self.module.classes))  # a sequence of one step
        for transform in self.batch_transforms:
            x, y, _ = transform(x, y, rng)
        return batch._replace(x=x[0], y=y)


def _apply(image: npt.NDArray[np.uint8] | Image, transforms: Sequence[Any], rng: np.random.Generator) -> Any:
    """One transform after another; each is given the image in the form that it takes."""
    for transform in transforms:
        if isinstance(transform, FrameTransform):
            image = transform(_pixels(image)[None], rng)[0]
        else:
            ours = isinstance(transform, ImageTransform)
            picture = to_image(image) if isinstance(image, np.ndarray) else image
            with nullcontext() if ours else seeded_globals(rng):
                image = transform(picture, rng) if ours else transform(picture.copy())
    return image


def _pixels(image: npt.NDArray[np.uint8] | Image) -> npt.NDArray[np.uint8]:
    pixels = image if isinstance(image, np.ndarray) else from_image(image)
    return pixels if pixels.flags.writeable and pixels.flags.c_contiguous else pixels.copy()


class ImageDataModule(SpikingDataModule):
    """Still images: loaders give ``[N, C, H, W]`` of uint8, the network gets normalised floats, made on its device.

    A quarter of the bytes of floats is collated, pinned and copied; ``normalize`` runs where the batch has arrived.
    (A loop of one's own calls ``data.normalize(batch.x)``.) A subclass states :attr:`classes` and writes
    :meth:`images`. For a sequence of the same image, set the task's ``T``.

    Args:
        batch_size, num_workers, pin_memory, seed: see :class:`~jellyfit.datamodules.SpikingDataModule`.
        transforms: augmentation of training images, in this order: those of :mod:`jellyfit.images`, those of
            :mod:`jellyfit.frames` (given ``[1, C, H, W]``), and any other callable, which is called with a Pillow image
            alone and gives one back, while the global generators are seeded. Draws depend on ``seed``, epoch and
            sample alone. Default none.
        eval_transforms: the same for validation and test images. Default none.
        batch_transforms: mixing of training batches (``Mixup``, ``CutMix``), which makes them floats. Default none.
        normalize: what is done to the pixels on the device; default ``Normalize()``: they are divided by 255.
        skip_broken: leave out broken images of a batch and warn of each, with a count; default ``False``: an error that
            names the file.

    Raises:
        ConfigError: something in a list that is no transform, or belongs elsewhere.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import frames, images
        >>> from jellyfit.datamodules import ImageDataModule, ImageSource
        >>> class Shades(ImageSource):
        ...     def __len__(self):
        ...         return 4
        ...
        ...     def describe(self, index):
        ...         return f"shade-{index}", index % 2
        ...
        ...     def read(self, index, first, rng):
        ...         return np.full((1, 8, 8), 85 * index, np.uint8)
        >>> class ShadeData(ImageDataModule):
        ...     classes = ("even", "odd")
        ...
        ...     def images(self, split):
        ...         return Shades()
        >>> data = ShadeData(batch_size=4, transforms=[frames.HorizontalFlip()], eval_transforms=[images.Resize(16)])
        >>> data.setup("test")
        >>> batch = next(iter(data.test_dataloader()))
        >>> batch.x.dtype, batch.x.shape, data.normalize(batch.x)[:, 0, 0, 0].tolist()[::3]
        (torch.uint8, torch.Size([4, 1, 16, 16]), [0.0, 1.0])
    """

    def __init__(
        self,
        batch_size: int = 64,
        num_workers: int = 0,
        pin_memory: bool | None = None,
        seed: int = 0,
        transforms: Sequence[ImageTransform | FrameTransform | Callable[..., Any]] | None = None,
        eval_transforms: Sequence[ImageTransform | FrameTransform | Callable[..., Any]] | None = None,
        batch_transforms: Sequence[BatchTransform] | None = None,
        normalize: Normalize | None = None,
        skip_broken: bool = False,
    ) -> None:
        super().__init__(batch_size, num_workers, pin_memory, seed)
        self.transforms = _checked("transforms", transforms)
        self.eval_transforms = _checked("eval_transforms", eval_transforms)
        self.batch_transforms = check_transforms("batch_transforms", batch_transforms)
        self.normalize = Normalize() if normalize is None else normalize
        self.skip_broken = skip_broken

    def images(self, split: str) -> ImageSource:
        """Images of ``split`` (``"train"``, ``"val"`` or ``"test"``). Subclasses write it."""
        raise TypeError(f"{type(self).__name__} must define images(self, split)")

    def dataset(self, split: str) -> Dataset[Any]:
        return _Stills(self, self.images(split), training=split == "train")

    def collate(self, samples: Sequence[Sample]) -> Batch:
        return collate_stills(samples)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        outputs = getattr(getattr(self.trainer, "lightning_module", None), "num_classes", None)
        if isinstance(outputs, int) and outputs < len(self.classes):
            raise ConfigError(
                f"{type(self).__name__} has {len(self.classes)} classes, the network {outputs} outputs. Set "
                f"--model.backbone.num_classes={len(self.classes)}."
            )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
        """Normalise a batch on the device it has come to."""
        given = as_batch(batch)
        dtype = getattr(getattr(self.trainer, "lightning_module", None), "dtype", None)
        return given._replace(x=self.normalize(given.x, dtype if isinstance(dtype, torch.dtype) else torch.float32))


def _checked(name: str, transforms: Sequence[Any] | None) -> tuple[Any, ...]:
    """The transforms of a list of single images."""
    if transforms is None:
        return ()
    where = f"data.init_args.{name}"
    if not isinstance(transforms, Sequence) or isinstance(transforms, str):
        raise ConfigError(f"{where}={transforms!r}: expected a list, of one transform at least or empty.")
    for i, transform in enumerate(transforms):
        given = f"{where}[{i}]={transform!r}"
        for kind, place in ((BatchTransform, "batch_transforms"), (Normalize, "normalize")):
            if isinstance(transform, kind):
                raise ConfigError(f"{given}: this belongs into {place}.")
        if isinstance(transform, type):
            raise ConfigError(f"{given}: expected an object, {transform.__name__}(...), not its class.")
        if isinstance(transform, EventTransform | EventMix) or not callable(transform):
            raise ConfigError(f"{given}: expected a transform of jellyfit.images or jellyfit.frames, or a function.")
    return tuple(transforms)
