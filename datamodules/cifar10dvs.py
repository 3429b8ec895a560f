"""CIFAR10-DVS: CIFAR-10's pictures moved on a screen in front of an event camera."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy.typing as npt

from jellyfit import events
from jellyfit.datamodules.fetch import SourceFile
from jellyfit.datamodules.recordings import Cache, Recording, RecordingsModule
from jellyfit.errors import ConfigError, DataError
from jellyfit.frames import BatchTransform, FrameTransform

__all__ = ["CIFAR10DVS"]

Split = Literal["file-order", "tebn", "shuffled"]
_TESTED_BY_TEBN = 100
# class: number of its zip at figshare, MD5
_FILES = {
    "airplane": (7712788, "0afd5c4bf9ae06af762a77b180354fdd"),
    "automobile": (7712791, "8438dfeba3bc970c94962d995b1b9bdd"),
    "bird": (7712794, "a9c207c91c55b9dc2002dc21c684d785"),
    "cat": (7712812, "52c63c677c2b15fa5146a8daf4d56687"),
    "deer": (7712815, "b6bf21f6c04d21ba4e23fc3e36c8a4a3"),
    "dog": (7712818, "f379ebdf6703d16e0a690782e62639c3"),
    "frog": (7712842, "cad6ed91214b1c7388a5f6ee56d08803"),
    "horse": (7712851, "e7cbbf77bec584ffbf913f00e682782a"),
    "ship": (7712836, "41c7bd7d6b251be82557c6cce9a7d5c9"),
    "truck": (7712839, "89f3922fd147d9aeff89e76a2b0b70a7"),
}


class CIFAR10DVS(RecordingsModule):
    """CIFAR10-DVS: 1,000 pictures of each class of CIFAR-10, moved on a screen in front of a DVS128 (128 x 128).

    Its ten zip archives are fetched, or put into ``root`` by hand; they need not be unpacked. Pixels are numbered as
    SpikingJelly does, with which nets were published: the transpose of the camera's picture.

    The publishers give no parts. Those of the literature are fixed by the names of the files, not drawn.

    Args:
        root: folder of the files, default ``data/cifar10dvs``.
        frames, batch_size, num_workers, pin_memory, seed, cache, compress, val_fraction, test_fraction, download,
            prepare_workers, event_transforms, frame_transforms, batch_transforms: see
            :class:`~jellyfit.datamodules.RecordingsModule`.
        split: what tests: ``"file-order"`` (default): the last tenth of each class (``test_fraction``), its files in
            the order of their names as text, as SpikingJelly's ``split_to_train_test_set`` gives it; ``"tebn"``: the
            files numbered 0 to 99 of each class (Duan et al., 2022); ``"shuffled"``: ``test_fraction`` of each class,
            drawn by ``seed``.

    Raises:
        ConfigError: an argument that cannot be.
        DataError: files that are missing or damaged; names them.

    Examples:
        >>> from jellyfit.datamodules import CIFAR10DVS
        >>> data = CIFAR10DVS(split="tebn", download=False)
        >>> data.sensor_size, data.classes[-1], data.files[-1].urls
        ((128, 128), 'truck', ('https://ndownloader.figshare.com/files/7712839',))

    Source: Li, Liu, Ji, Li and Shi, "CIFAR10-DVS: An event-stream dataset for object classification", Frontiers in
    Neuroscience 11 (2017).
    """

    files = tuple(
        SourceFile(f"{name}.zip", md5, (f"https://ndownloader.figshare.com/files/{number}",))
        for name, (number, md5) in _FILES.items()
    )
    page = "figshare.com/articles/dataset/CIFAR10-DVS_New/4724671"
    expected: Mapping[str, int] = {"all": 10_000}
    sensor_size = (128, 128)
    classes = tuple(_FILES)

    def __init__(
        self,
        root: str | os.PathLike[str] = "data/cifar10dvs",
        frames: events.Framing | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        pin_memory: bool | None = None,
        seed: int = 0,
        cache: Cache = "events",
        compress: bool = False,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        download: bool = True,
        prepare_workers: int | None = None,
        split: Split = "file-order",
        event_transforms: Sequence[events.EventTransform | events.EventMix | Callable[..., Any]] | None = None,
        frame_transforms: Sequence[FrameTransform | Callable[..., Any]] | None = None,
        batch_transforms: Sequence[BatchTransform] | None = None,
    ) -> None:
        super().__init__(
            root, frames, batch_size, num_workers, pin_memory, seed, cache, compress, val_fraction, test_fraction,
            download, prepare_workers, event_transforms, frame_transforms, batch_transforms,
        )  # fmt: skip
        if split not in ("file-order", "tebn", "shuffled"):
            raise ConfigError(f"CIFAR10DVS(split={split!r}): expected 'file-order', 'tebn' or 'shuffled'.")
        self.split = split

    def recordings(self) -> Iterable[Recording]:
        for label, name in enumerate(self.classes):
            paths = [PurePosixPath(path) for path in self.tree(f"{name}.zip").glob("**/*.aedat")]
            first_tested = math.ceil(len(paths) * (1.0 - self.test_fraction))
            for i, path in enumerate(paths):
                number = path.stem.removeprefix(f"cifar10_{name}_")
                if not number.isdecimal():
                    raise DataError(f"{name}.zip: expected names such as cifar10_{name}_0.aedat; got {path}.")
                tested = {"file-order": i >= first_tested, "tebn": int(number) < _TESTED_BY_TEBN}.get(self.split)
                part = None if tested is None else "test" if tested else "train"
                yield Recording(path.stem, f"{name}.zip", str(path), label, part)

    def decode(self, path: Path, recording: Recording) -> npt.NDArray[Any]:
        return events.read_events(path, format="aedat2", orientation="spikingjelly")

    def _split_name(self) -> str:
        return f"{self.split}-{super()._split_name()}"
